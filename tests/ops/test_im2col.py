"""im2col and col2im: every element is where the definition says, whatever the strides of the image and of the matrix."""

import numpy as np
import pytest
from check import on

from minicnn.backend import cuda
from minicnn.backend.arrays import xp_of
from minicnn.ops.conv2d.im2col import col2im, im2col

GEOMETRY = {            # H, W      kernel  stride   padding
    "3x3":              ((5, 6),    (3, 3), (1, 1), (1, 1)),
    "conv1":            ((15, 12),  (11, 5), (4, 4), (0, 0)),
    "1x1":              ((4, 3),    (1, 1), (1, 1), (0, 0)),
    "1x1, padded":      ((2, 3),    (1, 1), (1, 1), (1, 2)),
    "gaps":             ((7, 9),    (2, 1), (3, 4), (0, 0)),
    "gaps, padded":     ((6, 7),    (1, 2), (4, 3), (2, 1)),
    "uneven padding":   ((4, 5),    (3, 2), (2, 1), (0, 3)),
    "not covered":      ((7, 8),    (3, 3), (3, 2), (1, 0)),
    "one window":       ((2, 3),    (4, 5), (2, 2), (1, 1)),
    "larger than the image": ((1, 2), (5, 4), (1, 1), (3, 2)),
}
CHANNELS = {            # number of channels, slice
    "all of 3":         (3, slice(None)),
    "all of 4":         (4, slice(None)),
    "all of 12":        (12, slice(None)),
    "one":              (1, slice(None)),
    "the second half of 8": (8, slice(4, 8)),
    "the middle of 8":  (8, slice(2, 6)),           # four channels, not starting at a multiple of four
    "the first 4 of 6": (6, slice(0, 4)),           # here pixels do not start at multiples of four
    "the last of 3":    (3, slice(2, 3)),
    "300":              (300, slice(None)),
}
WIDE = {"all of 4", "all of 12", "the second half of 8", "300"}


def cut(device, shape, channels, dtype):
    """(a whole image (N, H, W, of), a view of some of its channels): random integers in the view, NaN in the other channels."""
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
def test_im2col_and_its_adjoint(device, geometry, channels, dtype):
    """im2col equals the loops; col2im is its adjoint, <im2col(x), g> = <x, col2im(g)>, exactly, since all values are integers."""
    size, *options = GEOMETRY[geometry]
    _, x = cut(device, (3, *size), channels, dtype)
    columns = im2col(x, *options)
    want = naive_im2col(on("cpu", x), *options)
    assert columns.dtype == dtype
    np.testing.assert_array_equal(on("cpu", columns), want)

    rng = np.random.default_rng(1)
    g = rng.integers(-9, 9, want.shape).astype(dtype)
    around, back = cut(device, (3, *size), channels, dtype)
    before = on("cpu", around).copy()
    strided = xp_of(x).full((len(g), g.shape[1] + 3), np.nan, dtype)       # rows with gaps between them
    strided[:, 1:-2] = on(device, g)
    col2im(strided[:, 1:-2], back, *options)
    assert np.vdot(want, g) == np.vdot(on("cpu", x), on("cpu", back)) != 0
    one = np.zeros_like(want)                                           # and for a single element: col2im writes it to one pixel
    for row, column in rng.integers(0, want.shape, (8, 2)):
        one[:] = 0
        one[row, column] = 5
        col2im(on(device, one), back, *options)
        assert np.vdot(want, one) == np.vdot(on("cpu", x), on("cpu", back))
        assert np.count_nonzero(on("cpu", back)) == (want[row, column] != 0)
    of, which = CHANNELS[channels]
    others = np.ones(of, bool)
    others[which] = False
    np.testing.assert_array_equal(on("cpu", around)[..., others], before[..., others])          # the other channels are unchanged


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("channels", CHANNELS)
def test_vectorized_copies_if_all_strides_are_multiples_of_four(cupy, channels, dtype, monkeypatch):
    launch_rows, widths = cuda.launch_rows, []
    monkeypatch.setattr(cuda, "launch_rows", lambda *args, constants, **more: (widths.append(dict(constants)["WIDTH"]),
                                                                              launch_rows(*args, constants=constants, **more)))
    im2col(cut("gpu", (2, 5, 6), channels, dtype)[1], (3, 3), (1, 1), (1, 1))
    assert widths == [4 if channels in WIDE else 1]


def test_images_not_aligned_to_16_bytes(cupy):
    """All strides are multiples of four, but the first address is not: a load of 16 bytes would be misaligned."""
    flat = cupy.arange(1 + 2 * 5 * 6 * 4, dtype="float32")
    x = flat[1:].reshape(2, 5, 6, 4)
    np.testing.assert_array_equal(im2col(x, (3, 3), (2, 2), (1, 1)).get(), naive_im2col(x.get(), (3, 3), (2, 2), (1, 1)))
