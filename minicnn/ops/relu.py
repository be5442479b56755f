"""ReLU, the rectified linear unit: negative values become zero.                (AlexNet, section 3.1)

    y     = max(x, 0)
    dL/dx = gy where y > 0, else 0

At x = 0 there is no derivative; 0 is used, as in every framework.
"""

import numpy as np

from minicnn.autograd import Function
from minicnn.backend import cuda
from minicnn.backend.arrays import by_device, xp_of
from minicnn.backend.threads import over_batch
from minicnn.ops.checks import check_float
from minicnn.tensor import Tensor


class ReLU(Function):
    def forward(self, x):
        y = xp_of(x).empty_like(x)                  # in the memory layout of x
        relu_forward(x, y)
        return y, (y,)

    def backward(self, gy, y):
        gx = xp_of(gy).empty_like(y)
        relu_backward(gy, y, gx)
        return gx


def relu_forward_cpu(x, y):
    over_batch(lambda n: np.maximum(x[n], 0, out=y[n]), x, bytes_per_image=2 * x[0].nbytes)


def relu_forward_gpu(x, y):
    cuda.elementwise("T x", "T y", "y = x < 0 ? T(0) : x", "relu")(x, y)             # NaN stays NaN


def relu_backward_cpu(gy, y, gx):
    over_batch(lambda n: np.multiply(gy[n], y[n] > 0, out=gx[n]), y, bytes_per_image=3 * y[0].nbytes)


def relu_backward_gpu(gy, y, gx):
    cuda.elementwise("T gy, T y", "T gx", "gx = y > 0 ? gy : T(0)", "relu_backward")(gy, y, gx)


relu_forward = by_device(relu_forward_cpu, relu_forward_gpu)
relu_backward = by_device(relu_backward_cpu, relu_backward_gpu)


def relu(x: Tensor) -> Tensor:
    """The rectified linear unit, max(x, 0), elementwise. NaN stays NaN.

    x: any non-empty shape with at least one axis, float32 or float64. Returns a Tensor of its shape and dtype.
    Raises ValueError for an empty x or a single number, TypeError for another dtype.
    Source: Nair and Hinton 2010, "Rectified linear units improve restricted Boltzmann machines"; AlexNet, section 3.1.
    """
    check_float("relu", x)
    if x.ndim == 0 or x.size == 0:
        raise ValueError(f"relu: x must be a non-empty (N, ...), got shape {x.shape}")
    return ReLU()(x)
