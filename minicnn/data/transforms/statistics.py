"""What the pixels of a data set are like: mean, spread, and how red, green and blue go together, one image in memory at a time."""

import numpy as np


def channel_statistics(dataset, most=2000):
    """The mean and standard deviation of each channel, over the images of a data set (at most `most`, evenly spread)."""
    count, total, products = pixel_sums("channel_statistics", dataset, most)
    mean = np.asarray(total / count, np.float64)
    return mean, np.sqrt(np.maximum(np.asarray(np.diag(products) / count, np.float64) - mean ** 2, 1e-12))


def channel_covariance(dataset, most=None):
    """The (C, C) covariance of the channels over all pixels of a data set (or of `most` images); of bytes it is exact.

    Sums of whole numbers have no rounding errors, so neither does  n sum(p q) - sum(p) sum(q)  as one long whole number; the
    division by n (n - 1) is the first and last.
    """
    count, total, products = pixel_sums("covariance", dataset, most)
    if count < 2:
        raise ValueError("covariance: one pixel has none; more images are needed")
    return np.asarray((count * products - np.outer(total, total)) / (count * (count - 1)), np.float64)


def pixel_sums(op, dataset, most=None):
    """(n, sum of p, sum of p p^T) over all pixels p of a data set; of bytes, the sums are of Python's whole numbers, exact."""
    count, total, products = 0, 0, 0
    for _, image in images_of(op, dataset, most):
        image = np.asarray(image)
        pixels = image.reshape(-1, image.shape[-1]).astype(np.float64)
        sums, squares = pixels.sum(0), pixels.T @ pixels        # of one image of bytes: far below 2^53, so exact
        if image.dtype == np.uint8:
            sums, squares = sums.astype(np.int64).astype(object), squares.astype(np.int64).astype(object)
        count, total, products = count + len(pixels), total + sums, products + squares
    return count, total, products


def images_of(op, dataset, most=None, at_least=None):
    """(number, image) for the images of a data set, at most `most` of them, evenly spread. ValueError if there is none, or channels differ.

    With `at_least`, photographs may come in a smaller size, with a shorter side of this or more.
    """
    if len(dataset) == 0 or (most is not None and most < 1):
        raise ValueError(f"{op}: no images to look at ({len(dataset)} in the data set, most={most})")
    channels = None
    for i in np.linspace(0, len(dataset) - 1, min(most or len(dataset), len(dataset))).astype(int).tolist():
        image = (dataset.picture(i, at_least) if at_least and hasattr(dataset, "picture") else dataset[i])[0]
        channels = channels or image.shape[-1]
        if image.shape[-1] != channels:
            raise ValueError(f"{op}: image {i} has {image.shape[-1]} channels, those before have {channels}")
        yield i, image
