"""How an image becomes an input: small steps, each called as step(image, rng).

An image is an array (H, W, channels). `rng` is a NumPy Generator that belongs to this image in this epoch alone, so
what is random does not depend on which worker does it, or when.

Some steps choose pixels (a crop and a mirror are mere views of the image); others are arithmetic, the same on every pixel:
(pixel + add) / divide, channel by channel. These have a method `terms(rng)` that gives the two, so that a GPU can do the
arithmetic of all steps and all images at once (`minicnn.data.upload`).
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

    def without_arithmetic(self):
        """Two lists: the steps that choose pixels, and the arithmetic steps at the end."""
        last = len(self.steps)
        while last and hasattr(self.steps[last - 1], "terms"):
            last -= 1
        return Compose(*self.steps[:last]), self.steps[last:]


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

    def terms(self, rng=None):
        """What to add to each channel, and what to divide it by."""
        return -self.mean, self.std


class PCAColour:
    """Shift each image's colour along the ways in which the training set's colours differ; AlexNet, section 4.1.

    To every pixel of an image the same is added: p1 a1 l1 + p2 a2 l2 + p3 a3 l3, where the p are the eigenvectors and the l the
    eigenvalues of the covariance of (red, green, blue) over all pixels of the training set, and each a is drawn anew for each
    image from a Gaussian with standard deviation `sigma`. (The paper's formula has the eigenvalues l themselves; they are squares
    of colours, so copies of it use the roots, as here.)

    Args:
        covariance: (3, 3), of pixels of 0 to 255.
        sigma: the paper's 0.1.
    """

    def __init__(self, covariance, sigma=0.1):
        values, vectors = np.linalg.eigh(np.asarray(covariance, np.float64))
        self.components = vectors * np.sqrt(np.maximum(values, 0))          # columns: one standard deviation along each
        self.sigma = sigma

    def __call__(self, image, rng):
        return image.astype(np.float32) + self.terms(rng)[0]

    def terms(self, rng):
        """The shift of this image, and 1."""
        return (self.components @ rng.normal(0, self.sigma, 3)).astype(np.float32), np.float32(1)


def all_terms(steps, rng):
    """What several arithmetic steps, one after the other, come to: add, divide."""
    add, divide = np.float32(0), np.float32(1)
    for step in steps:
        a, d = step.terms(rng)
        add, divide = add + a * divide, divide * d
    return add, divide


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
