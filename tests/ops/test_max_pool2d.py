"""Max-pooling: overlapping, abutting and gappy windows, padding, both ways of rounding; and who wins a tie."""

import functools
import math

import numpy as np
import pytest
from check import Remembers, apart, check_each_shows, check_op, on, run

from minicnn import Tensor, ops
from minicnn.ops.max_pool2d import MaxPool2d

CASES = {                                   # kernel stride   padding ceil_mode
    "abutting":                             (((2, 2), (2, 2), (0, 0), False), [apart(2, 2, 4, 4)]),
    "overlapping, as in AlexNet":           (((3, 3), (2, 2), (0, 0), False), [apart(2, 1, 5, 5)]),
    "overlapping in one step":              (((2, 2), (1, 1), (0, 0), False), [apart(2, 2, 2, 4)]),
    "gaps between the windows":             (((2, 2), (3, 3), (0, 0), False), [apart(2, 1, 5, 6)]),
    "one pixel of four":                    (((1, 1), (2, 2), (0, 0), False), [apart(2, 2, 3, 4)]),
    "rows and columns left over":           (((2, 2), (2, 2), (0, 0), False), [apart(2, 1, 5, 3)]),
    "rounded up":                           (((2, 2), (2, 2), (0, 0), True), [apart(2, 1, 5, 3)]),
    "rounded up, overlapping":              (((3, 3), (2, 2), (0, 0), True), [apart(1, 1, 6, 4)]),
    "rounded up, padded":                   (((3, 3), (2, 2), (1, 1), True), [apart(1, 1, 4, 4)]),
    "rounded up, no window in the padding": (((2, 2), (2, 2), (1, 1), True), [apart(1, 2, 3, 5)]),
    "padding":                              (((3, 3), (2, 2), (1, 1), False), [apart(2, 1, 4, 4)]),
    "padding, all values negative":         (((3, 3), (1, 1), (1, 1), False), [apart(1, 2, 3, 3) - 10]),
    "different each way":                   (((2, 3), (1, 2), (1, 0), False), [apart(2, 1, 3, 5)]),
    "the window is the image":              (((3, 4), (3, 4), (0, 0), False), [apart(2, 2, 3, 4)]),
    "one image, one channel":               (((2, 2), (1, 1), (0, 0), False), [apart(1, 1, 3, 3)]),
}


@functools.cache
def places(args, H, W):
    """For each window (i, j), the pixels (row, column) it sees, row by row."""
    (KH, KW), (SH, SW), (PH, PW), ceil_mode = args
    seen = {}
    for i, j in np.ndindex(*(math.ceil((n + 2 * P) / S) + 1 for n, P, S in ((H, PH, SH), (W, PW, SW)))):
        top, left = SH * i - PH, SW * j - PW
        if ceil_mode:           # the smallest number of windows that reach the far edge of the padding; but each starts before it
            fits = (i == 0 or top + KH - SH < H + PH) and (j == 0 or left + KW - SW < W + PW) and top < H and left < W
        else:
            fits = top + KH <= H + PH and left + KW <= W + PW
        if fits:
            seen[i, j] = [(top + p, left + q) for p, q in np.ndindex(KH, KW) if 0 <= top + p < H and 0 <= left + q < W]
    return seen


def winners(args, x):
    """(n, c, i, j) -> the place of that window's maximum; of equals the first."""
    N, C, H, W = x.shape
    won = {}
    for (i, j), pixels in places(args, H, W).items():
        for n, c in np.ndindex(N, C):
            best = pixels[0]
            for pixel in pixels:
                if x[n, c][pixel] > x[n, c][best]:
                    best = pixel
            won[n, c, i, j] = best
    return won


def naive(args, x):
    won = winners(args, x)
    y = np.zeros([1 + max(axis) for axis in zip(*won, strict=True)])
    for (n, c, i, j), best in won.items():
        y[n, c, i, j] = x[n, c][best]
    return y


