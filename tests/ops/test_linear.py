"""The fully connected layer: with and without bias, square (where a forgotten transpose fits) and not."""

import numpy as np
import pytest
from check import Remembers, check_each_shows, check_op, values

from minicnn import Tensor, ops
from minicnn.ops.linear import Linear

CASES = {                       # x       w       b
    "with bias":    ((), values((3, 4), (5, 4), (5,))),
    "no bias":      ((), values((3, 4), (2, 4))),
    "square":       ((), values((3, 3), (3, 3), (3,))),
    "one row":      ((), values((1, 4), (3, 4), (3,))),
    "one input":    ((), values((3, 1), (4, 1), (4,))),
    "one output":   ((), values((4, 3), (1, 3), (1,))),
}


def naive(args, x, w, b=None):
    """y[n, o] = b[o] + sum_i x[n, i] * w[o, i]."""
    y = np.zeros((len(x), len(w)))
    for n, o in np.ndindex(*y.shape):
        y[n, o] = 0 if b is None else b[o]
        for i in range(x.shape[1]):
            y[n, o] += x[n, i] * w[o, i]
    return y


class WrongLinear(Remembers, Linear):
    """Backward as it should be; each mistake spoils one gradient."""

    def backward(self, gy, *saved):
        x, w, *b = self.arrays
        return self.gx(gy, w, x), self.gw(gy, x, w), *(self.gb(gy) for _ in b)

    def gx(self, gy, w, x):
        return gy @ w

    def gw(self, gy, x, w):
        return gy.T @ x

    def gb(self, gy):
        return gy.sum(axis=0)


class TransposeForgotten(WrongLinear):
    "w is transposed as in forward; where it is square, the shapes fit."
    def gx(self, gy, w, x):
        return gy @ (w.T if w.shape[0] == w.shape[1] else w)

    @staticmethod
    def shows(args, x, w, *b):
        return w.shape[0] == w.shape[1]


class InputGradientReshaped(WrongLinear):
    "w^T gy^T has the wrong shape, so it is reshaped, where it should be transposed."
    def gx(self, gy, w, x):
        return (w.T @ gy.T).reshape(x.shape)

    @staticmethod
    def shows(args, x, w, *b):
        return min(x.shape) > 1


class WeightGradientReshaped(WrongLinear):
    "x^T gy has the wrong shape, so it is reshaped, where it should be transposed."
    def gw(self, gy, x, w):
        return (x.T @ gy).reshape(w.shape)

    @staticmethod
    def shows(args, x, w, *b):
        return min(w.shape) > 1


class WeightGradientAveraged(WrongLinear):
    "The weight gradient is the mean over the batch; but the loss has averaged already."
    def gw(self, gy, x, w):
        return gy.T @ x / len(x)

    @staticmethod
    def shows(args, x, w, *b):
        return len(x) > 1


class BiasGradientAveraged(WrongLinear):
    "The bias gradient is the mean over the batch instead of the sum."
    def gb(self, gy):
        return gy.mean(axis=0)

    @staticmethod
    def shows(args, x, w, *b):
        return len(b) > 0 and len(x) > 1


class BiasGradientOfOneRow(WrongLinear):
    "The bias gradient is that of the first row: it was added to every row."
    def gb(self, gy):
        return gy[0].copy()

    @staticmethod
    def shows(args, x, w, *b):
        return len(b) > 0 and len(x) > 1


class BiasGradientOverOutputs(WrongLinear):
    "The bias gradient is summed over the wrong axis where the shapes allow it, and over both where they do not."
    def gb(self, gy):
        N, O = gy.shape
        return gy.sum(axis=1) if N == O else np.full(O, gy.sum(), gy.dtype)

    @staticmethod
    def shows(args, x, w, *b):
        return len(b) > 0 and len(w) > 1


WRONG = [TransposeForgotten, InputGradientReshaped, WeightGradientReshaped, WeightGradientAveraged, BiasGradientAveraged,
         BiasGradientOfOneRow, BiasGradientOverOutputs]


@pytest.mark.parametrize("case", CASES)
def test_linear(case, device):
    check_op(Linear, *CASES[case], naive, WRONG, device)


def test_each_mistake_shows():
    check_each_shows(WRONG, CASES)


def test_multiply_adds():
    x, w, b = (Tensor(a) for a in values((2, 3), (5, 3), (5,)))
    linear = Linear()
    y = linear(x, w, b)
    assert linear.multiply_adds(y.data, x.data, w.data, b.data) == 2 * 3 * 5


@pytest.mark.parametrize(("shapes", "message"), [
    (((2, 3, 4), (5, 12)), r"linear: x is a non-empty \(N, inputs\), but this x has shape \(2, 3, 4\); use flatten\(x\) before it"),
    (((4,), (5, 4)), r"linear: x is a non-empty \(N, inputs\), but this x has shape \(4,\)$"),
    (((0, 4), (5, 4)), r"linear: x is a non-empty \(N, inputs\), but this x has shape \(0, 4\)"),
    (((2, 4), (4, 5)), r"linear: x has shape \(2, 4\), so w is \(outputs, 4\), but this w has shape \(4, 5\)"),
    (((2, 4), (4,)), r"linear: x has shape \(2, 4\), so w is \(outputs, 4\), but this w has shape \(4,\)"),
    (((2, 4), (5, 4), (4,)), r"linear: b has shape \(4,\), but w has 5 outputs, which want \(5,\)"),
    (((2, 4), (5, 4), (1, 5)), r"linear: b has shape \(1, 5\), but w has 5 outputs, which want \(5,\)"),
])
def test_what_does_not_fit_is_refused(shapes, message):
    with pytest.raises(ValueError, match=message):
        ops.linear(*(Tensor(np.zeros(s, np.float32)) for s in shapes))


def test_wrong_dtypes_are_refused():
    x, w = np.zeros((2, 4), np.float32), np.zeros((5, 4), np.float32)
    with pytest.raises(TypeError, match="linear: x is int64; float32 or float64 is wanted"):
        ops.linear(Tensor(x.astype(np.int64)), Tensor(w))
    with pytest.raises(TypeError, match=r"Linear: its inputs have different dtypes \(float64, float32\); convert one"):
        ops.linear(Tensor(x.astype(np.float64)), Tensor(w))
