"""Photographs come in all sizes; the shorter side is brought to one length, and the longer one keeps its proportion to it.

Nothing is computed yet: the result is a Picture, and a crop that follows computes the pixels that it keeps.
"""

from minicnn.data.transforms.pixels import resized
from minicnn.data.transforms.step import Step, check_image, check_size


class Resize(Step):
    """Scale so that the shorter side has `size` pixels (bilinear); the paper's first step, with 256 (section 2)."""

    def __init__(self, size):
        self.size = self.at_least = check_size("Resize", "size", size)

    def __call__(self, image, rng=None):
        return with_shorter_side("Resize", image, self.size)


class ScaleJitter(Step):
    """Scale so that the shorter side has a random length, from `low` to `high` pixels (VGG: Simonyan, Zisserman, arXiv:1409.1556, 3.1)."""

    random = True

    def __init__(self, low=256, high=480):
        self.low = check_size("ScaleJitter", "low", low)
        self.high = self.at_least = check_size("ScaleJitter", "high", high, least=low)

    def __call__(self, image, rng):
        return with_shorter_side("ScaleJitter", image, int(rng.integers(self.low, self.high + 1)))


def with_shorter_side(op, image, size):
    """The image with a shorter side of `size` pixels; the image itself if it has that."""
    check_image(op, image)
    H, W = image.shape[:2]
    if min(H, W) == size:
        return image
    long = int(size * max(H, W) / min(H, W))            # rounded down, as torchvision does, whose networks shall see what they are used to
    return resized(op, image, *((size, long) if H < W else (long, size)))
