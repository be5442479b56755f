"""Hyperbolic tangent: the squashing function that ReLU replaced.               (AlexNet, section 3.1 and figure 1)

    y     = tanh(x)
    dL/dx = gy * (1 - y^2)

Far from 0 the factor 1 - y^2 vanishes: the unit is saturated and learns slowly.
"""

from minicnn.autograd import Function
from minicnn.backend.arrays import xp_of
from minicnn.ops.checks import check_float
from minicnn.tensor import Tensor


class Tanh(Function):
    def forward(self, x):
        y = xp_of(x).tanh(x)
        return y, (y,)

    def backward(self, gy, y):
        return gy * (1 - y * y)


def tanh(x: Tensor) -> Tensor:
    """The hyperbolic tangent, elementwise.

    x: any shape, float32 or float64 (TypeError otherwise). Returns a Tensor of its shape and dtype, with values from -1 to 1.
    """
    check_float("tanh", x)
    return Tanh()(x)
