"""Resizing and cropping: which part of an image the network gets, and at which size.

Resizing is lazy: the result is a LazyImage, and the crop that follows computes only its own pixels.
"""

import math
from typing import Any

import numpy as np

from minicnn.data.lazy_image import BILINEAR, LazyImage, from_pillow, map_pillow, pillow_can_hold, to_pillow
from minicnn.data.transforms.base import Transform, check_image, check_number, check_size, check_square


class Resize(Transform):
    """Resize so that the shorter side has `size` pixels, keeping the aspect ratio (bilinear); AlexNet, section 2, with 256."""

    def __init__(self, size: int) -> None:
        if isinstance(size, (tuple, list)):
            raise ValueError(f"Resize: size must be one int, the shorter side, got {size!r}; for square images put CenterCrop after it")
        self.size = self.min_size = check_size("Resize", "size", size)

    def __call__(self, image: Any, rng: Any = None) -> Any:
        return resize_shorter_side("Resize", image, self.size)


class ScaleJitter(Transform):
    """Resize so that the shorter side has a random length, `low` to `high` pixels (VGG: Simonyan, Zisserman, arXiv:1409.1556, 3.1)."""

    random = True

    def __init__(self, low: int = 256, high: int = 480) -> None:
        self.low = check_size("ScaleJitter", "low", low)
        self.high = self.min_size = check_size("ScaleJitter", "high", high, least=low)

    def __call__(self, image: Any, rng: Any) -> Any:
        return resize_shorter_side("ScaleJitter", image, int(rng.integers(self.low, self.high + 1)))


class CenterCrop(Transform):
    """Crop the central `size` x `size` pixels."""

    def __init__(self, size: int | tuple[int, int]) -> None:
        self.size = check_square("CenterCrop", size)

    def __call__(self, image: Any, rng: Any = None) -> Any:
        top, left = (center_offset(side, self.size) for side in check_crop_fits("CenterCrop", image, self.size))
        return image[top:top + self.size, left:left + self.size]


class RandomCrop(Transform):
    """Crop `size` x `size` pixels at a random position; AlexNet, section 4.1, within the central 256 x 256 pixels.

    Args:
        size: side of the crop, in pixels.
        padding: zero pixels added on each side of the image before cropping.
        within: crop only from the central `within` x `within` pixels; None: from the whole image.
    """

    random = True

    def __init__(self, size: int | tuple[int, int], padding: int = 0, within: int | None = None) -> None:
        self.size, self.padding = check_square("RandomCrop", size), check_size("RandomCrop", "padding", padding, least=0)
        self.within = None if within is None else check_size("RandomCrop", "within", within, least=self.size)

    def __call__(self, image: Any, rng: Any) -> Any:
        if self.padding:
            image = np.pad(image, ((self.padding, self.padding), (self.padding, self.padding), (0, 0)))
        draws = rng.random(2)
        top, left = (self.offset(side, u) for side, u in zip(check_crop_fits("RandomCrop", image, self.size), draws, strict=True))
        return image[top:top + self.size, left:left + self.size]

    def offset(self, side, u):
        """The offset of the crop along a side of the image, for u from 0 to 1."""
        available = min(side, self.within or side)
        return center_offset(side, available) + int(u * (available - self.size + 1))


