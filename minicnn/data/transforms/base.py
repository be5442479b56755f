"""The base classes of the transforms, `Compose`, and the checks that all of them share."""

import inspect
import itertools
from typing import Any

import numpy as np


class Transform:
    """Base class of the transforms: called as transform(image, rng); its repr is the constructor call.

    Attributes:
        min_size: the shorter side (pixels) that the transform needs at least, or None: the full size. A JPEG may be decoded at a
            reduced size of at least that.
        any_size: whether the transform has the same effect on a photograph that was decoded at a reduced size.
        random: whether it draws from `rng`.
    """

    min_size: int | None = None
    any_size = False
    random = False

    def __repr__(self) -> str:
        arguments = inspect.signature(type(self)).parameters
        return f"{type(self).__name__}({', '.join(f'{name}={short_repr(getattr(self, name))}' for name in arguments)})"


class ChannelAffine(Transform):
    """Base class of the transforms that compute (pixel + add) / divide, per channel; `scale_and_shift` returns the two."""

    any_size = True

    def scale_and_shift(self, rng: Any = None) -> tuple[Any, Any]:
        """(add, divide): two float32 arrays, each of one number or of one per channel."""
        raise NotImplementedError

    def __call__(self, image: Any, rng: Any = None) -> np.ndarray:
        pixels = np.asarray(image)
        add, divide = self.scale_and_shift(rng)
        check_channels(self, pixels.shape[-1], add, divide)
        check_scale(self, pixels, add, divide)
        return apply_affine(pixels.astype(np.float32, copy=False), add, divide)


class Compose(Transform):
    """Several transforms, one after the other: Compose(first, second, ...), or Compose([first, second, ...]).

    Args:
        steps: functions of (image, rng).

    Raises TypeError if one is not a function, or if a random transform is called without `rng`.
    """

    def __init__(self, *steps: Any) -> None:
        if len(steps) == 1 and isinstance(steps[0], (list, tuple)):
            steps = tuple(steps[0])
        for step in steps:
            if not callable(step):
                raise TypeError(f"Compose: a transform must be a function of (image, rng), got {short_repr(step)}")
        inner = [step.steps if isinstance(step, Compose) else (step,) for step in steps]
        self.steps: tuple = tuple(itertools.chain.from_iterable(inner))
        self.min_size = first_min_size(self.steps)
        self.random = any(getattr(step, "random", False) for step in self.steps)

    def __call__(self, image: Any, rng: Any = None) -> Any:
        if rng is None and self.random:
            raise TypeError(f"{self!r} is random: call it as transform(image, numpy.random.default_rng(seed))")
        for step in self.steps:
            image = step(image, rng)
        return image

    def split_affine(self) -> "tuple[Compose, tuple]":
        """(a Compose of the transforms that select pixels, the ChannelAffine transforms at the end)."""
        last = len(self.steps)
        while last and hasattr(self.steps[last - 1], "scale_and_shift"):
            last -= 1
        return Compose(*self.steps[:last]), self.steps[last:]

    def __repr__(self) -> str:
        return f"Compose({', '.join(map(repr, self.steps))})"


def first_min_size(steps):
    """The shorter side (pixels) that these transforms need at least; None: the photograph in full size."""
    for step in steps:
        if getattr(step, "min_size", None) is not None:
            return step.min_size
        if not getattr(step, "any_size", False):
            return None
    return None


def apply_affine(pixels: Any, add: Any, divide: Any, out: Any = None) -> Any:
    """(pixels + add) / divide, in `out` if that is given; the division is skipped where it is by 1."""
    out = np.add(pixels, add, out=out)
    return np.divide(out, divide, out=out) if np.not_equal(divide, 1).any() else out


