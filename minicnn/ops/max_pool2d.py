"""Max pooling: the image is downsampled to the maximum of each window.               (AlexNet, section 3.4)

    y[n, c, i, j] = max over the window at (i, j) of x[n, c]
    dL/dx         = gy, added at the argmax of each window; 0 everywhere else

Overlapping windows (3x3, stride 2) may have the same argmax: their gradients add up. Of equal values, the first in
row-major order is the argmax. Forward saves the argmax, one byte per output; x itself is not needed again.
"""

import numpy as np

from minicnn.autograd import Function
from minicnn.backend import cuda
from minicnn.backend.arrays import by_device, xp_of
from minicnn.backend.threads import over_batch
from minicnn.ops.checks import check_images, check_pair
from minicnn.ops.layout import nchw, nhwc, padded
from minicnn.tensor import Tensor


class MaxPool2d(Function):
    def __init__(self, kernel: tuple[int, int] = (3, 3), stride: tuple[int, int] = (2, 2), padding: tuple[int, int] = (0, 0),
                 ceil_mode: bool = False) -> None:
        self.kernel, self.stride, self.padding, self.ceil_mode = kernel, stride, padding, ceil_mode

    def forward(self, x):                                   # x (N, C, H, W)
        self.H, self.W = x.shape[2:]
        x = nhwc(x)
        y = xp_of(x).empty((len(x), *self.output_sizes(self.H, self.W), x.shape[3]), x.dtype)
        argmax = xp_of(x).zeros(y.shape, "uint8" if self.kernel[0] * self.kernel[1] <= 256 else "uint32")
        max_pool_forward(x, y, argmax, self)
        return nchw(y), (argmax,)

    def backward(self, gy, argmax):                         # gy (N, C, OH, OW)   argmax (N, OH, OW, C)
        gy = nhwc(gy)
        gx = xp_of(gy).empty((len(gy), self.H, self.W, gy.shape[3]), gy.dtype)
        max_pool_backward(gy, argmax, gx, self)
        return nchw(gx)

    def output_sizes(self, H, W):
        """OH, OW. With ceil_mode a last window may extend past the far edge, if it starts inside the image or its near padding."""
        sizes = []
        for size, K, S, P in zip((H, W), self.kernel, self.stride, self.padding, strict=True):
            out = (size + 2 * P - K) // S + 1
            if self.ceil_mode and (out - 1) * S + K < size + 2 * P and out * S < size + P:
                out += 1
            sizes.append(out)
        return sizes

    def pad_amounts(self, OH, OW):
        """((top, bottom), (left, right)): the border around the image with which every window lies inside."""
        return tuple((P, max(0, (out - 1) * S + K - size - P)) for out, K, S, P, size in
                     zip((OH, OW), self.kernel, self.stride, self.padding, (self.H, self.W), strict=True))

    def window_taps(self, image, OH, OW):
        """For each position (p, q) in the window, in row-major order: the pixels there of all windows, a view (N, OH, OW, C)."""
        (KH, KW), (SH, SW) = self.kernel, self.stride
        return [image[:, p:p + SH * (OH - 1) + 1:SH, q:q + SW * (OW - 1) + 1:SW] for p in range(KH) for q in range(KW)]


def max_pool_forward_cpu(x, y, argmax, op):
    """x (N, H, W, C) -> y, the maximum of each window, and argmax, its first position p*KW + q there; both (N, OH, OW, C)."""
    OH, OW = y.shape[1:3]
    (KH, KW), (SH, SW), (pad_h, pad_w) = op.kernel, op.stride, op.pad_amounts(OH, OW)

    def block(n):
        image = padded(x[n], pad_h, pad_w, -np.inf)
        rows = elementwise_max(image[:, p:p + SH * (OH - 1) + 1:SH] for p in range(KH))         # down each column of the window,
        y[n] = elementwise_max(rows[:, :, q:q + SW * (OW - 1) + 1:SW] for q in range(KW))       # then across
        not_found = np.ones(y[n].shape, bool)           # True as long as no tap so far equals the maximum
        for tap in op.window_taps(image, OH, OW)[:-1]:
            not_found &= tap != y[n]
            argmax[n] += not_found                      # the argmax is the number of taps before the first that equals it

    over_batch(block, x, bytes_per_image=2 * x[0].nbytes)


