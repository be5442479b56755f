"""Tanh and sigmoid: the checks of every op, and saturation far from 0."""

import numpy as np
import pytest
from check import check_op

from minicnn import Tensor, ops
from minicnn.learn.cases.tanh_sigmoid import (
    CASES,
    DerivativeAtX,
    DerivativeForgotten,
    DerivativeOfTanh,
    FactorForgotten,
    HalfForgotten,
    SquareForgotten,
    naive_sigmoid,
    naive_tanh,
)
from minicnn.ops.sigmoid import Sigmoid
from minicnn.ops.tanh import Tanh


@pytest.mark.parametrize("case", CASES)
def test_tanh(case, device):
    check_op(Tanh, *CASES[case], naive_tanh, [SquareForgotten, DerivativeAtX, DerivativeForgotten], device)


@pytest.mark.parametrize("case", CASES)
def test_sigmoid(case, device):
    check_op(Sigmoid, *CASES[case], naive_sigmoid, [DerivativeOfTanh, HalfForgotten, FactorForgotten], device)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_saturation(dtype):
    """At +-1000 the output is a limit, the gradient is 0, and nothing warns of overflow."""
    for op, low in ((ops.tanh, -1), (ops.sigmoid, 0)):
        x = Tensor(np.array([-1000, 1000], dtype), requires_grad=True)
        y = op(x)
        y.sum().backward()
        assert y.data.tolist() == [low, 1]
        assert x.grad.tolist() == [0, 0]


@pytest.mark.parametrize("op", [ops.tanh, ops.sigmoid])
def test_integers_raise(op):
    with pytest.raises(TypeError, match=rf"{op.__name__}: x must be float32 or float64, got int64; convert it with "
                                        r"Tensor\(array.astype\('float32'\)\)"):
        op(Tensor(np.arange(3)))
