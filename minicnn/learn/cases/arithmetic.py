"""Arithmetic and the matrix product, with gradients of inputs that were broadcast."""

import math

import numpy as np

from minicnn.learn.cases import Remembers, randn
from minicnn.ops.arithmetic import Add, Div, Exp, Log, MatMul, Mul, Power, Sub

PAIRS = {
    "same shape":               ((), randn((2, 3), (2, 3))),
    "a row, broadcast":         ((), randn((3, 4), (4,))),
    "a column, broadcast":      ((), randn((3, 1), (3, 4))),
    "a row and a column":       ((), randn((3, 1), (1, 4))),
    "a number and an array":    ((), randn((), (2, 3))),
    "an array and one element": ((), randn((2, 3), (1, 1))),
    "a channel's bias":         ((), randn((2, 3, 2, 2), (3, 1, 1))),
    "two numbers":              ((), randn((), ())),
}
QUOTIENTS = {name: ((), [a, np.sign(b) * (abs(b) + 0.5)]) for name, ((), (a, b)) in PAIRS.items()}      # denominators not near 0
POSITIVE = [abs(a) + 0.5 for a in randn((2, 3))]
POWERS = {
    "square":           ((2,), randn((3, 4))),
    "cube":             ((3,), randn((2, 2, 3))),
    "root":             ((0.5,), POSITIVE),
    "reciprocal":       ((-1,), POSITIVE),
    "exponent 1":       ((1,), randn((2, 3))),
    "exponent -1.5":    ((-1.5,), POSITIVE),
}
MATRICES = {
    "matrices":             ((), randn((2, 3), (3, 4))),
    "square":               ((), randn((3, 3), (3, 3))),
    "stacks":               ((), randn((2, 2, 3), (2, 3, 2))),
    "a stack @ a matrix":   ((), randn((2, 2, 3), (3, 2))),
    "a matrix @ a stack":   ((), randn((2, 3), (3, 3, 2))),
    "two stack axes":       ((), randn((2, 1, 2, 2), (1, 3, 2, 2))),
    "inner product":        ((), randn((1, 3), (3, 1))),
    "outer product":        ((), randn((2, 1), (1, 3))),
}
NUMBERS = {"images": ((), randn((2, 2, 2, 2))), "rows": ((), randn((3, 4))), "a number": ((), randn(()))}
LOGARITHMS = {name: ((), [abs(a) + 0.5]) for name, ((), (a,)) in NUMBERS.items()}


def each(f):
    """naive(args, *inputs) for an elementwise op: f applied to each element of the broadcast inputs, and to args."""
    def naive(args, *inputs):
        y = np.zeros(np.broadcast_shapes(*(a.shape for a in inputs)))
        wide = [np.broadcast_to(a, y.shape) for a in inputs]
        for i in np.ndindex(*y.shape):
            y[i] = f(*(float(a[i]) for a in wide), *args)
        return y
    return naive


def naive_matmul(args, a, b):
    """y[..., i, j] = sum_k a[..., i, k] * b[..., k, j]."""
    stack = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    y = np.zeros((*stack, a.shape[-2], b.shape[-1]))
    a, b = np.broadcast_to(a, (*stack, *a.shape[-2:])), np.broadcast_to(b, (*stack, *b.shape[-2:]))
    for n in np.ndindex(*stack):
        for i, j, k in np.ndindex(*y.shape[-2:], a.shape[-1]):
            y[n][i, j] += a[n][i, k] * b[n][k, j]
    return y


def reduce_to(g, shape, combine=np.sum):
    """The gradient `g` reduced to the shape of an input that was broadcast: by the sum over the repetitions, or by another `combine`."""
    g = combine(g.reshape(-1, *g.shape[g.ndim - len(shape):]), axis=0)
    for axis, size in enumerate(shape):
        if size == 1:
            g = combine(g, axis=axis, keepdims=True)
    return np.asarray(g)


def first(g, axis, keepdims=False):
    """The first element along an axis, instead of the sum."""
    return np.take(g, [0] if keepdims else 0, axis=axis)


def repeated(a, b):
    """Whether `a` is broadcast (used more than once) when combined with `b`."""
    return a.size < math.prod(np.broadcast_shapes(a.shape, b.shape))


class SumOverUsesForgotten(Add):
    "The gradient of an input that was broadcast is that of its first use, not the sum over all uses; the shape fits."
    def backward(self, gy, *saved):
        return reduce_to(gy, self.shapes[0]), reduce_to(gy, self.shapes[1], first)

    @staticmethod
    def affects(args, a, b):
        return repeated(b, a)


class UsesAveraged(Add):
    "The gradient of an input that was broadcast is the mean over its uses instead of the sum."
    def backward(self, gy, *saved):
        return reduce_to(gy, self.shapes[0], np.mean), reduce_to(gy, self.shapes[1])

    @staticmethod
    def affects(args, a, b):
        return repeated(a, b)


class SignForgotten(Sub):
    "The minus sign of dL/db is missing."
    def backward(self, gy, *saved):
        return reduce_to(gy, self.shapes[0]), reduce_to(gy, self.shapes[1])


class SwappedSigns(Sub):
    "The minus sign is on dL/da instead of dL/db."
    def backward(self, gy, *saved):
        return reduce_to(-gy, self.shapes[0]), reduce_to(gy, self.shapes[1])


