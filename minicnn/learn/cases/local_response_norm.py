"""Local response normalization: several window sizes, some larger than the number of channels, and several beta.

alpha is near 1. With the paper's 1e-4 neighbours hardly matter, and a backward without them would be correct to four digits.
"""

import numpy as np

from minicnn.learn.cases import Remembers, randn
from minicnn.ops.local_response_norm import LocalResponseNorm

CASES = {                               # size alpha beta  k
    "AlexNet's, with alpha 1":          ((5, 1.0, 0.75, 2.0), randn((2, 7, 1, 2))),
    "a window of three channels":       ((3, 0.9, 0.75, 1.0), randn((2, 4, 2, 2))),
    "a window of one channel":          ((1, 0.8, 0.75, 1.5), randn((2, 3, 2, 2))),
    "a window wider than all channels": ((9, 1.1, 0.75, 2.0), randn((2, 3, 2, 1))),
    "a window of all channels":         ((5, 0.7, 0.75, 1.0), randn((1, 3, 2, 3))),
    "one channel":                      ((5, 1.0, 0.75, 1.0), randn((2, 1, 3, 2))),
    "beta 1/2":                         ((3, 1.0, 0.5, 1.0), randn((2, 4, 1, 3))),
    "beta 1":                           ((5, 1.2, 1.0, 2.0), randn((1, 6, 2, 2))),
    "many channels":                    ((5, 1.0, 0.75, 2.0), randn((1, 70, 1, 2))),
    "many channels, a wide window":     ((75, 0.1, 0.75, 2.0), randn((1, 70, 1, 1))),
    "large values":                     ((3, 1.0, 0.75, 2.0), [10 * a for a in randn((1, 5, 2, 2))]),
}


def naive(args, x):
    """x_c / (k + alpha * sum of x_j^2 over |j - c| <= r) ^ beta."""
    size, alpha, beta, k = args
    y = np.zeros_like(x)
    for n, c, i, j in np.ndindex(*x.shape):
        s = k
        for neighbour in range(c - (size - 1) // 2, c + (size - 1) // 2 + 1):
            if 0 <= neighbour < x.shape[1]:
                s += alpha * x[n, neighbour, i, j] ** 2
        y[n, c, i, j] = x[n, c, i, j] / s ** beta
    return y


class WrongNorm(Remembers, LocalResponseNorm):
    """A correct backward: the gradient through the numerator minus that through the denominators s_j; each mistake breaks `combine`."""

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
    """At channel c, the sum over the channels in its window."""
    C, r = x.shape[1], (size - 1) // 2
    return np.stack([x[:, max(0, c - r):c + r + 1].sum(axis=1) for c in range(C)], axis=1)


def several_channels(args, x):
    return args[0] > 1 and x.shape[1] > 1


class NeighboursForgotten(WrongNorm):
    "The denominator is treated as a constant: the sum over the neighbours is missing."
    def combine(self, own, neighbours, gy, x, s):
        return own


class FactorTwoLost(WrongNorm):
    "The factor 2 is missing: the derivative of x^2 is taken as x."
    def combine(self, own, neighbours, gy, x, s):
        return own - neighbours / 2


class SignLost(WrongNorm):
    "The sign of the second term is wrong: a larger denominator makes a smaller output."
    def combine(self, own, neighbours, gy, x, s):
        return own + neighbours


class BetaLost(WrongNorm):
    "The factor beta is missing from the derivative of s^-beta."
    def combine(self, own, neighbours, gy, x, s):
        return own - neighbours / self.constants[2]

    @staticmethod
    def affects(args, x):
        return args[2] != 1


class ExponentNotLowered(WrongNorm):
    "The exponent is not lowered: the derivative of s^-b keeps s^-b instead of s^(-b-1)."
    def combine(self, own, neighbours, gy, x, s):
        size, alpha, beta, _ = self.constants
        return own - 2 * alpha * beta * x * window_sum(gy * x * s ** -beta, size)


class OwnDenominatorOnly(WrongNorm):
    "Only the channel's own denominator is used: x_c is in the s_j of its neighbours too."
    def combine(self, own, neighbours, gy, x, s):
        _, alpha, beta, _ = self.constants
        return own - 2 * alpha * beta * x * gy * x * s ** (-beta - 1)

    affects = staticmethod(several_channels)


class FactorInsideSum(WrongNorm):
    "The factor x_c is inside the sum over the neighbours as x_j, instead of in front of it."
    def combine(self, own, neighbours, gy, x, s):
        size, alpha, beta, _ = self.constants
        return own - 2 * alpha * beta * window_sum(gy * x * x * s ** (-beta - 1), size)

    affects = staticmethod(several_channels)


class AlphaOverSize(WrongNorm):
    "Backward divides alpha by the window size and forward does not: two conventions in one op."
    def combine(self, own, neighbours, gy, x, s):
        return own - neighbours / self.constants[0]

    @staticmethod
    def affects(args, x):
        return args[0] > 1


WRONG = [NeighboursForgotten, FactorTwoLost, SignLost, BetaLost, ExponentNotLowered, OwnDenominatorOnly, FactorInsideSum, AlphaOverSize]


OPS = {
    LocalResponseNorm: (LocalResponseNorm, CASES, naive, WRONG),
}
