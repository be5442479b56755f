"""Windows as rows of a matrix and back: every number goes where the definition says, however wide the steps in memory are."""

import numpy as np
import pytest
from check import on

from minicnn import gpu
from minicnn.backend import xp_of
from minicnn.ops.windows import col2im, im2col

GEOMETRY = {            # H, W      kernel  stride   padding
    "3x3":              ((5, 6),    (3, 3), (1, 1), (1, 1)),
    "conv1":            ((15, 12),  (11, 5), (4, 4), (0, 0)),
    "1x1":              ((4, 3),    (1, 1), (1, 1), (0, 0)),
    "1x1, padded":      ((2, 3),    (1, 1), (1, 1), (1, 2)),
    "gaps":             ((7, 9),    (2, 1), (3, 4), (0, 0)),
    "gaps, padded":     ((6, 7),    (1, 2), (4, 3), (2, 1)),
    "uneven padding":   ((4, 5),    (3, 2), (2, 1), (0, 3)),
    "left over":        ((7, 8),    (3, 3), (3, 2), (1, 0)),
    "one window":       ((2, 3),    (4, 5), (2, 2), (1, 1)),
    "larger than the image": ((1, 2), (5, 4), (1, 1), (3, 2)),
}
CHANNELS = {            # of how many, which
    "all of 3":         (3, slice(None)),
    "all of 4":         (4, slice(None)),
    "all of 12":        (12, slice(None)),
    "one":              (1, slice(None)),
    "the second half of 8": (8, slice(4, 8)),
    "the middle of 8":  (8, slice(2, 6)),           # a multiple of four, that does not begin at one
    "the first 4 of 6": (6, slice(0, 4)),           # nor does the next pixel here
    "the last of 3":    (3, slice(2, 3)),
    "300":              (300, slice(None)),
}
WIDE = {"all of 4", "all of 12", "the second half of 8", "300"}


def cut(device, shape, channels, dtype):
    """Whole numbers (N, H, W, C), in some of the channels of an image whose others are NaN."""
    N, H, W = shape
    of, which = CHANNELS[channels]
    whole = np.full((N, H, W, of), np.nan, dtype)
    part = whole[..., which]
    part[...] = np.random.default_rng(0).integers(1, 100, part.shape)
    whole = on(device, whole)
    return whole, whole[..., which]


def naive_im2col(x, kernel, stride, padding):
    """columns[(n, i, j), (p, q, c)] = x[n, S*i + p - P, S*j + q - P, c], or 0 outside."""
    (N, H, W, C), (KH, KW), (SH, SW), (PH, PW) = x.shape, kernel, stride, padding
    OH, OW = (H + 2 * PH - KH) // SH + 1, (W + 2 * PW - KW) // SW + 1
    columns = np.zeros((N, OH, OW, KH, KW, C), x.dtype)
    for i, j, p, q in np.ndindex(OH, OW, KH, KW):
        h, w = SH * i + p - PH, SW * j + q - PW
        if 0 <= h < H and 0 <= w < W:
            columns[:, i, j, p, q] = x[:, h, w]
    return columns.reshape(N * OH * OW, KH * KW * C)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("geometry", GEOMETRY)
def test_there_and_back(device, geometry, channels, dtype):
    """im2col is the definition; col2im is its adjoint, <im2col(x), g> = <x, col2im(g)>, in whole numbers and so exactly."""
    size, *how = GEOMETRY[geometry]
    _, x = cut(device, (3, *size), channels, dtype)
    columns = im2col(x, *how)
    want = naive_im2col(on("cpu", x), *how)
    assert columns.dtype == dtype
    np.testing.assert_array_equal(on("cpu", columns), want)

    rng = np.random.default_rng(1)
    g = rng.integers(-9, 9, want.shape).astype(dtype)
    around, back = cut(device, (3, *size), channels, dtype)
    before = on("cpu", around).copy()
    lots = xp_of(x).full((len(g), g.shape[1] + 3), np.nan, dtype)       # rows further apart than they are long
    lots[:, 1:-2] = on(device, g)
    col2im(lots[:, 1:-2], back, *how)
    assert np.vdot(want, g) == np.vdot(on("cpu", x), on("cpu", back)) != 0
    one = np.zeros_like(want)                                               # and each place alone: what is sent back arrives, once
    for row, column in rng.integers(0, want.shape, (8, 2)):
        one[:] = 0
        one[row, column] = 5
        col2im(on(device, one), back, *how)
        assert np.vdot(want, one) == np.vdot(on("cpu", x), on("cpu", back))
        assert np.count_nonzero(on("cpu", back)) == (want[row, column] != 0)
    of, which = CHANNELS[channels]
    others = np.ones(of, bool)
    others[which] = False
    np.testing.assert_array_equal(on("cpu", around)[..., others], before[..., others])          # the other channels are as they were


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("channels", CHANNELS)
def test_four_numbers_are_moved_at_a_time_where_all_begin_at_multiples_of_four(cupy, channels, dtype, monkeypatch):
    run, widths = gpu.run, []
    monkeypatch.setattr(gpu, "run", lambda *args, constants, **more: (widths.append(dict(constants)["WIDTH"]),
                                                                      run(*args, constants=constants, **more)))
    im2col(cut("gpu", (2, 5, 6), channels, dtype)[1], (3, 3), (1, 1), (1, 1))
    assert widths == [4 if channels in WIDE else 1]


def test_images_that_do_not_begin_at_a_multiple_of_four(cupy):
    """All steps are multiples of four, and only the first number is not: 16 bytes at a time would be a fault."""
    flat = cupy.arange(1 + 2 * 5 * 6 * 4, dtype="float32")
    x = flat[1:].reshape(2, 5, 6, 4)
    np.testing.assert_array_equal(im2col(x, (3, 3), (2, 2), (1, 1)).get(), naive_im2col(x.get(), (3, 3), (2, 2), (1, 1)))
