"""The loss: its value, its gradient, scores so large that e^x would overflow, and labels that are not labels."""

import math

import numpy as np
import pytest
from check import EXACT, Remembers, check_each_shows, check_op, close, on, run, values

from minicnn import Tensor, ops
from minicnn.backend import xp_of
from minicnn.ops.cross_entropy import CrossEntropy

CASES = {                       # labels
    "four classes":             ((np.array([2, 0, 3]),), values((3, 4))),
    "as many rows as classes":  ((np.array([1, 1, 0]),), values((3, 3))),
    "one row":                  ((np.array([1]),), values((1, 4))),
    "two classes":              ((np.array([1, 0, 0, 1, 1]),), values((5, 2))),
    "labels of one byte":       ((np.array([4, 0], np.uint8),), values((2, 5))),
    "spread scores":            ((np.array([0, 2]),), [4 * a for a in values((2, 3))]),
}


class LabelsBeside(CrossEntropy):
    """The op with its labels on the device of the logits, which ops.cross_entropy sees to."""

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


class WrongEntropy(Remembers, LabelsBeside):
    """Backward as it should be; each mistake spoils `gx`, given the probabilities `p`, the ones `t` at the labels, and gy."""

    def backward(self, gy, *saved):
        x, = self.arrays
        p = np.exp(x - x.max(axis=1, keepdims=True))
        t = (np.arange(x.shape[1]) == self.labels[:, None]).astype(x.dtype)
        return self.gx(p / p.sum(axis=1, keepdims=True), t, gy, x)

    def gx(self, p, t, gy, x):
        return (p - t) * gy / len(x)


class NotDividedByN(WrongEntropy):
    "Forward takes the mean over the batch, backward the sum."
    def gx(self, p, t, gy, x):
        return (p - t) * gy

    @staticmethod
    def shows(args, x):
        return len(x) > 1


class DividedByClasses(WrongEntropy):
    "Divided by the number of classes instead of rows."
    def gx(self, p, t, gy, x):
        return (p - t) * gy / x.shape[1]

    @staticmethod
    def shows(args, x):
        return x.shape[0] != x.shape[1]


class LabelForgotten(WrongEntropy):
    "The probabilities alone: nothing is subtracted at the label."
    def gx(self, p, t, gy, x):
        return p * gy / len(x)


class ProbabilityForgotten(WrongEntropy):
    "Only the score of the label has a gradient; but it is in the denominator of every class."
    def gx(self, p, t, gy, x):
        return -t * gy / len(x)


class SignLost(WrongEntropy):
    "Uphill: the label less the probability."
    def gx(self, p, t, gy, x):
        return (t - p) * gy / len(x)


class CotangentIgnored(WrongEntropy):
    "The loss is taken to be the end of the graph, whatever is done with it afterwards."
    def gx(self, p, t, gy, x):
        return (p - t) / len(x)


class NextClass(WrongEntropy):
    "Labels are counted from 1 in backward."
    def gx(self, p, t, gy, x):
        return (p - np.roll(t, 1, axis=1)) * gy / len(x)


class SoftmaxOverBatch(WrongEntropy):
    "The probabilities add up to 1 over the batch, not over the classes."
    def gx(self, p, t, gy, x):
        p = np.exp(x)
        return (p / p.sum(axis=0) - t) * gy / len(x)


WRONG = [NotDividedByN, DividedByClasses, LabelForgotten, ProbabilityForgotten, SignLost, CotangentIgnored, NextClass, SoftmaxOverBatch]


@pytest.mark.parametrize("case", CASES)
def test_cross_entropy(case, device):
    check_op(LabelsBeside, *CASES[case], naive, WRONG, device)


def test_each_mistake_shows():
    check_each_shows(WRONG, CASES)


def test_who_knows_nothing_loses_ln_k():
    loss = ops.cross_entropy(Tensor(np.zeros((4, 1000), np.float32)), np.arange(4))
    assert loss.shape == ()
    assert loss.dtype == np.float32
    assert loss.item() == pytest.approx(math.log(1000))


