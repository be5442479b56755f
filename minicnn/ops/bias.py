"""The gradient of a bias: the bias is added at every position, so its gradient is the sum over all positions.

    y[..., c] = x[..., c] + b[c]
    dL/db[c]  = gy[..., c], summed over all other axes
"""

from minicnn.backend import cuda
from minicnn.backend.arrays import by_device, ceil_div, xp_of
from minicnn.backend.threads import sum_over_batch

ROWS_PER_THREAD = 32        # that one GPU thread adds up, in order


def bias_gradient_cpu(gy):
    """gy (N, ..., C) -> (C,)."""
    positions = tuple(range(gy.ndim - 1))
    return sum_over_batch(lambda n: gy[n].sum(axis=positions), gy, gy[0].nbytes, gy.shape[-1:], gy.dtype)


def bias_gradient_gpu(gy):
    xp = xp_of(gy)
    rows = xp.ascontiguousarray(gy).reshape(-1, gy.shape[-1])
    while len(rows) > 1:                                        # each pass reduces every 32 rows to one
        sums = xp.empty((ceil_div(len(rows), ROWS_PER_THREAD), rows.shape[1]), rows.dtype)
        column_blocks = ceil_div(rows.shape[1], cuda.THREADS)   # there may be few rows, so the columns are split over blocks too
        cuda.launch_rows("ops/bias.cu", "add_rows", *sums.shape, rows, sums, len(rows), ROWS_PER_THREAD, dtype=rows.dtype,
                         across=column_blocks)
        rows = sums
    return rows[0]


bias_gradient = by_device(bias_gradient_cpu, bias_gradient_gpu)
