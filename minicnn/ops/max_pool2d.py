"""Of each window only the largest value goes on, and only its place hears back.      (AlexNet, section 3.4)

    y[n, c, i, j] = max over the window at (i, j) of x[n, c]
    dL/dx         = gy, added at the place of each window's winner; 0 everywhere else

Overlapping windows (3x3, stride 2) may have the same winner: its gradients add up. Where several places tie, the
first in row-major order wins. Forward keeps which place won, one byte per output; x itself is not needed again.
"""

from minicnn.autograd import Function
from minicnn.backend import xp_of
from minicnn.ops.layout import check_images, nchw, nhwc, padded, pair
from minicnn.parallel import over_batch


class MaxPool2d(Function):
    def __init__(self, kernel=(3, 3), stride=(2, 2), padding=(0, 0), ceil_mode=False):
        self.kernel, self.stride, self.padding, self.ceil_mode = kernel, stride, padding, ceil_mode

    def forward(self, x):                                   # x (N, C, H, W)
        xp = xp_of(x)
        self.H, self.W = x.shape[2:]
        OH, OW = self.output_sizes(self.H, self.W)
        x = nhwc(x)
        y = xp.empty((len(x), OH, OW, x.shape[3]), x.dtype)
        winner = xp.zeros(y.shape, "uint8" if self.kernel[0] * self.kernel[1] <= 256 else "int32")
        (KH, KW), (SH, SW), margins = self.kernel, self.stride, self.margins(OH, OW)

        def block(n):
            image = padded(x[n], margins[0], margins[1], -xp.inf)
            rows = largest(image[:, p:p + SH * (OH - 1) + 1:SH] for p in range(KH))         # down each column of the window,
            y[n] = largest(rows[:, :, q:q + SW * (OW - 1) + 1:SW] for q in range(KW))       # then across
            before = xp.ones(y[n].shape, bool)              # True as long as no place so far holds the maximum:
            for place in self.places(image, OH, OW)[:-1]:
                before &= place != y[n]
                winner[n] += before                         # the number of such places is the number of the winner

        over_batch(block, x, bytes_each=2 * x[0].nbytes)
        return nchw(y), (winner,)

    def backward(self, gy, winner):                         # gy (N, C, OH, OW)   winner (N, OH, OW, C)
        xp = xp_of(gy)
        gy = nhwc(gy)
        N, OH, OW, C = gy.shape
        (top, bottom), (left, right) = self.margins(OH, OW)
        gx = xp.empty((N, self.H, self.W, C), gy.dtype)

        def block(n):
            g, won = gy[n], winner[n]
            whole = xp.zeros((len(g), top + self.H + bottom, left + self.W + right, C), gy.dtype)
            for k, place in enumerate(self.places(whole, OH, OW)):
                place += g * (won == k)
            gx[n] = whole[:, top:top + self.H, left:left + self.W]

        over_batch(block, gy, bytes_each=2 * gx[0].nbytes)
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


def largest(arrays):
    """The largest of several arrays, element by element."""
    first, *others = arrays
    if not others:
        return first
    xp = xp_of(first)
    best = xp.maximum(first, others[0])
    for other in others[1:]:
        xp.maximum(best, other, out=best)
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
