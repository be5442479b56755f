"""A bias is added at every place; so what it hears is the sum over all places.

    y[..., c] = x[..., c] + b[c]
    dL/db[c]  = gy[..., c], summed over everything else
"""

from minicnn import gpu
from minicnn.backend import by_device, xp_of
from minicnn.parallel import sum_over_batch

ADDED_ROWS = 32         # that one thread of the GPU adds up, one after the other


def bias_gradient_cpu(gy):
    """gy (N, ..., C) -> (C,)."""
    places = tuple(range(gy.ndim - 1))
    return sum_over_batch(lambda n: gy[n].sum(axis=places), gy, gy[0].nbytes, gy.shape[-1:], gy.dtype)


def bias_gradient_gpu(gy):
    xp = xp_of(gy)
    rows = xp.ascontiguousarray(gy).reshape(-1, gy.shape[-1])
    while len(rows) > 1:                                        # each pass leaves a row for every 32
        sums = xp.empty((-(-len(rows) // ADDED_ROWS), rows.shape[1]), rows.dtype)
        gpu.run("ops/bias.cu", "add_rows", *sums.shape, rows, sums, len(rows), ADDED_ROWS, dtype=rows.dtype,
                across=-(-rows.shape[1] // gpu.THREADS))            # there may be few rows, so the columns are shared out too
        rows = sums
    return rows[0]


bias_gradient = by_device(bias_gradient_cpu, bias_gradient_gpu)
