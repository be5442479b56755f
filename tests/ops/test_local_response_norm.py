"""Local response normalisation: window sizes up to more than all channels, several beta, alpha over size or not.

Alpha is near 1. With the paper's 1e-4 the channels hardly feel each other, and a backward that forgets the neighbours
altogether would be right to four digits.
"""

import numpy as np
import pytest
from check import EXACT, SINGLE, Remembers, check_each_shows, check_op, close, cotangent, run, values

from minicnn import Tensor, gpu, ops
from minicnn.ops.local_response_norm import LocalResponseNorm

CASES = {                               # size alpha beta  k
    "as in AlexNet, alpha aside":       ((5, 1.0, 0.75, 2.0), values((2, 7, 1, 2))),
    "three channels to a window":       ((3, 0.9, 0.75, 1.0), values((2, 4, 2, 2))),
    "each channel by itself":           ((1, 0.8, 0.75, 1.5), values((2, 3, 2, 2))),
    "a window wider than all channels": ((9, 1.1, 0.75, 2.0), values((2, 3, 2, 1))),
    "a window of all channels":         ((5, 0.7, 0.75, 1.0), values((1, 3, 2, 3))),
    "one channel":                      ((5, 1.0, 0.75, 1.0), values((2, 1, 3, 2))),
    "beta 1/2":                         ((3, 1.0, 0.5, 1.0), values((2, 4, 1, 3))),
    "beta 1":                           ((5, 1.2, 1.0, 2.0), values((1, 6, 2, 2))),
    "many channels":                    ((5, 1.0, 0.75, 2.0), values((1, 70, 1, 2))),
    "many channels, a wide window":     ((75, 0.1, 0.75, 2.0), values((1, 70, 1, 1))),
    "large values":                     ((3, 1.0, 0.75, 2.0), [10 * a for a in values((1, 5, 2, 2))]),
}


