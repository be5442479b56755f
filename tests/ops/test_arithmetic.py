"""Arithmetic and the matrix product: the checks of every op, scalars and exponents, and the errors."""

import numpy as np
import pytest
from check import check_each_affects, check_op

from minicnn import Tensor, ops
from minicnn.learn.cases import randn
from minicnn.learn.cases.arithmetic import OPS


@pytest.mark.parametrize(("op", "case"), [(op, case) for op, (_, cases, *_) in OPS.items() for case in cases])
def test_arithmetic(op, case, device):
    _, cases, naive, wrong = OPS[op]
    check_op(op, *cases[case], naive, wrong, device)


@pytest.mark.parametrize("op", OPS)
def test_every_mistake_is_detectable(op):
    _, cases, _, wrong = OPS[op]
    check_each_affects(wrong, cases)


def test_operators_call_the_ops():
    a, b = (Tensor(x) for x in randn((3, 3), (3, 3)))
    for by_operator, by_name in ((a + b, ops.add(a, b)), (a - b, ops.sub(a, b)), (a * b, ops.mul(a, b)), (a / b, ops.div(a, b)),
                                 (a @ b, ops.matmul(a, b)), (a ** 2, ops.power(a, 2)), (-a, ops.mul(a, -1))):
        assert np.array_equal(by_operator.data, by_name.data)


def test_exponent_may_be_a_numpy_scalar():
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
    (ops.matmul, (2, 3), (2, 3), ValueError, r"matmul: shapes must be \(..., n, k\) @ \(..., k, m\), got \(2, 3\) @ \(2, 3\)"),
    (ops.matmul, (3,), (3, 2), ValueError, r"matmul: shapes must be \(..., n, k\) @ \(..., k, m\), got \(3,\) @ \(3, 2\)"),
])
def test_invalid_shapes_and_sizes_raise(op, a, b, error, message):
    with pytest.raises(error, match=message):
        op(Tensor(np.zeros(a)), Tensor(np.zeros(b)))


def test_stacks_that_do_not_broadcast_raise():
    with pytest.raises(ValueError, match=r"matmul: .*\(2, 3, 3\).*\(4, 3, 3\)"):
        ops.matmul(Tensor(np.zeros((2, 3, 3))), Tensor(np.zeros((4, 3, 3))))


def test_wrong_operand_types_raise():
    x = Tensor(np.zeros(3, np.float32))
    with pytest.raises(TypeError, match="add: an operand must be a Tensor, an array or a number, got str"):
        x + "1"
    with pytest.raises(TypeError, match="mul: a or b must be a Tensor, got int and float"):
        ops.mul(1, 2.0)
    with pytest.raises(TypeError, match=r"power: exponent must be a number, got Tensor; write a\*\*b as exp\(log\(a\) \* b\)"):
        x ** x
    with pytest.raises(TypeError, match=r"Mul: its inputs have different dtypes \(float32, float64\); convert one"):
        x * np.zeros(3)
