"""Ops that move, choose and add up elements: reshape, transpose, flatten, getitem, sum and mean."""

import numpy as np
import pytest
from check import Remembers, check_each_shows, check_op, values

from minicnn import Tensor, ops
from minicnn.ops.shape import GetItem, Mean, Reshape, Sum, Transpose

RESHAPES = {
    "to rows":              (((3, 4),), values((2, 6))),
    "to one axis":          (((12,),), values((2, 3, 2))),
    "what is left":         (((2, -1),), values((2, 2, 2, 2))),
    "to a number":          (((),), values((1, 1))),
}
TRANSPOSES = {
    "reversed":             ((None,), values((2, 3, 4))),
    "matrix":               (((1, 0),), values((2, 3))),
    "turned round":         (((1, 2, 0),), values((2, 3, 4))),
    "cube, turned round":   (((2, 0, 1),), values((2, 2, 2))),
    "channels last":        (((0, 2, 3, 1),), values((2, 3, 2, 2))),
    "counted from the end": (((0, -1, 1),), values((2, 3, 4))),
}
CHOICES = {
    "an element":           (((1, 2),), values((2, 3))),
    "a row":                ((1,), values((3, 4))),
    "from the end":         ((-1,), values((3, 4))),
    "slices":               (((slice(1, None), slice(None, None, 2)),), values((3, 5))),
    "backwards":            ((slice(None, None, -1),), values((4, 2))),
    "a new axis":           (((..., None, 0),), values((3, 2))),
    "rows by number":       (([2, 0],), values((3, 4))),
    "a row twice":          (([0, 2, 0],), values((3, 4))),
    "a row by two names":   (([1, -2, 0],), values((3, 2))),
    "elements, one twice":  ((([0, 1, 0], [2, 1, 2]),), values((2, 3))),
    "by true and false":    (([True, False, True],), values((3, 4))),
}
SUMS = {                  # axis, keepdims
    "all":                  ((None, False), values((2, 3))),
    "rows":                 ((0, False), values((3, 4))),
    "columns of a square":  ((1, False), values((3, 3))),
    "kept":                 ((1, True), values((3, 3))),
    "all, kept":            ((None, True), values((2, 2, 2))),
    "from the end":         ((-2, False), values((2, 3, 2))),
    "two axes":             (((0, 2), False), values((2, 3, 2))),
    "two axes, kept":       (((1, -1), True), values((2, 2, 3))),
    "an axis of one":       ((0, False), values((1, 4))),
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
    """Element by element, through an array of the positions that NumPy's index chooses."""
    chosen = np.arange(x.size).reshape(x.shape)[args[0]]
    y = np.zeros(np.shape(chosen))
    for i in np.ndindex(*y.shape):
        y[i] = x[np.unravel_index(np.asarray(chosen)[i], x.shape)]
    return y


def naive_sum(args, x):
    """Each element of x is added to the element of y that has its other coordinates."""
    axes = summed(args[0], x.ndim)
    y = np.zeros([1 if a in axes else size for a, size in enumerate(x.shape)])
    for i in np.ndindex(*x.shape):
        y[tuple(0 if a in axes else k for a, k in enumerate(i))] += x[i]
    return y if args[1] else y.reshape([size for a, size in enumerate(x.shape) if a not in axes])


def naive_mean(args, x):
    return naive_sum(args, x) / count(args, x)


def summed(axis, ndim):
    """The axes, counted from the front."""
    return [a % ndim for a in (range(ndim) if axis is None else np.atleast_1d(axis).tolist())]


def count(args, x):
    """How many elements each sum has."""
    return np.prod([x.shape[a] for a in summed(args[0], x.ndim)])


class ColumnsFirst(Reshape):
    "Put back column by column, as Fortran and MATLAB count."
    def backward(self, gy, *saved):
        return gy.reshape(self.shapes[0], order="F")

    @staticmethod
    def shows(args, x):
        return not np.array_equal(x, naive_reshape(args, x).reshape(x.shape, order="F"))


class PutInReverse(Reshape):
    "The last element goes back to the first place."
    def backward(self, gy, *saved):
        return gy.reshape(-1)[::-1].reshape(self.shapes[0])

    @staticmethod
    def shows(args, x):
        return x.size > 1


class TheSameOrderAgain(Transpose):
    "The axes are permuted again where they should be permuted back, and reshaped until they fit."
    def backward(self, gy, *saved):
        return gy.transpose(self.axes).reshape(self.shapes[0])

    @staticmethod
    def shows(args, x):
        back = naive_transpose(args, naive_transpose(args, x))
        return back.shape != x.shape or not np.array_equal(back, x)


class ReshapedForTransposed(Transpose):
    "The gradient is reshaped, where it should be transposed back."
    def backward(self, gy, *saved):
        return gy.reshape(self.shapes[0])


class RepeatsOverwritten(GetItem):
    "An element that was chosen twice keeps the gradient of its last use: = where += belongs."
    def backward(self, gy, *saved):
        gx = np.zeros(self.shapes[0], gy.dtype)
        gx[self.index] = gy
        return gx

    @staticmethod
    def shows(args, x):
        chosen = np.arange(x.size).reshape(x.shape)[args[0]]
        return np.size(chosen) > len(np.unique(chosen))


class OneTooFar(GetItem):
    "Along the first axis the gradient lands one place too far."
    def backward(self, gy, *saved):
        return np.roll(super().backward(gy, *saved), 1, axis=0)


class AlongTheWrongAxis(Sum):
    "The gradient is broadcast from the right, as NumPy does by itself; in a square it fits, and runs along the wrong axis."
    def backward(self, gy, *saved):
        shape = self.shapes[0]
        fits = shape[:1] == shape[1:]
        return np.broadcast_to(gy, shape) if fits and not self.keepdims else super().backward(gy, *saved)

    @staticmethod
    def shows(args, x):
        return args == (1, False) and x.shape == (3, 3)


class SharedOut(Remembers, Sum):
    "The gradient is divided among the elements: the rule of the mean."
    def backward(self, gy, *saved):
        return super().backward(gy, *saved) / count((self.axis,), *self.arrays)

    @staticmethod
    def shows(args, x):
        return count(args, x) > 1


class NotDivided(Remembers, Mean):
    "Every element gets the whole gradient: the rule of the sum."
    def backward(self, gy, *saved):
        return super().backward(gy, *saved) * count((self.axis,), *self.arrays)

    @staticmethod
    def shows(args, x):
        return count(args, x) > 1


class DividedByAll(Remembers, Mean):
    "Divided by the size of the array instead of the length of the axis."
    def backward(self, gy, *saved):
        x, = self.arrays
        return super().backward(gy, *saved) * count((self.axis,), x) / x.size

    @staticmethod
    def shows(args, x):
        return count(args, x) < x.size


TABLE = {       # op: cases, by loops, mistakes
    Reshape:    (RESHAPES, naive_reshape, [ColumnsFirst, PutInReverse]),
    Transpose:  (TRANSPOSES, naive_transpose, [TheSameOrderAgain, ReshapedForTransposed]),
    GetItem:    (CHOICES, naive_getitem, [RepeatsOverwritten, OneTooFar]),
    Sum:        (SUMS, naive_sum, [AlongTheWrongAxis, SharedOut]),
    Mean:       (SUMS, naive_mean, [NotDivided, DividedByAll]),
}


@pytest.mark.parametrize(("op", "case"), [(op, case) for op, (cases, *_) in TABLE.items() for case in cases])
def test_shape(op, case, device):
    cases, naive, wrong = TABLE[op]
    check_op(op, *cases[case], naive, wrong, device)


@pytest.mark.parametrize("op", TABLE)
def test_each_mistake_shows(op):
    cases, _, wrong = TABLE[op]
    check_each_shows(wrong, cases)


def test_flatten_counts_channels_before_pixels_whatever_the_memory():
    x, = values((2, 3, 2, 2))
    channels_last = Tensor(x.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2))
    assert np.array_equal(ops.flatten(channels_last).data, x.reshape(2, 12))


