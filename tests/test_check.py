"""The test harness itself can fail: each of its checks rejects an op made to fail it."""

import numpy as np
import pytest
from check import assert_close, check_each_affects, check_op, check_wrong_backward, run

from minicnn import Function, GradcheckError
from minicnn.autograd import no_grad
from minicnn.backend import threads
from minicnn.learn.cases import randn


class Cube(Function):
    """y = x^3, with a right forward and backward."""

    def forward(self, x):
        return x ** 3, (x,)

    def backward(self, gy, x):
        return gy * 3 * x ** 2


class Product(Function):
    """y = a * b, with a right forward and backward."""

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


INPUTS = randn((2, 3, 2, 2))


def test_a_right_op_passes():
    check_op(Cube, (), INPUTS, naive, [FactorLost])
    check_op(Product, (), randn((3, 2), (3, 2)), naive_product)


def test_a_wrong_forward_fails():
    with pytest.raises(AssertionError, match=r"forward, against the loops: at \[.*\] must be \S+ within \S+, got"):
        check_op(Cube, (), INPUTS, lambda args, x: naive(args, x) * (1 + 1e-9))


def test_a_wrong_shape_fails():
    with pytest.raises(AssertionError, match=r"forward, against the loops: must be float64 \(2, 3, 4\), got float64 \(2, 3, 2, 2\)"):
        assert_close("forward, against the loops", np.zeros((2, 3, 2, 2)), np.zeros((2, 3, 4)), 1)


def test_a_wrong_backward_fails():
    with pytest.raises(GradcheckError, match=r"\(ratio 0.3333, "):
        check_op(FactorLost, (), INPUTS, naive)


# Ops that compute the right values and misbehave otherwise, and the error message for each.

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


class OutputInPlace(Cube):
    def forward(self, x):
        y = x ** 3
        return y, (x, y)

    def backward(self, gy, x, y):
        y += 1
        return gy * 3 * x ** 2


class NotReproducible(Cube):
    calls = 0

    def backward(self, gy, x):
        NotReproducible.calls += 1
        return gy * 3 * x ** 2 * (1 + 1e-15 * (NotReproducible.calls % 3))


class Promotes(Cube):
    def forward(self, x):
        return x ** 3 * np.float64(1), (x,)


class LosesPrecision(Cube):
    def forward(self, x):
        y = x ** 3
        return (y if x.dtype == np.float64 else y.astype("float16").astype("float32")), (x,)


class LosesPrecisionInBackward(Cube):
    def backward(self, gy, x):
        gx = gy * 3 * x ** 2
        return gx if x.dtype == np.float64 else gx.astype("float16").astype("float32")


class ReadsMemoryOrder(Cube):
    def forward(self, x):
        return (x ** 3).ravel(order="K").reshape(x.shape), (x,)


class ReadsCotangentInMemoryOrder(Cube):
    def backward(self, gy, x):
        return gy.ravel(order="K").reshape(gy.shape) * 3 * x ** 2


class WrongForBroadcasts(Cube):
    def backward(self, gy, x):
        return gy * 3 * x ** 2 * (0 if 0 in gy.strides else 1)


class DependsOnThreads(Cube):
    def forward(self, x):
        return x ** 3 * (1 + 1e-15 * threads.num_threads()), (x,)


class DependsOnBlocks(Cube):
    def forward(self, x):
        return x ** 3 * (1 + (threads.block_size(8) == 1)), (x,)


