"""The two squashing functions, also where e^x would overflow."""

import math

import numpy as np
import pytest
from check import Remembers, check_op, values

from minicnn import Tensor, ops
from minicnn.ops.sigmoid import Sigmoid
from minicnn.ops.tanh import Tanh

CASES = {
    "images":   ((), values((2, 2, 2, 3))),
    "rows":     ((), values((3, 4))),
    "a number": ((), [np.array(0.7)]),
}


def each(f):
    """The function that applies `f` to each number."""
    def naive(args, x):
        y = np.zeros_like(x)
        for i in np.ndindex(*x.shape):
            y[i] = f(x[i])
        return y
    return naive


naive_tanh = each(lambda x: (math.exp(x) - math.exp(-x)) / (math.exp(x) + math.exp(-x)))
naive_sigmoid = each(lambda x: 1 / (1 + math.exp(-x)))


class SquareForgotten(Tanh):
    "1 - y instead of 1 - y^2."
    def backward(self, gy, *saved):
        return gy * (1 - naive_tanh((), self.x))

    def forward(self, x):
        self.x = x
        return super().forward(x)


class DerivativeAtX(Remembers, Tanh):
    "1 - x^2: the input where the answer belongs."
    def backward(self, gy, *saved):
        return gy * (1 - self.arrays[0] ** 2)


class TanhNotDerived(Tanh):
    "The gradient goes through as it is."
    def backward(self, gy, *saved):
        return gy


class RuleOfTanh(Remembers, Sigmoid):
    "1 - y^2 instead of y * (1 - y)."
    def backward(self, gy, *saved):
        return gy * (1 - naive_sigmoid((), self.arrays[0]) ** 2)


class HalfForgotten(Sigmoid):
    "The form with tanh(x/2) / 2 is derived without its inner 1/2."
    def backward(self, gy, *saved):
        return 2 * super().backward(gy, *saved)


class SecondFactorLost(Remembers, Sigmoid):
    "y instead of y * (1 - y)."
    def backward(self, gy, *saved):
        return gy * naive_sigmoid((), self.arrays[0])


@pytest.mark.parametrize("case", CASES)
def test_tanh(case, device):
    check_op(Tanh, *CASES[case], naive_tanh, [SquareForgotten, DerivativeAtX, TanhNotDerived], device)


@pytest.mark.parametrize("case", CASES)
def test_sigmoid(case, device):
    check_op(Sigmoid, *CASES[case], naive_sigmoid, [RuleOfTanh, HalfForgotten, SecondFactorLost], device)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_far_from_zero(dtype):
    """Saturated, without a warning of overflow, and with no gradient left."""
    for op, low in ((ops.tanh, -1), (ops.sigmoid, 0)):
        x = Tensor(np.array([-1000, 1000], dtype), requires_grad=True)
        y = op(x)
        y.sum().backward()
        assert y.data.tolist() == [low, 1]
        assert x.grad.tolist() == [0, 0]


@pytest.mark.parametrize("op", [ops.tanh, ops.sigmoid])
def test_integers_are_refused(op):
    with pytest.raises(TypeError, match=rf"{op.__name__}: x is int64; float32 or float64 is wanted: Tensor\(array.astype\('float32'\)\)"):
        op(Tensor(np.arange(3)))