@pytest.mark.parametrize(("start_dim", "shape"), [(0, (24,)), (1, (2, 12)), (2, (2, 3, 4)),
                                                  (3, (2, 3, 2, 2)), (-1, (2, 3, 2, 2)), (-3, (2, 12))])
def test_flatten_from_any_axis(start_dim, shape):
    x = Tensor(values((2, 3, 2, 2))[0])
    assert ops.flatten(x, start_dim).shape == x.flatten(start_dim).shape == shape


def test_sizes_and_axes_one_by_one_or_as_a_tuple():
    x = Tensor(values((2, 3, 4))[0])
    assert x.reshape(4, 6).shape == x.reshape((4, 6)).shape == x.reshape([4, 6]).shape == (4, 6)
    assert x.transpose(1, 0, 2).shape == x.transpose((1, 0, 2)).shape == x.transpose([1, 0, 2]).shape == (3, 2, 4)
    assert x.transpose().shape == x.T.shape == (4, 3, 2)


@pytest.mark.parametrize(("act", "message"), [
    (lambda x: x.reshape(5, 5), r"reshape: 24 elements of shape \(2, 3, 4\) cannot take the shape \(5, 5\)"),
    (lambda x: x.reshape(5, -1), r"reshape: 24 elements of shape \(2, 3, 4\) cannot take the shape \(5, -1\)"),
    (lambda x: x.reshape(-1, -1), r"reshape: 24 elements of shape \(2, 3, 4\) cannot take the shape \(-1, -1\)"),
    (lambda x: x.reshape(-2, -12), r"reshape: 24 elements of shape \(2, 3, 4\) cannot take the shape \(-2, -12\)"),
    (lambda x: x.transpose(0, 1), r"transpose: \(0, 1\) is no order of the 3 axes of x, shape \(2, 3, 4\)"),
    (lambda x: x.transpose(0, 1, 1), r"transpose: \(0, 1, 1\) is no order of the 3 axes of x, shape \(2, 3, 4\)"),
    (lambda x: x.flatten(3), r"flatten: x of shape \(2, 3, 4\) has no axis 3 to start from"),
    (lambda x: x.flatten(-4), r"flatten: x of shape \(2, 3, 4\) has no axis -4 to start from"),
    (lambda x: x.sum(3), r"sum: x of shape \(2, 3, 4\) has no axis 3"),
    (lambda x: x.mean((0, -4)), r"mean: x of shape \(2, 3, 4\) has no axis -4"),
    (lambda x: x.sum("rows"), r"sum: x of shape \(2, 3, 4\) has no axis 'rows'"),
])
def test_what_does_not_fit_is_refused(act, message):
    with pytest.raises(ValueError, match=message):
        act(Tensor(np.zeros((2, 3, 4))))


def test_an_index_out_of_range_is_refused():
    with pytest.raises(IndexError, match="index 5 is out of bounds"):
        Tensor(np.zeros(3))[5]


def test_an_axis_given_twice_is_refused():
    with pytest.raises(ValueError, match="duplicate"):
        Tensor(np.zeros((2, 3))).sum((0, 0))
