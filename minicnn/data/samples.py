"""Samples: one image of a data set, loaded, transformed and written into its row of a batch. Every loader process runs this.

A batch is prepared in a slot: memory for its images, for their labels, and for the affine transform (one per image) that is still to
be applied to each image. The affine transforms are computed later, for the whole batch at once.
"""

import dataclasses
from typing import Any

import numpy as np

from minicnn.backend import random
from minicnn.backend.arrays import ceil_div
from minicnn.data.datasets import DataError
from minicnn.data.transforms import Compose, compose_affine
from minicnn.data.transforms.base import apply_affine, check_channels_last


class SampleError(ValueError):
    """A sample could not be prepared, for another reason than an unreadable file; the message names it."""


@dataclasses.dataclass(frozen=True)
class SharedBatchBuffers:
    """The memory layout of `count` slots, each for `batch_size` images of `shape` (H, W, C), in one block of memory.

    Each slot has the arrays
        images          (batch_size, H, W, C)           uint8, or float32 if the transform outputs floats before the last pixel selection
        affine_params   (batch_size, 1 + 2 * C)         float32: 1 if the image is still to be flipped, add (C), divide (C)
        labels          (batch_size,)                   int64
    """

    count: int
    batch_size: int
    shape: tuple[int, int, int]
    dtype: str

    @property
    def fields(self):
        """For each array of a slot: its shape for one image, and its dtype."""
        return {"images": (self.shape, self.dtype), "affine_params": ((1 + 2 * self.shape[2],), "float32"), "labels": ((), "int64")}

    @property
    def nbytes(self):
        return self.count * sum(self.sizes())

    def sizes(self):
        """Bytes of each array of a slot, rounded up so that the next one is aligned to 64 bytes."""
        nbytes = [self.batch_size * int(np.prod(shape)) * np.dtype(dtype).itemsize for shape, dtype in self.fields.values()]
        return [64 * ceil_div(n, 64) for n in nbytes]

    def arrays(self, memory, slot):
        """The arrays of slot number `slot`, by name, as views of the memory."""
        arrays, offset = {}, slot * sum(self.sizes())
        for (name, (shape, dtype)), size in zip(self.fields.items(), self.sizes(), strict=True):
            arrays[name] = np.ndarray((self.batch_size, *shape), dtype, memory, offset)
            offset += size
        return arrays


@dataclasses.dataclass
class SampleLoader:
    """Loads and transforms the images of a data set. The random numbers of image i depend on `seed`, the epoch and i alone."""

    dataset: Any
    transform: Compose
    seed: int

    def __post_init__(self):
        self.select, self.affine = self.transform.split_affine()

    def load_sample(self, i, epoch):
        """(pixels (H, W, C), affine_params (1 + 2 * C,), label) of image number i."""
        rng = random.generator(random.SAMPLES, epoch, i, seed=self.seed)
        if hasattr(self.dataset, "load"):
            image, label = self.dataset.load(i, self.transform.min_size)
        else:
            image, label = self.dataset[i]
        check_channels_last("DataLoader", image)
        pixels = np.asarray(self.select(image, rng))
        if pixels.ndim != 3:
            raise ValueError(f"DataLoader: an image must be (H, W, channels), got shape {pixels.shape} after {self.select!r}")
        C = pixels.shape[2]
        add, divide = compose_affine(self.affine, rng, C)
        if pixels.dtype != np.uint8:                        # floats are as large as the result: transformed here
            pixels, add, divide = np.asarray(apply_affine(pixels, add, divide), np.float32), 0, 1
        flipped = pixels.strides[1] < 0                     # a flipped view: copying it in the order of memory is many times as fast
        affine_params = np.empty(1 + 2 * C, np.float32)
        affine_params[0], affine_params[1:1 + C], affine_params[1 + C:] = flipped, add, divide
        return pixels[:, ::-1] if flipped else pixels, affine_params, label

    def load_into(self, arrays, first, indices, epoch):
        """Write these images into rows `first`, first + 1, ... of a slot. Returns [(row, reason), ...] of those that are unreadable."""
        unreadable = []
        for row, i in enumerate(indices, first):
            try:
                sample = self.load_sample(i, epoch)
            except DataError as error:
                unreadable.append((row, str(error)))
                continue
            except Exception as error:
                raise SampleError(f"{self.name(i)}: {type(error).__name__}: {error}") from error
            pixels, others = sample[0], arrays["images"]
            if pixels.shape != others.shape[1:] or pixels.dtype != others.dtype:
                raise SampleError(f"the images of a batch must have one shape and dtype, but {self.name(i)} is {pixels.shape} "
                                  f"{pixels.dtype} after the transform, others are {others.shape[1:]} {others.dtype}; "
                                  "end the transform with a crop")
            arrays["images"][row], arrays["affine_params"][row], arrays["labels"][row] = sample
        return unreadable

    def name(self, i):
        """The name of image i, for messages."""
        return self.dataset.name(i) if hasattr(self.dataset, "name") else f"image {i}"
