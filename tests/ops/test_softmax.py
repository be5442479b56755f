"""Softmax and log-softmax: the checks of every op, large scores, long rows on a GPU, and the errors."""

import math

import numpy as np
import pytest
from check import RTOL_FLOAT32, RTOL_FLOAT64, assert_bitwise_equal, assert_close, check_each_affects, check_op, run

from minicnn import Tensor, ops
from minicnn.learn.cases import cotangent, randn
from minicnn.learn.cases.softmax import CASES, WRONG, WRONG_LOG, naive, naive_log
from minicnn.ops.softmax import LogSoftmax, Softmax


@pytest.mark.parametrize("case", CASES)
def test_softmax(case, device):
    check_op(Softmax, *CASES[case], naive, WRONG, device)


@pytest.mark.parametrize("case", CASES)
def test_log_softmax(case, device):
    check_op(LogSoftmax, *CASES[case], naive_log, WRONG_LOG, device)


def test_every_mistake_is_detectable():
    check_each_affects([*WRONG, *WRONG_LOG], CASES)


def test_large_scores_do_not_overflow(device):
    """And very negative scores do not underflow, if all scores of a row are."""
    x, two = Tensor(np.array([[1000.0, 1000, -1000], [-1000, -1000, -3000]]), device=device), math.log(2)
    np.testing.assert_allclose(ops.softmax(x).numpy(), [[0.5, 0.5, 0]] * 2)
    np.testing.assert_allclose(ops.log_softmax(x).numpy(), [[-two, -two, -2000 - two]] * 2)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("op", [Softmax, LogSoftmax])
@pytest.mark.parametrize("shape", [(3, 1), (30, 2), (3, 31), (3, 32), (5, 33), (2, 255), (2, 256), (2, 257), (3, 513), (4, 1000)])
def test_rows_longer_and_shorter_than_a_block(cupy, op, shape, dtype):
    """A block of 256 threads reduces a row. In every second row the last score is by far the largest; a second run has the same bits."""
    x, = randn(shape)
    x[:, -1] += np.where(np.arange(shape[0]) % 2, 500, 0)
    x, g = x.astype(dtype), cotangent(shape).astype(dtype)
    y, (gx,) = run(op, (1,), [x], g)
    gpu = run(op, (1,), [cupy.asarray(x)], cupy.asarray(g))
    tolerance = RTOL_FLOAT64 if dtype == "float64" else RTOL_FLOAT32
    assert_close("forward", gpu[0], y, tolerance)
    assert_close("gradient", gpu[1][0], gx, 10 * tolerance)
    assert_bitwise_equal("a second time", run(op, (1,), [cupy.asarray(x)], cupy.asarray(g)), gpu)


def test_a_single_score_has_probability_1():
    x = Tensor(np.array([[3.0], [-2.0]]), requires_grad=True)
    y = ops.softmax(x)
    y.backward(np.array([[2.0], [5.0]]))
    assert y.data.tolist() == [[1], [1]]
    assert x.grad.tolist() == [[0], [0]]


@pytest.mark.parametrize("op", [ops.softmax, ops.log_softmax])
def test_invalid_shapes_and_sizes_raise(op):
    name = op.__name__
    with pytest.raises(ValueError, match=rf"{name}: axis must be a non-empty axis of x, which has shape \(2, 3\), got 2"):
        op(Tensor(np.zeros((2, 3))), axis=2)
    with pytest.raises(ValueError, match=rf"{name}: axis must be a non-empty axis of x, which has shape \(2, 0\), got -1"):
        op(Tensor(np.zeros((2, 0))))
    with pytest.raises(ValueError, match=rf"{name}: axis must be a non-empty axis of x, which has shape \(\), got -1"):
        op(Tensor(1.0))
    with pytest.raises(ValueError, match=rf"{name}: axis must be a non-empty axis of x, which has shape \(2, 3\), got None"):
        op(Tensor(np.zeros((2, 3))), axis=None)
    with pytest.raises(TypeError, match=f"{name}: x must be float32 or float64, got int64"):
        op(Tensor(np.arange(3)))
