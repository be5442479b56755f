"""Reshaping, indexing and reduction: ops that move, select or add up elements; backward returns each gradient to its element.

    reshape, flatten, transpose     gx is gy, moved back
    getitem                         gx is gy at the selected elements (added up where one was selected twice), 0 elsewhere
    sum                             gx is gy, broadcast to every element of the sum
    mean                            the same, divided by the number of elements
"""

import math
from typing import Any

from minicnn.autograd import Function
from minicnn.backend.arrays import xp_of
from minicnn.tensor import Tensor


class Reshape(Function):
    def __init__(self, shape: tuple[int, ...] = (-1,)) -> None:
        self.shape = shape

    def forward(self, x):
        return x.reshape(self.shape), ()

    def backward(self, gy):
        return gy.reshape(self.shapes[0])


class Transpose(Function):
    def __init__(self, axes: tuple[int, ...] | None = None) -> None:
        self.axes = axes

    def forward(self, x):
        return x.transpose(self.axes), ()

    def backward(self, gy):
        if self.axes is None:                           # reversing the axes is its own inverse
            return gy.transpose()
        source = [a % gy.ndim for a in self.axes]       # axis i of y is axis source[i] of x
        return gy.transpose([source.index(i) for i in range(gy.ndim)])


class GetItem(Function):
    def __init__(self, index: Any = ...) -> None:
        self.index = index

    def forward(self, x):
        return xp_of(x).asarray(x[self.index]), ()      # (NumPy returns a single element as a scalar)

    def backward(self, gy):
        xp = xp_of(gy)
        gx = xp.zeros(self.shapes[0], gy.dtype)
        xp.add.at(gx, self.index, gy)
        return gx


class Sum(Function):
    def __init__(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> None:
        self.axis, self.keepdims = axis, keepdims

    def forward(self, x):
        return xp_of(x).asarray(x.sum(axis=self.axis, keepdims=self.keepdims)), ()

    def backward(self, gy):
        shape = self.shapes[0]
        summed = normalize_axes(self.axis, len(shape))
        keepdims_shape = [1 if i in summed else size for i, size in enumerate(shape)]
        return xp_of(gy).broadcast_to(gy.reshape(keepdims_shape), shape)


class Mean(Sum):
    def forward(self, x):
        return xp_of(x).asarray(x.mean(axis=self.axis, keepdims=self.keepdims)), ()

    def backward(self, gy):
        shape = self.shapes[0]
        return super().backward(gy) / math.prod(shape[i] for i in normalize_axes(self.axis, len(shape)))


def normalize_axes(axis, ndim):
    """`axis`, which is None (all axes), an int or a tuple of ints, as a list of non-negative axes."""
    axes = range(ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    return [a % ndim for a in axes]


def check_axes(op, x, axis):
    """Return `axis`. ValueError unless it is None, or x has this axis, or all axes of the tuple."""
    axes = () if axis is None else axis if isinstance(axis, tuple) else (axis,)
    for a in axes:
        if not isinstance(a, int) or not -x.ndim <= a < x.ndim:
            raise ValueError(f"{op}: axis must be an axis of x, which has shape {x.shape}, got {a!r}")
    return axis


def reshape(x: Tensor, *shape: Any) -> Tensor:
    """The same elements, in row-major order, in another shape: reshape(x, 2, -1) or reshape(x, (2, -1)).

    One size may be -1: it is computed from the others. Raises ValueError if the number of elements would change.
    """
    shape = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
    known = math.prod(s for s in shape if s != -1)
    if shape.count(-1) > 1 or any(s < -1 for s in shape) or (x.size % max(known, 1) if -1 in shape else x.size != known):
        raise ValueError(f"reshape: x of shape {x.shape} has {x.size} elements and cannot be reshaped to {shape}")
    return Reshape(shape)(x)


def transpose(x: Tensor, *axes: Any) -> Tensor:
    """The axes in another order, transpose(x, 0, 2, 3, 1) or transpose(x, (0, 2, 3, 1)); without axes, reversed.

    Axis i of the output is axis axes[i] of x. (PyTorch calls this permute.) Raises ValueError unless every axis is given once.
    """
    axes = tuple(axes[0]) if len(axes) == 1 and isinstance(axes[0], (tuple, list)) else axes
    if axes and sorted(a % max(x.ndim, 1) for a in axes) != list(range(x.ndim)):
        raise ValueError(f"transpose: axes must be a permutation of the {x.ndim} axes of x, shape {x.shape}, got {axes}")
    return Transpose(axes or None)(x)


def flatten(x: Tensor, start_dim: int = 1) -> Tensor:
    """All axes from `start_dim` on merged into one, in (C, H, W) order whatever the memory order: weights fit PyTorch's.

    x of shape (N, C, H, W) becomes (N, C*H*W). Raises ValueError if x has no axis `start_dim`.
    """
    if not isinstance(start_dim, int) or not -x.ndim <= start_dim < x.ndim:
        raise ValueError(f"flatten: start_dim must be an axis of x, which has shape {x.shape}, got {start_dim!r}")
    leading = x.shape[:start_dim % x.ndim]
    return Reshape((*leading, math.prod(x.shape[len(leading):])))(x)


def getitem(x: Tensor, index: Any) -> Tensor:
    """x[index], with NumPy's indices: ints, slices, None, ..., arrays of ints or booleans. IndexError if one is out of range."""
    return GetItem(index)(x)


def sum(x: Tensor, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor:
    """The sum over one axis, several (a tuple), or all (None).

    keepdims: the summed axes stay, with size 1, so that the result broadcasts against x. Raises ValueError for an axis that x lacks.
    """
    return Sum(check_axes("sum", x, axis), keepdims)(x)


def mean(x: Tensor, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor:
    """The mean over one axis, several (a tuple), or all (None). Arguments and errors as for `sum`."""
    return Mean(check_axes("mean", x, axis), keepdims)(x)