def max_pool_forward_gpu(x, y, argmax, op):
    launch_pool_kernel("max_pool", op, (x, y, argmax), rows_of=y, argmax=argmax)


def max_pool_backward_cpu(gy, argmax, gx, op):
    """Into gx (N, H, W, C): at each pixel, the sum of gy over the windows whose argmax it is."""
    _, OH, OW, C = gy.shape
    (top, bottom), (left, right) = op.pad_amounts(OH, OW)

    def block(n):
        padded_gx = np.zeros((len(gy[n]), top + op.H + bottom, left + op.W + right, C), gy.dtype)
        for k, tap in enumerate(op.window_taps(padded_gx, OH, OW)):
            tap += gy[n] * (argmax[n] == k)
        gx[n] = padded_gx[:, top:top + op.H, left:left + op.W]

    over_batch(block, gy, bytes_per_image=2 * gx[0].nbytes)


def max_pool_backward_gpu(gy, argmax, gx, op):
    launch_pool_kernel("max_pool_backward", op, (gy, argmax, gx), rows_of=gx, argmax=argmax)


def launch_pool_kernel(name, op, arrays, rows_of, argmax):
    """Launch a kernel with one row of threads for each pixel of `rows_of`, the array that it writes."""
    N, rows, columns, C = rows_of.shape
    index_type = {"uint8": "unsigned char", "uint32": "unsigned int"}[str(argmax.dtype)]
    cuda.launch_rows("ops/max_pool2d.cu", name, N * rows * columns, C, *arrays, op.H, op.W, *op.kernel, *op.stride, *op.padding,
                     *argmax.shape[1:3], dtype=rows_of.dtype, constants=(("Index", index_type),))


max_pool_forward = by_device(max_pool_forward_cpu, max_pool_forward_gpu)
max_pool_backward = by_device(max_pool_backward_cpu, max_pool_backward_gpu)


def elementwise_max(arrays):
    """The maximum of several arrays, element by element."""
    first, *others = arrays
    if not others:
        return first
    best = np.maximum(first, others[0])
    for other in others[1:]:
        np.maximum(best, other, out=best)
    return best


def max_pool2d(x: Tensor, kernel_size: int | tuple[int, int], stride: int | tuple[int, int] | None = None,
               padding: int | tuple[int, int] = 0, ceil_mode: bool = False) -> Tensor:
    """Max pooling: the maximum of each window.

    Args:
        x: images, (N, C, H, W), float32 or float64.
        kernel_size, stride, padding: in pixels, an int or a (vertical, horizontal) pair. The stride is the kernel size
            by default; the padding is with -infinity, at most half the kernel, so that every window has a pixel.
        ceil_mode: round the output size up instead of down: a last window may extend past the edge (Caffe's rule).

    Returns (N, C, OH, OW) with OH = floor((H + 2*padding - KH) / stride) + 1, likewise OW. A window with a NaN has the maximum NaN.
    Raises ValueError for sizes that do not fit, TypeError for another dtype.
    Source: AlexNet, section 3.4 (overlapping: stride < kernel).
    """
    check_images("max_pool2d", x)
    kernel = check_pair("max_pool2d", "kernel_size", kernel_size, 1)
    stride = kernel if stride is None else check_pair("max_pool2d", "stride", stride, 1)
    padding = check_pair("max_pool2d", "padding", padding, 0)
    if any(2 * p > k for p, k in zip(padding, kernel, strict=True)):
        raise ValueError(f"max_pool2d: padding must be at most half of the window {kernel}, got {padding}; "
                         "else some windows would have no pixel")
    H, W = x.shape[2:]
    if H + 2 * padding[0] < kernel[0] or W + 2 * padding[1] < kernel[1]:
        raise ValueError(f"max_pool2d: the {kernel[0]}x{kernel[1]} window is larger than the {H}x{W} image with padding {padding}; "
                         "use a larger image or a smaller window")
    return MaxPool2d(kernel, stride, padding, bool(ceil_mode))(x)
