"""Of each window only the largest value goes on, and only its place hears back.      (AlexNet, section 3.4)

    y[n, c, i, j] = max over the window at (i, j) of x[n, c]
    dL/dx         = gy, added at the place of each window's winner; 0 everywhere else

Overlapping windows (3x3, stride 2) may have the same winner: its gradients add up. Where several places tie, the
first in row-major order wins. Forward keeps which place won, one byte per output; x itself is not needed again.
"""

import numpy as np

from minicnn import gpu
from minicnn.autograd import Function
from minicnn.backend import by_device, xp_of
from minicnn.ops.layout import check_images, nchw, nhwc, padded, pair
from minicnn.parallel import over_batch


class MaxPool2d(Function):
    def __init__(self, kernel=(3, 3), stride=(2, 2), padding=(0, 0), ceil_mode=False):
        self.kernel, self.stride, self.padding, self.ceil_mode = kernel, stride, padding, ceil_mode

    def forward(self, x):                                   # x (N, C, H, W)
        self.H, self.W = x.shape[2:]
        x = nhwc(x)
        y = xp_of(x).empty((len(x), *self.output_sizes(self.H, self.W), x.shape[3]), x.dtype)
        winner = xp_of(x).zeros(y.shape, "uint8" if self.kernel[0] * self.kernel[1] <= 256 else "uint32")
        find_largest(x, y, winner, self)
        return nchw(y), (winner,)

    def backward(self, gy, winner):                         # gy (N, C, OH, OW)   winner (N, OH, OW, C)
        gy = nhwc(gy)
        gx = xp_of(gy).empty((len(gy), self.H, self.W, gy.shape[3]), gy.dtype)
        send_back(gy, winner, gx, self)
        return nchw(gx)

    def places(self, x, OH, OW):
        """For each place (p, q) in the window, row by row: the pixels that all windows have there, (N, OH, OW, C), a view."""
        (KH, KW), (SH, SW) = self.kernel, self.stride
        return [x[:, p:p + SH * (OH - 1) + 1:SH, q:q + SW * (OW - 1) + 1:SW] for p in range(KH) for q in range(KW)]

    def output_sizes(self, H, W):
        """OH, OW. With ceil_mode a last window may hang over the far edge, if it starts inside the image or its near padding."""
        sizes = []
        for size, K, S, P in zip((H, W), self.kernel, self.stride, self.padding, strict=True):
            out = (size + 2 * P - K) // S + 1
            if self.ceil_mode and (out - 1) * S + K < size + 2 * P and out * S < size + P:
                out += 1
            sizes.append(out)
        return sizes

    def margins(self, OH, OW):
        """((top, bottom), (left, right)): what to add around the image so that every window lies inside."""
        return tuple((P, max(0, (out - 1) * S + K - size - P)) for out, K, S, P, size in
                     zip((OH, OW), self.kernel, self.stride, self.padding, (self.H, self.W), strict=True))


def find_largest_cpu(x, y, winner, op):
    """x (N, H, W, C) -> y, the largest of each window, and winner, the number of its first place; both (N, OH, OW, C)."""
    OH, OW = y.shape[1:3]
    (KH, KW), (SH, SW), margins = op.kernel, op.stride, op.margins(OH, OW)

    def block(n):
        image = padded(x[n], margins[0], margins[1], -np.inf)
        rows = largest(image[:, p:p + SH * (OH - 1) + 1:SH] for p in range(KH))         # down each column of the window,
        y[n] = largest(rows[:, :, q:q + SW * (OW - 1) + 1:SW] for q in range(KW))       # then across
        before = np.ones(y[n].shape, bool)              # True as long as no place so far holds the maximum:
        for place in op.places(image, OH, OW)[:-1]:
            before &= place != y[n]
            winner[n] += before                         # the number of such places is the number of the winner

    over_batch(block, x, bytes_each=2 * x[0].nbytes)


def send_back_cpu(gy, winner, gx, op):
    """Into gx (N, H, W, C): at each pixel, the sum of gy over the windows that it won."""
    _, OH, OW, C = gy.shape
    (top, bottom), (left, right) = op.margins(OH, OW)

    def block(n):
        g, won = gy[n], winner[n]
        whole = np.zeros((len(g), top + op.H + bottom, left + op.W + right, C), gy.dtype)
        for k, place in enumerate(op.places(whole, OH, OW)):
            place += g * (won == k)
        gx[n] = whole[:, top:top + op.H, left:left + op.W]

    over_batch(block, gy, bytes_each=2 * gx[0].nbytes)


def find_largest_gpu(x, y, winner, op):
    run_kernel("max_pool", y, winner, op, x, y, winner, *y.shape[1:3])


def send_back_gpu(gy, winner, gx, op):
    run_kernel("max_pool_backward", gx, winner, op, gy, winner, gx, *gy.shape[1:3])


def run_kernel(name, answer, winner, op, a, b, c, OH, OW):
    N, rows, columns, C = answer.shape
    gpu.run("ops/max_pool2d.cu", name, N * rows * columns, C, a, b, c, op.H, op.W, *op.kernel, *op.stride, *op.padding, OH, OW,
            dtype=answer.dtype, constants=(("Place", {"uint8": "unsigned char", "uint32": "unsigned int"}[str(winner.dtype)]),))


find_largest = by_device(find_largest_cpu, find_largest_gpu)
send_back = by_device(send_back_cpu, send_back_gpu)


def largest(arrays):
    """The largest of several arrays, element by element."""
    first, *others = arrays
    if not others:
        return first
    best = np.maximum(first, others[0])
    for other in others[1:]:
        np.maximum(best, other, out=best)
    return best


def max_pool2d(x, kernel_size, stride=None, padding=0, ceil_mode=False):
    """The maximum of each window.

    Args:
        x: images, (N, C, H, W).
        kernel_size, stride, padding: pixels, an int or a (vertical, horizontal) pair. The stride is the kernel size
            unless given; padding is with -infinity, and at most half the kernel, so that no window is all padding.
        ceil_mode: round the output size up instead of down: a last window may hang over the edge (Caffe's rule).

    Returns (N, C, OH, OW) with OH = floor((H + 2*padding - KH) / stride) + 1.
    Raises ValueError for sizes that do not fit. Source: AlexNet, section 3.4 (overlapping: stride < kernel).
    """
    check_images("max_pool2d", x)
    kernel = pair("max_pool2d", "kernel_size", kernel_size, 1)
    stride = kernel if stride is None else pair("max_pool2d", "stride", stride, 1)
    padding = pair("max_pool2d", "padding", padding, 0)
    if any(2 * p > k for p, k in zip(padding, kernel, strict=True)):
        raise ValueError(f"max_pool2d: padding {padding} is more than half of the window {kernel}; some windows would see no pixel")
    H, W = x.shape[2:]
    if H + 2 * padding[0] < kernel[0] or W + 2 * padding[1] < kernel[1]:
        raise ValueError(f"max_pool2d: the {kernel[0]}x{kernel[1]} window is larger than the {H}x{W} image with padding {padding}; "
                         "use a larger image or a smaller window")
    return MaxPool2d(kernel, stride, padding, bool(ceil_mode))(x)