@pytest.mark.parametrize("shape", [(1, 1000), (255, 3), (256, 2), (257, 5), (520, 2), (3, 257)])
def test_more_rows_and_classes_than_a_block_has_threads(cupy, shape):
    """One block adds up the losses of all rows; each row of the gradient has a block. Every row has a say, and every class."""
    N, K = shape
    labels, x, g = np.random.default_rng(0).integers(0, K, N), values(shape)[0], np.asarray(1.7)
    loss, (gx,) = run(LabelsBeside, (labels,), [x], g)
    there, (gx_there,) = run(LabelsBeside, (labels,), [cupy.asarray(x)], cupy.asarray(g))
    close("loss", there, np.asarray(loss), EXACT)
    close("gradient", gx_there, gx, EXACT)


def test_large_scores_do_not_overflow(device):
    x = Tensor(np.array([[1000.0, 0, -1000], [0, 1000, 1000]]), requires_grad=True, device=device)
    loss = ops.cross_entropy(x, [1, 1])
    loss.backward()
    assert loss.item() == pytest.approx((1000 + math.log(2)) / 2)
    np.testing.assert_allclose(on("cpu", x.grad), [[0.5, -0.5, 0], [0, -0.25, 0.25]])


def test_adding_a_constant_changes_nothing():
    x, = values((3, 4))
    assert ops.cross_entropy(Tensor(x + 100), [0, 1, 2]).item() == pytest.approx(ops.cross_entropy(Tensor(x), [0, 1, 2]).item())


def test_labels_may_be_a_list_an_array_or_a_tensor():
    x = Tensor(values((3, 4))[0])
    losses = [ops.cross_entropy(x, labels).item() for labels in
              ([3, 0, 1], np.array([3, 0, 1], np.uint8), np.array([3, 0, 1]), Tensor(np.array([3, 0, 1])))]
    assert len(set(losses)) == 1


@pytest.mark.parametrize(("labels", "error", "message"), [
    ([0, 1, 4], ValueError, r"cross_entropy: labels\[2\] is 4, but there are 4 classes: 0 to 3"),
    ([0, -1, 9], ValueError, r"cross_entropy: labels\[1\] is -1, but there are 4 classes: 0 to 3"),
    ([0, 1], ValueError, r"cross_entropy: 3 rows of logits want labels of shape \(3,\), but these have \(2,\)"),
    (np.zeros((3, 1), int), ValueError, r"cross_entropy: 3 rows of logits want labels of shape \(3,\), but these have \(3, 1\)"),
    (np.eye(4, dtype=int)[:3], ValueError, r"cross_entropy: 3 rows of logits want labels of shape \(3,\), but these have \(3, 4\)"),
    (np.eye(4)[:3], TypeError, r"cross_entropy: labels are integers, not float64; for one-hot labels pass labels.argmax\(axis=1\)"),
    (np.eye(4, dtype=bool)[:3], TypeError, r"cross_entropy: labels are integers, not bool; for one-hot labels pass labels.argmax"),
    ([0.0, 1.0, 2.0], TypeError, r"cross_entropy: labels are integers, not float64$"),
])
def test_bad_labels_are_refused(labels, error, message):
    with pytest.raises(error, match=message):
        ops.cross_entropy(Tensor(np.zeros((3, 4), np.float32)), labels)


@pytest.mark.parametrize("shape", [(4,), (0, 4), (2, 0), (2, 3, 4)])
def test_bad_logits_are_refused(shape):
    with pytest.raises(ValueError, match=r"cross_entropy: logits are a non-empty \(N, classes\), but these have shape \("):
        ops.cross_entropy(Tensor(np.zeros(shape, np.float32)), np.zeros(shape[:1], int))


def test_integer_logits_are_refused():
    with pytest.raises(TypeError, match="cross_entropy: x is int64; float32 or float64 is wanted"):
        ops.cross_entropy(Tensor(np.zeros((2, 3), np.int64)), [0, 1])