class WrongPool(Remembers, MaxPool2d):
    """Backward by loops: each window calls `send`, which adds its g to the gradient of this image's channel."""

    def backward(self, gy, *saved):
        x, = self.arrays
        gx = np.zeros_like(x)
        for (n, c, i, j), best in winners(self.args(), x).items():
            self.send(gx[n, c], gy[n, c, i, j], best, i, j)
        return gx

    def send(self, gx, g, best, i, j):
        gx[best] += g

    def args(self):
        return self.kernel, self.stride, self.padding, self.ceil_mode


class OverlapOverwritten(WrongPool):
    "A pixel that wins in several windows hears from the last one only: = where += belongs."
    def send(self, gx, g, best, i, j):
        gx[best] = g

    @staticmethod
    def shows(args, x):
        won = [(n, c, best) for (n, c, i, j), best in winners(args, x).items()]
        return len(set(won)) < len(won)


class EveryPixelWins(WrongPool):
    "The whole window gets the gradient, not its winner alone."
    def send(self, gx, g, best, i, j):
        for pixel in places(self.args(), *gx.shape)[i, j]:
            gx[pixel] += g

    @staticmethod
    def shows(args, x):
        return args[0] != (1, 1)


class AveragedLikeAMean(WrongPool):
    "The gradient is shared out evenly, which is the backward of average pooling."
    def send(self, gx, g, best, i, j):
        pixels = places(self.args(), *gx.shape)[i, j]
        for pixel in pixels:
            gx[pixel] += g / len(pixels)

    @staticmethod
    def shows(args, x):
        return args[0] != (1, 1)


class FirstPixelWins(WrongPool):
    "The gradient goes to the corner of the window, as if the winner had not been kept."
    def send(self, gx, g, best, i, j):
        gx[places(self.args(), *gx.shape)[i, j][0]] += g

    @staticmethod
    def shows(args, x):
        return args[0] != (1, 1)


class WindowsAbut(WrongPool):
    "The place of a window is taken to be its number times its size; but it is times the stride."
    def send(self, gx, g, best, i, j):
        (KH, KW), (SH, SW) = self.kernel, self.stride
        row, column = best[0] + (KH - SH) * i, best[1] + (KW - SW) * j
        if 0 <= row < gx.shape[0] and 0 <= column < gx.shape[1]:
            gx[row, column] += g

    @staticmethod
    def shows(args, x):
        return any(K != S and out > 1 for K, S, out in zip(args[0], args[1], naive(args, x).shape[2:], strict=True))


class PaddingNotCropped(WrongPool):
    "Rows and columns are counted from the corner of the padding, not of the image."
    def send(self, gx, g, best, i, j):
        row, column = best[0] + self.padding[0], best[1] + self.padding[1]
        if row < gx.shape[0] and column < gx.shape[1]:
            gx[row, column] += g

    @staticmethod
    def shows(args, x):
        return args[2] != (0, 0)


WRONG = [OverlapOverwritten, EveryPixelWins, AveragedLikeAMean, FirstPixelWins, WindowsAbut, PaddingNotCropped]


@pytest.mark.parametrize("case", CASES)
def test_max_pool2d(case, device):
    check_op(MaxPool2d, *CASES[case], naive, WRONG, device)


def test_each_mistake_shows():
    check_each_shows(WRONG, CASES)


class LastOfEqualsWins(WrongPool):
    "Of equal values the last one wins: >= where > belongs."
    def send(self, gx, g, best, i, j):
        channel = self.channel_of(gx)
        pixels = places(self.args(), *gx.shape)[i, j]
        gx[[p for p in pixels if channel[p] == channel[best]][-1]] += g

    def channel_of(self, gx):
        """The values of the channel whose gradient `gx` is; for the tests below, which have one."""
        return self.arrays[0][0, 0]


class EqualsShare(LastOfEqualsWins):
    "All equal values get the whole gradient."
    def send(self, gx, g, best, i, j):
        channel = self.channel_of(gx)
        for pixel in places(self.args(), *gx.shape)[i, j]:
            gx[pixel] += g * (channel[pixel] == channel[best])


