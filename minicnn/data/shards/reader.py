"""A packed set as a data set, where an image is one read from a large file; and its verification.

Images are read with os.pread into new memory. A memory map would save that copy, but the process's resident memory would grow with every
page it touches, which looks like a leak; and a truncated file would kill the process instead of raising DataError.
"""

import bisect
import io
import itertools
import operator
import os
import pathlib
import threading
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from minicnn.backend import threads
from minicnn.data.datasets import DataError
from minicnn.data.lazy_image import LazyImage, to_pillow
from minicnn.data.shards.format import (
    INDEX_DTYPE,
    INDEX_FILE,
    REPAIR_HINT,
    fingerprint,
    ordered_prefetch_map,
    read_footer,
    read_index,
    shard_path,
)

SEEK_LOCK = threading.Lock()


class Packed:
    """A data set in a folder that `pack` wrote; items are (uint8 array (H, W, C), label).

    Every image is verified against its checksum when it is read. Pickles are small: unpickling opens the files again.

    Args:
        root: the folder.

    Raises DataError: the folder is not a packed set, incomplete, damaged, or of another version; or, when its item is requested, an
    image is damaged.
    """

    in_memory = False

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.handles: list[int] = []
        self.root = pathlib.Path(root).absolute()
        self.index = read_index(self.root)
        self.classes, self.skipped, self.shards = (self.index[key] for key in ("classes", "skipped", "shards"))
        self.raw = self.index["settings"]["format"] == "raw"
        self.ends = list(itertools.accumulate(shard["images"] for shard in self.shards))
        problems = []
        for number, shard in enumerate(self.shards):
            path = shard_path(self.root, number)
            try:
                self.handles.append(os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0)))
                if (size := os.fstat(self.handles[-1]).st_size) != shard["bytes"]:
                    problems.append(f"{path}: must have {shard['bytes']} bytes, got {size}; {REPAIR_HINT}")
            except OSError as error:
                problems.append(f"{path}: cannot be opened ({error.strerror}); {REPAIR_HINT}")
        if problems:
            raise DataError("\n".join(problems))

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, i: int) -> tuple[np.ndarray, int]:
        image, label = self.load(i)
        return np.asarray(image), label

    def load(self, i: int, min_size: int | None = None) -> tuple[LazyImage, int]:
        """(LazyImage, label) of image i; a JPEG may be decoded smaller, its shorter side no less than `min_size` pixels."""
        row, data = self.read_record(i)
        shape = H, W, C = row["height"], row["width"], row["channels"]
        try:
            if self.raw:
                return ArrayImage(np.frombuffer(data, np.uint8, row["length"]).reshape(shape)), row["label"]
            image = Image.open(io.BytesIO(data[:row["length"]]), formats=("JPEG",))
            if (image.height, image.width, len(image.getbands())) != shape:
                raise ValueError(f"it must be {H} x {W} x {C}, got {image.height} x {image.width} {image.mode}")
            if min_size:
                image.draft(None, (min_size, min_size))
            image.load()
            return LazyImage(image), row["label"]
        except (OSError, ValueError, SyntaxError) as error:
            raise DataError(f"{self.describe(i)} cannot be decoded ({error}); {REPAIR_HINT}") from error

    def name(self, i: int) -> str:
        """The name of image i in the source, for messages."""
        try:
            row, data = self.read_record(i)
        except DataError:
            return f"image {i} of {self.root}"
        return data[row["length"]:].decode(errors="replace")

    def read_record(self, i: int) -> tuple[dict[str, Any], bytes]:
        """(row of the table as a dict, bytes of the record) of image i. Raises DataError if the checksum differs."""
        shard, number = self.locate(i)
        table = self.shards[shard]["table"]
        raw = pread(self.handles[shard], INDEX_DTYPE.itemsize, table + number * INDEX_DTYPE.itemsize)
        row: dict[str, Any] = {}
        if len(raw) == INDEX_DTYPE.itemsize:
            row = dict(zip(INDEX_DTYPE.names or (), np.frombuffer(raw, INDEX_DTYPE)[0].item(), strict=True))
        if not row or row["offset"] < 0 or row["offset"] + row["length"] + row["name"] > table:     # before any allocation
            raise DataError(f"{self.describe(i)} is damaged: its row in the table is wrong; {REPAIR_HINT}")
        data = pread(self.handles[shard], row["length"] + row["name"], row["offset"])
        if zlib.crc32(data, zlib.crc32(raw[:-4])) != row["crc"]:
            raise DataError(f"{self.describe(i)} is damaged: its checksum is wrong; {REPAIR_HINT}")
        return row, data

    def locate(self, i: int) -> tuple[int, int]:
        """(shard, row in its table) of image i. Raises IndexError."""
        i, n = operator.index(i), len(self)
        if not -n <= i < n:
            raise IndexError(f"{self.root}: index {i} is out of range for {n} images")
        shard = bisect.bisect_right(self.ends, i % n)
        return shard, i % n - (self.ends[shard] - self.shards[shard]["images"])

    def describe(self, i: int) -> str:
        """The file and record of image i, for messages."""
        shard, number = self.locate(i)
        return f"{shard_path(self.root, shard)}: image {i} (record {number})"

    def fingerprint(self) -> str:
        """A checksum (SHA-256) of everything in the set."""
        return str(self.index["fingerprint"])

    def __reduce__(self) -> tuple[Callable[..., "Packed"], tuple[str, str]]:
        return reopen, (str(self.root), self.fingerprint())

    def __del__(self) -> None:
        while self.handles:
            os.close(self.handles.pop())


