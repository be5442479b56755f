"""Sums, products, powers and matrix products, and their gradients where an input was repeated by broadcasting."""

import math

import numpy as np
import pytest
from check import Remembers, check_each_shows, check_op, values

from minicnn import Tensor, ops
from minicnn.ops.arithmetic import Add, Div, Exp, Log, MatMul, Mul, Power, Sub

PAIRS = {
    "alike":                    ((), values((2, 3), (2, 3))),
    "a row for every row":      ((), values((3, 4), (4,))),
    "a column for every column": ((), values((3, 1), (3, 4))),
    "a row and a column":       ((), values((3, 1), (1, 4))),
    "a number and an array":    ((), values((), (2, 3))),
    "an array and one element": ((), values((2, 3), (1, 1))),
    "a channel's bias":         ((), values((2, 3, 2, 2), (3, 1, 1))),
    "two numbers":              ((), values((), ())),
}
QUOTIENTS = {name: ((), [a, np.sign(b) * (abs(b) + 0.5)]) for name, ((), (a, b)) in PAIRS.items()}      # far from division by 0
POSITIVE = [abs(a) + 0.5 for a in values((2, 3))]
POWERS = {
    "square":           ((2,), values((3, 4))),
    "cube":             ((3,), values((2, 2, 3))),
    "root":             ((0.5,), POSITIVE),
    "reciprocal":       ((-1,), POSITIVE),
    "as it is":         ((1,), values((2, 3))),
    "exponent -1.5":    ((-1.5,), POSITIVE),
}
MATRICES = {
    "matrices":             ((), values((2, 3), (3, 4))),
    "square":               ((), values((3, 3), (3, 3))),
    "stacks":               ((), values((2, 2, 3), (2, 3, 2))),
    "one for a stack":      ((), values((2, 2, 3), (3, 2))),
    "a stack for one":      ((), values((2, 3), (3, 3, 2))),
    "stacks of stacks":     ((), values((2, 1, 2, 2), (1, 3, 2, 2))),
    "inner product":        ((), values((1, 3), (3, 1))),
    "outer product":        ((), values((2, 1), (1, 3))),
}
NUMBERS = {"images": ((), values((2, 2, 2, 2))), "rows": ((), values((3, 4))), "a number": ((), values(()))}
LOGARITHMS = {name: ((), [abs(a) + 0.5]) for name, ((), (a,)) in NUMBERS.items()}


def each(f):
    """The function that applies f to each pair of broadcast elements."""
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
    for *s, i, j in np.ndindex(*y.shape):
        for k in range(a.shape[-1]):
            y[(*s, i, j)] += a[(*s, i, k)] * b[(*s, k, j)]
    return y


def back(g, shape, combine=np.sum):
    """`g` in the shape of an input that was broadcast: by the sum over what was repeated, or by another way of combining."""
    g = combine(g.reshape(-1, *g.shape[g.ndim - len(shape):]), axis=0)
    for axis, size in enumerate(shape):
        if size == 1:
            g = combine(g, axis=axis, keepdims=True)
    return np.asarray(g)


def first(g, axis, keepdims=False):
    """The first along an axis, where a sum belongs."""
    return np.take(g, [0] if keepdims else 0, axis=axis)


def repeated(a, b):
    """Whether `a` is used more than once when combined with `b`."""
    return a.size < math.prod(np.broadcast_shapes(a.shape, b.shape))


class RepeatsForgotten(Add):
    "An input that was repeated gets the gradient of its first use; the shape fits."
    def backward(self, gy, *saved):
        return back(gy, self.shapes[0]), back(gy, self.shapes[1], first)

    @staticmethod
    def shows(args, a, b):
        return repeated(b, a)


class RepeatsAveraged(Add):
    "An input that was repeated gets the mean of the gradients of its uses."
    def backward(self, gy, *saved):
        return back(gy, self.shapes[0], np.mean), back(gy, self.shapes[1])

    @staticmethod
    def shows(args, a, b):
        return repeated(a, b)


class SignForgotten(Sub):
    "The second gradient has the sign of the first."
    def backward(self, gy, *saved):
        return back(gy, self.shapes[0]), back(gy, self.shapes[1])


