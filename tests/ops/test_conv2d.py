"""Convolution: the checks of every op, memory layout, cost, and the errors."""

import numpy as np
import pytest
from check import check_each_affects, check_op

from minicnn import Tensor, ops
from minicnn.learn.cases import randn
from minicnn.learn.cases.conv2d import CASES, WRONG, naive, scatter_windows
from minicnn.ops.conv2d.op import Conv2d


@pytest.mark.parametrize("case", CASES)
def test_conv2d(case, device):
    check_op(Conv2d, *CASES[case], naive, WRONG, device)


def test_every_mistake_is_detectable():
    check_each_affects(WRONG, CASES)


def test_the_loops_of_the_wrong_backwards_are_correct():
    """`scatter_windows` with the correct arguments is dL/dx: so StrideIgnored is rejected for its stride, not for its loops."""
    for args, (x, w, *_) in CASES.values():
        x, w = Tensor(x, requires_grad=True), Tensor(w, requires_grad=True)
        y = Conv2d(*args)(x, w)
        gy = np.random.default_rng(0).standard_normal(y.shape)
        y.backward(gy)
        np.testing.assert_allclose(scatter_windows(gy, w.data, x.shape, *args), x.grad, atol=1e-12)


def test_an_int_means_both_axes():
    x, w = (Tensor(a) for a in randn((1, 2, 7, 7), (2, 1, 3, 3)))
    pairs = ops.conv2d(x, w, stride=(2, 2), padding=(1, 1), groups=2)
    assert np.array_equal(ops.conv2d(x, w, None, 2, 1, 2).data, pairs.data)


def test_output_is_channels_last_in_memory():
    x, w = (Tensor(a) for a in randn((2, 3, 5, 5), (4, 3, 3, 3)))
    assert ops.conv2d(x, w).data.transpose(0, 2, 3, 1).flags.c_contiguous


def test_multiply_adds():
    """Each of the 2*4*2*2 outputs is a sum of 2*3*3 products."""
    x, w, b = (Tensor(a) for a in randn((2, 4, 4, 4), (4, 2, 3, 3), (4,)))
    conv = Conv2d((1, 1), (0, 0), 2)
    y = conv(x, w, b)
    assert conv.multiply_adds(y.data, x.data, w.data, b.data) == (2 * 4 * 2 * 2) * (2 * 3 * 3)


X, W, B = (1, 4, 5, 5), (6, 4, 3, 3), (6,)


@pytest.mark.parametrize(("shapes", "options", "message"), [
    (((4, 5, 5), W), {}, r"conv2d: x must be \(N, C, H, W\), got shape \(4, 5, 5\); for a single image use x.reshape\(1, \*x.shape\)"),
    (((4, 5), W), {}, r"conv2d: x must be \(N, C, H, W\), got shape \(4, 5\)$"),
    (((0, 4, 5, 5), W), {}, r"conv2d: x must not be empty, got shape \(0, 4, 5, 5\)"),
    ((X, (6, 4, 3)), {}, r"conv2d: w must be a non-empty \(O, C/groups, KH, KW\), got shape \(6, 4, 3\)"),
    ((X, (6, 4, 0, 3)), {}, r"conv2d: w must be a non-empty \(O, C/groups, KH, KW\), got shape \(6, 4, 0, 3\)"),
    ((X, (6, 2, 3, 3)), {}, r"conv2d: x has 4 channels, w expects 2 x groups=1; did you mean groups=2\?"),
    ((X, (6, 3, 3, 3)), {}, r"conv2d: x has 4 channels, w expects 3 x groups=1$"),
    ((X, W), {"groups": 2}, r"conv2d: x has 4 channels, w expects 4 x groups=2; did you mean groups=1\?"),
    ((X, W), {"groups": 4}, r"conv2d: groups must be a positive int that divides the 6 filters of w, got 4"),
    ((X, W), {"groups": 0}, r"conv2d: groups must be a positive int that divides the 6 filters of w, got 0"),
    ((X, W), {"groups": 1.0}, r"conv2d: groups must be a positive int .* got 1.0"),
    ((X, (6, 4, 6, 3)), {}, r"conv2d: the 6x3 window is larger than the 5x5 image with padding \(0, 0\); use a larger image, more padding"),
    ((X, (6, 4, 3, 8)), {"padding": 1}, r"conv2d: the 3x8 window is larger than the 5x5 image with padding \(1, 1\)"),
    ((X, W), {"stride": 0}, r"conv2d: stride must be an int or a pair of ints, each at least 1, got 0"),
    ((X, W), {"stride": (1, 2, 3)}, r"conv2d: stride must be an int or a pair of ints, each at least 1, got \(1, 2, 3\)"),
    ((X, W), {"stride": 1.5}, r"conv2d: stride must be an int or a pair of ints, each at least 1, got 1.5"),
    ((X, W), {"padding": -1}, r"conv2d: padding must be an int or a pair of ints, each at least 0, got -1"),
    ((X, W, (4,)), {}, r"conv2d: b must have shape \(6,\), one for each filter, got \(4,\)"),
    ((X, W, (6, 1)), {}, r"conv2d: b must have shape \(6,\), one for each filter, got \(6, 1\)"),
])
def test_invalid_shapes_and_sizes_raise(shapes, options, message):
    with pytest.raises(ValueError, match=message):
        ops.conv2d(*(Tensor(np.zeros(s, np.float32)) for s in shapes), **options)


def test_wrong_dtypes_raise():
    x, w = np.zeros(X, np.float32), np.zeros(W, np.float32)
    with pytest.raises(TypeError, match=r"conv2d: x must be float32 or float64, got uint8; convert it with "
                                        r"Tensor\(array.astype\('float32'\)\)"):
        ops.conv2d(Tensor(x.astype("uint8")), Tensor(w))
    with pytest.raises(TypeError, match=r"Conv2d: its inputs have different dtypes \(float32, float64\); convert one"):
        ops.conv2d(Tensor(x), Tensor(w.astype("float64")))
