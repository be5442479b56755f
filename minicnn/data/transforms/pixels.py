"""Pillow's operations on images that are arrays: it knows bytes, grey or RGB, and single channels of float32."""

import numpy as np
from PIL import Image

from minicnn.data.picture import Picture
from minicnn.data.transforms.step import check_image

BILINEAR = Image.Resampling.BILINEAR


def resized(op, image, height, width):
    """The image in another size: a Picture, which computes what is cut out of it, or an array if it is of floats."""
    check_image(op, image)
    if hasattr(image, "scaled"):
        return image.scaled(height, width)
    if is_photo(image):
        return Picture(to_pillow(image)).scaled(height, width)
    return by_pillow(image, lambda channel: channel.resize((width, height), BILINEAR))


def cut_and_resized(op, image, part, size):
    """A part (top, left, height, width) of the image, scaled to `size` x `size`."""
    check_image(op, image)
    top, left, height, width = part
    H, W, C = image.shape
    pillow = getattr(image, "image", None)                  # a Picture's
    y, x = (pillow.height / H, pillow.width / W) if pillow else (1, 1)          # how many pixels of the file one of the image's is
    box = (left * x, top * y, (left + width) * x, (top + height) * y)

    def scale(pillow):
        return pillow.resize((size, size), BILINEAR, box=box)

    return from_pillow(scale(pillow), C) if pillow else by_pillow(image, scale)


def by_pillow(image, change):
    """What `change`, a function from one Pillow image to another, makes of an image; of each channel by itself where Pillow has it so."""
    pixels = np.asarray(image)
    C = pixels.shape[2]
    if is_photo(pixels):
        return from_pillow(change(to_pillow(pixels)), C)
    return np.stack([np.asarray(change(Image.fromarray(pixels[..., c]))) for c in range(C)], axis=2)


def is_photo(pixels):
    """Whether Pillow has a kind of image for it: grey or RGB bytes."""
    return pixels.dtype == np.uint8 and pixels.shape[2] in (1, 3)


def to_pillow(pixels):
    """(H, W, 3 or 1) bytes as a Pillow image."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def from_pillow(image, channels):
    """A Pillow image as an array (H, W, channels)."""
    return np.asarray(image).reshape(image.height, image.width, channels)
