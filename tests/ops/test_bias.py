"""The gradient of a bias, a sum over very many rows: each is added once, in a fixed order."""

import numpy as np
import pytest

from minicnn.ops.bias import ROWS_PER_THREAD, bias_gradient

M = ROWS_PER_THREAD
ROWS = [1, 2, M - 1, M, M + 1, 2 * M, 2 * M + 1, M ** 2 - 1, M ** 2, M ** 2 + 1, 3 * M ** 2 + 5]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("columns", [1, 3, 33, 300, 700])
@pytest.mark.parametrize("rows", ROWS)
def test_every_row_is_added_once(cupy, rows, columns, dtype):
    """Integers, so that the sum is exact; in one, two and three passes."""
    gy = np.random.default_rng(rows).integers(-50, 50, (rows, columns)).astype(dtype)
    sums = bias_gradient(cupy.asarray(gy))
    assert sums.shape == (columns,)
    assert sums.dtype == dtype
    np.testing.assert_array_equal(sums.get(), gy.sum(axis=0, dtype=np.float64))


@pytest.mark.parametrize("shape", [(3, 5, 4, 7), (2, 55, 55, 9), (40, 17)])
def test_gpu_matches_cpu_in_any_memory_order(cupy, shape):
    """Up to rounding; with the same bits in a second run, and in every memory order of gy."""
    gy = np.random.default_rng(0).standard_normal(shape, np.float32)
    on_cpu, on_gpu = bias_gradient(gy), bias_gradient(cupy.asarray(gy))
    np.testing.assert_allclose(on_gpu.get(), on_cpu, rtol=0, atol=1e-5 * np.abs(gy).sum(axis=tuple(range(gy.ndim - 1))).max())
    np.testing.assert_array_equal(bias_gradient(cupy.asarray(gy)).get(), on_gpu.get())
    np.testing.assert_array_equal(bias_gradient(cupy.asarray(gy.T.copy()).T).get(), on_gpu.get())


def test_nan_propagates(device):
    gy = np.ones((300, 3))
    gy[299, 1] = np.nan
    if device == "gpu":
        import cupy
        gy = cupy.asarray(gy)
    np.testing.assert_array_equal(np.array(bias_gradient(gy).tolist()), [300, np.nan, 300])