TIES = np.array([[0, 2, 2, 1, 0],       # equal in a row, in a column, across the diagonal; and a window of zeros
                 [2, 0, 2, 1, 0],
                 [2, 2, 1, 0, 0],
                 [1, 1, 0, 0, 0],
                 [3, 0, 3, 0, 0.]]).reshape(1, 1, 5, 5)


@pytest.mark.parametrize("args", [((3, 3), (2, 2), (0, 0), False), ((2, 2), (1, 1), (0, 0), False), ((3, 3), (2, 2), (1, 1), True)])
def test_the_first_of_equal_values_wins(args, device):
    """In row-major order, as in PyTorch. Here forward has a kink, so the loops are the judge and not the gradient check."""
    gy = np.random.default_rng(0).standard_normal(naive(args, TIES).shape)
    right = run(WrongPool, args, [TIES], gy)[1][0]          # nothing in it is wrong: the loops themselves
    x = Tensor(TIES, requires_grad=True, device=device)
    MaxPool2d(*args)(x).backward(Tensor(gy, device=device))
    assert np.allclose(Tensor(x.grad).numpy(), right, atol=1e-12)
    for mistake in (LastOfEqualsWins, EqualsShare):
        assert not np.allclose(run(mistake, args, [TIES], gy)[1][0], right, atol=0.1), f"{mistake.__name__} would pass"


def test_padding_never_wins(device):
    x = Tensor(np.full((1, 1, 2, 2), -5.0), device=device)
    assert np.array_equal(ops.max_pool2d(x, 2, 1, 1).numpy(), np.full((1, 1, 3, 3), -5.0))


@pytest.mark.parametrize("args", [((3, 3), (2, 2), (0, 0), False), ((3, 3), (2, 2), (1, 1), True), ((2, 2), (1, 1), (1, 1), False)])
def test_infinities_and_nan(args, device):
    """-inf is a value like others; who sees a NaN answers NaN; the windows beside it hear nothing of it."""
    x = apart(2, 3, 6, 7)
    x[0, 0, :4] = -np.inf
    x[0, 1, 2, 2] = np.inf
    x[1, 2, 3, 3] = np.nan
    x[1, 0, 0, 0] = x[1, 1, -1, -1] = np.nan
    y = MaxPool2d(*args)(Tensor(x, device=device)).numpy()
    want = np.empty(y.shape)
    for (i, j), pixels in places(args, 6, 7).items():
        rows, columns = zip(*pixels, strict=True)
        want[:, :, i, j] = x[:, :, rows, columns].max(axis=2)
    assert np.isnan(want).any()
    assert np.isinf(want).any()
    assert np.isfinite(want).any()
    np.testing.assert_array_equal(y, want)


def test_a_window_of_nothing_but_minus_infinity_has_a_winner(device):
    """Its first place, which hears back."""
    x = Tensor(np.full((1, 2, 4, 4), -np.inf), requires_grad=True, device=device)
    ops.max_pool2d(x, 2).backward(on(device, np.full((1, 2, 2, 2), 3.0)))
    assert on("cpu", x.grad)[0, 0].tolist() == [[3, 0, 3, 0], [0] * 4] * 2


def test_the_stride_is_the_kernel_size_unless_given():
    x = Tensor(apart(1, 2, 6, 6))
    assert np.array_equal(ops.max_pool2d(x, (2, 3)).data, ops.max_pool2d(x, (2, 3), stride=(2, 3)).data)
    assert ops.max_pool2d(x, (2, 3)).shape == (1, 2, 3, 2)


def test_more_places_than_a_byte_can_count(device):
    """A window of 17 x 17 has 289 places; the winner is the last of them."""
    x = np.zeros((1, 1, 17, 17))
    x[..., -1, -1] = 1
    x = Tensor(x, requires_grad=True, device=device)
    ops.max_pool2d(x, 17).sum().backward()
    assert np.array_equal(on("cpu", x.grad), x.numpy())


