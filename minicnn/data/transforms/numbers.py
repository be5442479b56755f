"""From pixels of 0 to 255 to the numbers that the network works with: centred on the training set's mean, and scaled if wanted."""

import numpy as np

from minicnn.data.transforms.crops import CenterCrop
from minicnn.data.transforms.sizes import Resize
from minicnn.data.transforms.statistics import images_of
from minicnn.data.transforms.step import Arithmetic, Step, check_image, check_size


class Normalize(Arithmetic):
    """(pixel - mean) / std, as float32, for pixels of 0 to 255; mean and std are one number, or one for each channel."""

    def __init__(self, mean, std=1.0):
        self.mean, self.std = np.asarray(mean, np.float32), np.asarray(std, np.float32)
        if not (np.isfinite(self.mean).all() and self.mean.ndim <= 1 and self.std.ndim <= 1):
            raise ValueError(f"Normalize: mean and std are one number, or one for each channel, not {mean} and {std}")
        if not (self.std > 0).all():
            raise ValueError(f"Normalize: std is positive, not {std}")

    def terms(self, rng=None):
        """-mean and std."""
        return -self.mean, self.std


class MeanPixel(Arithmetic):
    """pixel - mean, as float32: one number, or one for each channel (red, green, blue), for pixels of 0 to 255. Caffe's way."""

    def __init__(self, mean):
        self.mean = np.asarray(mean, np.float32)
        if not (np.isfinite(self.mean).all() and self.mean.ndim <= 1):
            raise ValueError(f"MeanPixel: mean is one number, or one for each channel, not {mean}")

    def terms(self, rng=None):
        """-mean and 1."""
        return -self.mean, np.float32(1)


class ToArray(Arithmetic):
    """Pixels of 0 to 255 as float32 numbers from 0 to 1."""

    def terms(self, rng=None):
        """0 and 255."""
        return np.float32(0), np.float32(255)


class MeanImage(Step):
    """Image minus the mean of all training images, as float32: the paper's way (section 2). It comes before the crop.

    It has no `terms`, since it differs from pixel to pixel: what follows travels as floats, four times as many bytes. MeanPixel does
    as well in practice.

    Args:
        mean_image: (H, W, channels), the size of the images it is subtracted from.
    """

    def __init__(self, mean_image):
        self.mean_image = np.asarray(mean_image, np.float32)
        check_image("MeanImage", self.mean_image)

    @classmethod
    def fit(cls, dataset, size=256, most=None):
        """The mean over a data set (at most `most` images, evenly spread) of the central `size` x `size` pixels, with that shorter side."""
        check_size("MeanImage.fit", "size", size)
        resize, crop = Resize(size), CenterCrop(size)
        count, total = 0, np.int64(0)
        for _, image in images_of("MeanImage.fit", dataset, most, at_least=size):
            pixels = np.asarray(crop(resize(image)))
            total = total + pixels.astype(np.int64 if pixels.dtype == np.uint8 else np.float64)     # whole numbers: exact
            count += 1
        return cls(total / count)

    def __call__(self, image, rng=None):
        if image.shape != self.mean_image.shape:
            have, want = (" x ".join(map(str, shape)) for shape in (image.shape, self.mean_image.shape))
            raise ValueError(f"MeanImage: an image of {have} minus a mean image of {want}; put Resize and CenterCrop to that "
                             "size before it, and smaller crops after it")
        return np.asarray(image, np.float32) - self.mean_image
