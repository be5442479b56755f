"""The memory layout of images: the shape is NCHW, the memory is channels-last (NHWC).

Users see the field's shapes: (N, C, H, W). In memory the channels of one pixel are adjacent, so the inner loops of
convolution, pooling and LRN run over long contiguous stretches. `transpose` converts between the two views: it changes
strides and moves no data.
"""

from typing import Any

from minicnn.backend.arrays import xp_of


def nhwc(x: Any) -> Any:
    """(N, C, H, W) -> (N, H, W, C), contiguous: a view if the memory is channels-last, else a copy."""
    return xp_of(x).ascontiguousarray(x.transpose(0, 2, 3, 1))


def nchw(x: Any) -> Any:
    """(N, H, W, C) -> (N, C, H, W): always a view."""
    return x.transpose(0, 3, 1, 2)


def padded(x: Any, ph: Any, pw: Any, value: float = 0) -> Any:
    """x (N, H, W, C) with a border of `ph` rows and `pw` columns of `value`; each is one int for both sides, or (before, after)."""
    (top, bottom), (left, right) = (p if isinstance(p, tuple) else (p, p) for p in (ph, pw))
    if top == bottom == left == right == 0:
        return x
    N, H, W, C = x.shape
    y = xp_of(x).full((N, top + H + bottom, left + W + right, C), value, x.dtype)
    y[:, top:top + H, left:left + W] = x
    return y


def group_slices(G: int, C: int, O: int) -> list[tuple[slice, slice]]:
    """For each of G groups, its slice of the C input channels and its slice of the O filters."""
    return [(slice(g * C // G, (g + 1) * C // G), slice(g * O // G, (g + 1) * O // G)) for g in range(G)]
