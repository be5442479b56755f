"""Local response normalization (LRN): each channel is divided by a power of its neighbours' sum of squares.   (AlexNet, section 3.3)

    s_c     = k + a * sum_{|j-c| <= r} x_j^2                 r = (size-1)/2
    y_c     = x_c * s_c^-b
    dL/dx_c = g_c * s_c^-b  -  2*a*b * x_c * sum_{|j-c| <= r} g_j * y_j / s_j

x_c enters its own y_c directly (the first term), and the s_j of each of its neighbours (the second).
Pixels are independent, so the arrays below are (pixels, C), channels last, a block of pixels at a time.
"""

import functools

import numpy as np

from minicnn.autograd import Function
from minicnn.backend import cuda
from minicnn.backend.arrays import by_device, xp_of
from minicnn.backend.threads import over_batch
from minicnn.ops.checks import check_images
from minicnn.ops.layout import nchw, nhwc
from minicnn.tensor import Tensor


class LocalResponseNorm(Function):
    def __init__(self, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0) -> None:
        self.r, self.alpha, self.beta, self.k = (size - 1) // 2, float(alpha), float(beta), float(k)

    def forward(self, x):                                           # x (N, C, H, W)
        x = nhwc(x)
        y = xp_of(x).empty_like(x)
        lrn_forward(pixels(x), pixels(y), self)
        return nchw(y), (x,)

    def backward(self, gy, x):                                      # s is recomputed: cheaper than storing it
        gx = xp_of(x).empty_like(x)
        lrn_backward(pixels(x), pixels(nhwc(gy)), pixels(gx), self)
        return nchw(gx)


def pixels(x):
    """(N, H, W, C) -> (pixels, C), a view."""
    return x.reshape(-1, x.shape[3])


def lrn_forward_cpu(x, y, op):
    def block(n):
        y[n] = x[n] * negative_power(scale(x[n], op), op.beta)

    over_batch(block, x, bytes_per_image=2 * x[0].nbytes)


def lrn_forward_gpu(x, y, op):
    cuda.launch_rows("ops/local_response_norm.cu", "lrn", *x.shape, x, y, op.r, op.alpha, op.beta, op.k, dtype=x.dtype)


def lrn_backward_cpu(x, gy, gx, op):
    def block(n):
        s = scale(x[n], op)
        own = gy[n] * negative_power(s, op.beta)
        neighbours = channel_window_sum(own * x[n] / s, op.r)       # own * x = g * y; a symmetric window is its own adjoint
        gx[n] = own - 2 * op.alpha * op.beta * x[n] * neighbours

    over_batch(block, x, bytes_per_image=2 * x[0].nbytes)


def lrn_backward_gpu(x, gy, gx, op):
    C = x.shape[1]
    limit = cuda.SHARED_BYTES // (2 * x.itemsize)                   # the kernel holds two numbers for each channel in shared memory
    if C > limit:
        raise ValueError(f"local_response_norm: backward on a GPU takes at most {limit:,} channels of {x.dtype}, got {C:,}; use the CPU")
    cuda.launch_rows("ops/local_response_norm.cu", "lrn_backward", *x.shape, x, gy, gx, op.r, op.alpha, op.beta, op.k, dtype=x.dtype,
                     shared=2 * C)


lrn_forward = by_device(lrn_forward_cpu, lrn_forward_gpu)
lrn_backward = by_device(lrn_backward_cpu, lrn_backward_gpu)


def scale(x, op):
    """s, from x (pixels, C)."""
    s = channel_window_sum(x * x, op.r)
    s *= op.alpha
    s += op.k
    return s


def channel_window_sum(x, r):
    """(pixels, C) -> (pixels, C): at channel c the sum of those of the channels c-r to c+r that exist.

    As a matrix product, x @ band: each strip of 32 output channels is computed from the part of the band that is not zero. For rows
    as short as C, small matrix products are faster than 2r shifted additions.
    """
    C = x.shape[1]
    band, total = band_matrix(C, r, x.dtype), np.empty(x.shape, x.dtype)
    for c in range(0, C, 32):
        strip, near = slice(c, c + 32), slice(max(0, c - r), c + 32 + r)
        np.matmul(x[:, near], band[near, strip], out=total[:, strip])
    return total


@functools.cache
def band_matrix(C, r, dtype):
    """(C, C): 1 at [j, c] where |j-c| <= r, else 0. It is symmetric: that is why the window sum is its own adjoint."""
    return np.asarray(abs(np.subtract.outer(range(C), range(C))) <= r, dtype)


def negative_power(s, beta):
    """s ** -beta. For beta = 3/4 by two square roots, many times faster than the power function."""
    if beta != 0.75:
        return s ** -beta
    root = np.sqrt(s)
    power = np.sqrt(root)
    power *= root                   # s^(1/4) * s^(1/2)
    return np.divide(1.0, power, out=power)


def local_response_norm(x: Tensor, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0,
                        alpha_over_size: bool = False) -> Tensor:
    """Local response normalization across channels: y = x / s^beta, where s = k + alpha * (sum of squares of the neighbouring channels).

    Args:
        x: (N, C, H, W), float32 or float64.
        size: the number of channels in the window, centred on the channel itself; odd.
        alpha, beta, k: the constants above; k > 0, alpha >= 0.
        alpha_over_size: False is the paper's rule, as above; True divides alpha by size first, the rule of Caffe, PyTorch and ONNX
            (whose k is 1 by default).

    Returns (N, C, H, W). On the CPU, a channel that overflows (x^2 is infinite) may make up to 31 channels next to it NaN, besides
    those whose window it is in.
    Raises ValueError for an even or non-positive size, for k <= 0 or alpha < 0 (s could be zero), and if x is not a batch of images.
    Source: AlexNet, section 3.3, where size = 5, alpha = 1e-4, beta = 0.75, k = 2.
    """
    check_images("local_response_norm", x)
    if not isinstance(size, int) or size < 1 or size % 2 == 0:
        raise ValueError(f"local_response_norm: size must be an odd positive int, got {size!r} (frameworks disagree about the centre of "
                         "an even window)")
    if not (k > 0 and alpha >= 0):
        raise ValueError(f"local_response_norm: k must be positive and alpha at least 0, so that s is never zero, got k={k}, alpha={alpha}")
    return LocalResponseNorm(size, alpha / size if alpha_over_size else alpha, beta, k)(x)
