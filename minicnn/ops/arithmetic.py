"""Sums, products and powers of tensors, with NumPy's broadcasting.

    y = a + b       dL/da = gy              dL/db = gy
    y = a - b       dL/da = gy              dL/db = -gy
    y = a * b       dL/da = gy * b          dL/db = gy * a
    y = a / b       dL/da = gy / b          dL/db = -gy * a / b^2
    y = a ^ n       dL/da = gy * n * a^(n-1)
    y = a @ b       dL/da = gy @ b^T        dL/db = a^T @ gy
    y = e^a         dL/da = gy * y
    y = log a       dL/da = gy / a

An input that was broadcast was used many times, so its gradients add up: `unbroadcast`.
"""

import numpy as np

from minicnn import parallel
from minicnn.autograd import Function
from minicnn.backend import device_scope, is_array, xp_of
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
        return (unbroadcast(gy * b, a.shape) if self.needs[0] else None,
                unbroadcast(gy * a, b.shape) if self.needs[1] else None)


class Div(Function):
    def forward(self, a, b):
        return a / b, (a, b)

    def backward(self, gy, a, b):
        return (unbroadcast(gy / b, a.shape) if self.needs[0] else None,
                unbroadcast(-gy * (a / b) / b, b.shape) if self.needs[1] else None)


class Power(Function):
    def __init__(self, exponent=2):
        self.exponent = exponent

    def forward(self, a):
        return a ** self.exponent, (a,)

    def backward(self, gy, a):
        n = self.exponent
        return gy * n * a ** (n - 1) if n else gy * 0           # a^0 is 1 everywhere, at 0 too


class MatMul(Function):
    def forward(self, a, b):
        return product(a, b), (a, b)

    def backward(self, gy, a, b):
        return (unbroadcast(product(gy, b.swapaxes(-1, -2)), a.shape) if self.needs[0] else None,
                unbroadcast(product(a.swapaxes(-1, -2), gy), b.shape) if self.needs[1] else None)


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


def product(a, b):
    """a @ b, on all cores for two matrices."""
    return parallel.matmul(a, b) if a.ndim == b.ndim == 2 else a @ b


def unbroadcast(g, shape):
    """`g` summed over every axis along which an array of `shape` was repeated."""
    if g.shape == shape:
        return g
    g = g.sum(axis=tuple(range(g.ndim - len(shape))))
    repeated = tuple(i for i, size in enumerate(shape) if size == 1 and g.shape[i] != 1)
    return g.sum(axis=repeated, keepdims=True) if repeated else g


def operands(op, a, b):
    """Both as tensors that can be broadcast together: numbers take the other's dtype, arrays are wrapped as they are."""
    like = a if isinstance(a, Tensor) else b
    if not isinstance(like, Tensor):
        raise TypeError(f"{op}: one of a and b is a Tensor, but these are {type(a).__name__} and {type(b).__name__}")
    a, b = (as_tensor(op, value, like) for value in (a, b))
    try:
        np.broadcast_shapes(a.shape, b.shape)
    except ValueError:
        raise ValueError(f"{op}: shapes {a.shape} and {b.shape} cannot be broadcast together") from None
    return a, b


def as_tensor(op, value, like):
    """A number or an array as a Tensor beside `like`."""
    if isinstance(value, Tensor):
        return value
    if is_array(value):
        return Tensor(value)
    if isinstance(value, (int, float, np.number)):
        with device_scope(like.data):
            return Tensor(xp_of(like.data).asarray(value, dtype=like.dtype if like.dtype.kind == "f" else None))
    raise TypeError(f"{op}: a Tensor, an array or a number is wanted, not {type(value).__name__}")


def add(a, b):
    """a + b, broadcast."""
    return Add()(*operands("add", a, b))


def sub(a, b):
    """a - b, broadcast."""
    return Sub()(*operands("sub", a, b))


def mul(a, b):
    """a * b, element by element, broadcast."""
    return Mul()(*operands("mul", a, b))


def div(a, b):
    """a / b, element by element, broadcast."""
    return Div()(*operands("div", a, b))


def power(a, exponent):
    """a ** exponent, for a constant number as exponent. TypeError for a tensor as exponent."""
    if not isinstance(exponent, (int, float, np.number)):
        raise TypeError(f"power: the exponent is a plain number, not {type(exponent).__name__}; a**b is exp(log(a) * b)")
    return Power(exponent if isinstance(exponent, int) else float(exponent))(a)


def matmul(a, b):
    """a @ b for matrices, or stacks of matrices that can be broadcast. ValueError where the shapes do not fit."""
    a, b = (as_tensor("matmul", v, a if isinstance(a, Tensor) else b) for v in (a, b))
    if a.ndim < 2 or b.ndim < 2 or a.shape[-1] != b.shape[-2]:
        raise ValueError(f"matmul: (..., n, k) @ (..., k, m) is wanted, not {a.shape} @ {b.shape}")
    try:
        np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        raise ValueError(f"matmul: stacks of shapes {a.shape} and {b.shape} cannot be broadcast together") from None
    return MatMul()(a, b)


def exp(a):
    """e ** a, element by element."""
    return Exp()(a)


def log(a):
    """The natural logarithm, element by element."""
    return Log()(a)
