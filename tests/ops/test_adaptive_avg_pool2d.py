"""Adaptive average pooling: the checks of every op, and the errors."""

import numpy as np
import pytest
from check import check_each_affects, check_op

from minicnn import Tensor, ops
from minicnn.learn.cases import randn
from minicnn.learn.cases.adaptive_avg_pool2d import CASES, WRONG, naive
from minicnn.ops.adaptive_avg_pool2d import AdaptiveAvgPool2d


@pytest.mark.parametrize("case", CASES)
def test_adaptive_avg_pool2d(case, device):
    check_op(AdaptiveAvgPool2d, *CASES[case], naive, WRONG, device)


def test_every_mistake_is_detectable():
    check_each_affects(WRONG, CASES)


def test_an_int_means_both_axes():
    x = Tensor(randn((1, 2, 5, 7))[0])
    assert np.array_equal(ops.adaptive_avg_pool2d(x, 3).data, ops.adaptive_avg_pool2d(x, (3, 3)).data)


@pytest.mark.parametrize(("shape", "output_size", "message"), [
    ((2, 5, 5), 2, r"adaptive_avg_pool2d: x must be \(N, C, H, W\), got shape \(2, 5, 5\); for a single image use x.reshape"),
    ((0, 2, 5, 5), 2, r"adaptive_avg_pool2d: x must not be empty, got shape \(0, 2, 5, 5\)"),
    ((1, 2, 5, 5), 0, r"adaptive_avg_pool2d: output_size must be an int or a pair of ints, each at least 1, got 0"),
    ((1, 2, 5, 5), (2, 2, 2), r"adaptive_avg_pool2d: output_size must be an int or a pair of ints, each at least 1, got \(2, 2, 2\)"),
])
def test_invalid_shapes_and_sizes_raise(shape, output_size, message):
    with pytest.raises(ValueError, match=message):
        ops.adaptive_avg_pool2d(Tensor(np.zeros(shape, np.float32)), output_size)
