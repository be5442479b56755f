"""Softmax and its logarithm, along any axis."""

import math

import numpy as np
import pytest
from check import EXACT, SINGLE, Remembers, check_each_shows, check_op, close, cotangent, run, same_bits, values

from minicnn import Tensor, ops
from minicnn.ops.softmax import LogSoftmax, Softmax

CASES = {                       # axis
    "rows":                     ((-1,), values((3, 4))),
    "columns":                  ((0,), values((3, 4))),
    "square":                   ((1,), values((3, 3))),
    "channels of images":       ((1,), values((2, 3, 2, 2))),
    "one axis":                 ((0,), values((5,))),
    "spread scores":            ((-1,), [3 * a for a in values((2, 4))]),
}


def naive(args, x):
    """e^x / sum e^x along one axis."""
    axis, = args
    y = np.zeros_like(x)
    for i in np.ndindex(*x.shape):
        line = list(i)
        line[axis] = slice(None)
        y[i] = math.exp(x[i]) / sum(math.exp(score) for score in x[tuple(line)])
    return y


def naive_log(args, x):
    return np.log(naive(args, x))


class FromProbabilities(Remembers):
    """Backward by `gx`, from p and gy; `total` adds up along the axis."""

    def backward(self, gy, *saved):
        p = np.exp(self.arrays[0])
        return self.gx(p / self.total(p), gy)

    def total(self, a):
        return a.sum(axis=self.axis, keepdims=True)


class WrongSoftmax(FromProbabilities, Softmax):
    """Backward as it should be."""

    def gx(self, p, gy):
        return p * (gy - self.total(gy * p))


class SumTermDropped(WrongSoftmax):
    "The denominator is taken for a constant."
    def gx(self, p, gy):
        return p * gy


class DiagonalOnly(WrongSoftmax):
    "Each score is in its own probability and in no other: the rule of the sigmoid."
    def gx(self, p, gy):
        return p * (1 - p) * gy


class SumNotWeighted(WrongSoftmax):
    "The sum is of gy, not of gy*p: the rule of log_softmax."
    def gx(self, p, gy):
        return p * (gy - self.total(gy))


class SumNotTimesP(WrongSoftmax):
    "The second term is not multiplied by p."
    def gx(self, p, gy):
        return p * gy - self.total(gy * p)


class SumOverAll(WrongSoftmax):
    "The sum is over the whole array, as if it were one distribution."
    def gx(self, p, gy):
        return p * (gy - (gy * p).sum())

    @staticmethod
    def shows(args, x):
        return x.ndim > 1


class MeanForSum(WrongSoftmax):
    "The mean along the axis instead of the sum."
    def gx(self, p, gy):
        return p * (gy - (gy * p).mean(axis=self.axis, keepdims=True))


class WrongLogSoftmax(FromProbabilities, LogSoftmax):
    """Backward as it should be."""

    def gx(self, p, gy):
        return gy - p * self.total(gy)


class LogSumTermDropped(WrongLogSoftmax):
    "The logarithm of the denominator is taken for a constant."
    def gx(self, p, gy):
        return gy


class NotTimesP(WrongLogSoftmax):
    "Every score is taken to weigh the same in the denominator."
    def gx(self, p, gy):
        return gy - self.total(gy)


class LogForP(WrongLogSoftmax):
    "The answer of forward, log p, is used where p belongs."
    def gx(self, p, gy):
        return gy - np.log(p) * self.total(gy)


class EachItsOwn(WrongLogSoftmax):
    "gy is not summed: each score is taken to be in its own denominator only."
    def gx(self, p, gy):
        return gy - p * gy


class LogMeanForSum(WrongLogSoftmax):
    "The mean along the axis instead of the sum."
    def gx(self, p, gy):
        return gy - p * gy.mean(axis=self.axis, keepdims=True)


WRONG = [SumTermDropped, DiagonalOnly, SumNotWeighted, SumNotTimesP, SumOverAll, MeanForSum]
WRONG_LOG = [LogSumTermDropped, NotTimesP, LogForP, EachItsOwn, LogMeanForSum]


@pytest.mark.parametrize("case", CASES)
def test_softmax(case, device):
    check_op(Softmax, *CASES[case], naive, WRONG, device)


@pytest.mark.parametrize("case", CASES)
def test_log_softmax(case, device):
    check_op(LogSoftmax, *CASES[case], naive_log, WRONG_LOG, device)


def test_each_mistake_shows():
    check_each_shows([*WRONG, *WRONG_LOG], CASES)


def test_large_scores_do_not_overflow(device):
    """Nor do very negative ones vanish, in a row of their own."""
    x, two = Tensor(np.array([[1000.0, 1000, -1000], [-1000, -1000, -3000]]), device=device), math.log(2)
    np.testing.assert_allclose(ops.softmax(x).numpy(), [[0.5, 0.5, 0]] * 2)
    np.testing.assert_allclose(ops.log_softmax(x).numpy(), [[-two, -two, -2000 - two]] * 2)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("op", [Softmax, LogSoftmax])
@pytest.mark.parametrize("shape", [(3, 1), (30, 2), (3, 31), (3, 32), (5, 33), (2, 255), (2, 256), (2, 257), (3, 513), (4, 1000)])
def test_rows_longer_and_shorter_than_a_block(cupy, op, shape, dtype):
    """A block of 256 threads has a row. Its largest score is in the last place, where it must not be missed; twice, the same bits."""
    x, = values(shape)
    x[:, -1] += np.where(np.arange(shape[0]) % 2, 500, 0)
    x, g = x.astype(dtype), cotangent(shape).astype(dtype)
    y, (gx,) = run(op, (1,), [x], g)
    there = run(op, (1,), [cupy.asarray(x)], cupy.asarray(g))
    tolerance = EXACT if dtype == "float64" else SINGLE
    close("forward", there[0], y, tolerance)
    close("gradient", there[1][0], gx, 10 * tolerance)
    same_bits("a second time", run(op, (1,), [cupy.asarray(x)], cupy.asarray(g)), there)


def test_one_score_alone_is_certain():
    x = Tensor(np.array([[3.0], [-2.0]]), requires_grad=True)
    y = ops.softmax(x)
    y.backward(np.array([[2.0], [5.0]]))
    assert y.data.tolist() == [[1], [1]]
    assert x.grad.tolist() == [[0], [0]]


@pytest.mark.parametrize("op", [ops.softmax, ops.log_softmax])
def test_what_does_not_fit_is_refused(op):
    name = op.__name__
    with pytest.raises(ValueError, match=rf"{name}: x of shape \(2, 3\) has no axis 2 with anything on it"):
        op(Tensor(np.zeros((2, 3))), axis=2)
    with pytest.raises(ValueError, match=rf"{name}: x of shape \(2, 0\) has no axis -1 with anything on it"):
        op(Tensor(np.zeros((2, 0))))
    with pytest.raises(ValueError, match=rf"{name}: x of shape \(\) has no axis -1"):
        op(Tensor(1.0))
    with pytest.raises(ValueError, match=rf"{name}: x of shape \(2, 3\) has no axis None"):
        op(Tensor(np.zeros((2, 3))), axis=None)
    with pytest.raises(TypeError, match=f"{name}: x is int64; float32 or float64 is wanted"):
        op(Tensor(np.arange(3)))
