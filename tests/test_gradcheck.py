"""The gradient check accepts a right backward, rejects a wrong one and names the entry, and never passes vacuously."""

import numpy as np
import pytest

import minicnn as mc
from minicnn import Function, GradcheckError, Tensor, gradcheck, ops
from minicnn.backend import random
from minicnn.learn.cases import distinct_values, randn
from minicnn.ops.relu import ReLU
from minicnn.ops.softmax import Softmax


class Square(Function):
    def forward(self, x):
        return x * x, (x,)

    def backward(self, gy, x):
        return 2 * gy * x


class WrongAt(Square):
    """Right except at `where`, where the gradient is `factor` times the right one."""

    def __init__(self, where, factor):
        self.where, self.factor = where, factor

    def backward(self, gy, x):
        gx = 2 * gy * x
        gx[self.where] *= self.factor
        return gx


# Right backwards

@pytest.mark.parametrize("x", [randn((2, 3))[0], randn((300,))[0], np.array(0.5)])
def test_a_right_backward_passes(x):
    report = gradcheck(lambda x: Square()(x), x)
    assert report.worst.error < 1e-8
    assert report.compared >= x.size if x.size < 10 else 20
    assert report.kinks == 0
    assert f"{report.compared} comparisons; worst input 0" in str(report)


def test_inputs_may_be_an_array_a_tensor_or_a_list_and_are_not_modified():
    a, b = randn((2, 3), (3, 2))
    before = a.copy(), b.copy()
    for inputs in ([a, b], (a, Tensor(b)), [Tensor(a.astype(np.float32)), b]):
        gradcheck(ops.matmul, inputs)
    gradcheck(ops.tanh, a)
    gradcheck(ops.tanh, Tensor(a))
    assert np.array_equal(a, before[0])
    assert np.array_equal(b, before[1])


def test_the_random_state_is_not_changed():
    state = random.state()
    gradcheck(ops.tanh, randn((2, 2))[0])
    assert random.state() == state


def test_a_whole_network_passes():
    """Two convolutions, LRN, pool and loss in one: about 500 numbers, so it is checked along random directions and at selected entries."""
    x, w1, w2 = randn((2, 2, 7, 7), (4, 2, 3, 3), (3, 16))
    x[...] = distinct_values(*x.shape) / 5

    def loss(x, w1, w2):
        y = ops.local_response_norm(ops.tanh(ops.conv2d(x, w1)), alpha=1.0)
        return ops.cross_entropy(ops.linear(ops.flatten(ops.max_pool2d(y, 3, 2)), w2), [2, 0])

    gradcheck(loss, [x, w1, w2])


# Wrong backwards

def test_the_worst_entry_is_named_with_both_values_and_their_ratio():
    x = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    with pytest.raises(GradcheckError) as rejected:
        gradcheck(lambda x: WrongAt((1, 2), 0.5)(x), x)
    worst = rejected.value.report.worst
    assert worst.where == "input 0 at [1, 2], output 5"
    assert worst.analytic == pytest.approx(6)
    assert worst.numeric == pytest.approx(12)
    assert worst.error == pytest.approx(0.5)
    assert str(rejected.value).startswith("gradcheck: backward is not the derivative of forward. ")
    assert "input 0 at [1, 2], output 5: backward gives 6, finite differences give 12 (ratio 0.5, error 5.0e-01)" in str(rejected.value)


def test_the_input_is_named():
    class Product(Function):
        def forward(self, a, b):
            return a * b, (a, b)

        def backward(self, gy, a, b):
            return gy * b, gy * b

    with pytest.raises(GradcheckError, match=r"worst input 1 at \[\d\](, output \d)?: backward gives"):
        gradcheck(lambda a, b: Product()(a, b), randn((4,), (4,)))


@pytest.mark.parametrize("where", [(0, 0), (41, 17), (99, 49)])
def test_one_wrong_entry_among_five_thousand_is_detected(where):
    """Every random direction involves it; an entry or a direction is named."""
    with pytest.raises(GradcheckError, match=r"worst input 0 (at \[\d+, \d+\]|along random direction \d): backward gives") as rejected:
        gradcheck(lambda x: WrongAt(where, 2)(x), randn((100, 50))[0])
    assert rejected.value.report.compared < 100


@pytest.mark.parametrize("factor", [1 + 1e-5, 1 - 1e-5, -1, 0])
def test_a_small_error_is_an_error(factor):
    with pytest.raises(GradcheckError, match="backward is not the derivative"):
        gradcheck(lambda x: WrongAt(..., factor)(x), randn((3, 3))[0])


def test_tolerance_is_an_argument():
    x, = randn((3, 3))
    gradcheck(lambda x: WrongAt(..., 1.001)(x), x, tolerance=0.01)
    with pytest.raises(GradcheckError):
        gradcheck(lambda x: WrongAt(..., 1.001)(x), x, tolerance=0.0001)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(("shape", "where"), [((3, 3), r"input 0 at \[1, 1\]"), ((100, 50), "input 0 ")])
def test_a_nan_or_infinite_gradient_is_an_error(shape, where, value):
    class Bad(Square):
        def backward(self, gy, x):
            gx = 2 * gy * x
            gx[1, 1] = value
            return gx

    with pytest.raises(GradcheckError, match=f"worst {where}.*: backward gives (nan|-?inf)"):
        gradcheck(lambda x: Bad()(x), randn(shape)[0])