class SwappedSigns(Sub):
    "The signs are on the wrong sides."
    def backward(self, gy, *saved):
        return back(-gy, self.shapes[0]), back(gy, self.shapes[1])


class OwnFactor(Remembers, Mul):
    "Each factor's gradient is multiplied by that factor, not by the other one."
    def backward(self, gy, *saved):
        a, b = self.arrays
        return back(gy * a, a.shape), back(gy * b, b.shape)


class FactorOfOneRow(Remembers, Mul):
    "What is multiplied by a repeated factor is not added up."
    def backward(self, gy, *saved):
        a, b = self.arrays
        return back(gy * b, a.shape, first), back(gy * a, b.shape, first)

    @staticmethod
    def shows(args, a, b):
        return repeated(a, b) or repeated(b, a)


class QuotientsSignLost(Remembers, Div):
    "A larger denominator is taken to make a larger quotient."
    def backward(self, gy, *saved):
        a, b = self.arrays
        return back(gy / b, a.shape), back(gy * a / b ** 2, b.shape)


class SquareLost(Remembers, Div):
    "The denominator is not squared in its own gradient."
    def backward(self, gy, *saved):
        a, b = self.arrays
        return back(gy / b, a.shape), back(-gy * a / b, b.shape)


class ExponentNotLowered(Remembers, Power):
    "n * a^n instead of n * a^(n-1)."
    def backward(self, gy, *saved):
        return gy * self.exponent * self.arrays[0] ** self.exponent


class FactorLost(Remembers, Power):
    "a^(n-1), without the factor n."
    def backward(self, gy, *saved):
        return gy * self.arrays[0] ** (self.exponent - 1)

    @staticmethod
    def shows(args, a):
        return args != (1,)


class RuleOfPowers(Remembers, Exp):
    "x * e^(x-1): the rule for powers of x."
    def backward(self, gy, *saved):
        x, = self.arrays
        return gy * x * np.exp(x - 1)


class ExpNotDerived(Exp):
    "The gradient goes through as it is."
    def backward(self, gy, *saved):
        return gy


class Multiplied(Remembers, Log):
    "gy * a instead of gy / a."
    def backward(self, gy, *saved):
        return gy * self.arrays[0]


class DividedByTheAnswer(Remembers, Log):
    "gy / log(a): the answer where the input belongs."
    def backward(self, gy, *saved):
        return gy / np.log(self.arrays[0])


class TransposeForgotten(Remembers, MatMul):
    "b is not transposed; where it is square, the shapes fit."
    def backward(self, gy, *saved):
        ga, gb = super().backward(gy, *saved)
        a, b = self.arrays
        return (back(gy @ b, a.shape) if b.shape[-1] == b.shape[-2] else ga), gb

    @staticmethod
    def shows(args, a, b):
        return b.shape[-1] == b.shape[-2]


class ReshapedForTransposed(Remembers, MatMul):
    "gy^T a has the wrong shape, so it is reshaped, where it should be transposed."
    def backward(self, gy, *saved):
        ga, _ = super().backward(gy, *saved)
        a, b = self.arrays
        wrong = gy.swapaxes(-1, -2) @ a
        return ga, back(wrong.reshape(*wrong.shape[:-2], *b.shape[-2:]), b.shape)

    @staticmethod
    def shows(args, a, b):
        return min(b.shape[-2:]) > 1


class FirstOfTheStack(Remembers, MatMul):
    "A matrix that serves a whole stack hears from the first of the stack only."
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
    def shows(args, a, b):
        return a.shape[:-2] != b.shape[:-2]


TABLE = {       # op: cases, by loops, mistakes
    Add:    (PAIRS, each(lambda a, b: a + b), [RepeatsForgotten, RepeatsAveraged]),
    Sub:    (PAIRS, each(lambda a, b: a - b), [SignForgotten, SwappedSigns]),
    Mul:    (PAIRS, each(lambda a, b: a * b), [OwnFactor, FactorOfOneRow]),
    Div:    (QUOTIENTS, each(lambda a, b: a / b), [QuotientsSignLost, SquareLost]),
    Power:  (POWERS, each(lambda a, n: a ** n), [ExponentNotLowered, FactorLost]),
    Exp:    (NUMBERS, each(math.exp), [RuleOfPowers, ExpNotDerived]),
    Log:    (LOGARITHMS, each(math.log), [Multiplied, DividedByTheAnswer]),
    MatMul: (MATRICES, naive_matmul, [TransposeForgotten, ReshapedForTransposed, FirstOfTheStack]),
}


