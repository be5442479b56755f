"""Scores become probabilities that add up to 1; and their logarithms.

    p     = e^x / sum e^x                       l     = log p = x - log sum e^x
    dL/dx = p * (gp - sum gp*p)                 dL/dx = gl - p * sum gl

Adding a constant to all scores changes nothing, so the largest is subtracted first and nothing overflows.
"""

from minicnn.autograd import Function
from minicnn.backend import xp_of
from minicnn.ops.layout import check_float


class LogSoftmax(Function):
    def __init__(self, axis=-1):
        self.axis = axis

    def forward(self, x):
        y = log_softmax_of(x, self.axis)
        return y, (y,)

    def backward(self, gy, y):
        return gy - xp_of(y).exp(y) * gy.sum(axis=self.axis, keepdims=True)


class Softmax(Function):
    def __init__(self, axis=-1):
        self.axis = axis

    def forward(self, x):
        p = xp_of(x).exp(log_softmax_of(x, self.axis))
        return p, (p,)

    def backward(self, gp, p):
        return p * (gp - (gp * p).sum(axis=self.axis, keepdims=True))


def log_softmax_of(x, axis):
    """log softmax of a plain array."""
    xp = xp_of(x)
    shifted = x - x.max(axis=axis, keepdims=True)
    return shifted - xp.log(xp.exp(shifted).sum(axis=axis, keepdims=True))


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
