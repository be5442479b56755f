"""Local response normalization: the checks of every op, many channels on a GPU, both conventions for alpha, and the errors."""

import numpy as np
import pytest
from check import RTOL_FLOAT32, RTOL_FLOAT64, assert_close, check_each_affects, check_op, run

from minicnn import Tensor, ops
from minicnn.backend import cuda
from minicnn.learn.cases import cotangent, randn
from minicnn.learn.cases.local_response_norm import CASES, WRONG, naive
from minicnn.ops.local_response_norm import LocalResponseNorm


@pytest.mark.parametrize("case", CASES)
def test_local_response_norm(case, device):
    check_op(LocalResponseNorm, *CASES[case], naive, WRONG, device)


def test_every_mistake_is_detectable():
    check_each_affects(WRONG, CASES)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("beta", [0.75, 0.6])
@pytest.mark.parametrize(("C", "size", "pixels"), [
    (1, 3, 77), (1, 9, 1), (2, 5, 9), (31, 5, 9), (33, 5, 7), (96, 5, 5), (128, 3, 3), (129, 5, 3), (256, 5, 2), (257, 5, 2), (300, 7, 3),
    (300, 801, 2), (700, 5, 1)])
def test_gpu_matches_cpu_for_any_number_of_channels(cupy, C, size, pixels, beta, dtype):
    """On a GPU several pixels share a block of threads, or each thread has several channels."""
    args = size, 5 / size, beta, 2.0
    x, g = (a.astype(dtype) for a in (*randn((2, C, 1, pixels)), cotangent((2, C, 1, pixels))))
    y, (gx,) = run(LocalResponseNorm, args, [x], g)
    y_gpu, (gx_gpu,) = run(LocalResponseNorm, args, [cupy.asarray(x)], cupy.asarray(g))
    tolerance = RTOL_FLOAT64 if dtype == "float64" else RTOL_FLOAT32
    assert_close("forward", y_gpu, y, tolerance)
    assert_close("gradient", gx_gpu, gx, tolerance)


@pytest.mark.parametrize("dtype, most", [("float32", 6144), ("float64", 3072)])
def test_more_channels_than_fit_in_shared_memory(cupy, dtype, most):
    """Backward holds two numbers for each channel in the 48 KiB of shared memory of a block: `most` channels fit, one more does not."""
    assert 2 * most * np.dtype(dtype).itemsize == cuda.SHARED_BYTES
    for C in (most, most + 1):
        x = Tensor(randn((1, C, 1, 1))[0].astype(dtype), requires_grad=True)
        x_gpu = Tensor(cupy.asarray(x.data), requires_grad=True)
        y, y_gpu = ops.local_response_norm(x, alpha=0.5), ops.local_response_norm(x_gpu, alpha=0.5)
        assert_close("forward", y_gpu.data, y.data, RTOL_FLOAT32)
        if C > most:
            with pytest.raises(ValueError, match=rf"local_response_norm: backward on a GPU takes at most {most:,} channels of {dtype}, "
                                                 rf"got {C:,}; use the CPU"):
                y_gpu.backward(cupy.ones_like(y_gpu.data))
        else:
            y_gpu.backward(cupy.ones_like(y_gpu.data))
            y.backward(np.ones_like(y.data))
            assert_close("gradient", x_gpu.grad, x.grad, RTOL_FLOAT32)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_both_conventions_for_alpha(size):
    """The paper uses alpha itself; Caffe and PyTorch divide it by the size."""
    x, = randn((2, 6, 2, 2))
    paper = ops.local_response_norm(Tensor(x), size, alpha=0.9, beta=0.5, k=1.5)
    caffe = ops.local_response_norm(Tensor(x), size, alpha=0.9, beta=0.5, k=1.5, alpha_over_size=True)
    np.testing.assert_allclose(paper.data, naive((size, 0.9, 0.5, 1.5), x), rtol=1e-12)
    np.testing.assert_allclose(caffe.data, naive((size, 0.9 / size, 0.5, 1.5), x), rtol=1e-12)


def test_the_papers_constants_are_the_defaults():
    x, = randn((1, 8, 2, 2))
    x *= 30
    np.testing.assert_allclose(ops.local_response_norm(Tensor(x)).data, naive((5, 1e-4, 0.75, 2.0), x), rtol=1e-12)


@pytest.mark.parametrize(("options", "message"), [
    ({"size": 4},
     r"local_response_norm: size must be an odd positive int, got 4 \(frameworks disagree about the centre of an even window\)"),
    ({"size": 0}, "local_response_norm: size must be an odd positive int, got 0"),
    ({"size": -3}, "local_response_norm: size must be an odd positive int, got -3"),
    ({"size": 3.0}, "local_response_norm: size must be an odd positive int, got 3.0"),
    ({"k": 0}, "local_response_norm: k must be positive and alpha at least 0, so that s is never zero, got k=0, alpha=0.0001"),
    ({"alpha": -1}, "local_response_norm: k must be positive and alpha at least 0, so that s is never zero, got k=2.0, alpha=-1"),
    ({"k": float("nan")}, "local_response_norm: k must be positive .* got k=nan"),
])
def test_bad_constants_raise(options, message):
    with pytest.raises(ValueError, match=message):
        ops.local_response_norm(Tensor(np.zeros((1, 4, 2, 2), np.float32)), **options)


def test_bad_images_raise():
    with pytest.raises(ValueError, match=r"local_response_norm: x must be \(N, C, H, W\), .*\(4, 2, 2\); for a single image use x.reshape"):
        ops.local_response_norm(Tensor(np.zeros((4, 2, 2), np.float32)))
    with pytest.raises(ValueError, match=r"local_response_norm: x must not be empty, got shape \(0, 4, 2, 2\)"):
        ops.local_response_norm(Tensor(np.zeros((0, 4, 2, 2), np.float32)))
    with pytest.raises(TypeError, match="local_response_norm: x must be float32 or float64, got int64"):
        ops.local_response_norm(Tensor(np.zeros((1, 4, 2, 2), np.int64)))
