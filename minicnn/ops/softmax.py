"""Scores become probabilities that add up to 1; and their logarithms.

    p     = e^x / sum e^x                       l     = log p = x - log sum e^x
    dL/dx = p * (gp - sum gp*p)                 dL/dx = gl - p * sum gl

Adding a constant to all scores changes nothing, so the largest is subtracted first and nothing overflows.
"""

import numpy as np

from minicnn import gpu
from minicnn.autograd import Function
from minicnn.backend import by_device, xp_of
from minicnn.ops.layout import check_float


class LogSoftmax(Function):
    def __init__(self, axis=-1):
        self.axis = axis

    def forward(self, x):
        y = log_softmax_of(x, self.axis)
        return y, (y,)

    def backward(self, gy, y):
        return log_softmax_gradient(gy, y, self.axis)


class Softmax(Function):
    def __init__(self, axis=-1):
        self.axis = axis

    def forward(self, x):
        p = xp_of(x).exp(log_softmax_of(x, self.axis))
        return p, (p,)

    def backward(self, gp, p):
        return p * (gp - (gp * p).sum(axis=self.axis, keepdims=True))


def log_softmax_cpu(x, axis):
    """log softmax of a plain array."""
    shifted = x - x.max(axis=axis, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))


def log_softmax_gradient_cpu(gy, y, axis):
    return gy - np.exp(y) * gy.sum(axis=axis, keepdims=True)


def log_softmax_gpu(x, axis):
    return along_rows("log_softmax", axis, x)


def log_softmax_gradient_gpu(gy, y, axis):
    return along_rows("log_softmax_backward", axis, gy, y)


def along_rows(kernel, axis, *arrays):
    """The kernel's answer for arrays whose `axis` it sees as rows of a matrix."""
    xp = xp_of(arrays[0])
    rows_of = [xp.ascontiguousarray(xp.moveaxis(a, axis, -1)) for a in arrays]
    y = xp.empty_like(rows_of[0])
    columns = y.shape[-1]
    rows = y.size // columns
    gpu.run_together("ops/softmax.cu", kernel, rows, rows, columns, *rows_of, y, dtype=y.dtype)
    return xp.moveaxis(y, -1, axis)


log_softmax_of = by_device(log_softmax_cpu, log_softmax_gpu)
log_softmax_gradient = by_device(log_softmax_gradient_cpu, log_softmax_gradient_gpu)


def softmax(x, axis=-1):
    """Probabilities along `axis`, from scores."""
    check_float("softmax", x)
    return Softmax(checked_axis("softmax", x, axis))(x)


def log_softmax(x, axis=-1):
    """Logarithms of the probabilities along `axis`, from scores."""
    check_float("log_softmax", x)
    return LogSoftmax(checked_axis("log_softmax", x, axis))(x)


def checked_axis(op, x, axis):
    """`axis`, or an error: it must exist and not be empty."""
    if not isinstance(axis, int) or not -x.ndim <= axis < x.ndim or x.shape[axis] == 0:
        raise ValueError(f"{op}: x of shape {x.shape} has no axis {axis!r} with anything on it")
    return axis
