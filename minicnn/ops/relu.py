"""What is negative becomes zero.                                        (AlexNet, section 3.1)

    y     = max(x, 0)
    dL/dx = gy where y > 0, else 0

At x = 0 there is no derivative; 0 is taken, as everybody does.
"""

import numpy as np

from minicnn import gpu
from minicnn.autograd import Function
from minicnn.backend import by_device, xp_of
from minicnn.ops.layout import check_float
from minicnn.parallel import over_batch


class ReLU(Function):
    def forward(self, x):
        y = xp_of(x).empty_like(x)                  # in the memory order of x, whichever it is
        rectify(x, y)
        return y, (y,)

    def backward(self, gy, y):
        gx = xp_of(gy).empty_like(y)
        pass_where_positive(gy, y, gx)
        return gx


def rectify_cpu(x, y):
    over_batch(lambda n: np.maximum(x[n], 0, out=y[n]), x, bytes_each=2 * x[0].nbytes)


def pass_where_positive_cpu(gy, y, gx):
    over_batch(lambda n: np.multiply(gy[n], y[n] > 0, out=gx[n]), y, bytes_each=3 * y[0].nbytes)


def rectify_gpu(x, y):
    gpu.elementwise("T x", "T y", "y = x < 0 ? T(0) : x", "relu")(x, y)             # (a NaN stays one)


def pass_where_positive_gpu(gy, y, gx):
    gpu.elementwise("T gy, T y", "T gx", "gx = y > 0 ? gy : T(0)", "relu_backward")(gy, y, gx)


rectify = by_device(rectify_cpu, rectify_gpu)
pass_where_positive = by_device(pass_where_positive_cpu, pass_where_positive_gpu)


def relu(x):
    """max(x, 0), element by element, for x (N, ...). Source: Nair and Hinton 2010; AlexNet, section 3.1."""
    check_float("relu", x)
    if x.ndim == 0 or x.size == 0:
        raise ValueError(f"relu: x is a non-empty (N, ...), but this x has shape {x.shape}")
    return ReLU()(x)
