"""Batches, prepared ahead of time.

Which images form batch b of epoch e, and what is random about each, are functions of the seed, the epoch and the
image's number: any number of workers makes the same batches, and a run can go on from the middle of an epoch.
"""

import collections
import contextlib
import sys
import weakref
from typing import Any

import numpy as np

from minicnn import parallel, random
from minicnn.backend import device_number, gpu_problem
from minicnn.data.datasets import DataError
from minicnn.data.prepare import Preparer, Slots
from minicnn.data.transforms import Compose, Normalize
from minicnn.data.upload import Uploader
from minicnn.data.workers import Workers

AHEAD = 3               # batches that are being prepared while one is used


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
        workers: processes that prepare images while the caller computes; 0: none, the caller waits. By default one for each core,
            or 0 for a data set that is in memory already. A data set or transform of one's own that workers shall use must be in
            a module that they can import, not in the program itself.
        device: where the images are wanted. To a GPU they travel as bytes, ahead of time, and the arithmetic at the end of the
            transform (Normalize, PCAColour) is done there; the labels stay on the CPU.
        on_bad: what to do about an image file that cannot be read. "raise": stop with a DataError that names it. "skip": leave it
            out of its batch. "report": leave it out, and say so on stderr, the first time. `loader.bad` has them all, with reasons.
        bad_limit: with more unreadable files than this, something else is wrong: DataError.

    `epoch(e)` yields (images float32 (N, C, H, W) in channels-last memory, labels int64 (N,)).

    Raises DataError as said; WorkerError if a worker process fails (with its traceback) or is killed.
    """

    def __init__(self, dataset, batch_size, transform=None, shuffle=False, drop_last=False, seed=None, workers=None, device="cpu",
                 on_bad="raise", bad_limit=100):
        self.idle: list[Workers] = []           # processes waiting for the next epoch
        weakref.finalize(self, end_all, self.idle)
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"DataLoader: batch_size is a positive int, not {batch_size!r}")
        if len(dataset) == 0 or (drop_last and len(dataset) < batch_size):
            raise ValueError(f"DataLoader: {len(dataset)} images make no batch of {batch_size}; use a smaller batch_size")
        if on_bad not in ("raise", "skip", "report"):
            raise ValueError(f'DataLoader: on_bad is "raise", "skip" or "report", not {on_bad!r}')
        if workers is not None and not (isinstance(workers, int) and workers >= 0):
            raise ValueError(f"DataLoader: workers is a number of processes, 0 or more, not {workers!r}")
        if device_number(device) is not None and gpu_problem():
            raise RuntimeError(gpu_problem())
        self.dataset, self.batch_size, self.shuffle, self.drop_last = dataset, batch_size, shuffle, drop_last
        self.transform = transform or Normalize(0, 255)
        self.seed = random.state()["seed"] if seed is None else seed
        self.workers = (0 if getattr(dataset, "in_memory", True) else parallel.cores()) if workers is None else workers
        self.device, self.on_bad, self.bad_limit = device, on_bad, bad_limit
        self.bad: dict[str, str] = {}           # the images that could not be read: name, reason
        chain = self.transform if isinstance(self.transform, Compose) else Compose(self.transform)
        self.preparer = Preparer(dataset, chain, self.seed)

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
        order = self.order(epoch)
        batches = [order[b * self.batch_size:(b + 1) * self.batch_size].tolist() for b in range(start, len(self))]
        prepared = self.prepared_by_workers(batches, epoch) if self.workers else self.prepared_here(batches, epoch)
        return finished(prepared) if self.device == "cpu" else uploaded(prepared, self.device)

    def prepared_here(self, batches, epoch):
        """The arrays of each batch, prepared when it is asked for."""
        if not batches:
            return
        slots = Slots(1, self.batch_size, *self.look(batches, epoch))
        arrays = slots.arrays(bytearray(slots.nbytes), 0)
        for numbers in batches:
            bad = self.preparer.fill(arrays, 0, numbers, epoch)
            yield self.good_rows(arrays, numbers, bad)

    def prepared_by_workers(self, batches, epoch):
        """The same, prepared by other processes while the batches before it are used."""
        if not batches:
            return
        workers = self.idle.pop() if self.idle else Workers(self.workers, self.preparer,
                                                            Slots(AHEAD + 1, self.batch_size, *self.look(batches, epoch)))
        try:
            free = list(range(workers.slots.count))
            coming: collections.deque = collections.deque()
            missing: collections.Counter = collections.Counter()                        # of each slot: how many answers,
            bad: collections.defaultdict = collections.defaultdict(list)                # and the images that could not be read
            todo = iter(batches)
            while True:
                while free and (numbers := next(todo, None)):
                    slot, share = free.pop(), -(-len(numbers) // self.workers)
                    for worker, first in enumerate(range(0, len(numbers), share)):
                        workers.ask(worker, slot, first, numbers[first:first + share], epoch)
                        missing[slot] += 1
                    coming.append((slot, numbers))
                if not coming:
                    break
                slot, numbers = coming.popleft()
                while missing[slot]:
                    answered, unreadable = workers.reply()
                    missing[answered] -= 1
                    bad[answered] += unreadable
                yield self.good_rows(workers.slots.arrays(workers.memory, slot), numbers, bad.pop(slot, []))
                free.append(slot)                   # whoever asks for the next batch has copied this one
            self.idle.append(workers)
        except GeneratorExit:                       # the caller left in the middle: what was asked for has to come first
            with contextlib.suppress(Exception):
                while workers.busy():
                    workers.reply()
                self.idle.append(workers)
            raise
        except BaseException:
            workers.kill()
            raise

    def look(self, batches, epoch):
        """The shape and dtype that images have after the transform, by preparing one."""
        for i in (i for numbers in batches for i in numbers):
            with self.noting(i):
                pixels = self.preparer.one(i, epoch)[0]
                return pixels.shape, str(pixels.dtype)
        raise DataError("not one image of this data set can be read; the first: " + next(iter(self.bad.values())))

    def good_rows(self, arrays, numbers, bad):
        """Views of the rows of a slot that hold an image; notes those that do not."""
        for row, reason in sorted(bad):
            with self.noting(numbers[row]):
                raise DataError(reason)
        rows: Any = slice(0, len(numbers))
        if bad:
            without = {row for row, _ in bad}
            rows = [row for row in range(len(numbers)) if row not in without]
            if not rows:
                raise DataError(f"not one image of a batch of {len(numbers)} can be read; the first: {bad[0][1]}")
        return {name: array[rows] for name, array in arrays.items()}

    @contextlib.contextmanager
    def noting(self, i):
        """An unreadable image inside is dealt with as `on_bad` says."""
        try:
            yield
        except DataError as error:
            if self.on_bad == "raise":
                raise
            name = self.preparer.name(i)
            if self.on_bad == "report" and name not in self.bad:
                print(f"left out: {error}", file=sys.stderr)
            self.bad[name] = str(error)
            if len(self.bad) > self.bad_limit:
                raise DataError(f"{len(self.bad)} images cannot be read, which is more than {self.bad_limit}; "
                                f"the last: {error}") from error

    def close(self):
        """End the worker processes. (It happens by itself when nobody uses the loader any more, or the program ends.)"""
        end_all(self.idle)


def end_all(idle):
    while idle:
        idle.pop().close()


def finished(prepared):
    """The batches of prepared slots, as arrays of their own, with the arithmetic done."""
    for arrays in prepared:
        yield finish(arrays["images"], arrays["how"]), arrays["labels"].copy()


def finish(images, how):
    """(n, H, W, C) bytes, and what to do to each, -> (n, C, H, W) float32 in channels-last memory. (The GPU's way is in upload.py.)"""
    _, H, W, C = images.shape
    y = np.empty(images.shape, np.float32)
    backwards = np.arange(W * C).reshape(W, C)[::-1].ravel()        # where the numbers of a mirrored row come from

    def block(n):
        for image, (mirrored, *terms), out in zip(images[n], how[n], y[n].reshape(-1, H, W * C), strict=True):
            rows = image.reshape(H, W * C)          # with whole rows side by side all is many times as fast as with three channels
            if mirrored:
                rows = rows.take(backwards, axis=1)
            add, divide = np.tile(np.reshape(terms, (2, C)).astype(np.float32), W)
            np.add(rows, add, out=out, dtype=np.float32)
            if (divide != 1).any():
                out /= divide

    parallel.over_batch(block, images, bytes_each=5 * images[0].size)
    return y.transpose(0, 3, 1, 2)


def uploaded(prepared, device):
    """The batches on a GPU; each begins to travel before the one before it is handed out."""
    with contextlib.closing(prepared), contextlib.closing(Uploader(device)) as uploader:
        before = None
        for arrays in prepared:
            coming = uploader.start(arrays["images"], arrays["how"]), arrays["labels"].copy()
            if before:
                yield uploader.finish(before[0]), before[1]
            before = coming
        if before:
            yield uploader.finish(before[0]), before[1]
