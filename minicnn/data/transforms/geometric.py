"""Geometric augmentation: flips, rotations, translations, aspect ratios and lens distortion, none of which changes the label.

A rotated or translated image has no pixels at some edges: these get the value `fill` (0: black) in every channel. A crop afterwards
removes most of them.
"""

from typing import Any

import numpy as np

from minicnn.data.lazy_image import BILINEAR, map_pillow
from minicnn.data.transforms.base import Transform, check_image, check_number
from minicnn.data.transforms.crop import resize


class RandomHorizontalFlip(Transform):
    """Swap left and right with probability `p`; AlexNet, section 4.1. The result is a view of the image."""

    random = any_size = True

    def __init__(self, p: float = 0.5) -> None:
        self.p = check_number("RandomHorizontalFlip", "p", p, 0, 1)

    def __call__(self, image: Any, rng: Any) -> Any:
        return image[:, ::-1] if rng.random() < self.p else image


class RandomRotation(Transform):
    """Rotate about the center by an angle of -degrees to degrees (bilinear); the size stays.

    Args:
        degrees: the largest angle, 0 to 180.
        fill: value of the pixels that come from outside the image.
    """

    random = any_size = True

    def __init__(self, degrees: float, fill: float = 0) -> None:
        self.degrees, self.fill = check_number("RandomRotation", "degrees", degrees, 0, 180), check_fill("RandomRotation", fill)

    def __call__(self, image: Any, rng: Any) -> np.ndarray:
        return rotate(image, rng.uniform(-self.degrees, self.degrees), self.fill)


class RandomTranslate(Transform):
    """Shift vertically and horizontally, each by a random number of whole pixels; the size stays.

    Args:
        fraction: the largest shift, as a fraction (0 to 1) of the height and of the width, in either direction.
        fill: value of the pixels that come from outside the image.
    """

    random = any_size = True

    def __init__(self, fraction: float, fill: float = 0) -> None:
        self.fraction, self.fill = check_number("RandomTranslate", "fraction", fraction, 0, 1), check_fill("RandomTranslate", fill)

    def __call__(self, image: Any, rng: Any) -> np.ndarray:
        check_image("RandomTranslate", image)
        down, right = rng.uniform(-self.fraction, self.fraction, 2)
        return translate(image, round(down * image.shape[0]), round(right * image.shape[1]), self.fill)


class RandomAspect(Transform):
    """Stretch the height or the width, chosen at random, by a factor of 1 to `ratio` whose logarithm is drawn uniformly.

    No side gets shorter, so a crop that fits before also fits after. Like Resize, it is lazy.
    """

    random = any_size = True

    def __init__(self, ratio: float) -> None:
        self.ratio = check_number("RandomAspect", "ratio", ratio, 1, 10)

    def __call__(self, image: Any, rng: Any) -> Any:
        coin, u = rng.random(2)
        factor = self.ratio ** u
        return stretch(image, *((factor, 1) if coin < 0.5 else (1, factor)))


class RandomRadialDistortion(Transform):
    """Distort like a simple lens: the pixel at radius r is sampled at r (1 + k r^2) / z, with k drawn from -strength to strength.

    r is 1 in the corners; z = 1 + max(k, 0), so that nothing is sampled outside the image. The size stays.

    Args:
        strength: 0 to 0.3 (below k = -1/3 the image would fold over).
    """

    random = any_size = True

    def __init__(self, strength: float) -> None:
        self.strength = check_number("RandomRadialDistortion", "strength", strength, 0, 0.3)

    def __call__(self, image: Any, rng: Any) -> np.ndarray:
        return distort(image, rng.uniform(-self.strength, self.strength))


def rotate(image: Any, degrees: float, fill: float = 0) -> np.ndarray:
    """The image rotated counter-clockwise about its center."""
    check_image("RandomRotation", image)
    fill = int(fill) if image.dtype == np.uint8 else fill
    return map_pillow(lambda one: one.rotate(degrees, BILINEAR, fillcolor=(fill,) * 3 if one.mode == "RGB" else fill), image)


def translate(image: Any, down: int, right: int, fill: float = 0) -> np.ndarray:
    """The image shifted by whole pixels; negative numbers shift up and to the left."""
    H, W, _ = image.shape
    (top, to_top), (left, to_left) = (max(-down, 0), max(down, 0)), (max(-right, 0), max(right, 0))
    visible = image[top:H - to_top, left:W - to_left]
    shifted = np.full(image.shape, fill, image.dtype)
    shifted[to_top:H - top, to_left:W - left] = visible
    return shifted


def stretch(image: Any, high: float, wide: float) -> Any:
    """The image with `high` times its height and `wide` times its width."""
    check_image("RandomAspect", image)
    H, W = image.shape[:2]
    size = round(H * high), round(W * wide)
    return image if size == (H, W) else resize(image, *size)


def distort(image: Any, k: float) -> np.ndarray:
    """The image with the radial distortion `k` (bilinear)."""
    check_image("RandomRadialDistortion", image)
    H, W = image.shape[:2]
    y = (np.arange(H, dtype=np.float32) + 0.5 - H / 2)[:, None]              # centers of the pixels, from the center of the image
    x = (np.arange(W, dtype=np.float32) + 0.5 - W / 2)[None, :]
    r2 = (y * y + x * x) / ((H * H + W * W) / 4)
    zoom = (1 + k * r2) / (1 + max(k, 0))
    return bilinear_sample(np.asarray(image), y * zoom + (H / 2 - 0.5), x * zoom + (W / 2 - 0.5))


def bilinear_sample(image, y, x):
    """The image's values at rows `y` and columns `x`, arrays of fractional coordinates of the output's shape (bilinear)."""
    H, W, C = image.shape
    (top, dy), (left, dx) = floor_and_fraction(y, H), floor_and_fraction(x, W)
    pixels = image.reshape(H * W, C)
    at = top * W + left
    down, right = (W if H > 1 else 0), (1 if W > 1 else 0)
    upper = lerp(pixels[at], pixels[at + right], dx)
    lower = lerp(pixels[at + down], pixels[at + down + right], dx)
    values = lerp(upper, lower, dy)
    return np.rint(values).astype(np.uint8) if image.dtype == np.uint8 else values


def floor_and_fraction(z, size):
    """A coordinate as the pixel before it (one that has a neighbor after it) and the fraction of the way to that neighbor."""
    z = np.clip(z, 0, size - 1)
    whole = np.minimum(z.astype(np.int32), max(size - 2, 0))
    return whole, (z - whole)[..., None].astype(np.float32)


def lerp(a, b, t):
    """Linear interpolation: a where t is 0, b where it is 1."""
    return a + t * (b.astype(np.float32) - a)


def check_fill(op, fill):
    """A pixel's value; below 0 only for images from which a mean was subtracted."""
    return check_number(op, "fill", fill, -255, 255)
