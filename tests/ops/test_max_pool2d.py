"""Max pooling: the checks of every op, ties, padding, NaN and infinity, rounding of the output size, and the errors."""

import numpy as np
import pytest
from check import check_each_affects, check_op, on, run

from minicnn import Tensor, ops
from minicnn.learn.cases import distinct_values
from minicnn.learn.cases.max_pool2d import CASES, WRONG, WrongPool, naive, window_pixels
from minicnn.ops.max_pool2d import MaxPool2d


@pytest.mark.parametrize("case", CASES)
def test_max_pool2d(case, device):
    check_op(MaxPool2d, *CASES[case], naive, WRONG, device)


def test_every_mistake_is_detectable():
    check_each_affects(WRONG, CASES)


class LastOfEqualValues(WrongPool):
    "Of equal values the last is the argmax: >= instead of >."
    def scatter(self, gx, g, best, i, j):
        channel = self.channel_of(gx)
        pixels = window_pixels(self.args(), *gx.shape)[i, j]
        gx[[p for p in pixels if channel[p] == channel[best]][-1]] += g

    def channel_of(self, gx):
        """The input of the channel whose gradient is `gx`; the test below has a single channel."""
        return self.arrays[0][0, 0]


class AllEqualValues(LastOfEqualValues):
    "Every value equal to the maximum gets the whole gradient."
    def scatter(self, gx, g, best, i, j):
        channel = self.channel_of(gx)
        for pixel in window_pixels(self.args(), *gx.shape)[i, j]:
            gx[pixel] += g * (channel[pixel] == channel[best])


TIES = np.array([[0, 2, 2, 1, 0],       # ties in a row, in a column and on the diagonal; and a window of zeros
                 [2, 0, 2, 1, 0],
                 [2, 2, 1, 0, 0],
                 [1, 1, 0, 0, 0],
                 [3, 0, 3, 0, 0.]]).reshape(1, 1, 5, 5)


@pytest.mark.parametrize("args", [((3, 3), (2, 2), (0, 0), False), ((2, 2), (1, 1), (0, 0), False), ((3, 3), (2, 2), (1, 1), True)])
def test_the_first_of_equal_values_is_the_argmax(args, device):
    """In row-major order, as in PyTorch. At a tie forward has a kink, so the loops are the reference, not the gradient check."""
    gy = np.random.default_rng(0).standard_normal(naive(args, TIES).shape)
    expected = run(WrongPool, args, [TIES], gy)[1][0]       # (the base class of the mistakes is correct)
    x = Tensor(TIES, requires_grad=True, device=device)
    MaxPool2d(*args)(x).backward(Tensor(gy, device=device))
    assert np.allclose(Tensor(x.grad).numpy(), expected, atol=1e-12)
    for mistake in (LastOfEqualValues, AllEqualValues):
        assert not np.allclose(run(mistake, args, [TIES], gy)[1][0], expected, atol=0.1), f"{mistake.__name__} would pass"


def test_padding_is_never_the_maximum(device):
    x = Tensor(np.full((1, 1, 2, 2), -5.0), device=device)
    assert np.array_equal(ops.max_pool2d(x, 2, 1, 1).numpy(), np.full((1, 1, 3, 3), -5.0))


@pytest.mark.parametrize("args", [((3, 3), (2, 2), (0, 0), False), ((3, 3), (2, 2), (1, 1), True), ((2, 2), (1, 1), (1, 1), False)])
def test_infinities_and_nan(args, device):
    """-inf is a value like any other; a window with a NaN gives NaN, and the windows next to it do not."""
    x = distinct_values(2, 3, 6, 7)
    x[0, 0, :4] = -np.inf
    x[0, 1, 2, 2] = np.inf
    x[1, 2, 3, 3] = np.nan
    x[1, 0, 0, 0] = x[1, 1, -1, -1] = np.nan
    y = MaxPool2d(*args)(Tensor(x, device=device)).numpy()
    want = np.empty(y.shape)
    for (i, j), pixels in window_pixels(args, 6, 7).items():
        rows, columns = zip(*pixels, strict=True)
        want[:, :, i, j] = x[:, :, rows, columns].max(axis=2)
    assert np.isnan(want).any()
    assert np.isinf(want).any()
    assert np.isfinite(want).any()
    np.testing.assert_array_equal(y, want)


def test_a_window_of_minus_infinity_has_an_argmax(device):
    """Its first position, which gets the gradient."""
    x = Tensor(np.full((1, 2, 4, 4), -np.inf), requires_grad=True, device=device)
    ops.max_pool2d(x, 2).backward(on(device, np.full((1, 2, 2, 2), 3.0)))
    assert on("cpu", x.grad)[0, 0].tolist() == [[3, 0, 3, 0], [0] * 4] * 2


