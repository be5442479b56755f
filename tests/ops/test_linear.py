"""The fully connected layer: the checks of every op, cost, and the errors."""

import numpy as np
import pytest
from check import check_each_affects, check_op

from minicnn import Tensor, ops
from minicnn.learn.cases import randn
from minicnn.learn.cases.linear import CASES, WRONG, naive
from minicnn.ops.linear import Linear


@pytest.mark.parametrize("case", CASES)
def test_linear(case, device):
    check_op(Linear, *CASES[case], naive, WRONG, device)


def test_every_mistake_is_detectable():
    check_each_affects(WRONG, CASES)


def test_multiply_adds():
    x, w, b = (Tensor(a) for a in randn((2, 3), (5, 3), (5,)))
    linear = Linear()
    y = linear(x, w, b)
    assert linear.multiply_adds(y.data, x.data, w.data, b.data) == 2 * 3 * 5


@pytest.mark.parametrize(("shapes", "message"), [
    (((2, 3, 4), (5, 12)), r"linear: x must be a non-empty \(N, inputs\), got shape \(2, 3, 4\); use flatten\(x\) before it"),
    (((4,), (5, 4)), r"linear: x must be a non-empty \(N, inputs\), got shape \(4,\)$"),
    (((0, 4), (5, 4)), r"linear: x must be a non-empty \(N, inputs\), got shape \(0, 4\)"),
    (((2, 4), (4, 5)), r"linear: w must have shape \(outputs, 4\) for x of shape \(2, 4\), got \(4, 5\)"),
    (((2, 4), (4,)), r"linear: w must have shape \(outputs, 4\) for x of shape \(2, 4\), got \(4,\)"),
    (((2, 4), (5, 4), (4,)), r"linear: b must have shape \(5,\), one for each output of w, got \(4,\)"),
    (((2, 4), (5, 4), (1, 5)), r"linear: b must have shape \(5,\), one for each output of w, got \(1, 5\)"),
])
def test_invalid_shapes_and_sizes_raise(shapes, message):
    with pytest.raises(ValueError, match=message):
        ops.linear(*(Tensor(np.zeros(s, np.float32)) for s in shapes))


def test_wrong_dtypes_raise():
    x, w = np.zeros((2, 4), np.float32), np.zeros((5, 4), np.float32)
    with pytest.raises(TypeError, match="linear: x must be float32 or float64, got int64"):
        ops.linear(Tensor(x.astype(np.int64)), Tensor(w))
    with pytest.raises(TypeError, match=r"Linear: its inputs have different dtypes \(float64, float32\); convert one"):
        ops.linear(Tensor(x.astype(np.float64)), Tensor(w))
