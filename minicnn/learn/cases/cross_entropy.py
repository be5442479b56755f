"""The cross-entropy loss: batch sizes, numbers of classes and dtypes of the labels."""

import math

import numpy as np

from minicnn.backend.arrays import xp_of
from minicnn.learn.cases import Remembers, randn
from minicnn.ops.cross_entropy import CrossEntropy

CASES = {                       # labels
    "four classes":             ((np.array([2, 0, 3]),), randn((3, 4))),
    "N equal to K":             ((np.array([1, 1, 0]),), randn((3, 3))),
    "one row":                  ((np.array([1]),), randn((1, 4))),
    "two classes":              ((np.array([1, 0, 0, 1, 1]),), randn((5, 2))),
    "uint8 labels":             ((np.array([4, 0], np.uint8),), randn((2, 5))),
    "large scores":             ((np.array([0, 2]),), [4 * a for a in randn((2, 3))]),
}


class LabelsOnDevice(CrossEntropy):
    """The op with its labels moved to the device of the logits, as `ops.cross_entropy` does."""

    def forward(self, logits):
        self.labels = xp_of(logits).asarray(self.labels)
        return super().forward(logits)


def naive(args, logits):
    """-1/N * sum of log(e^x[label] / sum e^x)."""
    labels, = args
    loss = 0.0
    for row, label in zip(logits, labels, strict=True):
        loss -= math.log(math.exp(row[label]) / sum(math.exp(score) for score in row))
    return np.array(loss / len(logits))


class WrongEntropy(Remembers, LabelsOnDevice):
    """A correct backward from the probabilities p and the one-hot labels t; each mistake breaks `gx`."""

    def backward(self, gy, *saved):
        x, = self.arrays
        p = np.exp(x - x.max(axis=1, keepdims=True))
        t = (np.arange(x.shape[1]) == self.labels[:, None]).astype(x.dtype)
        return self.gx(p / p.sum(axis=1, keepdims=True), t, gy, x)

    def gx(self, p, t, gy, x):
        return (p - t) * gy / len(x)


class NotDividedByN(WrongEntropy):
    "The division by N is missing: forward takes the mean over the batch."
    def gx(self, p, t, gy, x):
        return (p - t) * gy

    @staticmethod
    def affects(args, x):
        return len(x) > 1


class DividedByClasses(WrongEntropy):
    "Divided by the number of classes instead of the batch size."
    def gx(self, p, t, gy, x):
        return (p - t) * gy / x.shape[1]

    @staticmethod
    def affects(args, x):
        return x.shape[0] != x.shape[1]


class LabelForgotten(WrongEntropy):
    "The one-hot label is not subtracted: p instead of p - onehot."
    def gx(self, p, t, gy, x):
        return p * gy / len(x)


class ProbabilityForgotten(WrongEntropy):
    "The probabilities are missing: -onehot instead of p - onehot. Every score is in the denominator of the softmax."
    def gx(self, p, t, gy, x):
        return -t * gy / len(x)


class SignLost(WrongEntropy):
    "The sign is wrong: onehot - p instead of p - onehot; training would climb."
    def gx(self, p, t, gy, x):
        return (t - p) * gy / len(x)


class CotangentIgnored(WrongEntropy):
    "gy is ignored, as if the loss were always the last op of the graph."
    def gx(self, p, t, gy, x):
        return (p - t) / len(x)


class NextClass(WrongEntropy):
    "Off by one: the class after the label is treated as the label."
    def gx(self, p, t, gy, x):
        return (p - np.roll(t, 1, axis=1)) * gy / len(x)


class SoftmaxOverBatch(WrongEntropy):
    "The softmax in backward is over the batch axis instead of the classes."
    def gx(self, p, t, gy, x):
        p = np.exp(x)
        return (p / p.sum(axis=0) - t) * gy / len(x)


WRONG = [NotDividedByN, DividedByClasses, LabelForgotten, ProbabilityForgotten, SignLost, CotangentIgnored, NextClass, SoftmaxOverBatch]


OPS = {
    CrossEntropy: (LabelsOnDevice, CASES, naive, WRONG),
}
