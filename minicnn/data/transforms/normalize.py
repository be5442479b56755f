"""Normalization: from pixels of 0 to 255 to what the network expects, and the statistics of a data set's pixels that it needs."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from minicnn.data.transforms.base import ChannelAffine, Transform, check_image, check_size
from minicnn.data.transforms.crop import CenterCrop, Resize


class Normalize(ChannelAffine):
    """(pixel - mean) / std, as float32.

    Args:
        mean, std: one number, or one per channel, in the units of the pixels: 0 to 255, or 0 to 1 after ToFloat.
    """

    def __init__(self, mean: Any, std: Any = 1.0) -> None:
        self.mean, self.std = per_channel("Normalize", "mean", mean), per_channel("Normalize", "std", std)
        if not (self.std > 0).all():
            raise ValueError(f"Normalize: std must be positive, got {std}")

    def scale_and_shift(self, rng: Any = None) -> tuple[Any, Any]:
        """-mean and std."""
        return -self.mean, self.std


class SubtractMean(ChannelAffine):
    """pixel - mean, as float32: one number, or one per channel (red, green, blue), for pixels of 0 to 255; as in Caffe."""

    def __init__(self, mean: Any) -> None:
        self.mean = per_channel("SubtractMean", "mean", mean)

    def scale_and_shift(self, rng: Any = None) -> tuple[Any, Any]:
        """-mean and 1."""
        return -self.mean, np.float32(1)


class ToFloat(ChannelAffine):
    """Pixels of 0 to 255 as float32 numbers of 0 to 1."""

    def scale_and_shift(self, rng: Any = None) -> tuple[Any, Any]:
        """0 and 255."""
        return np.float32(0), np.float32(255)


class MeanImage(Transform):
    """Image minus the mean image of the training set, as float32, before the crop; AlexNet, section 2.

    It differs from pixel to pixel, so it is not a ChannelAffine transform: the images are copied to the GPU as floats, four times as many
    bytes. SubtractMean works equally well in practice.

    Args:
        mean_image: (H, W, channels), of the size of the images that it is subtracted from.
    """

    def __init__(self, mean_image: Any) -> None:
        self.mean_image = np.asarray(mean_image, np.float32)
        check_image("MeanImage", self.mean_image)

    @classmethod
    def fit(cls, dataset: Any, size: int = 256, max_images: int | None = None) -> "MeanImage":
        """The mean over a data set of the central `size` x `size` pixels of each image, resized to that shorter side.

        Args:
            dataset: has a length and items (image, label).
            size: of the mean image, in pixels.
            max_images: use at most so many images, evenly spread; None: all.
        """
        check_size("MeanImage.fit", "size", size)
        resize, crop = Resize(size), CenterCrop(size)
        count, total = 0, np.int64(0)
        for _, image in iter_sample("MeanImage.fit", dataset, max_images, min_size=size):
            pixels = np.asarray(crop(resize(image)))
            total = total + pixels.astype(np.int64 if pixels.dtype == np.uint8 else np.float64)     # sums of integers are exact
            count += 1
        return cls(total / count)

    def __call__(self, image: Any, rng: Any = None) -> np.ndarray:
        if image.shape != self.mean_image.shape:
            got, expected = (" x ".join(map(str, shape)) for shape in (image.shape, self.mean_image.shape))
            raise ValueError(f"MeanImage: the image must have the size of the mean image, {expected}, got {got}; put Resize and CenterCrop "
                             "to that size before it, and smaller crops after it")
        return np.asarray(image, np.float32) - self.mean_image


def channel_statistics(dataset: Any, max_images: int | None = 2000) -> tuple[np.ndarray, np.ndarray]:
    """The mean and the standard deviation of each channel, two float64 arrays (C,), one image in memory at a time.

    Args:
        dataset: has a length and items (image, label).
        max_images: use at most so many images, evenly spread; None: all.
    """
    count, total, products = pixel_sums("channel_statistics", dataset, max_images)
    mean = np.asarray(total / count, np.float64)
    return mean, np.sqrt(np.maximum(np.asarray(np.diag(products) / count, np.float64) - mean ** 2, 1e-12))


def channel_covariance(dataset: Any, max_images: int | None = None) -> np.ndarray:
    """The (C, C) covariance of the channels over all pixels of a data set (or of `max_images` images); exact for bytes.

    Sums of integers have no rounding errors, so neither does  n sum(p q) - sum(p) sum(q)  in Python's unbounded integers; the
    division by n (n - 1) is the first and last.
    """
    count, total, products = pixel_sums("channel_covariance", dataset, max_images)
    if count < 2:
        raise ValueError("channel_covariance: needs two pixels or more, got 1")
    return np.asarray((count * products - np.outer(total, total)) / (count * (count - 1)), np.float64)


def pixel_sums(op, dataset, max_images=None):
    """(n, sum of p, sum of p p^T) over all pixels p of a data set; for bytes, the sums are Python's integers, exact."""
    count, total, products = 0, 0, 0
    for _, image in iter_sample(op, dataset, max_images):
        image = np.asarray(image)
        pixels = image.reshape(-1, image.shape[-1]).astype(np.float64)
        sums, squares = pixels.sum(0), pixels.T @ pixels        # of one image of bytes: far below 2^53, so exact
        if image.dtype == np.uint8:
            sums, squares = sums.astype(np.int64).astype(object), squares.astype(np.int64).astype(object)
        count, total, products = count + len(pixels), total + sums, products + squares
    return count, total, products


def iter_sample(op: str, dataset: Any, max_images: int | None = None, min_size: int | None = None) -> Iterator[tuple[int, Any]]:
    """(index, image) of at most `max_images` images of a data set, evenly spread. ValueError if there is none, or their channels differ.

    With `min_size`, photographs may come in a reduced size, with a shorter side of that or more.
    """
    N = len(dataset)
    if N == 0 or (max_images is not None and max_images < 1):
        raise ValueError(f"{op}: needs one image or more, got a data set of {N} and max_images={max_images}")
    channels = None
    for i in np.linspace(0, N - 1, min(max_images or N, N)).astype(int).tolist():
        image = (dataset.load(i, min_size) if min_size and hasattr(dataset, "load") else dataset[i])[0]
        channels = channels or image.shape[-1]
        if image.shape[-1] != channels:
            raise ValueError(f"{op}: all images must have the same channels, but image {i} has {image.shape[-1]}, those before {channels}")
        yield i, image


def per_channel(op, name, values):
    """One finite number, or one per channel, as a float32 array; ValueError otherwise."""
    array = np.asarray(values, np.float32)
    if not (np.isfinite(array).all() and array.ndim <= 1):
        raise ValueError(f"{op}: {name} must be one finite number, or one per channel, got {values}")
    return array
