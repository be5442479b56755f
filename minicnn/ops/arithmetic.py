"""Arithmetic of tensors, elementwise with NumPy's broadcasting, and the matrix product.

    y = a + b       dL/da = gy              dL/db = gy
    y = a - b       dL/da = gy              dL/db = -gy
    y = a * b       dL/da = gy * b          dL/db = gy * a
    y = a / b       dL/da = gy / b          dL/db = -gy * a / b^2
    y = a ^ n       dL/da = gy * n * a^(n-1)
    y = a @ b       dL/da = gy @ b^T        dL/db = a^T @ gy
    y = e^a         dL/da = gy * y
    y = log a       dL/da = gy / a

An input that was broadcast was used many times, so the gradients of its uses add up: `unbroadcast`.
"""

from typing import Any

import numpy as np

from minicnn.autograd import Function
from minicnn.backend import threads
from minicnn.backend.arrays import device_scope, is_array, xp_of
from minicnn.tensor import Tensor


class Add(Function):
    def forward(self, a, b):
        return a + b, ()

    def backward(self, gy):
        return tuple(unbroadcast(gy, shape) for shape in self.shapes)


class Sub(Function):
    def forward(self, a, b):
        return a - b, ()

    def backward(self, gy):
        return unbroadcast(gy, self.shapes[0]), unbroadcast(-gy, self.shapes[1])


class Mul(Function):
    def forward(self, a, b):
        return a * b, (a, b)

    def backward(self, gy, a, b):
        return (unbroadcast(gy * b, a.shape) if self.needs_input_grad[0] else None,
                unbroadcast(gy * a, b.shape) if self.needs_input_grad[1] else None)


class Div(Function):
    def forward(self, a, b):
        return a / b, (a, b)

    def backward(self, gy, a, b):
        return (unbroadcast(gy / b, a.shape) if self.needs_input_grad[0] else None,
                unbroadcast(-gy * (a / b) / b, b.shape) if self.needs_input_grad[1] else None)


class Power(Function):
    def __init__(self, exponent: float = 2) -> None:
        self.exponent = exponent

    def forward(self, a):
        return a ** self.exponent, (a,)

    def backward(self, gy, a):
        n = self.exponent
        return gy * n * a ** (n - 1) if n else gy * 0           # a^0 is 1 everywhere, at 0 too


class MatMul(Function):
    def forward(self, a, b):
        return matrix_product(a, b), (a, b)

    def backward(self, gy, a, b):
        return (unbroadcast(matrix_product(gy, b.swapaxes(-1, -2)), a.shape) if self.needs_input_grad[0] else None,
                unbroadcast(matrix_product(a.swapaxes(-1, -2), gy), b.shape) if self.needs_input_grad[1] else None)


class Exp(Function):
    def forward(self, a):
        y = xp_of(a).exp(a)
        return y, (y,)

    def backward(self, gy, y):
        return gy * y


class Log(Function):
    def forward(self, a):
        return xp_of(a).log(a), (a,)

    def backward(self, gy, a):
        return gy / a


def matrix_product(a, b):
    """a @ b: two matrices on all cores, stacks of matrices by NumPy or CuPy."""
    return threads.matmul(a, b) if a.ndim == b.ndim == 2 else a @ b


def unbroadcast(g, shape):
    """The gradient `g` summed over every axis along which an array of `shape` was broadcast."""
    if g.shape == shape:
        return g
    g = g.sum(axis=tuple(range(g.ndim - len(shape))))
    repeated = tuple(i for i, size in enumerate(shape) if size == 1 and g.shape[i] != 1)
    return g.sum(axis=repeated, keepdims=True) if repeated else g


def operands(op, a, b):
    """Both as tensors whose shapes broadcast: a number takes the dtype of the other operand, an array keeps its own."""
    like = a if isinstance(a, Tensor) else b
    if not isinstance(like, Tensor):
        raise TypeError(f"{op}: a or b must be a Tensor, got {type(a).__name__} and {type(b).__name__}")
    a, b = (as_tensor(op, value, like) for value in (a, b))
    try:
        np.broadcast_shapes(a.shape, b.shape)
    except ValueError:
        raise ValueError(f"{op}: shapes {a.shape} and {b.shape} cannot be broadcast together") from None
    return a, b


def as_tensor(op, value, like):
    """A number or an array as a Tensor; a number gets the device of `like`, and its dtype if that is a float."""
    if isinstance(value, Tensor):
        return value
    if is_array(value):
        return Tensor(value)
    if isinstance(value, (int, float, np.number)):
        with device_scope(like.data):
            return Tensor(xp_of(like.data).asarray(value, dtype=like.dtype if like.dtype.kind == "f" else None))
    raise TypeError(f"{op}: an operand must be a Tensor, an array or a number, got {type(value).__name__}")


def add(a: Any, b: Any) -> Tensor:
    """a + b, elementwise, with NumPy's broadcasting.

    a, b: one must be a Tensor; the other may be an array, or a number, which takes the Tensor's dtype and device.
    Returns a Tensor of the broadcast shape. Raises ValueError for shapes that cannot be broadcast, TypeError for different dtypes.
    """
    return Add()(*operands("add", a, b))


def sub(a: Any, b: Any) -> Tensor:
    """a - b, elementwise. Arguments, result and errors as for `add`."""
    return Sub()(*operands("sub", a, b))


def mul(a: Any, b: Any) -> Tensor:
    """a * b, elementwise. Arguments, result and errors as for `add`."""
    return Mul()(*operands("mul", a, b))


def div(a: Any, b: Any) -> Tensor:
    """a / b, elementwise. Arguments, result and errors as for `add`."""
    return Div()(*operands("div", a, b))


def power(a: Tensor, exponent: float) -> Tensor:
    """a ** exponent, elementwise, for a constant exponent (an int or a float). TypeError for an exponent that is a Tensor."""
    if not isinstance(exponent, (int, float, np.number)):
        raise TypeError(f"power: exponent must be a number, got {type(exponent).__name__}; write a**b as exp(log(a) * b)")
    return Power(exponent if isinstance(exponent, int) else float(exponent))(a)


def matmul(a: Any, b: Any) -> Tensor:
    """The matrix product a @ b, of matrices or of stacks of matrices whose leading axes broadcast.

    a, b: (..., n, k) and (..., k, m); one must be a Tensor, the other may be an array. Returns a Tensor (..., n, m).
    Raises ValueError for shapes that do not match, TypeError for different dtypes.
    """
    a, b = (as_tensor("matmul", v, a if isinstance(a, Tensor) else b) for v in (a, b))
    if a.ndim < 2 or b.ndim < 2 or a.shape[-1] != b.shape[-2]:
        raise ValueError(f"matmul: shapes must be (..., n, k) @ (..., k, m), got {a.shape} @ {b.shape}")
    try:
        np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        raise ValueError(f"matmul: stacks of shapes {a.shape} and {b.shape} cannot be broadcast together") from None
    return MatMul()(a, b)


def exp(a: Tensor) -> Tensor:
    """The exponential e ** a, elementwise, for any shape."""
    return Exp()(a)


def log(a: Tensor) -> Tensor:
    """The natural logarithm, elementwise, for any shape. As in NumPy, log 0 is -inf and the log of a negative number NaN."""
    return Log()(a)
