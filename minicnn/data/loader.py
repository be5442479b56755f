"""DataLoader: batches of a data set, prepared ahead of time.

Which images are in batch b of epoch e, and the random numbers of each, are functions of the seed, the epoch and the image's index: any
number of workers yields the same batches, and a run can be resumed from the middle of an epoch.
"""

import collections
import contextlib
import sys
import weakref
from collections.abc import Iterator
from typing import Any, NoReturn

import numpy as np

from minicnn.backend import random, threads
from minicnn.backend.arrays import ceil_div, device_number, gpu_unavailable_reason
from minicnn.data.cuda_prefetch import CudaPrefetcher
from minicnn.data.datasets import DataError
from minicnn.data.samples import SampleLoader, SharedBatchBuffers
from minicnn.data.transforms import Compose, Normalize
from minicnn.data.transforms.base import apply_affine, check_scale
from minicnn.data.workers import WorkerPool
from minicnn.text import pluralize

PREFETCH_BATCHES = 3               # batches that are being prepared while one is used

# Arguments of PyTorch's DataLoader, and what to write here.
HINTS = {"num_workers": "write workers=", "pin_memory": 'not needed: device="gpu" copies from pinned memory', "generator": "write seed=",
         "collate_fn": "not needed: images are stacked, labels are ints", "sampler": "give a data set with the images in the order wanted"}


