"""Reshaping, indexing and reduction: the checks of every op, argument forms, and the errors."""

import numpy as np
import pytest
from check import check_each_affects, check_op

from minicnn import Tensor, ops
from minicnn.learn.cases import randn
from minicnn.learn.cases.shape import OPS


@pytest.mark.parametrize(("op", "case"), [(op, case) for op, (_, cases, *_) in OPS.items() for case in cases])
def test_shape(op, case, device):
    _, cases, naive, wrong = OPS[op]
    check_op(op, *cases[case], naive, wrong, device)


@pytest.mark.parametrize("op", OPS)
def test_every_mistake_is_detectable(op):
    _, cases, _, wrong = OPS[op]
    check_each_affects(wrong, cases)


def test_flatten_is_in_chw_order_for_channels_last_memory():
    x, = randn((2, 3, 2, 2))
    channels_last = Tensor(x.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2))
    assert np.array_equal(ops.flatten(channels_last).data, x.reshape(2, 12))


@pytest.mark.parametrize(("start_dim", "shape"), [(0, (24,)), (1, (2, 12)), (2, (2, 3, 4)),
                                                  (3, (2, 3, 2, 2)), (-1, (2, 3, 2, 2)), (-3, (2, 12))])
def test_flatten_from_any_axis(start_dim, shape):
    x = Tensor(randn((2, 3, 2, 2))[0])
    assert ops.flatten(x, start_dim).shape == x.flatten(start_dim).shape == shape


def test_sizes_and_axes_as_arguments_or_as_a_tuple():
    x = Tensor(randn((2, 3, 4))[0])
    assert x.reshape(4, 6).shape == x.reshape((4, 6)).shape == x.reshape([4, 6]).shape == (4, 6)
    assert x.transpose(1, 0, 2).shape == x.transpose((1, 0, 2)).shape == x.transpose([1, 0, 2]).shape == (3, 2, 4)
    assert x.transpose().shape == x.T.shape == (4, 3, 2)


@pytest.mark.parametrize(("act", "message"), [
    (lambda x: x.reshape(5, 5), r"reshape: x of shape \(2, 3, 4\) has 24 elements and cannot be reshaped to \(5, 5\)"),
    (lambda x: x.reshape(5, -1), r"reshape: x of shape \(2, 3, 4\) has 24 elements and cannot be reshaped to \(5, -1\)"),
    (lambda x: x.reshape(-1, -1), r"reshape: x of shape \(2, 3, 4\) has 24 elements and cannot be reshaped to \(-1, -1\)"),
    (lambda x: x.reshape(-2, -12), r"reshape: x of shape \(2, 3, 4\) has 24 elements and cannot be reshaped to \(-2, -12\)"),
    (lambda x: x.transpose(0, 1), r"transpose: axes must be a permutation of the 3 axes of x, shape \(2, 3, 4\), got \(0, 1\)"),
    (lambda x: x.transpose(0, 1, 1), r"transpose: axes must be a permutation of the 3 axes of x, shape \(2, 3, 4\), got \(0, 1, 1\)"),
    (lambda x: x.flatten(3), r"flatten: start_dim must be an axis of x, which has shape \(2, 3, 4\), got 3"),
    (lambda x: x.flatten(-4), r"flatten: start_dim must be an axis of x, which has shape \(2, 3, 4\), got -4"),
    (lambda x: x.sum(3), r"sum: axis must be an axis of x, which has shape \(2, 3, 4\), got 3"),
    (lambda x: x.mean((0, -4)), r"mean: axis must be an axis of x, which has shape \(2, 3, 4\), got -4"),
    (lambda x: x.sum("rows"), r"sum: axis must be an axis of x, which has shape \(2, 3, 4\), got 'rows'"),
])
def test_invalid_shapes_and_sizes_raise(act, message):
    with pytest.raises(ValueError, match=message):
        act(Tensor(np.zeros((2, 3, 4))))


def test_an_index_out_of_range_raises():
    with pytest.raises(IndexError, match="index 5 is out of bounds"):
        Tensor(np.zeros(3))[5]


def test_a_repeated_axis_raises():
    with pytest.raises(ValueError, match="duplicate"):
        Tensor(np.zeros((2, 3))).sum((0, 0))
