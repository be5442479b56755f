"""Which part of an image the network sees: the middle in a test, any part in training, so that it never sees quite the same twice."""

import math

import numpy as np

from minicnn.data.transforms.pixels import cut_and_resized
from minicnn.data.transforms.step import Step, check_image, check_number, check_size


class CenterCrop(Step):
    """The middle `size` x `size` pixels."""

    def __init__(self, size):
        self.size = check_size("CenterCrop", "size", size)

    def __call__(self, image, rng=None):
        top, left = (middle(side, self.size) for side in room("CenterCrop", image, self.size))
        return image[top:top + self.size, left:left + self.size]


class RandomCrop(Step):
    """`size` x `size` pixels from anywhere in the image; AlexNet, section 4.1, where it is within the central 256 x 256 pixels.

    Args:
        size: pixels.
        padding: zero pixels that are added on each side before.
        within: only from the central `within` x `within` pixels; None: from anywhere.
    """

    random = True

    def __init__(self, size, padding=0, within=None):
        self.size, self.padding = check_size("RandomCrop", "size", size), check_size("RandomCrop", "padding", padding, least=0)
        self.within = None if within is None else check_size("RandomCrop", "within", within, least=size)

    def __call__(self, image, rng):
        if self.padding:
            image = padded(image, self.padding)
        down, right = rng.random(2)
        top, left = (self.start(side, u) for side, u in zip(room("RandomCrop", image, self.size), (down, right), strict=True))
        return image[top:top + self.size, left:left + self.size]

    def start(self, side, u):
        """Where along a side of the image the crop begins, for u from 0 to 1."""
        there = min(side, self.within or side)
        return middle(side, there) + int(u * (there - self.size + 1))


class RandomResizedCrop(Step):
    """A part of random area and shape, scaled to `size` x `size` (bilinear): GoogLeNet's way (Szegedy et al., arXiv:1409.4842, section 6).

    As in torchvision: ten parts are drawn, and the first that fits into the image is taken; if none does, the largest part in the
    middle whose shape is allowed.

    Args:
        size: pixels.
        scale: the least and the greatest area of the part, as fractions of the image's.
        ratio: the least and the greatest width / height; its logarithm is drawn uniformly.
    """

    random = True

    def __init__(self, size, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3)):
        self.size = check_size("RandomResizedCrop", "size", size)
        self.scale = check_range("scale", scale, 1)
        self.ratio = check_range("ratio", ratio, 1000)
        # The smallest part has a side of `size` pixels, if the image's shorter side has these:
        self.at_least = math.ceil(self.size / math.sqrt(self.scale[0] * min(self.ratio[0], 1 / self.ratio[1])))

    def __call__(self, image, rng):
        check_image("RandomResizedCrop", image)
        H, W, _ = image.shape
        return cut_and_resized("RandomResizedCrop", image, self.part(H, W, rng.random((10, 4))), self.size)

    def part(self, H, W, draws):
        """(top, left, height, width) for an image of H x W; each row of `draws` has numbers from 0 to 1 for area, shape and place."""
        (least, most), (narrow, wide) = self.scale, self.ratio
        for area, shape, down, right in draws:
            pixels = H * W * (least + (most - least) * area)
            ratio = narrow * (wide / narrow) ** shape
            h, w = round(math.sqrt(pixels / ratio)), round(math.sqrt(pixels * ratio))
            if 0 < h <= H and 0 < w <= W:
                return int(down * (H - h + 1)), int(right * (W - w + 1)), h, w
        h, w = max(1, min(H, round(W / narrow))), max(1, min(W, round(H * wide)))
        return (H - h) // 2, (W - w) // 2, h, w


def middle(side, size):
    """Where the middle `size` of `side` pixels begin; a half is rounded to an even number, as torchvision does."""
    return round((side - size) / 2)


def room(op, image, size):
    """(H, W), if a crop of `size` fits."""
    check_image(op, image)
    H, W = image.shape[:2]
    if min(H, W) < size:
        raise ValueError(f"{op}: a {size} x {size} crop does not fit into an image of {H} x {W}; put Resize({size}) or more before it")
    return H, W


def check_range(name, pair, high):
    """(least, greatest), both above 0; returns them as floats."""
    try:
        least, greatest = pair
    except (TypeError, ValueError):
        raise ValueError(f"RandomResizedCrop: {name} is a pair (least, greatest), not {pair!r}") from None
    least = check_number("RandomResizedCrop", f"{name}[0]", least, 0, high, but=(0,))
    return least, check_number("RandomResizedCrop", f"{name}[1]", greatest, least, high)


def padded(image, n):
    """The image with n zero pixels on each side, as an array."""
    return np.pad(image, ((n, n), (n, n), (0, 0)))
