"""The same thing, seen a little turned, shifted, mirrored or stretched, is still the same thing.

Where a turned or shifted image has no pixels, it is filled with `fill` (0: black), for all channels. A crop afterwards cuts most of
that away.
"""

import numpy as np

from minicnn.data.transforms.pixels import BILINEAR, by_pillow, resized
from minicnn.data.transforms.step import Step, check_image, check_number


class RandomMirror(Step):
    """Left and right exchanged, every other time; AlexNet, section 4.1."""

    random = any_size = True

    def __call__(self, image, rng):
        return image[:, ::-1] if rng.random() < 0.5 else image


class Rotate(Step):
    """Turned about its centre by an angle from -degrees to degrees (bilinear); the size stays."""

    random = any_size = True

    def __init__(self, degrees, fill=0):
        self.degrees, self.fill = check_number("Rotate", "degrees", degrees, 0, 180), check_fill("Rotate", fill)

    def __call__(self, image, rng):
        return rotated(image, rng.uniform(-self.degrees, self.degrees), self.fill)


class Translate(Step):
    """Shifted, down and to the right, by up to `fraction` of its height and width, either way, in whole pixels; the size stays."""

    random = any_size = True

    def __init__(self, fraction, fill=0):
        self.fraction, self.fill = check_number("Translate", "fraction", fraction, 0, 1), check_fill("Translate", fill)

    def __call__(self, image, rng):
        check_image("Translate", image)
        down, right = rng.uniform(-self.fraction, self.fraction, 2)
        return translated(image, round(down * image.shape[0]), round(right * image.shape[1]), self.fill)


class Stretch(Step):
    """Made higher or wider, by a factor from 1 to `ratio`: its logarithm is drawn uniformly, and a coin decides which.

    No side gets shorter, so a crop that fits before also fits after. Like Resize it computes nothing yet.
    """

    random = any_size = True

    def __init__(self, ratio):
        self.ratio = check_number("Stretch", "ratio", ratio, 1, 10)

    def __call__(self, image, rng):
        coin, u = rng.random(2)
        by = self.ratio ** u
        return stretched(image, *((by, 1) if coin < 0.5 else (1, by)))


def rotated(image, degrees, fill=0):
    """The image turned counter-clockwise about its centre."""
    check_image("Rotate", image)
    fill = int(fill) if image.dtype == np.uint8 else fill
    return by_pillow(image, lambda one: one.rotate(degrees, BILINEAR, fillcolor=(fill,) * 3 if one.mode == "RGB" else fill))


def translated(image, down, right, fill=0):
    """The image shifted by whole pixels; negative ones go up and to the left."""
    H, W, _ = image.shape
    (top, to_top), (left, to_left) = (max(-down, 0), max(down, 0)), (max(-right, 0), max(right, 0))
    piece = image[top:H - to_top, left:W - to_left]
    moved = np.full(image.shape, fill, image.dtype)
    moved[to_top:H - top, to_left:W - left] = piece
    return moved


def stretched(image, high, wide):
    """The image in `high` times its height and `wide` times its width."""
    H, W = image.shape[:2]
    size = round(H * high), round(W * wide)
    return image if size == (H, W) else resized("Stretch", image, *size)


def check_fill(op, fill):
    """A pixel's value; below 0 only for images from which a mean was subtracted."""
    return check_number(op, "fill", fill, -255, 255)
