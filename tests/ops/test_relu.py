"""ReLU: zero below zero, and no derivative to check at zero itself."""

import numpy as np
import pytest
from check import apart, check_op, on

from minicnn import Tensor, ops
from minicnn.ops.relu import ReLU

CASES = {
    "images":                   ((), [apart(2, 2, 2, 3)]),
    "rows":                     ((), [apart(3, 4)]),
    "one axis":                 ((), [apart(5)]),
    "all negative but one":     ((), [apart(2, 4) - 0.3]),
    "values far from 1":        ((), [apart(2, 4) * 1000]),
}


def naive(args, x):
    y = np.zeros_like(x)
    for i in np.ndindex(*x.shape):
        y[i] = x[i] if x[i] > 0 else 0
    return y


class AllPasses(ReLU):
    "The gradient goes through wherever it likes."
    def backward(self, gy, *saved):
        return gy


class NegativePasses(ReLU):
    "The gradient goes through where x is negative: the mask is the wrong way round."
    def backward(self, gy, *saved):
        return gy - super().backward(gy, *saved)


class SignForStep(ReLU):
    "The gradient changes its sign where x is negative, where it should vanish."
    def backward(self, gy, *saved):
        return 2 * super().backward(gy, *saved) - gy


class TimesY(ReLU):
    "The gradient is multiplied by y, not by whether y is positive."
    def forward(self, x):
        self.y, saved = super().forward(x)
        return self.y, saved

    def backward(self, gy, *saved):
        return gy * self.y


WRONG = [AllPasses, NegativePasses, SignForStep, TimesY]


@pytest.mark.parametrize("case", CASES)
def test_relu(case, device):
    check_op(ReLU, *CASES[case], naive, WRONG, device)


def test_at_zero_the_gradient_is_zero(device):
    x = Tensor(np.array([-1.0, 0.0, 1.0]), requires_grad=True, device=device)
    ops.relu(x).backward([1, 1, 1])
    assert x.grad.tolist() == [0, 0, 1]


def test_what_is_no_number_stays_so(device):
    """A NaN must not be turned into a zero, which would hide it; and infinity is positive."""
    x = Tensor(np.array([np.nan, np.inf, -np.inf, 2.0]), requires_grad=True, device=device)
    y = ops.relu(x)
    np.testing.assert_array_equal(y.numpy(), [np.nan, np.inf, 0, 2])
    y.backward([1, 1, 1, 1])
    assert on("cpu", x.grad)[1:].tolist() == [1, 0, 1]


def test_answer_lies_in_memory_as_the_input_does():
    x = np.zeros((2, 4, 5, 3)).transpose(0, 3, 1, 2)
    assert ops.relu(Tensor(x)).data.transpose(0, 2, 3, 1).flags.c_contiguous


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"relu: x is a non-empty \(N, ...\), but this x has shape \(0, 3\)"):
        ops.relu(Tensor(np.zeros((0, 3))))
    with pytest.raises(ValueError, match=r"relu: x is a non-empty \(N, ...\), but this x has shape \(\)"):
        ops.relu(Tensor(1.0))
    with pytest.raises(TypeError, match="relu: x is int64; float32 or float64 is wanted"):
        ops.relu(Tensor(np.arange(3)))
