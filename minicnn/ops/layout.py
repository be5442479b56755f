"""Shape is NCHW, memory is channels-last.

Users see the field's shapes: (N, C, H, W). In memory the channels of one pixel lie side by side, so the inner
loops of convolution, pooling and LRN run over long contiguous stretches. An array is turned from one view to
the other by `transpose`, which changes strides and moves nothing.
"""

from minicnn.backend import xp_of
from minicnn.tensor import Tensor


def nhwc(x):
    """(N, C, H, W) -> (N, H, W, C), contiguous: a view of channels-last memory, one copy of any other."""
    return xp_of(x).ascontiguousarray(x.transpose(0, 2, 3, 1))


def nchw(x):
    """(N, H, W, C) -> (N, C, H, W): always a view."""
    return x.transpose(0, 3, 1, 2)


def padded(x, ph, pw, value=0):
    """x (N, H, W, C) with `ph` rows and `pw` columns of `value` around; each may be one number or (before, after)."""
    (top, bottom), (left, right) = both(ph), both(pw)
    if top == bottom == left == right == 0:
        return x
    N, H, W, C = x.shape
    y = xp_of(x).full((N, top + H + bottom, left + W + right, C), value, x.dtype)
    y[:, top:top + H, left:left + W] = x
    return y


def parts(G, C, O):
    """For each of G groups, the slice of the C input channels and the slice of the O filters."""
    return [(slice(g * C // G, (g + 1) * C // G), slice(g * O // G, (g + 1) * O // G)) for g in range(G)]


def both(p):
    """One number, or a (before, after) pair: a pair."""
    return p if isinstance(p, tuple) else (p, p)


def pair(op, argument, value, at_least):
    """An int or a pair of ints as a pair, or an error that names the op and the argument."""
    values = value if isinstance(value, (tuple, list)) else (value, value)
    if len(values) != 2 or not all(isinstance(v, int) and not isinstance(v, bool) and v >= at_least for v in values):
        raise ValueError(f"{op}: {argument} is an int or a pair of ints, each at least {at_least}, not {value!r}")
    return tuple(values)


def check_images(op, x):
    """x is a non-empty (N, C, H, W) of floats, or an error that says what is wrong."""
    check_float(op, x)
    if x.ndim != 4:
        raise ValueError(f"{op}: x is (N, C, H, W), but this x has shape {x.shape}"
                         + ("; for one image use x.reshape(1, *x.shape)" if x.ndim == 3 else ""))
    if 0 in x.shape:
        raise ValueError(f"{op}: x is empty, its shape is {x.shape}")


def check_float(op, x):
    """x is a Tensor of float32 or float64, or an error that names the op."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{op}: x is a Tensor, not {type(x).__name__}; write minicnn.Tensor(x)")
    if x.dtype not in ("float32", "float64"):
        raise TypeError(f"{op}: x is {x.dtype}; float32 or float64 is wanted: Tensor(array.astype('float32'))")