SIZES = {           # x               kernel    stride   padding ceil_mode
    "AlexNet":      ((2, 96, 13, 13), ((3, 3), (2, 2), (0, 0), False)),
    "300 channels": ((1, 300, 5, 6), ((3, 2), (1, 2), (1, 0), True)),
    "one channel":  ((40, 1, 5, 5), ((2, 2), (2, 2), (1, 1), True)),
    "256 places":   ((2, 3, 17, 18), ((16, 16), (1, 1), (8, 2), False)),
    "257 places":   ((2, 3, 3, 260), ((1, 257), (1, 2), (0, 100), True)),
    "289 places":   ((2, 3, 20, 21), ((17, 17), (3, 2), (8, 8), True)),
}


@pytest.mark.parametrize("size", SIZES)
def test_the_gpu_has_the_winners_of_the_cpu(cupy, size):
    """With many ties, and more channels and places than a block has threads or a byte numbers: the same bits, the same winners."""
    shape, args = SIZES[size]
    rng = np.random.default_rng(0)
    x = rng.integers(-3, 3, shape).astype(np.float32)
    y, (winner,) = MaxPool2d(*args).forward(x)
    y_there, (winner_there,) = MaxPool2d(*args).forward(cupy.asarray(x))
    np.testing.assert_array_equal(y_there.get(), y)
    assert winner_there.dtype == winner.dtype
    np.testing.assert_array_equal(winner_there.get(), winner)
    g = rng.integers(-9, 9, y.shape).astype(np.float32)
    np.testing.assert_array_equal(run(MaxPool2d, args, [cupy.asarray(x)], cupy.asarray(g))[1][0].get(), run(MaxPool2d, args, [x], g)[1][0])


@pytest.mark.parametrize(("size", "ceil_mode", "out"), [(13, False, 6), (13, True, 6), (14, False, 6), (14, True, 7)])
def test_rounding(size, ceil_mode, out):
    assert ops.max_pool2d(Tensor(np.zeros((1, 1, size, size))), 3, 2, ceil_mode=ceil_mode).shape == (1, 1, out, out)


@pytest.mark.parametrize(("shape", "options", "message"), [
    ((3, 5, 5), {"kernel_size": 2}, r"max_pool2d: x is \(N, C, H, W\), but this x has shape \(3, 5, 5\); for one image use x.reshape"),
    ((1, 3, 0, 5), {"kernel_size": 2}, r"max_pool2d: x is empty, its shape is \(1, 3, 0, 5\)"),
    ((1, 3, 5, 5), {"kernel_size": 6}, r"max_pool2d: the 6x6 window is larger than the 5x5 image with padding \(0, 0\); use"),
    ((1, 3, 5, 5), {"kernel_size": (2, 7)}, r"max_pool2d: the 2x7 window is larger than the 5x5 image"),
    ((1, 3, 5, 5), {"kernel_size": 3, "padding": 2}, r"max_pool2d: padding \(2, 2\) is more than half of the window \(3, 3\)"),
    ((1, 3, 5, 5), {"kernel_size": 0}, r"max_pool2d: kernel_size is an int or a pair of ints, each at least 1, not 0"),
    ((1, 3, 5, 5), {"kernel_size": 2, "stride": 0}, r"max_pool2d: stride is an int or a pair of ints, each at least 1, not 0"),
    ((1, 3, 5, 5), {"kernel_size": 2, "stride": (1, -1)}, r"max_pool2d: stride is .* not \(1, -1\)"),
    ((1, 3, 5, 5), {"kernel_size": 2, "padding": True}, r"max_pool2d: padding is an int or a pair of ints, each at least 0, not True"),
])
def test_what_does_not_fit_is_refused(shape, options, message):
    with pytest.raises(ValueError, match=message):
        ops.max_pool2d(Tensor(np.zeros(shape, np.float32)), **options)


def test_integers_are_refused():
    with pytest.raises(TypeError, match="max_pool2d: x is int64; float32 or float64 is wanted"):
        ops.max_pool2d(Tensor(np.zeros((1, 1, 4, 4), np.int64)), 2)
