"""ReLU: inputs of several shapes, none near 0, where there is no derivative."""

import numpy as np

from minicnn.learn.cases import distinct_values
from minicnn.ops.relu import ReLU

CASES = {
    "images":                   ((), [distinct_values(2, 2, 2, 3)]),
    "rows":                     ((), [distinct_values(3, 4)]),
    "one axis":                 ((), [distinct_values(5)]),
    "all negative but one":     ((), [distinct_values(2, 4) - 0.3]),
    "values far from 1":        ((), [distinct_values(2, 4) * 1000]),
}


def naive(args, x):
    y = np.zeros_like(x)
    for i in np.ndindex(*x.shape):
        y[i] = x[i] if x[i] > 0 else 0
    return y


class MaskForgotten(ReLU):
    "The mask is missing: the gradient passes everywhere."
    def backward(self, gy, *saved):
        return gy


class MaskInverted(ReLU):
    "The mask is inverted: the gradient passes where x is negative."
    def backward(self, gy, *saved):
        return gy - super().backward(gy, *saved)


class SignInsteadOfStep(ReLU):
    "Multiplied by the sign of x instead of by 1 or 0: the gradient is -gy where x is negative, instead of 0."
    def backward(self, gy, *saved):
        return 2 * super().backward(gy, *saved) - gy


class MultipliedByY(ReLU):
    "Multiplied by y instead of by y > 0."
    def forward(self, x):
        self.y, saved = super().forward(x)
        return self.y, saved

    def backward(self, gy, *saved):
        return gy * self.y


WRONG = [MaskForgotten, MaskInverted, SignInsteadOfStep, MultipliedByY]


OPS = {
    ReLU: (ReLU, CASES, naive, WRONG),
}
