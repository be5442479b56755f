"""How an image becomes an input: small steps, each called as step(image, rng).

An image is an array (H, W, channels). `rng` is a NumPy Generator that belongs to this image in this epoch alone, so
what is random does not depend on which worker does it, or when.
"""

import numpy as np
from PIL import Image


class Compose:
    """The steps one after the other."""

    def __init__(self, *steps):
        self.steps = steps

    def __call__(self, image, rng):
        for step in self.steps:
            image = step(image, rng)
        return image


class Resize:
    """Scale so that the shorter side has `size` pixels (bilinear); the paper's first step, with 256."""

    def __init__(self, size):
        self.size = size

    def __call__(self, image, rng=None):
        H, W = image.shape[:2]
        if min(H, W) == self.size:
            return image
        scale = self.size / min(H, W)
        W, H = max(self.size, round(W * scale)), max(self.size, round(H * scale))
        picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
        return np.asarray(picture.resize((W, H), Image.Resampling.BILINEAR)).reshape(H, W, -1)


class CenterCrop:
    """The middle `size` x `size` pixels."""

    def __init__(self, size):
        self.size = size

    def __call__(self, image, rng=None):
        top, left = ((side - self.size) // 2 for side in room("CenterCrop", image, self.size))
        return image[top:top + self.size, left:left + self.size]


class RandomCrop:
    """`size` x `size` pixels from anywhere in the image, after `padding` zero pixels on each side were added."""

    def __init__(self, size, padding=0):
        self.size, self.padding = size, padding

    def __call__(self, image, rng):
        if self.padding:
            image = np.pad(image, ((self.padding,) * 2, (self.padding,) * 2, (0, 0)))
        top, left = (int(rng.integers(side - self.size + 1)) for side in room("RandomCrop", image, self.size))
        return image[top:top + self.size, left:left + self.size]


class RandomMirror:
    """Left and right exchanged, every other time."""

    def __call__(self, image, rng):
        return image[:, ::-1] if rng.random() < 0.5 else image


class Normalize:
    """(pixel - mean) / std, as float32, for pixels of 0 to 255; mean and std are one number, or one for each channel.

    With std = 1 this is the paper's input: pixels minus their mean over the training set.
    """

    def __init__(self, mean, std=1.0):
        self.mean, self.std = np.asarray(mean, np.float32), np.asarray(std, np.float32)
        if not (self.std > 0).all():
            raise ValueError(f"Normalize: std is positive, not {std}")

    def __call__(self, image, rng=None):
        return (image.astype(np.float32) - self.mean) / self.std


def channel_statistics(dataset, most=2000):
    """The mean and standard deviation of each channel, over the images of a data set (at most `most`, evenly spread)."""
    count, total, squares = 0, np.float64(0), np.float64(0)
    for i in np.linspace(0, len(dataset) - 1, min(most, len(dataset))).astype(int):
        image, _ = dataset[i]
        pixels = image.reshape(-1, image.shape[-1]).astype(np.float64)
        count, total, squares = count + len(pixels), total + pixels.sum(0), squares + (pixels ** 2).sum(0)
    mean = total / count
    return mean, np.sqrt(np.maximum(squares / count - mean ** 2, 1e-12))


def room(op, image, size):
    """(H, W), if a crop of `size` fits."""
    H, W = image.shape[:2]
    if min(H, W) < size:
        raise ValueError(f"{op}: a {size} x {size} crop does not fit into an image of {H} x {W}; put Resize({size}) or more before it")
    return H, W