@pytest.mark.parametrize(("op", "message"), [
    (ForwardInPlace, "ForwardInPlace: forward modified input 0"),
    (BackwardInPlace, "BackwardInPlace: backward modified input 0"),
    (CotangentInPlace, "CotangentInPlace: backward modified the cotangent"),
    (OutputInPlace, "OutputInPlace: backward modified the output"),
    (NotReproducible, "gradient of input 0: other bits in a second run"),
    (Promotes, "forward: float32 became float64"),
    (LosesPrecision, "forward, float32 against float64: at"),
    (LosesPrecisionInBackward, "gradient of input 0, float32 against float64: at"),
    (ReadsMemoryOrder, "forward, for channels-last inputs and a contiguous cotangent: at"),
    (ReadsCotangentInMemoryOrder, "gradient of input 0, for contiguous inputs and a channels-last cotangent: at"),
    (WrongForBroadcasts, "gradient of input 0, for a broadcast cotangent: at"),
    (DependsOnThreads, "forward: other bits on two threads"),
    (DependsOnBlocks, "forward, in blocks of one image: at"),
])
def test_misbehaviour_fails(op, message):
    with pytest.raises(AssertionError, match=message):
        check_op(op, (), INPUTS, naive)


class WrongIfSingle(Product):
    def backward(self, gy, a, b):
        return gy * b, gy * a if self.needs_input_grad[0] else gy


def test_a_gradient_that_depends_on_which_are_required_fails():
    with pytest.raises(AssertionError, match="gradient of input 1, when only it is required: at"):
        check_op(WrongIfSingle, (), randn((3, 2), (3, 2)), naive_product)


# Invalid wrong backwards

class NothingWrong(Cube):
    "A mistake is claimed, but there is none."


class WrongForward(Cube):
    "The mistake is in forward, not in backward."
    def forward(self, x):
        return x ** 3 + 1e-6, (x,)


class Undocumented(Cube):
    def backward(self, gy, x):
        return gy


class AffectsAfterAll(FactorLost):
    "x^2, but `affects` denies that it makes a difference."
    affects = staticmethod(lambda args, x: False)


class NotRepeatable(FactorLost):
    "Rejected, but because forward changes a little at each call."
    calls = 0

    def forward(self, x):
        NotRepeatable.calls += 1
        return x ** 3 * (1 + 1e-15 * (NotRepeatable.calls % 3)), (x,)


@pytest.mark.parametrize(("mistake", "message"), [
    (NothingWrong, "the gradient check accepted NothingWrong: A mistake is claimed"),
    (WrongForward, "WrongForward: forward, which must be right: at"),
    (Undocumented, "Undocumented must be a subclass of Cube whose docstring describes the mistake"),
    (Product, "Product must be a subclass of Cube whose docstring describes the mistake"),
    (AffectsAfterAll, "AffectsAfterAll should not affect this case: gradient of input 0: at"),
    (NotRepeatable, "NotRepeatable was rejected, but not because of its backward: gradcheck: two calls of fn"),
])
def test_an_invalid_wrong_backward_fails(mistake, message):
    with pytest.raises(AssertionError, match=message):
        check_op(Cube, (), INPUTS, naive, [FactorLost, mistake])


def test_a_wrong_backward_that_affects_no_case_fails():
    check_each_affects([FactorLost], {"one": ((), INPUTS)})
    with pytest.raises(AssertionError, match="AffectsAfterAll affects none of the cases"):
        check_each_affects([FactorLost, AffectsAfterAll], {"one": ((), INPUTS)})


def test_the_worst_entry_of_a_wrong_backward_is_returned():
    worst = check_wrong_backward(FactorLost, Cube, (), INPUTS, naive((), *INPUTS), np.ones(INPUTS[0].shape))
    assert worst.analytic / worst.numeric == pytest.approx(1 / 3)


def test_assert_close_rejects_nan():
    with pytest.raises(AssertionError, match=r"y: at \[1\] must be 2 within 2.0e-01, got nan"):
        assert_close("y", np.array([1, np.nan]), np.array([1.0, 2.0]), 0.1)


def test_run_returns_output_and_gradients():
    with no_grad():
        expected, _ = Cube().forward(INPUTS[0])
    y, (gx,) = run(Cube, (), INPUTS, np.ones(INPUTS[0].shape))
    assert np.array_equal(y, expected)
    assert np.array_equal(gx, 3 * INPUTS[0] ** 2)