@pytest.mark.parametrize(("op", "case"), [(op, case) for op, (cases, *_) in TABLE.items() for case in cases])
def test_arithmetic(op, case, device):
    cases, naive, wrong = TABLE[op]
    check_op(op, *cases[case], naive, wrong, device)


@pytest.mark.parametrize("op", TABLE)
def test_each_mistake_shows(op):
    cases, _, wrong = TABLE[op]
    check_each_shows(wrong, cases)


def test_operators_and_names_are_the_same():
    a, b = (Tensor(x) for x in values((3, 3), (3, 3)))
    for by_operator, by_name in ((a + b, ops.add(a, b)), (a - b, ops.sub(a, b)), (a * b, ops.mul(a, b)), (a / b, ops.div(a, b)),
                                 (a @ b, ops.matmul(a, b)), (a ** 2, ops.power(a, 2)), (-a, ops.mul(a, -1))):
        assert np.array_equal(by_operator.data, by_name.data)


def test_an_exponent_of_numpy_is_as_good():
    """float32 stays float32, even for x ** np.float64(2)."""
    x = Tensor(np.array([1, 2], np.float32), requires_grad=True)
    y = x ** np.float64(2)
    y.sum().backward()
    assert y.dtype == np.float32
    assert x.grad.dtype == np.float32


def test_to_the_power_of_zero():
    """x^0 is 1 everywhere, so its derivative is 0 everywhere, at 0 too."""
    x = Tensor(np.array([0.0, 2.0]), requires_grad=True)
    (x ** 0).sum().backward()
    assert x.grad.tolist() == [0, 0]


@pytest.mark.parametrize(("op", "a", "b", "error", "message"), [
    (ops.add, (2, 3), (3, 2), ValueError, r"add: shapes \(2, 3\) and \(3, 2\) cannot be broadcast together"),
    (ops.sub, (2, 3), (2,), ValueError, r"sub: shapes \(2, 3\) and \(2,\) cannot be broadcast together"),
    (ops.mul, (4,), (3,), ValueError, r"mul: shapes \(4,\) and \(3,\) cannot be broadcast together"),
    (ops.div, (2, 3), (2, 1, 2), ValueError, r"div: shapes \(2, 3\) and \(2, 1, 2\) cannot be broadcast together"),
    (ops.matmul, (2, 3), (2, 3), ValueError, r"matmul: \(..., n, k\) @ \(..., k, m\) is wanted, not \(2, 3\) @ \(2, 3\)"),
    (ops.matmul, (3,), (3, 2), ValueError, r"matmul: \(..., n, k\) @ \(..., k, m\) is wanted, not \(3,\) @ \(3, 2\)"),
])
def test_what_does_not_fit_is_refused(op, a, b, error, message):
    with pytest.raises(error, match=message):
        op(Tensor(np.zeros(a)), Tensor(np.zeros(b)))


def test_stacks_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"matmul: .*\(2, 3, 3\).*\(4, 3, 3\)"):
        ops.matmul(Tensor(np.zeros((2, 3, 3))), Tensor(np.zeros((4, 3, 3))))


def test_what_is_no_number_is_refused():
    x = Tensor(np.zeros(3, np.float32))
    with pytest.raises(TypeError, match="add: a Tensor, an array or a number is wanted, not str"):
        x + "1"
    with pytest.raises(TypeError, match="mul: one of a and b is a Tensor, but these are int and float"):
        ops.mul(1, 2.0)
    with pytest.raises(TypeError, match=r"power: the exponent is a plain number, not Tensor; a\*\*b is exp\(log\(a\) \* b\)"):
        x ** x
    with pytest.raises(TypeError, match=r"Mul: its inputs have different dtypes \(float32, float64\); convert one"):
        x * np.zeros(3)
