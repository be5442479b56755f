"""The gradient of a bias is a sum over very many rows: each counts once, in a fixed order."""

import numpy as np
import pytest

from minicnn.ops.bias import ADDED_ROWS, bias_gradient

M = ADDED_ROWS
ROWS = [1, 2, M - 1, M, M + 1, 2 * M, 2 * M + 1, M ** 2 - 1, M ** 2, M ** 2 + 1, 3 * M ** 2 + 5]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("columns", [1, 3, 33, 300, 700])
@pytest.mark.parametrize("rows", ROWS)
def test_every_row_counts_once(cupy, rows, columns, dtype):
    """Whole numbers, so the sum is exact; in one pass, two, and three."""
    gy = np.random.default_rng(rows).integers(-50, 50, (rows, columns)).astype(dtype)
    sums = bias_gradient(cupy.asarray(gy))
    assert sums.shape == (columns,)
    assert sums.dtype == dtype
    np.testing.assert_array_equal(sums.get(), gy.sum(axis=0, dtype=np.float64))


@pytest.mark.parametrize("shape", [(3, 5, 4, 7), (2, 55, 55, 9), (40, 17)])
def test_images_have_many_places(cupy, shape):
    """As on the CPU, up to rounding; the same bits twice; and however the gradient lies in memory."""
    gy = np.random.default_rng(0).standard_normal(shape, np.float32)
    here, there = bias_gradient(gy), bias_gradient(cupy.asarray(gy))
    np.testing.assert_allclose(there.get(), here, rtol=0, atol=1e-5 * np.abs(gy).sum(axis=tuple(range(gy.ndim - 1))).max())
    np.testing.assert_array_equal(bias_gradient(cupy.asarray(gy)).get(), there.get())
    np.testing.assert_array_equal(bias_gradient(cupy.asarray(gy.T.copy()).T).get(), there.get())


def test_a_number_that_is_no_longer_one_is_passed_on(device):
    gy = np.ones((300, 3))
    gy[299, 1] = np.nan
    if device == "gpu":
        import cupy
        gy = cupy.asarray(gy)
    np.testing.assert_array_equal(np.array(bias_gradient(gy).tolist()), [300, np.nan, 300])
