"""Dropout with a fixed mask, for several probabilities."""

import numpy as np

from minicnn.backend import random
from minicnn.learn.cases import randn
from minicnn.ops.dropout import Dropout

CASES = {
    "p = 0.5":      ((0.5,), randn((2, 8))),
    "p = 0.25":     ((0.25,), randn((2, 2, 2, 2))),
    "p = 0.9":      ((0.9,), randn((3, 8))),
    "one axis":     ((0.4,), randn((12,))),
}


class OneMask(Dropout):
    """Dropout that draws the same mask at each call: the gradient check calls forward many times and needs one function."""

    def __init__(self, p):
        super().__init__(p, random.generator(random.CHECKS, 5, seed=1))


def naive(args, x):
    """The mask by its definition: a unit is kept if its 16 random bits, as a number, are at least p * 65536."""
    p, = args
    bits = random.generator(random.CHECKS, 5, seed=1).bit_generator.random_raw(x.size)
    y = np.zeros(x.size)
    for i, value in enumerate(x.ravel()):
        number = int(bits[i // 4]) >> 16 * (i % 4) & 0xffff         # four 16-bit numbers in each 64-bit word, the lowest bits first
        y[i] = value / (1 - p) if number >= round(p * 65536) else 0
    return y.reshape(x.shape)


class MaskNotScaled(OneMask):
    "The mask is not scaled: backward does not divide by 1 - p, as forward does."
    def backward(self, gy, *saved):
        return super().backward(gy, *saved) * (1 - self.p)


class MaskForgotten(OneMask):
    "The mask is not applied: dropped units get a gradient too."
    def backward(self, gy, *saved):
        return gy / (1 - self.p)


class MaskInverted(OneMask):
    "The mask is inverted: the dropped units get the gradient."
    def backward(self, gy, *saved):
        return gy / (1 - self.p) - super().backward(gy, *saved)


class NewMask(OneMask):
    "Backward draws a new mask instead of using that of forward."
    def backward(self, gy, *saved):
        return gy * random.keep_mask(random.generator(random.CHECKS, 6, seed=1), gy.shape, self.p) / (1 - self.p)


class ScaledByP(OneMask):
    "Scaled by 1/p instead of 1/(1-p): p is the probability to drop a unit, not to keep it."
    def backward(self, gy, *saved):
        return super().backward(gy, *saved) * (1 - self.p) / self.p

    @staticmethod
    def affects(args, x):
        return args[0] != 0.5


class ScaledTwice(OneMask):
    "Scaled twice: the gradient is divided by (1 - p)^2."
    def backward(self, gy, *saved):
        return super().backward(gy, *saved) / (1 - self.p)


WRONG = [MaskNotScaled, MaskForgotten, MaskInverted, NewMask, ScaledByP, ScaledTwice]


OPS = {
    Dropout: (OneMask, CASES, naive, WRONG),
}