def naive(args, x):
    """x_c / (k + alpha * sum of x_j^2 over |j - c| <= r) ^ beta."""
    size, alpha, beta, k = args
    y = np.zeros_like(x)
    for n, c, i, j in np.ndindex(*x.shape):
        energy = k
        for neighbour in range(c - (size - 1) // 2, c + (size - 1) // 2 + 1):
            if 0 <= neighbour < x.shape[1]:
                energy += alpha * x[n, neighbour, i, j] ** 2
        y[n, c, i, j] = x[n, c, i, j] / energy ** beta
    return y


class WrongNorm(Remembers, LocalResponseNorm):
    """Backward as it should be: what comes through the numerator, less what comes through the neighbours' denominators."""

    def __init__(self, size, alpha, beta, k):
        super().__init__(size, alpha, beta, k)
        self.constants = size, alpha, beta, k

    def backward(self, gy, *saved):
        size, alpha, beta, k = self.constants
        x, = self.arrays
        s = k + alpha * window_sum(x * x, size)
        return self.combine(gy * s ** -beta, 2 * alpha * beta * x * window_sum(gy * x * s ** (-beta - 1), size), gy, x, s)

    def combine(self, own, neighbours, gy, x, s):
        return own - neighbours


def window_sum(x, size):
    """At channel c the sum of the channels in its window."""
    C, r = x.shape[1], (size - 1) // 2
    return np.stack([x[:, max(0, c - r):c + r + 1].sum(axis=1) for c in range(C)], axis=1)


def several_channels(args, x):
    return args[0] > 1 and x.shape[1] > 1


class NeighboursForgotten(WrongNorm):
    "The denominator is taken for a constant."
    def combine(self, own, neighbours, gy, x, s):
        return own


class FactorTwoLost(WrongNorm):
    "The derivative of x^2 is taken to be x."
    def combine(self, own, neighbours, gy, x, s):
        return own - neighbours / 2


class SignLost(WrongNorm):
    "What comes through the denominator is added; but a larger denominator makes a smaller answer."
    def combine(self, own, neighbours, gy, x, s):
        return own + neighbours


class BetaLost(WrongNorm):
    "The exponent does not come down as a factor."
    def combine(self, own, neighbours, gy, x, s):
        return own - neighbours / self.constants[2]

    @staticmethod
    def shows(args, x):
        return args[2] != 1


class ExponentNotLowered(WrongNorm):
    "The derivative of s^-b keeps the exponent -b, where -b-1 belongs."
    def combine(self, own, neighbours, gy, x, s):
        size, alpha, beta, _ = self.constants
        return own - 2 * alpha * beta * x * window_sum(gy * x * s ** -beta, size)


class OnlyItsOwnDenominator(WrongNorm):
    "A channel counts in its own energy and not in that of its neighbours."
    def combine(self, own, neighbours, gy, x, s):
        _, alpha, beta, _ = self.constants
        return own - 2 * alpha * beta * x * gy * x * s ** (-beta - 1)

    shows = staticmethod(several_channels)


class NeighboursValue(WrongNorm):
    "The x before the sum is drawn into it: each neighbour's own x is used instead."
    def combine(self, own, neighbours, gy, x, s):
        size, alpha, beta, _ = self.constants
        return own - 2 * alpha * beta * window_sum(gy * x * x * s ** (-beta - 1), size)

    shows = staticmethod(several_channels)


class AlphaDivided(WrongNorm):
    "Forward takes alpha as it is, backward divides it by the size of the window: two conventions in one op."
    def combine(self, own, neighbours, gy, x, s):
        return own - neighbours / self.constants[0]

    @staticmethod
    def shows(args, x):
        return args[0] > 1


WRONG = [NeighboursForgotten, FactorTwoLost, SignLost, BetaLost, ExponentNotLowered, OnlyItsOwnDenominator, NeighboursValue, AlphaDivided]


@pytest.mark.parametrize("case", CASES)
def test_local_response_norm(case, device):
    check_op(LocalResponseNorm, *CASES[case], naive, WRONG, device)


def test_each_mistake_shows():
    check_each_shows(WRONG, CASES)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("beta", [0.75, 0.6])
@pytest.mark.parametrize(("C", "size", "places"), [
    (1, 3, 77), (1, 9, 1), (2, 5, 9), (31, 5, 9), (33, 5, 7), (96, 5, 5), (128, 3, 3), (129, 5, 3), (256, 5, 2), (257, 5, 2), (300, 7, 3),
    (300, 801, 2), (700, 5, 1)])
def test_as_many_channels_as_there_may_be(cupy, C, size, places, beta, dtype):
    """On a GPU several pixels share a block, or the threads of a block take turns: as on the CPU, whatever the sizes."""
    args = size, 5 / size, beta, 2.0
    x, g = (a.astype(dtype) for a in (*values((2, C, 1, places)), cotangent((2, C, 1, places))))
    y, (gx,) = run(LocalResponseNorm, args, [x], g)
    y_there, (gx_there,) = run(LocalResponseNorm, args, [cupy.asarray(x)], cupy.asarray(g))
    tolerance = EXACT if dtype == "float64" else SINGLE
    close("forward", y_there, y, tolerance)
    close("gradient", gx_there, gx, tolerance)


@pytest.mark.parametrize("dtype, most", [("float32", 6144), ("float64", 3072)])
def test_more_channels_than_a_block_can_share(cupy, dtype, most):
    """Backward keeps two numbers for each channel in the memory of a block, which is 48 KiB. So many, and not one more."""
    assert 2 * most * np.dtype(dtype).itemsize == gpu.SHARED_BYTES
    for C in (most, most + 1):
        x = Tensor(values((1, C, 1, 1))[0].astype(dtype), requires_grad=True)
        there = Tensor(cupy.asarray(x.data), requires_grad=True)
        here, y = ops.local_response_norm(x, alpha=0.5), ops.local_response_norm(there, alpha=0.5)
        close("forward", y.data, here.data, SINGLE)
        if C > most:
            with pytest.raises(ValueError, match=rf"local_response_norm: on a GPU at most {most:,} channels of {dtype} can be normalised, "
                                                 rf"not {C:,}"):
                y.backward(cupy.ones_like(y.data))
        else:
            y.backward(cupy.ones_like(y.data))
            here.backward(np.ones_like(here.data))
            close("gradient", there.grad, x.grad, SINGLE)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_both_conventions(size):
    """The paper's rule takes alpha as it is; that of Caffe and PyTorch divides it by the size."""
    x, = values((2, 6, 2, 2))
    paper = ops.local_response_norm(Tensor(x), size, alpha=0.9, beta=0.5, k=1.5)
    caffe = ops.local_response_norm(Tensor(x), size, alpha=0.9, beta=0.5, k=1.5, alpha_over_size=True)
    np.testing.assert_allclose(paper.data, naive((size, 0.9, 0.5, 1.5), x), rtol=1e-12)
    np.testing.assert_allclose(caffe.data, naive((size, 0.9 / size, 0.5, 1.5), x), rtol=1e-12)


def test_the_papers_constants_are_the_defaults():
    x, = values((1, 8, 2, 2))
    x *= 30
    np.testing.assert_allclose(ops.local_response_norm(Tensor(x)).data, naive((5, 1e-4, 0.75, 2.0), x), rtol=1e-12)


@pytest.mark.parametrize(("options", "message"), [
    ({"size": 4}, r"local_response_norm: size is an odd positive int, not 4 \(for even sizes frameworks disagree about the middle\)"),
    ({"size": 0}, "local_response_norm: size is an odd positive int, not 0"),
    ({"size": -3}, "local_response_norm: size is an odd positive int, not -3"),
    ({"size": 3.0}, "local_response_norm: size is an odd positive int, not 3.0"),
    ({"k": 0}, "local_response_norm: k is positive and alpha not negative, so that s cannot be zero; got k=0, alpha=0.0001"),
    ({"alpha": -1}, "local_response_norm: k is positive and alpha not negative, so that s cannot be zero; got k=2.0, alpha=-1"),
    ({"k": float("nan")}, "local_response_norm: k is positive .* got k=nan"),
])
def test_bad_constants_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ops.local_response_norm(Tensor(np.zeros((1, 4, 2, 2), np.float32)), **options)


def test_bad_images_are_refused():
    with pytest.raises(ValueError, match=r"local_response_norm: x is \(N, C, H, W\), .*\(4, 2, 2\); for one image use x.reshape"):
        ops.local_response_norm(Tensor(np.zeros((4, 2, 2), np.float32)))
    with pytest.raises(ValueError, match=r"local_response_norm: x is empty, its shape is \(0, 4, 2, 2\)"):
        ops.local_response_norm(Tensor(np.zeros((0, 4, 2, 2), np.float32)))
    with pytest.raises(TypeError, match="local_response_norm: x is int64; float32 or float64 is wanted"):
        ops.local_response_norm(Tensor(np.zeros((1, 4, 2, 2), np.int64)))
