"""Reshaping, indexing and reduction: reshape, transpose, flatten, getitem, sum and mean."""

import numpy as np

from minicnn.learn.cases import Remembers, randn
from minicnn.ops.shape import GetItem, Mean, Reshape, Sum, Transpose

RESHAPES = {
    "to rows":              (((3, 4),), randn((2, 6))),
    "to one axis":          (((12,),), randn((2, 3, 2))),
    "one size inferred":    (((2, -1),), randn((2, 2, 2, 2))),
    "to a scalar":          (((),), randn((1, 1))),
}
TRANSPOSES = {
    "reversed":             ((None,), randn((2, 3, 4))),
    "matrix":               (((1, 0),), randn((2, 3))),
    "cyclic":               (((1, 2, 0),), randn((2, 3, 4))),
    "cyclic, a cube":       (((2, 0, 1),), randn((2, 2, 2))),
    "NCHW to NHWC":         (((0, 2, 3, 1),), randn((2, 3, 2, 2))),
    "negative axis":        (((0, -1, 1),), randn((2, 3, 4))),
}
SELECTIONS = {
    "an element":           (((1, 2),), randn((2, 3))),
    "a row":                ((1,), randn((3, 4))),
    "negative index":       ((-1,), randn((3, 4))),
    "slices":               (((slice(1, None), slice(None, None, 2)),), randn((3, 5))),
    "reversed":             ((slice(None, None, -1),), randn((4, 2))),
    "a new axis":           (((..., None, 0),), randn((3, 2))),
    "a list of rows":       (([2, 0],), randn((3, 4))),
    "a row twice":          (([0, 2, 0],), randn((3, 4))),
    "row 1 as 1 and as -2": (([1, -2, 0],), randn((3, 2))),
    "elements, one twice":  ((([0, 1, 0], [2, 1, 2]),), randn((2, 3))),
    "boolean mask":         (([True, False, True],), randn((3, 4))),
}
SUMS = {                  # axis, keepdims
    "all":                  ((None, False), randn((2, 3))),
    "rows":                 ((0, False), randn((3, 4))),
    "columns of a square":  ((1, False), randn((3, 3))),
    "keepdims":             ((1, True), randn((3, 3))),
    "all, keepdims":        ((None, True), randn((2, 2, 2))),
    "negative axis":        ((-2, False), randn((2, 3, 2))),
    "two axes":             (((0, 2), False), randn((2, 3, 2))),
    "two axes, keepdims":   (((1, -1), True), randn((2, 2, 3))),
    "an axis of size 1":    ((0, False), randn((1, 4))),
}


