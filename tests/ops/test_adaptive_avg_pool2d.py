"""Means over bins: of equal sizes, overlapping where sizes do not divide, and repeated where the output is larger."""

import numpy as np
import pytest
from check import check_each_shows, check_op, values

from minicnn import Tensor, ops
from minicnn.ops.adaptive_avg_pool2d import AdaptiveAvgPool2d

CASES = {                       # output_size
    "bins of 2 x 2":            (((2, 2),), values((2, 2, 4, 4))),
    "overlapping bins":         (((3, 2),), values((2, 2, 5, 3))),
    "one bin for all":          (((1, 1),), values((2, 3, 3, 4))),
    "every pixel a bin":        (((3, 2),), values((2, 2, 3, 2))),
    "more bins than pixels":    (((4, 3),), values((2, 1, 3, 2))),
    "fewer rows, more columns": (((2, 5),), values((1, 2, 5, 3))),
}


def bins(args, H, W):
    """(i, j) -> the pixels of that bin: rows floor(i*H/OH) to ceil((i+1)*H/OH) - 1, and so the columns."""
    (OH, OW), = args

    def bin(i, size, out):
        return range(i * size // out, -(-(i + 1) * size // out))

    return {(i, j): [(row, column) for row in bin(i, H, OH) for column in bin(j, W, OW)] for i, j in np.ndindex(OH, OW)}


def naive(args, x):
    N, C, H, W = x.shape
    y = np.zeros((N, C, *args[0]))
    for (i, j), pixels in bins(args, H, W).items():
        for n, c in np.ndindex(N, C):
            y[n, c, i, j] = sum(x[n, c][pixel] for pixel in pixels) / len(pixels)
    return y


class WrongMean(AdaptiveAvgPool2d):
    """Backward by loops: each bin calls `send` with the gradients of all images and channels there."""

    def backward(self, gy, *saved):
        gx = np.zeros(self.shapes[0])
        for (i, j), pixels in bins((self.output_size,), *gx.shape[2:]).items():
            self.send(gx, gy[:, :, i, j], pixels)
        return gx

    def send(self, gx, g, pixels):
        for row, column in pixels:
            gx[:, :, row, column] += g / len(pixels)


class NotDivided(WrongMean):
    "Every pixel of a bin gets the whole gradient, as if the op were a sum."
    def send(self, gx, g, pixels):
        for row, column in pixels:
            gx[:, :, row, column] += g

    @staticmethod
    def shows(args, x):
        return any(len(pixels) > 1 for pixels in bins(args, *x.shape[2:]).values())


class AllBinsOfOneSize(WrongMean):
    "Divided by pixels per bin on average; but where sizes do not divide, bins overlap and are larger."
    def send(self, gx, g, pixels):
        for row, column in pixels:
            gx[:, :, row, column] += g * self.output_size[0] * self.output_size[1] / (gx.shape[2] * gx.shape[3])

    @staticmethod
    def shows(args, x):
        return any(size % out for size, out in zip(x.shape[2:], args[0], strict=True))


class OverlapOverwritten(WrongMean):
    "A pixel in several bins keeps what the last one sent: = where += belongs."
    def send(self, gx, g, pixels):
        for row, column in pixels:
            gx[:, :, row, column] = g / len(pixels)

    @staticmethod
    def shows(args, x):
        pixels = [pixel for some in bins(args, *x.shape[2:]).values() for pixel in some]
        return len(set(pixels)) < len(pixels)


class FirstPixelOnly(WrongMean):
    "The gradient goes to the corner of the bin."
    def send(self, gx, g, pixels):
        gx[:, :, pixels[0][0], pixels[0][1]] += g

    @staticmethod
    def shows(args, x):
        return any(len(pixels) > 1 for pixels in bins(args, *x.shape[2:]).values())


WRONG = [NotDivided, AllBinsOfOneSize, OverlapOverwritten, FirstPixelOnly]


@pytest.mark.parametrize("case", CASES)
def test_adaptive_avg_pool2d(case, device):
    check_op(AdaptiveAvgPool2d, *CASES[case], naive, WRONG, device)


def test_each_mistake_shows():
    check_each_shows(WRONG, CASES)


def test_an_int_is_the_same_both_ways():
    x = Tensor(values((1, 2, 5, 7))[0])
    assert np.array_equal(ops.adaptive_avg_pool2d(x, 3).data, ops.adaptive_avg_pool2d(x, (3, 3)).data)


@pytest.mark.parametrize(("shape", "output_size", "message"), [
    ((2, 5, 5), 2, r"adaptive_avg_pool2d: x is \(N, C, H, W\), but this x has shape \(2, 5, 5\); for one image use x.reshape"),
    ((0, 2, 5, 5), 2, r"adaptive_avg_pool2d: x is empty, its shape is \(0, 2, 5, 5\)"),
    ((1, 2, 5, 5), 0, r"adaptive_avg_pool2d: output_size is an int or a pair of ints, each at least 1, not 0"),
    ((1, 2, 5, 5), (2, 2, 2), r"adaptive_avg_pool2d: output_size is an int or a pair of ints, each at least 1, not \(2, 2, 2\)"),
])
def test_what_does_not_fit_is_refused(shape, output_size, message):
    with pytest.raises(ValueError, match=message):
        ops.adaptive_avg_pool2d(Tensor(np.zeros(shape, np.float32)), output_size)
