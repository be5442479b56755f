"""Sigmoid, the logistic function: it maps a score to a probability.

    y     = 1 / (1 + e^-x)  =  (1 + tanh(x/2)) / 2      the second form never overflows
    dL/dx = gy * y * (1 - y)
"""

from minicnn.autograd import Function
from minicnn.backend.arrays import xp_of
from minicnn.ops.checks import check_float
from minicnn.tensor import Tensor


class Sigmoid(Function):
    def forward(self, x):
        y = 0.5 * (1 + xp_of(x).tanh(0.5 * x))
        return y, (y,)

    def backward(self, gy, y):
        return gy * y * (1 - y)


def sigmoid(x: Tensor) -> Tensor:
    """The logistic function, 1 / (1 + e^-x), elementwise.

    x: any shape, float32 or float64 (TypeError otherwise). Returns a Tensor of its shape and dtype, with values from 0 to 1.
    Source: the unit of Rumelhart, Hinton, Williams 1986, "Learning representations by back-propagating errors".
    """
    check_float("sigmoid", x)
    return Sigmoid()(x)