def naive_reshape(args, x):
    """The k-th element in row-major order stays the k-th."""
    shape, = args
    y = np.zeros([size if size != -1 else -x.size // np.prod(shape) for size in shape])
    for k, i in enumerate(np.ndindex(*x.shape)):
        y[np.unravel_index(k, y.shape) if shape else ()] = x[i]
    return y


def naive_transpose(args, x):
    """Axis i of y is axis axes[i] of x."""
    axes = range(x.ndim)[::-1] if args[0] is None else [a % x.ndim for a in args[0]]
    y = np.zeros([x.shape[a] for a in axes])
    for i in np.ndindex(*x.shape):
        y[tuple(i[a] for a in axes)] = x[i]
    return y


def naive_getitem(args, x):
    """Element by element, through an array of the positions that the index selects."""
    selected = np.arange(x.size).reshape(x.shape)[args[0]]
    y = np.zeros(np.shape(selected))
    for i in np.ndindex(*y.shape):
        y[i] = x[np.unravel_index(np.asarray(selected)[i], x.shape)]
    return y


def naive_sum(args, x):
    """Each element of x is added to the element of y with the same indices on the other axes."""
    axes = summed(args[0], x.ndim)
    y = np.zeros([1 if a in axes else size for a, size in enumerate(x.shape)])
    for i in np.ndindex(*x.shape):
        y[tuple(0 if a in axes else k for a, k in enumerate(i))] += x[i]
    return y if args[1] else y.reshape([size for a, size in enumerate(x.shape) if a not in axes])


def naive_mean(args, x):
    return naive_sum(args, x) / count(args, x)


def summed(axis, ndim):
    """The summed axes, as a list of non-negative ints."""
    return [a % ndim for a in (range(ndim) if axis is None else np.atleast_1d(axis).tolist())]


def count(args, x):
    """The number of elements in each sum."""
    return np.prod([x.shape[a] for a in summed(args[0], x.ndim)])


class ColumnMajor(Reshape):
    "Reshaped in column-major order, as in Fortran and MATLAB, instead of row-major."
    def backward(self, gy, *saved):
        return gy.reshape(self.shapes[0], order="F")

    @staticmethod
    def affects(args, x):
        return not np.array_equal(x, naive_reshape(args, x).reshape(x.shape, order="F"))


class Reversed(Reshape):
    "The elements are returned in reverse order."
    def backward(self, gy, *saved):
        return gy.reshape(-1)[::-1].reshape(self.shapes[0])

    @staticmethod
    def affects(args, x):
        return x.size > 1


class NotInverted(Transpose):
    "The permutation is applied again instead of its inverse (and reshaped if the shape does not fit)."
    def backward(self, gy, *saved):
        return gy.transpose(self.axes).reshape(self.shapes[0])

    @staticmethod
    def affects(args, x):
        back = naive_transpose(args, naive_transpose(args, x))
        return back.shape != x.shape or not np.array_equal(back, x)


class ReshapedNotTransposed(Transpose):
    "The gradient is reshaped to the shape of x instead of transposed back."
    def backward(self, gy, *saved):
        return gy.reshape(self.shapes[0])


class RepeatsOverwritten(GetItem):
    "An element that was selected twice gets the gradient of its last use only: = instead of +=."
    def backward(self, gy, *saved):
        gx = np.zeros(self.shapes[0], gy.dtype)
        gx[self.index] = gy
        return gx

    @staticmethod
    def affects(args, x):
        selected = np.arange(x.size).reshape(x.shape)[args[0]]
        return np.size(selected) > len(np.unique(selected))


class OffByOne(GetItem):
    "Off by one: along the first axis, the gradient goes to the next element."
    def backward(self, gy, *saved):
        return np.roll(super().backward(gy, *saved), 1, axis=0)


class WrongAxis(Sum):
    "The gradient is broadcast along the wrong axis: without keepdims NumPy aligns shapes on the right, and in a square that fits."
    def backward(self, gy, *saved):
        shape = self.shapes[0]
        fits = shape[:1] == shape[1:]
        return np.broadcast_to(gy, shape) if fits and not self.keepdims else super().backward(gy, *saved)

    @staticmethod
    def affects(args, x):
        return args == (1, False) and x.shape == (3, 3)


class DividedByCount(Remembers, Sum):
    "Divided by the number of elements: this is the backward of the mean."
    def backward(self, gy, *saved):
        return super().backward(gy, *saved) / count((self.axis,), *self.arrays)

    @staticmethod
    def affects(args, x):
        return count(args, x) > 1


class NotDivided(Remembers, Mean):
    "The division by the number of elements is missing: this is the backward of the sum."
    def backward(self, gy, *saved):
        return super().backward(gy, *saved) * count((self.axis,), *self.arrays)

    @staticmethod
    def affects(args, x):
        return count(args, x) > 1


class DividedBySize(Remembers, Mean):
    "Divided by the size of the whole array instead of the number of elements in each mean."
    def backward(self, gy, *saved):
        x, = self.arrays
        return super().backward(gy, *saved) * count((self.axis,), x) / x.size

    @staticmethod
    def affects(args, x):
        return count(args, x) < x.size


OPS = {         # op: (class that the cases run, cases, naive, wrong backwards)
    Reshape:    (Reshape, RESHAPES, naive_reshape, [ColumnMajor, Reversed]),
    Transpose:  (Transpose, TRANSPOSES, naive_transpose, [NotInverted, ReshapedNotTransposed]),
    GetItem:    (GetItem, SELECTIONS, naive_getitem, [RepeatsOverwritten, OffByOne]),
    Sum:        (Sum, SUMS, naive_sum, [WrongAxis, DividedByCount]),
    Mean:       (Mean, SUMS, naive_mean, [NotDivided, DividedBySize]),
}
