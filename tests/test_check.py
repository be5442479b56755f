"""The harness itself can fail: each of its questions, asked of an op that deserves a no, says no."""

import numpy as np
import pytest
from check import check_each_shows, check_mistake, check_op, close, run, values

from minicnn import Function, GradcheckError, parallel
from minicnn.autograd import no_grad


class Cube(Function):
    """y = x^3, forward and backward as they should be."""

    def forward(self, x):
        return x ** 3, (x,)

    def backward(self, gy, x):
        return gy * 3 * x ** 2


class Product(Function):
    """y = a * b, as it should be."""

    def forward(self, a, b):
        return a * b, (a, b)

    def backward(self, gy, a, b):
        return gy * b, gy * a


def naive(args, x):
    y = np.zeros_like(x)
    for i in np.ndindex(*x.shape):
        y[i] = x[i] * x[i] * x[i]
    return y


def naive_product(args, a, b):
    return np.array([p * q for p, q in zip(a.ravel(), b.ravel(), strict=True)]).reshape(a.shape)


class FactorLost(Cube):
    "x^2, without the 3."
    def backward(self, gy, x):
        return gy * x ** 2


INPUTS = values((2, 3, 2, 2))


def test_a_right_op_passes():
    check_op(Cube, (), INPUTS, naive, [FactorLost])
    check_op(Product, (), values((3, 2), (3, 2)), naive_product)


def test_a_wrong_forward_fails():
    with pytest.raises(AssertionError, match=r"forward, against the loops: at \[.*\] \S+ instead of"):
        check_op(Cube, (), INPUTS, lambda args, x: naive(args, x) * (1 + 1e-9))


def test_a_wrong_shape_fails():
    with pytest.raises(AssertionError, match=r"forward, against the loops: shape \(2, 3, 2, 2\) .* instead of \(2, 3, 4\)"):
        close("forward, against the loops", np.zeros((2, 3, 2, 2)), np.zeros((2, 3, 4)), 1)


def test_a_wrong_backward_fails():
    with pytest.raises(GradcheckError, match=r"\(ratio 0.3333, "):
        check_op(FactorLost, (), INPUTS, naive)


# Ops that compute the right thing and misbehave otherwise, and what is then said.

class ForwardInPlace(Cube):
    def forward(self, x):
        y = x ** 3
        x *= 2
        return y, (x / 2,)


class BackwardInPlace(Cube):
    def backward(self, gy, x):
        gx = gy * 3 * x ** 2
        x *= 2
        return gx


class CotangentInPlace(Cube):
    def backward(self, gy, x):
        gy *= 3 * x ** 2
        return gy


class AnswerInPlace(Cube):
    def forward(self, x):
        y = x ** 3
        return y, (x, y)

    def backward(self, gy, x, y):
        y += 1
        return gy * 3 * x ** 2


class DependsOnTheCall(Cube):
    calls = 0

    def backward(self, gy, x):
        DependsOnTheCall.calls += 1
        return gy * 3 * x ** 2 * (1 + 1e-15 * (DependsOnTheCall.calls % 3))


class Promotes(Cube):
    def forward(self, x):
        return x ** 3 * np.float64(1), (x,)


class LosesDigits(Cube):
    def forward(self, x):
        y = x ** 3
        return (y if x.dtype == np.float64 else y.astype("float16").astype("float32")), (x,)


class LosesDigitsInBackward(Cube):
    def backward(self, gy, x):
        gx = gy * 3 * x ** 2
        return gx if x.dtype == np.float64 else gx.astype("float16").astype("float32")


class ReadsMemoryOrder(Cube):
    def forward(self, x):
        return (x ** 3).ravel(order="K").reshape(x.shape), (x,)


class ReadsCotangentInMemoryOrder(Cube):
    def backward(self, gy, x):
        return gy.ravel(order="K").reshape(gy.shape) * 3 * x ** 2


class RefusesRepeats(Cube):
    def backward(self, gy, x):
        return gy * 3 * x ** 2 * (0 if 0 in gy.strides else 1)


class DependsOnThreads(Cube):
    def forward(self, x):
        return x ** 3 * (1 + 1e-15 * parallel.threads()), (x,)


class DependsOnBlocks(Cube):
    def forward(self, x):
        return x ** 3 * (1 + (parallel.block_size(8) == 1)), (x,)