class RandomResizedCrop(Transform):
    """Crop a part of random area and aspect ratio, resized to `size` x `size` (bilinear; GoogLeNet: Szegedy et al., arXiv:1409.4842, 6).

    As in torchvision: ten parts are drawn, and the first that fits into the image is taken; if none does, the largest central part
    whose aspect ratio is allowed.

    Args:
        size: side of the result, in pixels.
        scale: (least, greatest) area of the part, as fractions of the image's area.
        ratio: (least, greatest) width / height of the part; its logarithm is drawn uniformly.
    """

    random = True

    def __init__(self, size: int | tuple[int, int], scale: tuple[float, float] = (0.08, 1.0),
                 ratio: tuple[float, float] = (3 / 4, 4 / 3)) -> None:
        self.size = check_square("RandomResizedCrop", size)
        self.scale = check_range("scale", scale, 1)
        self.ratio = check_range("ratio", ratio, 1000)
        # With this shorter side, the smallest part that can be drawn has a side of `size` pixels:
        self.min_size = math.ceil(self.size / math.sqrt(self.scale[0] * min(self.ratio[0], 1 / self.ratio[1])))

    def __call__(self, image: Any, rng: Any) -> np.ndarray:
        check_image("RandomResizedCrop", image)
        H, W, _ = image.shape
        return resized_crop(image, self.part(H, W, rng.random((10, 4))), self.size)

    def part(self, H, W, draws):
        """(top, left, height, width) in an H x W image; each row of `draws` is four numbers of 0 to 1: area, ratio, top, left."""
        (min_area, max_area), (min_ratio, max_ratio) = self.scale, self.ratio
        for area, shape, down, right in draws:
            pixels = H * W * (min_area + (max_area - min_area) * area)
            ratio = min_ratio * (max_ratio / min_ratio) ** shape
            h, w = round(math.sqrt(pixels / ratio)), round(math.sqrt(pixels * ratio))
            if 0 < h <= H and 0 < w <= W:
                return int(down * (H - h + 1)), int(right * (W - w + 1)), h, w
        h, w = max(1, min(H, round(W / min_ratio))), max(1, min(W, round(H * max_ratio)))
        return (H - h) // 2, (W - w) // 2, h, w


def resize_shorter_side(op, image, size):
    """The image with a shorter side of `size` pixels; the image itself if it has that."""
    check_image(op, image)
    H, W = image.shape[:2]
    if min(H, W) == size:
        return image
    long = int(size * max(H, W) / min(H, W))            # rounded down like torchvision's, for networks trained with that
    return resize(image, *((size, long) if H < W else (long, size)))


def resize(image, height, width):
    """The image in another size (bilinear): a LazyImage, or an array if Pillow does not support it (floats)."""
    if hasattr(image, "resized"):
        return image.resized(height, width)
    if pillow_can_hold(image):
        return LazyImage(to_pillow(image)).resized(height, width)
    return map_pillow(lambda channel: channel.resize((width, height), BILINEAR), image)


def resized_crop(image, part, size):
    """The part (top, left, height, width) of an image, resized to `size` x `size`."""
    top, left, height, width = part
    H, W, C = image.shape
    pillow = getattr(image, "image", None)                  # a LazyImage's: resampled once, from the pixels of the file
    y, x = (pillow.height / H, pillow.width / W) if pillow else (1, 1)          # pixels of the file per pixel of the image
    box = (left * x, top * y, (left + width) * x, (top + height) * y)

    def resample(one):
        return one.resize((size, size), BILINEAR, box=box)

    return from_pillow(resample(pillow), C) if pillow else map_pillow(resample, image)


def center_offset(side, size):
    """The offset of the central `size` of `side` pixels; a half is rounded to an even number, like torchvision's."""
    return round((side - size) / 2)


def check_crop_fits(op, image, size):
    """(H, W) of an image; ValueError if a crop of `size` does not fit into it."""
    check_image(op, image)
    H, W = image.shape[:2]
    if min(H, W) < size:
        raise ValueError(f"{op}: a {size} x {size} crop does not fit into an image of {H} x {W}; put Resize({size}) or more before it")
    return H, W


def check_range(name, pair, high):
    """A pair (least, greatest), both above 0, as floats; ValueError otherwise."""
    try:
        least, greatest = pair
    except (TypeError, ValueError):
        raise ValueError(f"RandomResizedCrop: {name} must be a pair (least, greatest), got {pair!r}") from None
    least = check_number("RandomResizedCrop", f"{name}[0]", least, 0, high, but=(0,))
    return least, check_number("RandomResizedCrop", f"{name}[1]", greatest, least, high)
