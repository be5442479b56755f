"""Softmax and log-softmax, along several axes."""

import math

import numpy as np

from minicnn.learn.cases import Remembers, randn
from minicnn.ops.softmax import LogSoftmax, Softmax

CASES = {                       # axis
    "rows":                     ((-1,), randn((3, 4))),
    "columns":                  ((0,), randn((3, 4))),
    "square":                   ((1,), randn((3, 3))),
    "channels of images":       ((1,), randn((2, 3, 2, 2))),
    "one axis":                 ((0,), randn((5,))),
    "large scores":             ((-1,), [3 * a for a in randn((2, 4))]),
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
    """A backward computed from p and gy by `gx`, in which `total` sums along the axis."""

    axis: int

    def backward(self, gy, *saved):
        p = np.exp(self.arrays[0])
        return self.gx(p / self.total(p), gy)

    def gx(self, p, gy):
        raise NotImplementedError

    def total(self, a):
        return a.sum(axis=self.axis, keepdims=True)


class WrongSoftmax(FromProbabilities, Softmax):
    """A correct backward; each mistake breaks `gx`."""

    def gx(self, p, gy):
        return p * (gy - self.total(gy * p))


class SumTermDropped(WrongSoftmax):
    "The sum is missing: the denominator is treated as a constant."
    def gx(self, p, gy):
        return p * gy


class DiagonalOnly(WrongSoftmax):
    "Only the diagonal of the Jacobian, p * (1 - p): this is the backward of the sigmoid."
    def gx(self, p, gy):
        return p * (1 - p) * gy


class SumNotWeighted(WrongSoftmax):
    "The sum is of gy instead of gy * p."
    def gx(self, p, gy):
        return p * (gy - self.total(gy))


class SumNotTimesP(WrongSoftmax):
    "The second term is not multiplied by p: p * gy - sum(gy * p)."
    def gx(self, p, gy):
        return p * gy - self.total(gy * p)


class SumOverAll(WrongSoftmax):
    "The sum is over the whole array instead of along the axis."
    def gx(self, p, gy):
        return p * (gy - (gy * p).sum())

    @staticmethod
    def affects(args, x):
        return x.ndim > 1


class MeanInsteadOfSum(WrongSoftmax):
    "The mean along the axis instead of the sum."
    def gx(self, p, gy):
        return p * (gy - (gy * p).mean(axis=self.axis, keepdims=True))


class WrongLogSoftmax(FromProbabilities, LogSoftmax):
    """A correct backward; each mistake breaks `gx`."""

    def gx(self, p, gy):
        return gy - p * self.total(gy)


class LogSumTermDropped(WrongLogSoftmax):
    "The sum is missing: the log of the denominator is treated as a constant."
    def gx(self, p, gy):
        return gy


class NotTimesP(WrongLogSoftmax):
    "The sum is not multiplied by p: gy - sum(gy) instead of gy - p * sum(gy)."
    def gx(self, p, gy):
        return gy - self.total(gy)


class LogPInsteadOfP(WrongLogSoftmax):
    "log p, the output of forward, is used instead of p."
    def gx(self, p, gy):
        return gy - np.log(p) * self.total(gy)


class SumForgotten(WrongLogSoftmax):
    "gy is not summed along the axis: gy - p * gy instead of gy - p * sum(gy)."
    def gx(self, p, gy):
        return gy - p * gy


class LogMeanInsteadOfSum(WrongLogSoftmax):
    "The mean along the axis instead of the sum."
    def gx(self, p, gy):
        return gy - p * gy.mean(axis=self.axis, keepdims=True)


WRONG = [SumTermDropped, DiagonalOnly, SumNotWeighted, SumNotTimesP, SumOverAll, MeanInsteadOfSum]
WRONG_LOG = [LogSumTermDropped, NotTimesP, LogPInsteadOfP, SumForgotten, LogMeanInsteadOfSum]


OPS = {
    Softmax: (Softmax, CASES, naive, WRONG),
    LogSoftmax: (LogSoftmax, CASES, naive_log, WRONG_LOG),
}
