"""Batches, made ahead of time by a few threads.

Which images form batch b of epoch e, and what is random about each, are functions of the seed, the epoch and the
image's number: any number of workers makes the same batches, and a run can go on from the middle of an epoch.
"""

import collections
import concurrent.futures
import os

import numpy as np

from minicnn import random
from minicnn.backend import device_number, gpu_problem
from minicnn.data.transforms import Compose, Normalize, all_terms
from minicnn.data.upload import Pinned, Uploader


class DataLoader:
    """Batches of a data set.

    Args:
        dataset: has a length and items (image (H, W, channels), label).
        batch_size: images per batch.
        transform: called as transform(image, rng) for each image; all results have one shape. By default pixels of 0 to 255
            become 0 to 1.
        shuffle: a new order each epoch; else the data set's own.
        drop_last: leave out a last batch that is not full.
        seed: of order and transforms; by default that of `minicnn.seed` when the loader is made.
        workers: threads that prepare images while the caller computes (decoding lets go of the interpreter).
        device: where the images are wanted. To a GPU they travel as bytes, ahead of time, and the arithmetic at the end of the
            transform (Normalize, PCAColour) is done there; the labels stay on the CPU.

    `epoch(e)` yields (images float32 (N, C, H, W) in channels-last memory, labels int64 (N,)).
    """

    def __init__(self, dataset, batch_size, transform=None, shuffle=False, drop_last=False, seed=None, workers=None, device="cpu"):
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"DataLoader: batch_size is a positive int, not {batch_size!r}")
        if len(dataset) == 0 or (drop_last and len(dataset) < batch_size):
            raise ValueError(f"DataLoader: {len(dataset)} images make no batch of {batch_size}; use a smaller batch_size")
        self.dataset, self.batch_size, self.shuffle, self.drop_last = dataset, batch_size, shuffle, drop_last
        self.transform = transform or Compose(Normalize(0, 255))
        self.seed = random.state()["seed"] if seed is None else seed
        self.workers = workers or min(4, os.cpu_count() or 1)
        self.device = device
        if device_number(device) is not None and gpu_problem():
            raise RuntimeError(gpu_problem())

    def __len__(self):
        """Batches in an epoch."""
        return len(self.dataset) // self.batch_size if self.drop_last else -(-len(self.dataset) // self.batch_size)

    def __iter__(self):
        if self.shuffle:
            raise TypeError("DataLoader: write  for x, y in loader.epoch(e):  the shuffle is a function of the seed and of e")
        return self.epoch(0)

    def order(self, epoch):
        """The numbers of the images in the order of this epoch."""
        n = len(self.dataset)
        return random.generator(random.SHUFFLE, epoch, seed=self.seed).permutation(n) if self.shuffle else np.arange(n)

    def epoch(self, epoch, start=0):
        """The batches of epoch number `epoch`, from batch number `start` on."""
        batches = self.batches(epoch, start)
        return (finish(shares) for shares in batches) if self.device == "cpu" else uploaded(batches, self.device)

    def batches(self, epoch, start):
        """Each batch as the shares that the workers made of it."""
        order = self.order(epoch)
        coming: collections.deque = collections.deque()
        pool = concurrent.futures.ThreadPoolExecutor(self.workers, thread_name_prefix="loader")
        try:
            for b in range(start, len(self)):
                coming.append(self.begin(pool, order[b * self.batch_size:(b + 1) * self.batch_size], epoch))
                if len(coming) > 2:
                    yield [share.result() for share in coming.popleft()]
            while coming:
                yield [share.result() for share in coming.popleft()]
        finally:                            # also when the caller leaves early, or an image raised
            pool.shutdown(wait=True, cancel_futures=True)

    def begin(self, pool, numbers, epoch):
        """Start making one batch; each worker takes a share of its images."""
        share = -(-len(numbers) // self.workers)
        return [pool.submit(self.prepare, numbers[i:i + share], epoch) for i in range(0, len(numbers), share)]

    def prepare(self, numbers, epoch):
        """The inputs and labels for these images; for a GPU, in memory that it can fetch them from."""
        pixels, arithmetic = self.transform, []
        if self.device != "cpu" and isinstance(self.transform, Compose):
            pixels, arithmetic = self.transform.without_arithmetic()
        inputs, terms, labels = [], [], []
        for i in map(int, numbers):
            image, label = self.dataset[i]
            rng = random.generator(random.SAMPLES, epoch, i, seed=self.seed)
            inputs.append(pixels(image, rng))
            terms.append(all_terms(arithmetic, rng))
            labels.append(label)
        check_shapes({image.shape for image in inputs})
        return (inputs if self.device == "cpu" else Pinned(inputs, terms)), labels


def finish(shares):
    """Put the shares of a batch together, on the CPU."""
    inputs = [image for images, _ in shares for image in images]
    check_shapes({image.shape for image in inputs})
    return np.stack(inputs).astype(np.float32, copy=False).transpose(0, 3, 1, 2), labels_of(shares)


def uploaded(batches, device):
    """The batches on a GPU; each begins to travel before the one before it is handed out."""
    uploader, before = Uploader(device), None
    try:
        for shares in batches:
            check_shapes({pinned.images.shape[1:] for pinned, _ in shares})
            coming = uploader.start([pinned for pinned, _ in shares]), labels_of(shares)
            if before:
                yield uploader.finish(before[0]), before[1]
            before = coming
        if before:
            yield uploader.finish(before[0]), before[1]
    finally:
        batches.close()
        uploader.close()


def labels_of(shares):
    """(N,) int64."""
    return np.array([label for _, labels in shares for label in labels])


def check_shapes(shapes):
    """All images of a batch have one shape, or an error that says what to do."""
    if len(shapes) > 1:
        raise ValueError(f"DataLoader: the images of a batch have different shapes, {sorted(shapes)}; end the transform with a crop")
