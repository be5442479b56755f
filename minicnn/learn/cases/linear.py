"""The fully connected layer: with and without bias, and with square weights, where a forgotten transpose fits."""

import numpy as np

from minicnn.learn.cases import Remembers, randn
from minicnn.ops.linear import Linear

CASES = {                       # x       w       b
    "with bias":    ((), randn((3, 4), (5, 4), (5,))),
    "no bias":      ((), randn((3, 4), (2, 4))),
    "square":       ((), randn((3, 3), (3, 3), (3,))),
    "one row":      ((), randn((1, 4), (3, 4), (3,))),
    "one input":    ((), randn((3, 1), (4, 1), (4,))),
    "one output":   ((), randn((4, 3), (1, 3), (1,))),
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
    """A correct backward with one method for each gradient; each mistake breaks one of them."""

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
    "w is transposed as in forward: gy @ w^T instead of gy @ w; where w is square, the shapes fit."
    def gx(self, gy, w, x):
        return gy @ (w.T if w.shape[0] == w.shape[1] else w)

    @staticmethod
    def affects(args, x, w, *b):
        return w.shape[0] == w.shape[1]


class InputGradientReshaped(WrongLinear):
    "dL/dx is w^T @ gy^T, reshaped to the shape of x instead of transposed."
    def gx(self, gy, w, x):
        return (w.T @ gy.T).reshape(x.shape)

    @staticmethod
    def affects(args, x, w, *b):
        return min(x.shape) > 1


class WeightGradientReshaped(WrongLinear):
    "dL/dw is x^T @ gy, reshaped to the shape of w instead of transposed."
    def gw(self, gy, x, w):
        return (x.T @ gy).reshape(w.shape)

    @staticmethod
    def affects(args, x, w, *b):
        return min(w.shape) > 1


class WeightGradientAveraged(WrongLinear):
    "The weight gradient is averaged over the batch instead of summed; the loss has averaged already."
    def gw(self, gy, x, w):
        return gy.T @ x / len(x)

    @staticmethod
    def affects(args, x, w, *b):
        return len(x) > 1


class BiasGradientAveraged(WrongLinear):
    "The bias gradient is averaged over the batch instead of summed."
    def gb(self, gy):
        return gy.mean(axis=0)

    @staticmethod
    def affects(args, x, w, *b):
        return len(b) > 0 and len(x) > 1


class BiasGradientOfOneRow(WrongLinear):
    "The bias gradient is that of the first row only; but the bias was added to every row."
    def gb(self, gy):
        return gy[0].copy()

    @staticmethod
    def affects(args, x, w, *b):
        return len(b) > 0 and len(x) > 1


class BiasGradientOverOutputs(WrongLinear):
    "The bias gradient is summed over the outputs: over the wrong axis if the shape allows it, else over both."
    def gb(self, gy):
        N, O = gy.shape
        return gy.sum(axis=1) if N == O else np.full(O, gy.sum(), gy.dtype)

    @staticmethod
    def affects(args, x, w, *b):
        return len(b) > 0 and len(w) > 1


WRONG = [TransposeForgotten, InputGradientReshaped, WeightGradientReshaped, WeightGradientAveraged, BiasGradientAveraged,
         BiasGradientOfOneRow, BiasGradientOverOutputs]


OPS = {
    Linear: (Linear, CASES, naive, WRONG),
}