def compose_affine(steps: Any, rng: Any, channels: int | None = None) -> tuple[Any, Any]:
    """(add, divide) of several ChannelAffine transforms, one after the other: their composition is one ChannelAffine again.

    With `channels`, ValueError if one of them is for another number of channels.
    """
    add, divide = np.float32(0), np.float32(1)
    for step in steps:
        a, d = step.scale_and_shift(rng)
        if channels is not None:
            check_channels(step, channels, a, d)
        add, divide = add + a * divide, divide * d
    return add, divide


def check_channels(step, channels, *terms):
    """ValueError if a transform's per-channel numbers are not one per channel (NumPy would broadcast a grey image to three channels)."""
    for term in terms:
        if np.size(term) not in (1, channels):
            raise ValueError(f"{type(step).__name__}: expects {np.size(term)} channels, but the image has {channels}")


def check_scale(step, pixels, add, divide):
    """ValueError if bytes are normalized with the statistics of pixels of 0 to 1: more than 100 standard deviations from the mean."""
    if pixels.dtype == np.uint8 and np.all(divide < 1) and np.any(pixels.reshape(-1, pixels.shape[-1]).max(axis=0, initial=0) + add > 100):
        raise ValueError(f"{step!r}: a std below 1 is for pixels of 0 to 1, but this image has bytes of 0 to 255; put ToFloat() before it")


def check_image(op: str, image: Any) -> None:
    """ValueError unless this is an image: (H, W, channels), uint8 or float32, not empty."""
    if len(getattr(image, "shape", ())) != 3 or 0 in image.shape or image.dtype not in (np.uint8, np.float32):
        got = f"{image.dtype} of shape {tuple(image.shape)}" if hasattr(image, "dtype") else short_repr(image)
        raise ValueError(f"{op}: an image must be a non-empty uint8 or float32 array (H, W, channels), got {got}")
    check_channels_last(op, image)


def check_channels_last(op: str, image: Any) -> None:
    """ValueError if an image is evidently (channels, H, W), PyTorch's order: (3, H, W), or (1, N, N)."""
    shape: Any = getattr(image, "shape", ())
    if len(shape) == 3 and shape[0] in (1, 3) and min(shape[1:]) > 4 and (shape[0] == 3 or shape[1] == shape[2]):
        raise ValueError(f"{op}: an image must be (H, W, channels), got {tuple(shape)}, which looks like (channels, H, W); "
                         "use numpy.asarray(image).transpose(1, 2, 0)")


def check_size(op: str, name: str, value: Any, least: int = 1) -> int:
    """`value` as an int; ValueError unless it is a whole number (of pixels, for instance) of at least `least`."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < least:
        raise ValueError(f"{op}: {name} must be an int of at least {least}, got {short_repr(value)}")
    return int(value)


def check_square(op: str, size: Any) -> int:
    """The side of a square crop, given as an int or as a pair (n, n); ValueError otherwise."""
    if isinstance(size, (tuple, list)):
        if len(size) != 2 or size[0] != size[1]:
            raise ValueError(f"{op}: crops are square: size must be an int (or a pair of equal ints), got {size!r}")
        size = size[0]
    return check_size(op, "size", size)


def check_number(op: str, name: str, value: Any, low: float, high: float, *, but: tuple = ()) -> float:
    """`value` as a float; ValueError unless it is a number from `low` to `high`, and none of `but`."""
    if not isinstance(value, (int, float, np.number)) or isinstance(value, bool) or not low <= value <= high or value in but:
        without = f" (except {' and '.join(map(str, but))})" if but else ""
        raise ValueError(f"{op}: {name} must be a number from {low} to {high}{without}, got {short_repr(value)}")
    return float(value)


def short_repr(value: Any) -> str:
    """A repr in one line: the numbers of small arrays, in as many digits as they have; the shape of large ones."""
    if not isinstance(value, np.ndarray):
        return repr(value)
    if value.size > 9:
        return f"<array {' x '.join(map(str, value.shape))}>"
    if value.ndim > 1:
        return f"[{', '.join(map(short_repr, value))}]"
    return f"[{', '.join(map(str, value))}]" if value.ndim else str(value)
