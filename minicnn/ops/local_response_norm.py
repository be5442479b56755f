"""Each channel is divided by the energy of its neighbours.            (AlexNet, section 3.3)

    s_c     = k + a * sum_{|j-c| <= r} x_j^2                 r = (size-1)/2
    y_c     = x_c * s_c^-b
    dL/dx_c = g_c * s_c^-b  -  2*a*b * x_c * sum_{|j-c| <= r} g_j * y_j / s_j

x_c is in its own y_c directly (the first term) and in the s_j of each of its neighbours (the second).
Pixels do not meet here, so below arrays are (pixels, C), channels last, a block of pixels at a time.
"""

import functools

import numpy as np

from minicnn import gpu
from minicnn.autograd import Function
from minicnn.backend import by_device, xp_of
from minicnn.ops.layout import check_images, nchw, nhwc
from minicnn.parallel import over_batch


class LocalResponseNorm(Function):
    def __init__(self, size=5, alpha=1e-4, beta=0.75, k=2.0):
        self.r, self.alpha, self.beta, self.k = (size - 1) // 2, float(alpha), float(beta), float(k)

    def forward(self, x):                                           # x (N, C, H, W)
        x = nhwc(x)
        y = xp_of(x).empty_like(x)
        normalise(pixels(x), pixels(y), self)
        return nchw(y), (x,)

    def backward(self, gy, x):                                      # s is computed again: cheaper than keeping it
        gx = xp_of(x).empty_like(x)
        send_back(pixels(x), pixels(nhwc(gy)), pixels(gx), self)
        return nchw(gx)


def pixels(x):
    """(N, H, W, C) -> (pixels, C), a view."""
    return x.reshape(-1, x.shape[3])


def normalise_cpu(x, y, op):
    def block(n):
        y[n] = x[n] * negative_power(energy(x[n], op), op.beta)

    over_batch(block, x, bytes_each=2 * x[0].nbytes)


def send_back_cpu(x, gy, gx, op):
    def block(n):
        s = energy(x[n], op)
        own = gy[n] * negative_power(s, op.beta)
        neighbours = channel_window_sum(own * x[n] / s, op.r)       # own * x = g * y; a symmetric window is its own adjoint
        gx[n] = own - 2 * op.alpha * op.beta * x[n] * neighbours

    over_batch(block, x, bytes_each=2 * x[0].nbytes)


def normalise_gpu(x, y, op):
    gpu.run("ops/local_response_norm.cu", "lrn", *x.shape, x, y, op.r, op.alpha, op.beta, op.k, dtype=x.dtype)


def send_back_gpu(x, gy, gx, op):
    C = x.shape[1]
    if 2 * C * x.itemsize > gpu.SHARED_BYTES:
        raise ValueError(f"local_response_norm: on a GPU at most {gpu.SHARED_BYTES // (2 * x.itemsize):,} channels of {x.dtype} "
                         f"can be normalised, not {C:,}")
    gpu.run("ops/local_response_norm.cu", "lrn_backward", *x.shape, x, gy, gx, op.r, op.alpha, op.beta, op.k, dtype=x.dtype, shared=2 * C)


normalise = by_device(normalise_cpu, normalise_gpu)
send_back = by_device(send_back_cpu, send_back_gpu)


def energy(x, op):
    """s, from x (pixels, C)."""
    s = channel_window_sum(x * x, op.r)
    s *= op.alpha
    s += op.k
    return s


def channel_window_sum(x, r):
    """(pixels, C) -> (pixels, C): at channel c the sum of channels c-r to c+r, as far as they exist.

    As a matrix product, x @ band. Strips of 32 channels are multiplied with the part of the band that is not zero; on rows
    as short as C, a small product is faster than 2r shifted additions.
    """
    C = x.shape[1]
    band, total = band_of_ones(C, r, x.dtype), np.empty(x.shape, x.dtype)
    for c in range(0, C, 32):
        strip, near = slice(c, c + 32), slice(max(0, c - r), c + 32 + r)
        np.matmul(x[:, near], band[near, strip], out=total[:, strip])
    return total


@functools.cache
def band_of_ones(C, r, dtype):
    """(C, C), 1 at [j, c] where |j-c| <= r, else 0. It is symmetric: that is why the window sum is its own adjoint."""
    return np.asarray(abs(np.subtract.outer(range(C), range(C))) <= r, dtype)


def negative_power(s, beta):
    """s ** -beta. For 3/4, two square roots: many times faster than the power function."""
    if beta != 0.75:
        return s ** -beta
    root = np.sqrt(s)
    power = np.sqrt(root)
    power *= root                   # s^(1/4) * s^(1/2)
    return np.divide(1.0, power, out=power)


def local_response_norm(x, size=5, alpha=1e-4, beta=0.75, k=2.0, alpha_over_size=False):
    """Local response normalisation across channels.

    Args:
        x: (N, C, H, W).
        size: how many neighbouring channels share a window, the channel itself in the middle; odd.
        alpha, beta, k: s = k + alpha * (sum of squares), y = x / s**beta.
        alpha_over_size: False is the paper's rule, as above; True divides alpha by size first, the rule of Caffe,
            PyTorch and ONNX (whose k is 1 by default).

    On the CPU a channel that overflows (x^2 beyond the dtype) may make up to 31 channels beside it NaN, not only those of its window.

    Raises ValueError for an even or non-positive size, and for k that is not positive (s could be zero).
    Source: AlexNet, section 3.3, where size = 5, alpha = 1e-4, beta = 0.75, k = 2.
    """
    check_images("local_response_norm", x)
    if not isinstance(size, int) or size < 1 or size % 2 == 0:
        raise ValueError(f"local_response_norm: size is an odd positive int, not {size!r} (for even sizes frameworks disagree "
                         "about the middle)")
    if not (k > 0 and alpha >= 0):
        raise ValueError(f"local_response_norm: k is positive and alpha not negative, so that s cannot be zero; got k={k}, alpha={alpha}")
    return LocalResponseNorm(size, alpha / size if alpha_over_size else alpha, beta, k)(x)
