"""Tanh and sigmoid: inputs of several shapes."""

import math

import numpy as np

from minicnn.learn.cases import Remembers, randn
from minicnn.ops.sigmoid import Sigmoid
from minicnn.ops.tanh import Tanh

CASES = {
    "images":   ((), randn((2, 2, 2, 3))),
    "rows":     ((), randn((3, 4))),
    "a scalar": ((), [np.array(0.7)]),
}


def each(f):
    """naive(args, x) for an elementwise op: f applied to each element."""
    def naive(args, x):
        y = np.zeros_like(x)
        for i in np.ndindex(*x.shape):
            y[i] = f(x[i])
        return y
    return naive


naive_tanh = each(lambda x: (math.exp(x) - math.exp(-x)) / (math.exp(x) + math.exp(-x)))
naive_sigmoid = each(lambda x: 1 / (1 + math.exp(-x)))


class SquareForgotten(Tanh):
    "The square is missing: 1 - y instead of 1 - y^2."
    def backward(self, gy, *saved):
        return gy * (1 - naive_tanh((), self.x))

    def forward(self, x):
        self.x = x
        return super().forward(x)


class DerivativeAtX(Remembers, Tanh):
    "The input is used instead of the output: 1 - x^2 instead of 1 - y^2."
    def backward(self, gy, *saved):
        return gy * (1 - self.arrays[0] ** 2)


class DerivativeForgotten(Tanh):
    "The derivative 1 - y^2 is missing: gy is returned unchanged."
    def backward(self, gy, *saved):
        return gy


class DerivativeOfTanh(Remembers, Sigmoid):
    "The derivative of tanh: 1 - y^2 instead of y * (1 - y)."
    def backward(self, gy, *saved):
        return gy * (1 - naive_sigmoid((), self.arrays[0]) ** 2)


class HalfForgotten(Sigmoid):
    "The inner factor 1/2 of tanh(x/2) is missing, so the gradient is twice too large."
    def backward(self, gy, *saved):
        return 2 * super().backward(gy, *saved)


class FactorForgotten(Remembers, Sigmoid):
    "The factor 1 - y is missing: y instead of y * (1 - y)."
    def backward(self, gy, *saved):
        return gy * naive_sigmoid((), self.arrays[0])


OPS = {
    Tanh: (Tanh, CASES, naive_tanh, [SquareForgotten, DerivativeAtX, DerivativeForgotten]),
    Sigmoid: (Sigmoid, CASES, naive_sigmoid, [DerivativeOfTanh, HalfForgotten, FactorForgotten]),
}
