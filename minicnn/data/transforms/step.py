"""A step from an image to an input, and several of them one after the other."""

import inspect
import itertools

import numpy as np


class Step:
    """What steps have in common: each says how it was made (repr), and what it needs to know of the image.

    Attributes:
        at_least: the shorter side (pixels) from which on it does not matter how large the photograph was, or None.
        any_size: whether it does the same to a photograph that was decoded at a smaller size.
        random: whether it uses `rng`.
    """

    at_least: int | None = None
    any_size = False
    random = False

    def __repr__(self):
        return f"{type(self).__name__}({', '.join(f'{n}={shown(getattr(self, n))}' for n in inspect.signature(type(self)).parameters)})"


class Arithmetic(Step):
    """A step that does (pixel + add) / divide on every pixel, with numbers for each channel; subclasses say which, in `terms`."""

    any_size = True

    def terms(self, rng):
        """What to add to each channel, and what to divide it by: two float32 arrays, of one number or one for each channel."""
        raise NotImplementedError

    def __call__(self, image, rng=None):
        pixels = np.asarray(image, np.float32)
        add, divide = self.terms(rng)
        check_channels(self, pixels.shape[-1], add, divide)
        return pixels + add if np.all(divide == 1) else (pixels + add) / divide


class Compose(Step):
    """The steps one after the other."""

    def __init__(self, *steps):
        for step in steps:
            if not callable(step):
                raise TypeError(f"Compose: a step is called as step(image, rng), and {shown(step)} cannot be; "
                                "write Compose(first, second), without a list")
        inner = [step.steps if isinstance(step, Compose) else (step,) for step in steps]
        self.steps: tuple = tuple(itertools.chain.from_iterable(inner))
        self.at_least = first_at_least(self.steps)
        self.random = any(getattr(step, "random", False) for step in self.steps)

    def __call__(self, image, rng=None):
        if rng is None and self.random:
            raise TypeError(f"{self!r} has chance in it: call it as transform(image, numpy.random.default_rng(seed))")
        for step in self.steps:
            image = step(image, rng)
        return image

    def without_arithmetic(self):
        """Two things: a Compose of the steps that choose pixels, and the arithmetic steps at the end."""
        last = len(self.steps)
        while last and hasattr(self.steps[last - 1], "terms"):
            last -= 1
        return Compose(*self.steps[:last]), self.steps[last:]

    def __repr__(self):
        return f"Compose({', '.join(map(repr, self.steps))})"


def first_at_least(steps):
    """The shorter side (pixels) that these steps need at least, or None: the photograph in full size."""
    for step in steps:
        if getattr(step, "at_least", None) is not None:
            return step.at_least
        if not getattr(step, "any_size", False):
            return None
    return None


def all_terms(steps, rng, channels=None):
    """What several arithmetic steps, one after the other, come to: add, divide. With `channels`, ValueError if a step is for others."""
    add, divide = np.float32(0), np.float32(1)
    for step in steps:
        a, d = step.terms(rng)
        if channels is not None:
            check_channels(step, channels, a, d)
        add, divide = add + a * divide, divide * d
    return add, divide


def check_channels(step, channels, *terms):
    """Numbers for each channel are as many as there are channels; NumPy would take a grey image times three numbers for a colour one."""
    for term in terms:
        if np.size(term) not in (1, channels):
            raise ValueError(f"{type(step).__name__}: numbers for {np.size(term)} channels, but the image has {channels}")


def check_image(op, image):
    """An image is (H, W, channels), of bytes or float32, and not empty."""
    if len(getattr(image, "shape", ())) != 3 or 0 in image.shape or image.dtype not in (np.uint8, np.float32):
        what = f"{image.dtype} of shape {image.shape}" if hasattr(image, "dtype") else shown(image)
        raise ValueError(f"{op}: an image is uint8 or float32 (H, W, channels) with some pixels, not {what}")


def check_size(op, name, value, least=1):
    """An int of at least `least`, in pixels; returns it."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < least:
        raise ValueError(f"{op}: {name} is a whole number of pixels, at least {least}, not {shown(value)}")
    return int(value)


def check_number(op, name, value, low, high, *, but=()):
    """A number from low to high, but none of `but`; returns it."""
    if not isinstance(value, (int, float, np.number)) or isinstance(value, bool) or not low <= value <= high or value in but:
        without = f" (and not {' or '.join(map(str, but))})" if but else ""
        raise ValueError(f"{op}: {name} is a number from {low} to {high}{without}, not {shown(value)}")
    return float(value)


def shown(value):
    """A repr in one line: of small arrays their numbers, in as many digits as they have; of large ones the shape."""
    if not isinstance(value, np.ndarray):
        return repr(value)
    if value.size > 9:
        return f"<array {' x '.join(map(str, value.shape))}>"
    return f"[{', '.join(map(shown, value))}]" if value.ndim > 1 else f"[{', '.join(map(str, value))}]" if value.ndim else str(value)
