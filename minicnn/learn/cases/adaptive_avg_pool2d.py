"""Adaptive average pooling: bins of equal size, bins that overlap (sizes that do not divide), more bins than pixels."""

import numpy as np

from minicnn.backend.arrays import ceil_div
from minicnn.learn.cases import randn
from minicnn.ops.adaptive_avg_pool2d import AdaptiveAvgPool2d

CASES = {                       # output_size
    "bins of 2 x 2":            (((2, 2),), randn((2, 2, 4, 4))),
    "overlapping bins":         (((3, 2),), randn((2, 2, 5, 3))),
    "one bin":                  (((1, 1),), randn((2, 3, 3, 4))),
    "one pixel per bin":        (((3, 2),), randn((2, 2, 3, 2))),
    "more bins than pixels":    (((4, 3),), randn((2, 1, 3, 2))),
    "fewer rows, more columns": (((2, 5),), randn((1, 2, 5, 3))),
}


def bin_pixels(args, H, W):
    """{(i, j): the pixels (row, column) of that bin}: rows floor(i*H/OH) to ceil((i+1)*H/OH) - 1, and columns likewise."""
    (OH, OW), = args

    def interval(i, size, out):
        return range(i * size // out, ceil_div((i + 1) * size, out))

    return {(i, j): [(row, column) for row in interval(i, H, OH) for column in interval(j, W, OW)] for i, j in np.ndindex(OH, OW)}


def naive(args, x):
    N, C, H, W = x.shape
    y = np.zeros((N, C, *args[0]))
    for (i, j), pixels in bin_pixels(args, H, W).items():
        for n, c in np.ndindex(N, C):
            y[n, c, i, j] = sum(x[n, c][pixel] for pixel in pixels) / len(pixels)
    return y


class WrongMean(AdaptiveAvgPool2d):
    """A correct backward by loops: `scatter` adds g (N, C), the gradient of one bin, to gx at its pixels; each mistake breaks it."""

    def backward(self, gy, *saved):
        gx = np.zeros(self.shapes[0])
        for (i, j), pixels in bin_pixels((self.output_size,), *gx.shape[2:]).items():
            self.scatter(gx, gy[:, :, i, j], pixels)
        return gx

    def scatter(self, gx, g, pixels):
        for row, column in pixels:
            gx[:, :, row, column] += g / len(pixels)


class NotDivided(WrongMean):
    "The division by the number of pixels is missing: this is the backward of a sum over the bin."
    def scatter(self, gx, g, pixels):
        for row, column in pixels:
            gx[:, :, row, column] += g

    @staticmethod
    def affects(args, x):
        return any(len(pixels) > 1 for pixels in bin_pixels(args, *x.shape[2:]).values())


class AllBinsOfOneSize(WrongMean):
    "The divisor is the average bin size H*W / (OH*OW); but where sizes do not divide, bins overlap and are larger."
    def scatter(self, gx, g, pixels):
        for row, column in pixels:
            gx[:, :, row, column] += g * self.output_size[0] * self.output_size[1] / (gx.shape[2] * gx.shape[3])

    @staticmethod
    def affects(args, x):
        return any(size % out for size, out in zip(x.shape[2:], args[0], strict=True))


class OverlapOverwritten(WrongMean):
    "A pixel in several bins gets the gradient of the last bin only: = instead of +=."
    def scatter(self, gx, g, pixels):
        for row, column in pixels:
            gx[:, :, row, column] = g / len(pixels)

    @staticmethod
    def affects(args, x):
        pixels = [pixel for members in bin_pixels(args, *x.shape[2:]).values() for pixel in members]
        return len(set(pixels)) < len(pixels)


class FirstPixelOnly(WrongMean):
    "The whole gradient goes to the first pixel of the bin."
    def scatter(self, gx, g, pixels):
        gx[:, :, pixels[0][0], pixels[0][1]] += g

    @staticmethod
    def affects(args, x):
        return any(len(pixels) > 1 for pixels in bin_pixels(args, *x.shape[2:]).values())


WRONG = [NotDivided, AllBinsOfOneSize, OverlapOverwritten, FirstPixelOnly]


OPS = {
    AdaptiveAvgPool2d: (AdaptiveAvgPool2d, CASES, naive, WRONG),
}
