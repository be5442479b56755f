"""Lazily resized images, and conversion between Pillow's images and arrays.

Training resizes a photograph and crops a region of it; resizing all of it first would waste work. A LazyImage only records the
size, and computes the pixels of a region when it is indexed:

    image = LazyImage(Image.open(file)).resized(256, 341)
    crop = image[10:237, 50:277]                        # a uint8 array (227, 227, 3): only these pixels are computed

For minicnn.data.transforms it is an array (H, W, channels): it has a shape and a dtype, can be sliced, and numpy.asarray computes
all of it.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

BILINEAR = Image.Resampling.BILINEAR


class LazyImage:
    """A Pillow image (RGB, or grey: "L") as an array (height, width, 3 or 1) of uint8, resized when its pixels are read.

    Args:
        image: the Pillow image.
        height, width: the target size; by default that of the image.
    """

    def __init__(self, image: Image.Image, height: int | None = None, width: int | None = None) -> None:
        self.image = image
        self.shape = (height or image.height, width or image.width, len(image.getbands()))

    dtype = np.dtype(np.uint8)
    ndim = 3

    def resized(self, height: int, width: int) -> "LazyImage":
        """The same image in another size (bilinear, with antialiasing where it shrinks); no pixel is computed yet."""
        return LazyImage(self.image, height, width)

    def __getitem__(self, index: Any) -> np.ndarray:
        """The pixels image[top:bottom, left:right]; for any other index, the whole image is computed first."""
        if not (isinstance(index, tuple) and len(index) == 2 and all(isinstance(i, slice) and i.step in (None, 1) for i in index)):
            return np.asarray(self)[index]
        (top, bottom, _), (left, right, _) = (i.indices(size) for i, size in zip(index, self.shape, strict=False))
        return self.pixels(top, left, max(bottom, top), max(right, left))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.pixels(0, 0, *self.shape[:2]).astype(dtype or self.dtype, copy=False)

    def pixels(self, top: int, left: int, bottom: int, right: int) -> np.ndarray:
        """The pixels of a rectangle, in the coordinates of the resized image."""
        image, (H, W, C) = self.image, self.shape
        if (image.height, image.width) == (H, W):
            region = image.crop((left, top, right, bottom))
        else:
            y, x = image.height / H, image.width / W            # pixels of the file per pixel of the resized image
            region = image.resize((right - left, bottom - top), BILINEAR, box=(x * left, y * top, x * right, y * bottom))
        return from_pillow(region, C)


def to_pillow(pixels: Any) -> Image.Image:
    """A uint8 array (H, W, 3 or 1) as a Pillow image, RGB or grey."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def from_pillow(image: Image.Image, channels: int) -> np.ndarray:
    """A Pillow image as an array (H, W, channels)."""
    return np.asarray(image).reshape(image.height, image.width, channels)


def pillow_can_hold(pixels: Any) -> bool:
    """Whether an array (H, W, channels) is one Pillow image: uint8, with 1 or 3 channels."""
    return pixels.dtype == np.uint8 and pixels.shape[2] in (1, 3)


def map_pillow(function: Callable[[Image.Image], Image.Image], image: Any) -> np.ndarray:
    """Apply a function of Pillow images to an array or LazyImage; channel by channel if Pillow does not support the array (floats)."""
    pixels = np.asarray(image)
    C = pixels.shape[2]
    if pillow_can_hold(pixels):
        return from_pillow(function(to_pillow(pixels)), C)
    return np.stack([np.asarray(function(Image.fromarray(pixels[..., c]))) for c in range(C)], axis=2)