@pytest.mark.parametrize(("op", "message"), [
    (ForwardInPlace, "ForwardInPlace: forward changed input 0"),
    (BackwardInPlace, "BackwardInPlace: backward changed input 0"),
    (CotangentInPlace, "CotangentInPlace: backward changed the cotangent"),
    (AnswerInPlace, "AnswerInPlace: backward changed the answer"),
    (DependsOnTheCall, "gradient of input 0: other bits a second time"),
    (Promotes, "forward: float32 became float64"),
    (LosesDigits, "forward, float32 against float64: at"),
    (LosesDigitsInBackward, "gradient of input 0, float32 against float64: at"),
    (ReadsMemoryOrder, "forward, for inputs with channels last and a cotangent in rows: at"),
    (ReadsCotangentInMemoryOrder, "gradient of input 0, for inputs in rows and a cotangent with channels last: at"),
    (RefusesRepeats, "gradient of input 0, for a cotangent that is one number repeated: at"),
    (DependsOnThreads, "forward: other bits on two threads"),
    (DependsOnBlocks, "forward, in blocks of one image: at"),
])
def test_misbehaviour_fails(op, message):
    with pytest.raises(AssertionError, match=message):
        check_op(op, (), INPUTS, naive)


class WrongWhenAlone(Product):
    def backward(self, gy, a, b):
        return gy * b, gy * a if self.needs[0] else gy


def test_a_gradient_that_depends_on_who_asks_fails():
    with pytest.raises(AssertionError, match="gradient of input 1, asked for alone: at"):
        check_op(WrongWhenAlone, (), values((3, 2), (3, 2)), naive_product)


# Mistakes that are none

class NothingWrong(Cube):
    "It only says so."


class WrongForward(Cube):
    "Forward is mistaken, not backward."
    def forward(self, x):
        return x ** 3 + 1e-6, (x,)


class Undocumented(Cube):
    def backward(self, gy, x):
        return gy


class ShowsAfterAll(FactorLost):
    "x^2, which is said to make no difference."
    shows = staticmethod(lambda args, x: False)


class NotRepeatable(FactorLost):
    "Refused, but because forward changes a little at each call."
    calls = 0

    def forward(self, x):
        NotRepeatable.calls += 1
        return x ** 3 * (1 + 1e-15 * (NotRepeatable.calls % 3)), (x,)


@pytest.mark.parametrize(("mistake", "message"), [
    (NothingWrong, "the gradient check let NothingWrong pass: It only says so."),
    (WrongForward, "WrongForward: forward, which is to be right: at"),
    (Undocumented, "Undocumented is to be a Cube whose docstring says what is mistaken"),
    (Product, "Product is to be a Cube whose docstring says what is mistaken"),
    (ShowsAfterAll, "ShowsAfterAll is said not to show in this case: gradient of input 0: at"),
    (NotRepeatable, "NotRepeatable was refused, but not for its backward: gradcheck: two calls of fn"),
])
def test_a_mistake_that_is_none_fails(mistake, message):
    with pytest.raises(AssertionError, match=message):
        check_op(Cube, (), INPUTS, naive, [FactorLost, mistake])


def test_a_mistake_that_shows_nowhere_fails():
    check_each_shows([FactorLost], {"one": ((), INPUTS)})
    with pytest.raises(AssertionError, match="ShowsAfterAll shows in none of the cases"):
        check_each_shows([FactorLost, ShowsAfterAll], {"one": ((), INPUTS)})


def test_the_place_where_a_mistake_was_worst_is_returned():
    worst = check_mistake(FactorLost, Cube, (), INPUTS, naive((), *INPUTS), np.ones(INPUTS[0].shape))
    assert worst.analytic / worst.numeric == pytest.approx(1 / 3)


def test_close_sees_what_is_not_a_number():
    with pytest.raises(AssertionError, match=r"y: at \[1\] nan instead of 2"):
        close("y", np.array([1, np.nan]), np.array([1.0, 2.0]), 0.1)


def test_run_gives_what_the_engine_gives():
    with no_grad():
        wanted, _ = Cube().forward(INPUTS[0])
    y, (gx,) = run(Cube, (), INPUTS, np.ones(INPUTS[0].shape))
    assert np.array_equal(y, wanted)
    assert np.array_equal(gx, 3 * INPUTS[0] ** 2)