def test_a_missing_gradient_term_is_an_error():
    """Half of the formula is outside the graph."""
    with pytest.raises(GradcheckError, match=r"\(ratio 0.5, "):
        gradcheck(lambda x: x * x.detach(), randn((3, 3))[0])


def test_a_cotangent_of_ones_would_not_have_detected_it():
    """Softmax whose backward is 0: for a cotangent of ones that is right, so the check draws a random one."""
    class Nothing(Softmax):
        def backward(self, gy, p):
            return gy * 0

    x, = randn((2, 4))
    t = Tensor(x, requires_grad=True)
    ops.softmax(t).backward(np.ones((2, 4)))
    assert np.allclose(t.grad, 0, atol=1e-15)
    with pytest.raises(GradcheckError, match="backward gives 0, finite differences give"):
        gradcheck(lambda x: Nothing()(x), x)


def test_errors_that_cancel_in_the_sum_are_detected():
    """Each entry's gradient goes to its neighbour: the sum over all entries is right, no single one is."""
    class Shifted(Square):
        def backward(self, gy, x):
            return np.roll(2 * gy * x, 1)

    with pytest.raises(GradcheckError, match="backward is not the derivative"):
        gradcheck(lambda x: Shifted()(x), randn((5,))[0])


# Vacuous checks

@pytest.mark.parametrize("fn", [
    lambda x: x * 0 + 1,
    lambda x: ops.softmax(x).sum(),                 # always the number of rows
    lambda x: x * 1e-12 + 1,
], ids=["times 0", "sum of softmax", "tiny"])
def test_a_vacuous_check_fails(fn):
    with pytest.raises(GradcheckError, match=r"the check is vacuous: every gradient of input 0 is below the noise") as rejected:
        gradcheck(fn, np.array([[0.3, -0.2, 0.5]]))
    assert rejected.value.report is None


def test_an_input_that_is_not_used_is_named():
    with pytest.raises(GradcheckError, match=r"every gradient of input 1 is below the noise, so a wrong backward would pass. Does fn use"):
        gradcheck(lambda a, b: a * 2, randn((3,), (3,)))


# Kinks

def test_a_kink_is_skipped_and_counted():
    x = np.array([0.0, 1.0, -1.0, 2.0, 0.5])
    report = gradcheck(ops.relu, x)
    assert report.kinks == 1
    assert ", 1 skipped at kinks; worst" in str(report)


def test_a_kink_within_the_step_is_skipped_too():
    """The kink lies between the points of the finite difference, whose step is 1e-5."""
    for near in (1e-8, 1e-6, 3e-6, -4e-6, 6e-6, 9e-6):
        assert gradcheck(ops.relu, np.array([near, 1.0, -1.0, 0.5])).kinks == 1, near


def test_a_tie_in_a_pool_is_skipped():
    x = distinct_values(1, 1, 2, 4)
    x[0, 0, 0, 0] = x[0, 0, 1, 1] = 2          # in the left window, both are the largest
    assert gradcheck(lambda x: ops.max_pool2d(x, 2), x).kinks == 2


def test_a_wrong_entry_beside_a_kink_is_detected():
    class Wrong(ReLU):
        def backward(self, gy, y):
            return gy

    with pytest.raises(GradcheckError, match=r", 1 skipped at kinks; worst input 0 at \[2\], output 2: backward gives 1, finite .* give 0"):
        gradcheck(lambda x: Wrong()(x), np.array([0.0, 1.0, -1.0, 2.0]))


def test_too_many_kinks_fail():
    with pytest.raises(GradcheckError, match="3 of 4 points of input 0 lie on a kink, where there is no derivative; move the inputs apart"):
        gradcheck(ops.relu, np.array([0.0, 0.0, 0.0, 1.0]))


def test_strong_curvature_is_not_a_kink():
    """x^3 near 0 and e^(10x) curve strongly; but left and right slope converge as the step shrinks."""
    assert gradcheck(lambda x: x ** 3, np.array([1e-7, 0.1, 1.0])).kinks == 0
    assert gradcheck(lambda x: ops.exp(10 * x), np.array([-1.0, 0.0, 0.5])).kinks == 0


# Functions that cannot be checked

def test_a_random_function_is_refused():
    with pytest.raises(GradcheckError, match=r"two calls of fn with the same inputs gave different outputs; fix its randomness"):
        gradcheck(lambda x: ops.dropout(x, 0.5), np.ones(50))
    gradcheck(lambda x: ops.dropout(x, 0.5, rng=random.generator(random.SAMPLES, 1)), np.ones(50))


def test_a_function_that_loses_precision_is_refused():
    class Lossy(Square):
        def forward(self, x):
            return (x * x).astype(np.float32), (x,)

    with pytest.raises(GradcheckError, match="fn must return float64 for float64 inputs, got float32"):
        gradcheck(lambda x: Lossy()(x), np.ones(3))


def test_values_that_are_not_finite_are_refused():
    with pytest.raises(GradcheckError, match="the output of fn has values that are not finite"), np.errstate(divide="ignore"):
        gradcheck(ops.log, np.array([0.0, 1.0]))


def test_the_error_is_an_assertion_error_and_both_are_public():
    assert issubclass(mc.GradcheckError, AssertionError)
    assert mc.gradcheck is gradcheck
