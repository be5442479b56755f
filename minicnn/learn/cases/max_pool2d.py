"""Max pooling: windows that overlap, tile the image or leave gaps, padding, and both ways of rounding the output size."""

import functools
import math

import numpy as np

from minicnn.learn.cases import Remembers, distinct_values
from minicnn.ops.max_pool2d import MaxPool2d

CASES = {                                   # kernel stride   padding ceil_mode
    "not overlapping":                      (((2, 2), (2, 2), (0, 0), False), [distinct_values(2, 2, 4, 4)]),
    "3x3, stride 2, as in AlexNet":         (((3, 3), (2, 2), (0, 0), False), [distinct_values(2, 1, 5, 5)]),
    "stride 1":                             (((2, 2), (1, 1), (0, 0), False), [distinct_values(2, 2, 2, 4)]),
    "gaps between the windows":             (((2, 2), (3, 3), (0, 0), False), [distinct_values(2, 1, 5, 6)]),
    "1x1, stride 2":                        (((1, 1), (2, 2), (0, 0), False), [distinct_values(2, 2, 3, 4)]),
    "rows and columns not covered":         (((2, 2), (2, 2), (0, 0), False), [distinct_values(2, 1, 5, 3)]),
    "ceil_mode":                            (((2, 2), (2, 2), (0, 0), True), [distinct_values(2, 1, 5, 3)]),
    "ceil_mode, overlapping":               (((3, 3), (2, 2), (0, 0), True), [distinct_values(1, 1, 6, 4)]),
    "ceil_mode, padded":                    (((3, 3), (2, 2), (1, 1), True), [distinct_values(1, 1, 4, 4)]),
    "ceil_mode, no window in the padding":  (((2, 2), (2, 2), (1, 1), True), [distinct_values(1, 2, 3, 5)]),
    "padding":                              (((3, 3), (2, 2), (1, 1), False), [distinct_values(2, 1, 4, 4)]),
    "padding, all values negative":         (((3, 3), (1, 1), (1, 1), False), [distinct_values(1, 2, 3, 3) - 10]),
    "unequal kernel, stride and padding":   (((2, 3), (1, 2), (1, 0), False), [distinct_values(2, 1, 3, 5)]),
    "one window for the image":             (((3, 4), (3, 4), (0, 0), False), [distinct_values(2, 2, 3, 4)]),
    "one image, one channel":               (((2, 2), (1, 1), (0, 0), False), [distinct_values(1, 1, 3, 3)]),
}


@functools.cache
def window_pixels(args, H, W):
    """{(i, j): the pixels (row, column) of that window, in row-major order, without padding}."""
    (KH, KW), (SH, SW), (PH, PW), ceil_mode = args
    seen = {}
    for i, j in np.ndindex(*(math.ceil((n + 2 * P) / S) + 1 for n, P, S in ((H, PH, SH), (W, PW, SW)))):
        top, left = SH * i - PH, SW * j - PW
        if ceil_mode:           # as many windows as reach the far edge of the padding; but each starts inside the image
            fits = (i == 0 or top + KH - SH < H + PH) and (j == 0 or left + KW - SW < W + PW) and top < H and left < W
        else:
            fits = top + KH <= H + PH and left + KW <= W + PW
        if fits:
            seen[i, j] = [(top + p, left + q) for p, q in np.ndindex(KH, KW) if 0 <= top + p < H and 0 <= left + q < W]
    return seen


def argmaxes(args, x):
    """{(n, c, i, j): the pixel (row, column) of that window's maximum; of equal values, the first}."""
    N, C, H, W = x.shape
    argmax = {}
    for (i, j), pixels in window_pixels(args, H, W).items():
        for n, c in np.ndindex(N, C):
            best = pixels[0]
            for pixel in pixels:
                if x[n, c][pixel] > x[n, c][best]:
                    best = pixel
            argmax[n, c, i, j] = best
    return argmax


def naive(args, x):
    argmax = argmaxes(args, x)
    y = np.zeros([1 + max(axis) for axis in zip(*argmax, strict=True)])
    for (n, c, i, j), best in argmax.items():
        y[n, c, i, j] = x[n, c][best]
    return y


class WrongPool(Remembers, MaxPool2d):
    """A correct backward by loops: `scatter` adds g, the gradient of one window, to the gx (H, W) of its image and channel."""

    def backward(self, gy, *saved):
        x, = self.arrays
        gx = np.zeros_like(x)
        for (n, c, i, j), best in argmaxes(self.args(), x).items():
            self.scatter(gx[n, c], gy[n, c, i, j], best, i, j)
        return gx

    def scatter(self, gx, g, best, i, j):
        gx[best] += g

    def args(self):
        return self.kernel, self.stride, self.padding, self.ceil_mode


class OverlapOverwritten(WrongPool):
    "A pixel that is the argmax of several windows gets the gradient of the last one only: = instead of +=."
    def scatter(self, gx, g, best, i, j):
        gx[best] = g

    @staticmethod
    def affects(args, x):
        positions = [(n, c, best) for (n, c, i, j), best in argmaxes(args, x).items()]
        return len(set(positions)) < len(positions)


class WholeWindow(WrongPool):
    "Every pixel of the window gets the gradient, not the argmax alone."
    def scatter(self, gx, g, best, i, j):
        for pixel in window_pixels(self.args(), *gx.shape)[i, j]:
            gx[pixel] += g

    @staticmethod
    def affects(args, x):
        return args[0] != (1, 1)


class Averaged(WrongPool):
    "The gradient is divided evenly over the window: this is the backward of average pooling."
    def scatter(self, gx, g, best, i, j):
        pixels = window_pixels(self.args(), *gx.shape)[i, j]
        for pixel in pixels:
            gx[pixel] += g / len(pixels)

    @staticmethod
    def affects(args, x):
        return args[0] != (1, 1)


class FirstPixel(WrongPool):
    "The gradient goes to the first pixel of the window instead of the argmax."
    def scatter(self, gx, g, best, i, j):
        gx[window_pixels(self.args(), *gx.shape)[i, j][0]] += g

    @staticmethod
    def affects(args, x):
        return args[0] != (1, 1)


class StrideIgnored(WrongPool):
    "The stride is ignored: the position of a window is computed as its index times its size."
    def scatter(self, gx, g, best, i, j):
        (KH, KW), (SH, SW) = self.kernel, self.stride
        row, column = best[0] + (KH - SH) * i, best[1] + (KW - SW) * j
        if 0 <= row < gx.shape[0] and 0 <= column < gx.shape[1]:
            gx[row, column] += g

    @staticmethod
    def affects(args, x):
        return any(K != S and out > 1 for K, S, out in zip(args[0], args[1], naive(args, x).shape[2:], strict=True))


class PaddingNotCropped(WrongPool):
    "The padding is not cropped from dL/dx, so the gradient is shifted by the padding."
    def scatter(self, gx, g, best, i, j):
        row, column = best[0] + self.padding[0], best[1] + self.padding[1]
        if row < gx.shape[0] and column < gx.shape[1]:
            gx[row, column] += g

    @staticmethod
    def affects(args, x):
        return args[2] != (0, 0)


WRONG = [OverlapOverwritten, WholeWindow, Averaged, FirstPixel, StrideIgnored, PaddingNotCropped]


OPS = {
    MaxPool2d: (MaxPool2d, CASES, naive, WRONG),
}