class ArrayImage(LazyImage):
    """A LazyImage whose pixels are an array already: a crop is a view of it."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def resized(self, height: int, width: int) -> LazyImage:
        """The same image in another size."""
        return self if (height, width) == self.shape[:2] else LazyImage(to_pillow(self.array), height, width)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.array, dtype, copy=copy)

    def pixels(self, top: int, left: int, bottom: int, right: int) -> np.ndarray:
        """A view of this rectangle."""
        return self.array[top:bottom, left:right]


def reopen(root: str, fingerprint: str) -> Packed:
    """Unpickle a Packed: open the folder again, and check that it is still the same set."""
    packed = Packed(root)
    if packed.fingerprint() != fingerprint:
        raise DataError(f"{root}: was repacked while it was in use; open it again")
    return packed


def pread(handle: int, count: int, offset: int) -> bytes:
    """`count` bytes from `offset` on; fewer if the file ends. Safe to call from threads and forked processes that share the handle."""
    if hasattr(os, "pread"):
        return os.pread(handle, count, offset)
    with SEEK_LOCK:                                             # Windows has no pread, but no fork either
        os.lseek(handle, offset, os.SEEK_SET)
        return os.read(handle, count)


def verify(root: str | os.PathLike[str], workers: int | None = None, progress: bool = True) -> list[str]:
    """Verify a packed set: read and decode all of it.

    Args:
        root: the folder.
        workers: threads; by default one per core.
        progress: show a progress bar on stderr.

    Returns the problems, one sentence each; an empty list if the set is intact.
    """
    try:
        packed = Packed(root)
    except DataError as error:
        return str(error).splitlines()
    problems = []
    try:
        paths = [shard_path(packed.root, number) for number in range(len(packed.shards))]
        found = [(len(rows), table) for rows, table, _ in map(read_footer, paths)]
        listed = [(shard["images"], shard["table"]) for shard in packed.shards]
        if found != listed or fingerprint(packed.index, paths) != packed.fingerprint():
            problems.append(f"{packed.root / INDEX_FILE}: does not match the shards; {REPAIR_HINT}")
    except DataError as error:
        problems.append(str(error))

    def check(i: int) -> str | None:
        try:
            packed.load(i)
        except DataError as error:
            return str(error)
        return None

    results = ordered_prefetch_map(check, range(len(packed)), workers or threads.available_cores())
    bar = tqdm(results, total=len(packed), unit=" images", dynamic_ncols=True, disable=not progress)
    return problems + [problem for problem in bar if problem]
