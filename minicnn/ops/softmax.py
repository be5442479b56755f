"""Softmax turns scores into probabilities that add up to 1; log-softmax gives their logarithms.

    p     = e^x / sum e^x                       l     = log p = x - log sum e^x
    dL/dx = p * (gp - sum gp*p)                 dL/dx = gl - p * sum gl

Adding a constant to all scores changes nothing, so the largest score is subtracted first, and nothing overflows.
"""

import numpy as np

from minicnn.autograd import Function
from minicnn.backend import cuda
from minicnn.backend.arrays import by_device, xp_of
from minicnn.ops.checks import check_float
from minicnn.tensor import Tensor


class Softmax(Function):
    def __init__(self, axis: int = -1) -> None:
        self.axis = axis

    def forward(self, x):
        p = xp_of(x).exp(log_softmax_of(x, self.axis))
        return p, (p,)

    def backward(self, gp, p):
        return p * (gp - (gp * p).sum(axis=self.axis, keepdims=True))


class LogSoftmax(Function):
    def __init__(self, axis: int = -1) -> None:
        self.axis = axis

    def forward(self, x):
        y = log_softmax_of(x, self.axis)
        return y, (y,)

    def backward(self, gy, y):
        return log_softmax_gradient(gy, y, self.axis)


def log_softmax_cpu(x, axis):
    shifted = x - x.max(axis=axis, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))


def log_softmax_gpu(x, axis):
    return launch_per_row("log_softmax", axis, x)


def log_softmax_gradient_cpu(gy, y, axis):
    return gy - np.exp(y) * gy.sum(axis=axis, keepdims=True)


def log_softmax_gradient_gpu(gy, y, axis):
    return launch_per_row("log_softmax_backward", axis, gy, y)


def launch_per_row(kernel, axis, *arrays):
    """The output of a kernel that takes matrices: `axis` of the arrays becomes the rows, one block of threads for each."""
    xp = xp_of(arrays[0])
    matrices = [xp.ascontiguousarray(xp.moveaxis(a, axis, -1)) for a in arrays]
    y = xp.empty_like(matrices[0])
    columns = y.shape[-1]
    rows = y.size // columns
    cuda.launch_block_reduction("ops/softmax.cu", kernel, rows, rows, columns, *matrices, y, dtype=y.dtype)
    return xp.moveaxis(y, -1, axis)


log_softmax_of = by_device(log_softmax_cpu, log_softmax_gpu)
log_softmax_gradient = by_device(log_softmax_gradient_cpu, log_softmax_gradient_gpu)


def softmax(x: Tensor, axis: int = -1) -> Tensor:
    """Softmax: probabilities e^x / sum e^x along one axis, from scores.

    Args:
        x: scores, any shape with at least one axis, float32 or float64.
        axis: the axis along which the probabilities add up to 1; the last by default. (PyTorch calls it dim.)

    Returns a Tensor of the shape and dtype of x. Raises ValueError if x has no such axis or it is empty, TypeError for another dtype.
    Source: Bridle 1990, "Probabilistic interpretation of feedforward classification network outputs".
    """
    check_float("softmax", x)
    return Softmax(check_axis("softmax", x, axis))(x)


def log_softmax(x: Tensor, axis: int = -1) -> Tensor:
    """Log-softmax: the logarithms of the softmax along one axis, finite even where a probability rounds to 0.

    Arguments and errors as for `softmax`. Returns a Tensor of the shape and dtype of x.
    """
    check_float("log_softmax", x)
    return LogSoftmax(check_axis("log_softmax", x, axis))(x)


def check_axis(op, x, axis):
    """Return `axis`. ValueError unless x has this axis and it is not empty."""
    if not isinstance(axis, int) or not -x.ndim <= axis < x.ndim or x.shape[axis] == 0:
        raise ValueError(f"{op}: axis must be a non-empty axis of x, which has shape {x.shape}, got {axis!r}")
    return axis
