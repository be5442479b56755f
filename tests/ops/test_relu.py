"""ReLU: the checks of every op, the gradient at 0, NaN and infinity, memory layout, and the errors."""

import numpy as np
import pytest
from check import check_op, on

from minicnn import Tensor, ops
from minicnn.learn.cases.relu import CASES, WRONG, naive
from minicnn.ops.relu import ReLU


@pytest.mark.parametrize("case", CASES)
def test_relu(case, device):
    check_op(ReLU, *CASES[case], naive, WRONG, device)


def test_at_zero_the_gradient_is_zero(device):
    x = Tensor(np.array([-1.0, 0.0, 1.0]), requires_grad=True, device=device)
    ops.relu(x).backward([1, 1, 1])
    assert x.grad.tolist() == [0, 0, 1]


def test_nan_and_infinity(device):
    """NaN must not become 0, which would hide it; and infinity is positive."""
    x = Tensor(np.array([np.nan, np.inf, -np.inf, 2.0]), requires_grad=True, device=device)
    y = ops.relu(x)
    np.testing.assert_array_equal(y.numpy(), [np.nan, np.inf, 0, 2])
    y.backward([1, 1, 1, 1])
    assert on("cpu", x.grad)[1:].tolist() == [1, 0, 1]


def test_output_has_the_memory_layout_of_the_input():
    x = np.zeros((2, 4, 5, 3)).transpose(0, 3, 1, 2)
    assert ops.relu(Tensor(x)).data.transpose(0, 2, 3, 1).flags.c_contiguous


def test_invalid_shapes_and_sizes_raise():
    with pytest.raises(ValueError, match=r"relu: x must be a non-empty \(N, ...\), got shape \(0, 3\)"):
        ops.relu(Tensor(np.zeros((0, 3))))
    with pytest.raises(ValueError, match=r"relu: x must be a non-empty \(N, ...\), got shape \(\)"):
        ops.relu(Tensor(1.0))
    with pytest.raises(TypeError, match="relu: x must be float32 or float64, got int64"):
        ops.relu(Tensor(np.arange(3)))
