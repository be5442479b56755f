"""Argument checks of the ops: each returns normally, or raises an error that names the op, the argument and what it must be."""

from typing import Any

from minicnn.tensor import Tensor


def check_pair(op: str, argument: str, value: Any, minimum: int) -> tuple[int, int]:
    """`value`, an int or a (vertical, horizontal) pair of ints, as a pair. ValueError unless each is an int of at least `minimum`."""
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2 or not all(isinstance(v, int) and not isinstance(v, bool) and v >= minimum for v in pair):
        raise ValueError(f"{op}: {argument} must be an int or a pair of ints, each at least {minimum}, got {value!r}")
    return pair


def check_images(op: str, x: Any) -> None:
    """Raise TypeError unless x is a Tensor of floats, ValueError unless it is a non-empty batch of images, (N, C, H, W)."""
    check_float(op, x)
    if x.ndim != 4:
        raise ValueError(f"{op}: x must be (N, C, H, W), got shape {x.shape}"
                         + ("; for a single image use x.reshape(1, *x.shape)" if x.ndim == 3 else ""))
    if 0 in x.shape:
        raise ValueError(f"{op}: x must not be empty, got shape {x.shape}")


def check_float(op: str, x: Any, argument: str = "x") -> None:
    """Raise TypeError unless x is a Tensor of float32 or float64."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{op}: {argument} must be a Tensor, got {type(x).__name__}; write minicnn.Tensor({argument})")
    if x.dtype not in ("float32", "float64"):
        raise TypeError(f"{op}: {argument} must be float32 or float64, got {x.dtype}; convert it with Tensor(array.astype('float32'))")
