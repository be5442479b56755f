"""Each channel is divided by the energy of its neighbours.            (AlexNet, section 3.3)

    s_c     = k + a * sum_{|j-c| <= r} x_j^2                 r = (size-1)/2
    y_c     = x_c * s_c^-b
    dL/dx_c = g_c * s_c^-b  -  2*a*b * x_c * sum_{|j-c| <= r} g_j * y_j / s_j

x_c is in its own y_c directly (the first term) and in the s_j of each of its neighbours (the second).
Pixels do not meet here, so below arrays are (pixels, C), channels last, a block of pixels at a time.
"""

import functools

import numpy as np

from minicnn.autograd import Function
from minicnn.backend import xp_of
from minicnn.ops.layout import check_images, nchw, nhwc
from minicnn.parallel import over_batch


class LocalResponseNorm(Function):
    def __init__(self, size=5, alpha=1e-4, beta=0.75, k=2.0):
        self.r, self.alpha, self.beta, self.k = (size - 1) // 2, alpha, beta, k

    def forward(self, x):                                           # x (N, C, H, W)
        x = nhwc(x)
        y = xp_of(x).empty_like(x)
        xs, ys = (a.reshape(-1, x.shape[3]) for a in (x, y))        # (pixels, C)

        def block(n):
            ys[n] = xs[n] * negative_power(self.energy(xs[n]), self.beta)

        over_batch(block, xs, bytes_each=2 * xs[0].nbytes)
        return nchw(y), (x,)

    def backward(self, gy, x):                                      # s is computed again: cheaper than keeping it
        gx = xp_of(x).empty_like(x)
        xs, gs, gxs = (a.reshape(-1, x.shape[3]) for a in (x, nhwc(gy), gx))

        def block(n):
            x, g = xs[n], gs[n]
            s = self.energy(x)
            own = g * negative_power(s, self.beta)
            neighbours = channel_window_sum(own * x / s, self.r)    # own * x = g * y; a symmetric window is its own adjoint
            gxs[n] = own - 2 * self.alpha * self.beta * x * neighbours

        over_batch(block, xs, bytes_each=2 * xs[0].nbytes)
        return nchw(gx)

    def energy(self, x):
        """s, from x (pixels, C)."""
        s = channel_window_sum(x * x, self.r)
        s *= self.alpha
        s += self.k
        return s


def channel_window_sum(x, r):
    """(pixels, C) -> (pixels, C): at channel c the sum of channels c-r to c+r, as far as they exist.

    As a matrix product, x @ band. Strips of 32 channels are multiplied with the part of the band that is not zero; on rows
    as short as C, a small product is faster than 2r shifted additions.
    """
    xp = xp_of(x)
    C = x.shape[1]
    band, total = band_of_ones(C, r, x.dtype, xp), xp.empty(x.shape, x.dtype)
    for c in range(0, C, 32):
        strip, near = slice(c, c + 32), slice(max(0, c - r), c + 32 + r)
        xp.matmul(x[:, near], band[near, strip], out=total[:, strip])
    return total


@functools.cache
def band_of_ones(C, r, dtype, xp):
    """(C, C), 1 at [j, c] where |j-c| <= r, else 0. It is symmetric: that is why the window sum is its own adjoint."""
    return xp.asarray(abs(np.subtract.outer(range(C), range(C))) <= r, dtype)


def negative_power(s, beta):
    """s ** -beta. For 3/4, two square roots: many times faster than the power function."""
    xp = xp_of(s)
    if beta != 0.75:
        return s ** -beta
    root = xp.sqrt(s)
    power = xp.sqrt(root)
    power *= root                   # s^(1/4) * s^(1/2)
    return xp.divide(1.0, power, out=power)


def local_response_norm(x, size=5, alpha=1e-4, beta=0.75, k=2.0, alpha_over_size=False):
    """Local response normalisation across channels.

    Args:
        x: (N, C, H, W).
        size: how many neighbouring channels share a window, the channel itself in the middle; odd.
        alpha, beta, k: s = k + alpha * (sum of squares), y = x / s**beta.
        alpha_over_size: False is the paper's rule, as above; True divides alpha by size first, the rule of Caffe,
            PyTorch and ONNX (whose k is 1 by default).

    A channel that overflows (x^2 beyond the dtype) may make up to 31 channels beside it NaN, not only those of its window.

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
