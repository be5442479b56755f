"""What is done to one image, and where it is put: the work that loader processes share.

A batch is prepared in a slot, a stretch of memory with room for its images, for what is still to be done to each of them (the
arithmetic that is the same for every pixel, done later for the whole batch), and for their labels.
"""

import dataclasses
from typing import Any

import numpy as np

from minicnn import random
from minicnn.data.datasets import DataError
from minicnn.data.transforms import Compose, all_terms


@dataclasses.dataclass(frozen=True)
class Slots:
    """How `count` slots of `batch` images (H, W, C) lie in one stretch of memory."""

    count: int
    batch: int
    shape: tuple            # of an image: (H, W, C)
    dtype: str              # uint8, or float32 if the transform's pixels are no bytes any more

    @property
    def fields(self):
        """For each array of a slot: its shape for one image, and its dtype."""
        return {"images": (self.shape, self.dtype), "how": ((1 + 2 * self.shape[2],), "float32"), "labels": ((), "int64")}

    @property
    def nbytes(self):
        return self.count * sum(self.sizes())

    def sizes(self):
        """Bytes of each array of a slot, rounded up so that the next one starts at a multiple of 64."""
        return [-(-self.batch * int(np.prod(shape)) * np.dtype(dtype).itemsize // 64) * 64 for shape, dtype in self.fields.values()]

    def arrays(self, memory, slot):
        """The arrays of slot number `slot`, by name, as views of the memory."""
        arrays, offset = {}, slot * sum(self.sizes())
        for (name, (shape, dtype)), size in zip(self.fields.items(), self.sizes(), strict=True):
            arrays[name] = np.ndarray((self.batch, *shape), dtype, memory, offset)
            offset += size
        return arrays


@dataclasses.dataclass
class Preparer:
    """Prepares images of a data set: `seed` and `epoch` decide what is random about image i, and nothing else does."""

    dataset: Any
    transform: Compose
    seed: int

    def __post_init__(self):
        self.choose, self.arithmetic = self.transform.without_arithmetic()

    def one(self, i, epoch):
        """(pixels, add, divide, label) of image number i."""
        rng = random.generator(random.SAMPLES, epoch, i, seed=self.seed)
        if hasattr(self.dataset, "picture"):
            image, label = self.dataset.picture(i, self.transform.at_least)
        else:
            image, label = self.dataset[i]
        pixels = np.asarray(self.choose(image, rng))
        if pixels.ndim != 3:
            raise ValueError(f"an image is an array (H, W, channels), but after {self.choose!r} this one has shape {pixels.shape}")
        add, divide = all_terms(self.arithmetic, rng, pixels.shape[2])
        if pixels.dtype != np.uint8:                        # floats take four times the room anyway: they are finished here
            pixels, add, divide = np.asarray((pixels + add) / divide, np.float32), 0, 1
        return pixels, add, divide, label

    def fill(self, arrays, first, numbers, epoch):
        """Put these images into rows `first`, first + 1, ... of a slot. Returns [(row, reason)] for those that cannot be read."""
        bad = []
        for row, i in enumerate(numbers, first):
            try:
                pixels, add, divide, label = self.one(i, epoch)
            except DataError as error:
                bad.append((row, str(error)))
                continue
            except Exception as error:
                raise PrepareError(f"{self.name(i)}: {type(error).__name__}: {error}") from error
            room = arrays["images"][row]
            if pixels.shape != room.shape or pixels.dtype != room.dtype:
                raise PrepareError(f"the images of a batch have different shapes: {self.name(i)} is {pixels.shape} {pixels.dtype} after "
                                   f"the transform, others are {room.shape} {room.dtype}; end the transform with a crop")
            C = pixels.shape[2]
            mirrored = pixels.strides[1] < 0                # a mirrored view of an array goes through it backwards
            room[...] = pixels[:, ::-1] if mirrored else pixels
            how = arrays["how"][row]
            how[0], how[1:1 + C], how[1 + C:] = mirrored, add, divide
            arrays["labels"][row] = label
        return bad

    def name(self, i):
        """Which image this is, for a message."""
        return self.dataset.name(i) if hasattr(self.dataset, "name") else f"image {i}"


class PrepareError(ValueError):
    """An image could not be prepared, and not because its file is bad: the message names it."""
