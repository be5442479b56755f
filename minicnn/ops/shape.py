"""Ops that move, choose or add up elements; each backward puts the gradients where the elements came from.

    reshape, flatten, transpose     a gradient goes back the way the element came
    getitem                         chosen elements get theirs (one that was chosen twice, the sum); the others 0
    sum                             every element gets the gradient of the sum it is in
    mean                            and here, divided by how many there were
"""

import math

from minicnn.autograd import Function
from minicnn.backend import xp_of


class Reshape(Function):
    def __init__(self, shape=(-1,)):
        self.shape = shape

    def forward(self, x):
        return x.reshape(self.shape), ()

    def backward(self, gy):
        return gy.reshape(self.shapes[0])


class Transpose(Function):
    def __init__(self, axes=None):
        self.axes = axes

    def forward(self, x):
        return x.transpose(self.axes), ()

    def backward(self, gy):
        if self.axes is None:                           # all axes reversed: its own inverse
            return gy.transpose()
        came_from = [a % gy.ndim for a in self.axes]    # axis i of y is axis came_from[i] of x
        return gy.transpose([came_from.index(i) for i in range(gy.ndim)])


class GetItem(Function):
    def __init__(self, index=...):
        self.index = index

    def forward(self, x):
        return xp_of(x).asarray(x[self.index]), ()      # one element alone would be a scalar, not an array

    def backward(self, gy):
        xp = xp_of(gy)
        gx = xp.zeros(self.shapes[0], gy.dtype)
        xp.add.at(gx, self.index, gy)
        return gx


class Sum(Function):
    def __init__(self, axis=None, keepdims=False):
        self.axis, self.keepdims = axis, keepdims

    def forward(self, x):
        return xp_of(x).asarray(x.sum(axis=self.axis, keepdims=self.keepdims)), ()

    def backward(self, gy):
        shape = self.shapes[0]
        kept = [1 if i in axes_of(self.axis, len(shape)) else size for i, size in enumerate(shape)]
        return xp_of(gy).broadcast_to(gy.reshape(kept), shape)


class Mean(Sum):
    def forward(self, x):
        return xp_of(x).asarray(x.mean(axis=self.axis, keepdims=self.keepdims)), ()

    def backward(self, gy):
        shape = self.shapes[0]
        return super().backward(gy) / math.prod(shape[i] for i in axes_of(self.axis, len(shape)))


def axes_of(axis, ndim):
    """None, an int or a tuple of ints, as non-negative axes."""
    axes = range(ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    return [a % ndim for a in axes]


def checked_axes(op, x, axis):
    """`axis`, or an error that names the axis that x has not."""
    axes = () if axis is None else axis if isinstance(axis, tuple) else (axis,)
    for a in axes:
        if not isinstance(a, int) or not -x.ndim <= a < x.ndim:
            raise ValueError(f"{op}: x of shape {x.shape} has no axis {a!r}")
    return axis


def reshape(x, *shape):
    """The same elements, in row-major order, in another shape: reshape(x, 2, -1) or reshape(x, (2, -1))."""
    shape = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
    known = math.prod(s for s in shape if s != -1)
    if shape.count(-1) > 1 or any(s < -1 for s in shape) or (x.size % max(known, 1) if -1 in shape else x.size != known):
        raise ValueError(f"reshape: {x.size} elements of shape {x.shape} cannot take the shape {shape}")
    return Reshape(shape)(x)


def transpose(x, *axes):
    """The axes in another order, transpose(x, 0, 2, 3, 1); without an order, reversed."""
    axes = tuple(axes[0]) if len(axes) == 1 and isinstance(axes[0], (tuple, list)) else axes
    if axes and sorted(a % max(x.ndim, 1) for a in axes) != list(range(x.ndim)):
        raise ValueError(f"transpose: {axes} is no order of the {x.ndim} axes of x, shape {x.shape}")
    return Transpose(axes or None)(x)


def flatten(x, start_dim=1):
    """All axes from `start_dim` on as one, in (C, H, W) order whatever the memory order: weights fit PyTorch's."""
    if not isinstance(start_dim, int) or not -x.ndim <= start_dim < x.ndim:
        raise ValueError(f"flatten: x of shape {x.shape} has no axis {start_dim!r} to start from")
    kept = x.shape[:start_dim % x.ndim]
    return Reshape((*kept, math.prod(x.shape[len(kept):])))(x)


def getitem(x, index):
    """x[index], with NumPy's indices: ints, slices, None, ..., arrays of ints or booleans."""
    return GetItem(index)(x)


def sum(x, axis=None, keepdims=False):
    """The sum over an axis, several, or all."""
    return Sum(checked_axes("sum", x, axis), keepdims)(x)


def mean(x, axis=None, keepdims=False):
    """The mean over an axis, several, or all."""
    return Mean(checked_axes("mean", x, axis), keepdims)(x)