class DataLoader:
    """Batches of a data set: `loader.epoch(e)` yields (images float32 (N, C, H, W) in channels-last memory, labels int64 (N,)).

    Args:
        dataset: has a length and items (image (H, W, channels), label).
        batch_size: images per batch.
        transform: called as transform(image, rng) for each image; all results must have one shape. By default pixels of 0 to 255
            become 0 to 1.
        shuffle: a new order in each epoch; otherwise the data set's own.
        drop_last: skip a last batch that is not full.
        seed: of the order and the transforms; by default that of `minicnn.seed` when the loader is created.
        workers: number of processes that prepare images while the caller computes; 0: the caller prepares them. By default one per core,
            or 0 for a data set that is in memory already. Custom data sets and transforms must be importable by the workers: defined
            in a module, not in the program itself.
        device: where the images go: "cpu", "gpu" or "gpu:1". They travel to a GPU as bytes, ahead of time, and the ChannelAffine
            transforms at the end (Normalize, PCAColorJitter) are computed there; the labels stay on the CPU.
        on_error: what to do with an unreadable image file. "raise": a DataError that names it. "skip": skip it; its batch is smaller.
            "warn": skip it, and print that on stderr, once per image. `loader.bad` has all of them, {name: reason}.
        max_errors: DataError when more images than this are unreadable, since the cause is then a general one.

    Raises ValueError or TypeError for wrong arguments, RuntimeError where there is no such GPU; while iterating, DataError as above,
    SampleError if an image cannot be transformed, and WorkerError if a worker process fails (with its traceback) or is killed.
    """

    def __init__(self, dataset: Any, batch_size: int, transform: Any = None, shuffle: bool = False, drop_last: bool = False,
                 seed: int | None = None, workers: int | None = None, device: str = "cpu", on_error: str = "raise",
                 max_errors: int = 100, **unknown: NoReturn) -> None:          # (NoReturn: a type checker refuses any other name)
        self.idle_pools: list[WorkerPool] = []          # processes waiting for the next epoch
        weakref.finalize(self, close_all, self.idle_pools)
        for name in unknown:
            raise TypeError(f"DataLoader: unexpected argument {name}=" + (f" ({HINTS[name]})" if name in HINTS else ""))
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"DataLoader: batch_size must be an int of at least 1, got {batch_size!r}")
        if len(dataset) == 0 or (drop_last and len(dataset) < batch_size):
            raise ValueError(f"DataLoader: {len(dataset)} images make no batch of {batch_size}; use a smaller batch_size")
        if on_error not in ("raise", "skip", "warn"):
            raise ValueError(f'DataLoader: on_error must be "raise", "skip" or "warn", got {on_error!r}')
        if workers is not None and not (isinstance(workers, int) and workers >= 0):
            raise ValueError(f"DataLoader: workers must be an int of at least 0 (processes), got {workers!r}")
        if device_number(device) is not None and gpu_unavailable_reason():
            raise RuntimeError(gpu_unavailable_reason())
        self.dataset, self.batch_size, self.shuffle, self.drop_last = dataset, batch_size, shuffle, drop_last
        self.transform = transform or Normalize(0, 255)
        self.seed = random.state()["seed"] if seed is None else seed
        self.workers = (0 if getattr(dataset, "in_memory", True) else threads.available_cores()) if workers is None else workers
        self.device, self.on_error, self.max_errors = device, on_error, max_errors
        self.bad: dict[str, str] = {}           # unreadable images: name, reason
        self.sample_loader = SampleLoader(dataset, Compose(self.transform), self.seed)

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self.dataset) // self.batch_size if self.drop_last else ceil_div(len(self.dataset), self.batch_size)

    def __iter__(self) -> Iterator[tuple[Any, np.ndarray]]:
        """Epoch 0, if the loader does not shuffle."""
        if self.shuffle:
            raise TypeError("DataLoader: this loader shuffles, and the order is a function of the epoch, so that a resumed run sees the "
                            "same batches; write  for epoch in range(epochs):  for images, labels in loader.epoch(epoch):")
        return self.epoch(0)

    def order(self, epoch: int) -> np.ndarray:
        """The indices of all images, in the order of this epoch."""
        n = len(self.dataset)
        return random.generator(random.SHUFFLE, epoch, seed=self.seed).permutation(n) if self.shuffle else np.arange(n)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Any, np.ndarray]]:
        """The batches of epoch number `epoch`, (images, labels), from batch number `start` on."""
        order = self.order(epoch)
        batches = [order[b * self.batch_size:(b + 1) * self.batch_size].tolist() for b in range(start, len(self))]
        prepared = self.prepare_in_workers(batches, epoch) if self.workers else self.prepare(batches, epoch)
        return iter_cpu(prepared) if self.device == "cpu" else iter_gpu(prepared, self.device)

    def prepare(self, batches, epoch):
        """The arrays of each batch (see SharedBatchBuffers), prepared on demand."""
        if not batches:
            return
        buffers = SharedBatchBuffers(1, self.batch_size, *self.probe_shape(batches, epoch))
        arrays = buffers.arrays(bytearray(buffers.nbytes), 0)
        for indices in batches:
            unreadable = self.sample_loader.load_into(arrays, 0, indices, epoch)
            yield self.readable_rows(arrays, indices, unreadable)

    def prepare_in_workers(self, batches, epoch):
        """The same, prepared by worker processes while earlier batches are used."""
        if not batches:
            return
        pool = self.idle_pools.pop() if self.idle_pools else self.start_pool(batches, epoch)
        try:
            free_slots = list(range(pool.buffers.count))
            in_flight: collections.deque = collections.deque()              # (slot, indices) of the batches that are being prepared
            missing: collections.Counter = collections.Counter()            # of each slot: the number of outstanding results,
            unreadable: collections.defaultdict = collections.defaultdict(list)         # and the images that could not be read
            todo = iter(batches)
            while True:
                while free_slots and (indices := next(todo, None)):
                    slot, chunk = free_slots.pop(), ceil_div(len(indices), self.workers)
                    for worker, first in enumerate(range(0, len(indices), chunk)):
                        pool.submit(worker, slot, first, indices[first:first + chunk], epoch)
                        missing[slot] += 1
                    in_flight.append((slot, indices))
                if not in_flight:
                    break
                slot, indices = in_flight.popleft()
                while missing[slot]:
                    finished_slot, failures = pool.next_result()
                    missing[finished_slot] -= 1
                    unreadable[finished_slot] += failures
                yield self.readable_rows(pool.buffers.arrays(pool.memory, slot), indices, unreadable.pop(slot, []))
                free_slots.append(slot)             # by the time the next batch is requested, this one has been copied
            self.idle_pools.append(pool)
        except GeneratorExit:                       # the caller left the loop: wait for the jobs that were submitted
            with contextlib.suppress(Exception):
                while pool.pending():
                    pool.next_result()
                self.idle_pools.append(pool)
            raise
        except BaseException:
            pool.kill()
            raise

    def start_pool(self, batches, epoch):
        """Worker processes, with slots for the batches in flight and the one in use."""
        buffers = SharedBatchBuffers(PREFETCH_BATCHES + 1, self.batch_size, *self.probe_shape(batches, epoch))
        return WorkerPool(self.workers, self.sample_loader, buffers)

    def probe_shape(self, batches, epoch):
        """(shape (H, W, C), dtype) of the images after the transform, found by preparing the first readable one."""
        for i in (i for indices in batches for i in indices):
            with self.handle_unreadable(i):
                pixels, affine_params, _ = self.sample_loader.load_sample(i, epoch)
                check_scale(self.sample_loader.transform, pixels, *np.split(affine_params[1:], 2))
                return pixels.shape, str(pixels.dtype)
        raise DataError("not one image of this data set can be read; the first: " + next(iter(self.bad.values())))

    def readable_rows(self, arrays, indices, unreadable):
        """Views of the rows of a slot that hold an image; unreadable ones are handled according to `on_error`."""
        for row, reason in sorted(unreadable):
            with self.handle_unreadable(indices[row]):
                raise DataError(reason)
        rows: Any = slice(0, len(indices))
        if unreadable:
            rows = sorted(set(range(len(indices))) - {row for row, _ in unreadable})
            if not rows:
                raise DataError(f"not one image of a batch of {len(indices)} can be read; the first: {unreadable[0][1]}")
        return {name: array[rows] for name, array in arrays.items()}

    @contextlib.contextmanager
    def handle_unreadable(self, i):
        """A context in which a DataError about image i is handled according to `on_error`."""
        try:
            yield
        except DataError as error:
            if self.on_error == "raise":
                raise
            name = self.sample_loader.name(i)
            if self.on_error == "warn" and name not in self.bad:
                print(f"skipped: {error}", file=sys.stderr)
            self.bad[name] = str(error)
            if len(self.bad) > self.max_errors:
                raise DataError(f"{pluralize(len(self.bad), 'image')} cannot be read, more than max_errors={self.max_errors}; "
                                f"the last: {error}") from error

    def close(self) -> None:
        """End the worker processes. (This also happens when the loader is garbage-collected, and when the program ends.)"""
        close_all(self.idle_pools)


