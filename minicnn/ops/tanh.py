"""The squashing function that ReLU replaced.                            (AlexNet, section 3.1 and figure 1)

    y     = tanh(x)
    dL/dx = gy * (1 - y^2)

Far from 0 the factor 1 - y^2 vanishes: the unit is saturated and learns slowly.
"""

from minicnn.autograd import Function
from minicnn.backend import xp_of
from minicnn.ops.layout import check_float


class Tanh(Function):
    def forward(self, x):
        y = xp_of(x).tanh(x)
        return y, (y,)

    def backward(self, gy, y):
        return gy * (1 - y * y)


def tanh(x):
    """The hyperbolic tangent, element by element."""
    check_float("tanh", x)
    return Tanh()(x)
