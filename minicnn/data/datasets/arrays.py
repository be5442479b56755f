"""Data sets in memory, and an evenly spread sample of a data set."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from minicnn.data.datasets.files import DataError
from minicnn.data.lazy_image import LazyImage, to_pillow


class ArrayDataset:
    """A data set in memory.

    Args:
        images: (N, H, W, C) uint8, with C = 3 (RGB) or 1 (grey).
        labels: (N,) ints, from 0 to len(classes) - 1.
        classes: the class names, in label order.

    Raises DataError: images has another shape, there are more or fewer labels than images, or a label is out of range.
    """

    in_memory = True

    def __init__(self, images: Any, labels: Any, classes: Sequence[str]) -> None:
        self.images, self.labels, self.classes = np.asarray(images), np.asarray(labels).astype(np.int64), list(classes)
        name, shape = type(self).__name__, self.images.shape
        if len(shape) != 4 or shape[3] not in (1, 3):
            channels_first = len(shape) == 4 and shape[1] in (1, 3)
            raise DataError(f"{name}: images must be (N, H, W, C) with C = 3 or 1, got {shape}"
                            + ("; use images.transpose(0, 2, 3, 1)" if channels_first else ""))
        if len(self.images) != len(self.labels):
            raise DataError(f"{name}: {len(self.images)} images but {len(self.labels)} labels")
        wrong = self.labels[(self.labels < 0) | (self.labels >= len(self.classes))]
        if len(wrong):
            raise DataError(f"{name}: labels must be 0 to {len(self.classes) - 1} for {len(self.classes)} classes, got {wrong.max()}; "
                            "the files may be damaged, or belong to another data set")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Any, int]:
        return self.images[i], int(self.labels[i])

    def load(self, i: int, min_size: int | None = None) -> tuple[LazyImage, int]:
        """(LazyImage, label) of item i; always at full size."""
        image, label = self[i]
        return LazyImage(to_pillow(image)), label

    def name(self, i: int) -> str:
        """A name for item i, for messages."""
        return f"image {i} of {type(self).__name__}"

    def fingerprint(self) -> str:
        """A checksum (SHA-256) of images, labels and classes."""
        sha = hashlib.sha256(repr((self.images.shape, self.classes)).encode())
        sha.update(self.images.tobytes())
        sha.update(self.labels.astype("<i8").tobytes())
        return sha.hexdigest()


class EvenSample:
    """A sample of a data set: `count` items at evenly spaced indices, or all of them if it has fewer.

    (PyTorch's Subset(dataset, indices) takes the indices instead.)

    Args:
        dataset: the data set to sample.
        count: the number of items.
    """

    def __init__(self, dataset: Any, count: int) -> None:
        self.dataset, self.classes = dataset, dataset.classes
        self.indices = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).astype(int)

    @property
    def in_memory(self) -> bool:
        return bool(self.dataset.in_memory)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> tuple[Any, int]:
        image, label = self.dataset[int(self.indices[i])]
        return image, label

    def load(self, i: int, min_size: int | None = None) -> tuple[LazyImage, int]:
        """(LazyImage, label) of item i; see the data set's own `load`."""
        image, label = self.dataset.load(int(self.indices[i]), min_size)
        return image, label

    def name(self, i: int) -> str:
        """The name of item i in the data set."""
        return str(self.dataset.name(int(self.indices[i])))

    def fingerprint(self) -> str:
        """A checksum (SHA-256) of the data set's fingerprint and the sampled indices."""
        return hashlib.sha256(self.dataset.fingerprint().encode() + self.indices.astype("<i8").tobytes()).hexdigest()
