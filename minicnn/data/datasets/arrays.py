"""Images that are in memory already; and a part of another data set."""

import hashlib

import numpy as np
from PIL import Image

from minicnn.data.datasets.files import DataError
from minicnn.data.picture import Picture


class ArrayDataset:
    """Images in memory: `images` (N, H, W, channels) uint8 and `labels` (N,) ints.

    Raises DataError if they do not fit each other, or a label is not the number of a class.
    """

    in_memory = True

    def __init__(self, images, labels, classes):
        self.images, self.labels, self.classes = images, np.asarray(labels).astype(np.int64), list(classes)
        what = type(self).__name__
        if len(self.images) != len(self.labels):
            raise DataError(f"{what}: {len(self.images)} images but {len(self.labels)} labels")
        wrong = self.labels[(self.labels < 0) | (self.labels >= len(self.classes))]
        if len(wrong):
            raise DataError(f"{what}: a label is {wrong.max()}, but the {len(self.classes)} classes are 0 to {len(self.classes) - 1}; "
                            "is this another data set, or damaged?")

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.images[i], int(self.labels[i])

    def picture(self, i, at_least=None):
        image, label = self[i]
        return Picture(Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)), label

    def name(self, i):
        return f"image {i} of {type(self).__name__}"

    def fingerprint(self):
        """A checksum (sha256) over images, labels and classes."""
        sha = hashlib.sha256(repr((self.images.shape, self.classes)).encode())
        sha.update(self.images.tobytes())
        sha.update(self.labels.astype("<i8").tobytes())
        return sha.hexdigest()


class Subset:
    """`count` images of a data set, evenly spread over it; for a quick look. All of them if it has fewer."""

    def __init__(self, dataset, count):
        self.dataset, self.classes = dataset, dataset.classes
        self.numbers = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).astype(int)

    @property
    def in_memory(self):
        return self.dataset.in_memory

    def __len__(self):
        return len(self.numbers)

    def __getitem__(self, i):
        return self.dataset[int(self.numbers[i])]

    def picture(self, i, at_least=None):
        return self.dataset.picture(int(self.numbers[i]), at_least)

    def name(self, i):
        return self.dataset.name(int(self.numbers[i]))

    def fingerprint(self):
        """A checksum (sha256) over the whole set's and the numbers of those that are taken."""
        return hashlib.sha256(self.dataset.fingerprint().encode() + self.numbers.astype("<i8").tobytes()).hexdigest()