def test_the_stride_defaults_to_the_kernel_size():
    x = Tensor(distinct_values(1, 2, 6, 6))
    assert np.array_equal(ops.max_pool2d(x, (2, 3)).data, ops.max_pool2d(x, (2, 3), stride=(2, 3)).data)
    assert ops.max_pool2d(x, (2, 3)).shape == (1, 2, 3, 2)


def test_a_window_of_more_than_256_pixels(device):
    """The argmax of a 17 x 17 window, here 288, does not fit in a byte."""
    x = np.zeros((1, 1, 17, 17))
    x[..., -1, -1] = 1
    x = Tensor(x, requires_grad=True, device=device)
    ops.max_pool2d(x, 17).sum().backward()
    assert np.array_equal(on("cpu", x.grad), x.numpy())


SIZES = {           # x               kernel    stride   padding ceil_mode
    "AlexNet":      ((2, 96, 13, 13), ((3, 3), (2, 2), (0, 0), False)),
    "300 channels": ((1, 300, 5, 6), ((3, 2), (1, 2), (1, 0), True)),
    "one channel":  ((40, 1, 5, 5), ((2, 2), (2, 2), (1, 1), True)),
    "256 taps":     ((2, 3, 17, 18), ((16, 16), (1, 1), (8, 2), False)),
    "257 taps":     ((2, 3, 3, 260), ((1, 257), (1, 2), (0, 100), True)),
    "289 taps":     ((2, 3, 20, 21), ((17, 17), (3, 2), (8, 8), True)),
}


@pytest.mark.parametrize("size", SIZES)
def test_gpu_matches_cpu_bitwise(cupy, size):
    """With many ties, more channels than a block has threads, and windows of more than 256 pixels: the same values and argmax."""
    shape, args = SIZES[size]
    rng = np.random.default_rng(0)
    x = rng.integers(-3, 3, shape).astype(np.float32)
    y, (argmax,) = MaxPool2d(*args).forward(x)
    y_gpu, (argmax_gpu,) = MaxPool2d(*args).forward(cupy.asarray(x))
    np.testing.assert_array_equal(y_gpu.get(), y)
    assert argmax_gpu.dtype == argmax.dtype
    np.testing.assert_array_equal(argmax_gpu.get(), argmax)
    g = rng.integers(-9, 9, y.shape).astype(np.float32)
    np.testing.assert_array_equal(run(MaxPool2d, args, [cupy.asarray(x)], cupy.asarray(g))[1][0].get(), run(MaxPool2d, args, [x], g)[1][0])


@pytest.mark.parametrize(("size", "ceil_mode", "out"), [(13, False, 6), (13, True, 6), (14, False, 6), (14, True, 7)])
def test_ceil_mode_rounds_the_output_size_up(size, ceil_mode, out):
    assert ops.max_pool2d(Tensor(np.zeros((1, 1, size, size))), 3, 2, ceil_mode=ceil_mode).shape == (1, 1, out, out)


@pytest.mark.parametrize(("shape", "options", "message"), [
    ((3, 5, 5), {"kernel_size": 2}, r"max_pool2d: x must be \(N, C, H, W\), got shape \(3, 5, 5\); for a single image use x.reshape"),
    ((1, 3, 0, 5), {"kernel_size": 2}, r"max_pool2d: x must not be empty, got shape \(1, 3, 0, 5\)"),
    ((1, 3, 5, 5), {"kernel_size": 6}, r"max_pool2d: the 6x6 window is larger than the 5x5 image with padding \(0, 0\); use"),
    ((1, 3, 5, 5), {"kernel_size": (2, 7)}, r"max_pool2d: the 2x7 window is larger than the 5x5 image"),
    ((1, 3, 5, 5), {"kernel_size": 3, "padding": 2}, r"max_pool2d: padding must be at most half of the window \(3, 3\), got \(2, 2\)"),
    ((1, 3, 5, 5), {"kernel_size": 0}, r"max_pool2d: kernel_size must be an int or a pair of ints, each at least 1, got 0"),
    ((1, 3, 5, 5), {"kernel_size": 2, "stride": 0}, r"max_pool2d: stride must be an int or a pair of ints, each at least 1, got 0"),
    ((1, 3, 5, 5), {"kernel_size": 2, "stride": (1, -1)}, r"max_pool2d: stride must be .* got \(1, -1\)"),
    ((1, 3, 5, 5), {"kernel_size": 2, "padding": True}, r"max_pool2d: padding must be an int or a pair of ints, each at least 0, got True"),
])
def test_invalid_shapes_and_sizes_raise(shape, options, message):
    with pytest.raises(ValueError, match=message):
        ops.max_pool2d(Tensor(np.zeros(shape, np.float32)), **options)


def test_integers_raise():
    with pytest.raises(TypeError, match="max_pool2d: x must be float32 or float64, got int64"):
        ops.max_pool2d(Tensor(np.zeros((1, 1, 4, 4), np.int64)), 2)