class OwnFactor(Remembers, Mul):
    "The gradient of each factor is gy times that factor instead of gy times the other one."
    def backward(self, gy, *saved):
        a, b = self.arrays
        return reduce_to(gy * a, a.shape), reduce_to(gy * b, b.shape)


class FirstUseOnly(Remembers, Mul):
    "The gradient of a factor that was broadcast is that of its first use, not the sum over all uses."
    def backward(self, gy, *saved):
        a, b = self.arrays
        return reduce_to(gy * b, a.shape, first), reduce_to(gy * a, b.shape, first)

    @staticmethod
    def affects(args, a, b):
        return repeated(a, b) or repeated(b, a)


class SignLost(Remembers, Div):
    "The minus sign in the gradient of the denominator is missing."
    def backward(self, gy, *saved):
        a, b = self.arrays
        return reduce_to(gy / b, a.shape), reduce_to(gy * a / b ** 2, b.shape)


class SquareLost(Remembers, Div):
    "The denominator is not squared in its own gradient: -gy * a / b instead of -gy * a / b^2."
    def backward(self, gy, *saved):
        a, b = self.arrays
        return reduce_to(gy / b, a.shape), reduce_to(-gy * a / b, b.shape)


class ExponentNotLowered(Remembers, Power):
    "The exponent is not lowered: n * a^n instead of n * a^(n-1)."
    def backward(self, gy, *saved):
        return gy * self.exponent * self.arrays[0] ** self.exponent


class FactorLost(Remembers, Power):
    "The factor n is missing: a^(n-1) instead of n * a^(n-1)."
    def backward(self, gy, *saved):
        return gy * self.arrays[0] ** (self.exponent - 1)

    @staticmethod
    def affects(args, a):
        return args != (1,)


class PowerRule(Remembers, Exp):
    "The power rule is applied to an exponential: x * e^(x-1) instead of e^x."
    def backward(self, gy, *saved):
        x, = self.arrays
        return gy * x * np.exp(x - 1)


class DerivativeForgotten(Exp):
    "The derivative e^a is missing: gy is returned unchanged."
    def backward(self, gy, *saved):
        return gy


class Multiplied(Remembers, Log):
    "Multiplied by a instead of divided: gy * a instead of gy / a."
    def backward(self, gy, *saved):
        return gy * self.arrays[0]


class DividedByOutput(Remembers, Log):
    "Divided by the output instead of the input: gy / log(a) instead of gy / a."
    def backward(self, gy, *saved):
        return gy / np.log(self.arrays[0])


class TransposeForgotten(Remembers, MatMul):
    "b is not transposed: gy @ b instead of gy @ b^T; where b is square, the shapes fit."
    def backward(self, gy, *saved):
        ga, gb = super().backward(gy, *saved)
        a, b = self.arrays
        return (reduce_to(gy @ b, a.shape) if b.shape[-1] == b.shape[-2] else ga), gb

    @staticmethod
    def affects(args, a, b):
        return b.shape[-1] == b.shape[-2]


class ReshapedNotTransposed(Remembers, MatMul):
    "dL/db is gy^T @ a, reshaped to the shape of b, instead of a^T @ gy."
    def backward(self, gy, *saved):
        ga, _ = super().backward(gy, *saved)
        a, b = self.arrays
        wrong = gy.swapaxes(-1, -2) @ a
        return ga, reduce_to(wrong.reshape(*wrong.shape[:-2], *b.shape[-2:]), b.shape)

    @staticmethod
    def affects(args, a, b):
        return min(b.shape[-2:]) > 1


class FirstOfStackOnly(Remembers, MatMul):
    "The gradient of a matrix that was broadcast over a stack is that of the first matrix of the stack, not the sum."
    def backward(self, gy, *saved):
        a, b = self.arrays
        stack_a, stack_b = gy @ b.swapaxes(-1, -2), a.swapaxes(-1, -2) @ gy
        if a.ndim == b.ndim == 2:
            return stack_a, stack_b
        return tuple(g if g.shape == x.shape else self.first_matrix(g, x.shape) for g, x in ((stack_a, a), (stack_b, b)))

    def first_matrix(self, g, shape):
        g = g[(0,) * (g.ndim - len(shape))]
        for axis in range(len(shape) - 2):
            g = g if g.shape[axis] == shape[axis] else g.take([0], axis=axis)
        return g.copy()

    @staticmethod
    def affects(args, a, b):
        return a.shape[:-2] != b.shape[:-2]


OPS = {         # op: (class that the cases run, cases, naive, wrong backwards)
    Add:    (Add, PAIRS, each(lambda a, b: a + b), [SumOverUsesForgotten, UsesAveraged]),
    Sub:    (Sub, PAIRS, each(lambda a, b: a - b), [SignForgotten, SwappedSigns]),
    Mul:    (Mul, PAIRS, each(lambda a, b: a * b), [OwnFactor, FirstUseOnly]),
    Div:    (Div, QUOTIENTS, each(lambda a, b: a / b), [SignLost, SquareLost]),
    Power:  (Power, POWERS, each(lambda a, n: a ** n), [ExponentNotLowered, FactorLost]),
    Exp:    (Exp, NUMBERS, each(math.exp), [PowerRule, DerivativeForgotten]),
    Log:    (Log, LOGARITHMS, each(math.log), [Multiplied, DividedByOutput]),
    MatMul: (MatMul, MATRICES, naive_matmul, [TransposeForgotten, ReshapedNotTransposed, FirstOfStackOnly]),
}