def close_all(pools):
    while pools:
        pools.pop().close()


def iter_cpu(prepared):
    """The prepared batches as new arrays (images, labels), normalized."""
    for arrays in prepared:
        yield normalize_batch(arrays["images"], arrays["affine_params"]), arrays["labels"].copy()


def normalize_batch(images, affine_params):
    """Flip and normalize a batch: (n, H, W, C) bytes, (n, 1 + 2 * C) -> (n, C, H, W) float32 in channels-last memory.

    images.cu does the same on a GPU.
    """
    _, H, W, C = images.shape
    y = np.empty(images.shape, np.float32)
    mirror = np.arange(W * C).reshape(W, C)[::-1].ravel()       # source indices of the values of a flipped row

    def block(n):
        for image, (flipped, *terms), out in zip(images[n], affine_params[n], y[n].reshape(-1, H, W * C), strict=True):
            rows = image.reshape(H, W * C)          # rows of W * C values are many times as fast as an inner loop over 3 channels
            if flipped:
                rows = rows.take(mirror, axis=1)
            add, divide = np.tile(np.reshape(terms, (2, C)).astype(np.float32), W)
            apply_affine(rows, add, divide, out=out)

    threads.over_batch(block, images, bytes_per_image=5 * images[0].size)
    return y.transpose(0, 3, 1, 2)


def iter_gpu(prepared, device):
    """The prepared batches on a GPU; the copy of each begins before the previous one is yielded."""
    with contextlib.closing(prepared), contextlib.closing(CudaPrefetcher(device)) as prefetcher:
        previous = None
        for arrays in prepared:
            current = prefetcher.start(arrays["images"], arrays["affine_params"]), arrays["labels"].copy()
            if previous:
                yield prefetcher.finish(previous[0]), previous[1]
            previous = current
        if previous:
            yield prefetcher.finish(previous[0]), previous[1]
