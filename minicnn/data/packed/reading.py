"""A packed set as a data set: an image is one read from a large file.

Reading is os.pread into fresh memory. A memory map would save that copy, but a process's count of memory would grow with every page
it has looked at, until it looks like a leak; and a file that is cut short would kill the process instead of raising DataError.
"""

import bisect
import io
import itertools
import operator
import os
import pathlib
import threading
import zlib

import numpy as np
from PIL import Image

from minicnn.data.datasets import DataError
from minicnn.data.packed.files import MEND, ROW, read_contents, shard_path
from minicnn.data.picture import Picture


class Packed:
    """A folder that `pack` wrote, as a data set: a length, classes, items (uint8 array (H, W, C), label).

    Every image is checked against its checksum when it is read. Cheap to pickle: it opens the files again where it is unpickled.

    Raises DataError: the folder is no packed set, incomplete, damaged, or of a newer version; or, when it is asked for, an image is.
    """

    in_memory = False

    def __init__(self, root):
        self.handles: list[int] = []
        self.root = pathlib.Path(root).absolute()
        contents = read_contents(self.root)
        self.contents, self.classes, self.skipped, self.shards = contents, contents["classes"], contents["skipped"], contents["shards"]
        self.raw = contents["settings"]["format"] == "raw"
        self.ends = list(itertools.accumulate(shard["images"] for shard in self.shards))
        problems = []
        for number, shard in enumerate(self.shards):
            try:
                self.handles.append(os.open(shard_path(self.root, number), os.O_RDONLY | getattr(os, "O_BINARY", 0)))
                if (size := os.fstat(self.handles[-1]).st_size) != shard["bytes"]:
                    problems.append(f"{shard_path(self.root, number)}: {size} bytes, but {shard['bytes']} were written; {MEND}")
            except OSError as error:
                problems.append(f"{shard_path(self.root, number)}: cannot be opened ({error.strerror}); {MEND}")
        if problems:
            raise DataError("\n".join(problems))

    def __len__(self):
        return self.ends[-1]

    def __getitem__(self, i):
        picture, label = self.picture(i)
        return np.asarray(picture), label

    def picture(self, i, at_least=None):
        """(Picture, label) of image i. With `at_least`, a JPEG may be decoded smaller, its shorter side no less than that."""
        row, data = self.record(i)
        shape = H, W, C = row["height"], row["width"], row["channels"]
        try:
            if self.raw:
                return Pixels(np.frombuffer(data, np.uint8, row["length"]).reshape(shape)), row["label"]
            image = Image.open(io.BytesIO(data[:row["length"]]), formats=("JPEG",))
            if (image.height, image.width, len(image.getbands())) != shape:
                raise ValueError(f"it is {image.height} x {image.width} {image.mode}, not {H} x {W} x {C}")
            if at_least:
                image.draft(None, (at_least, at_least))
            image.load()
            return Picture(image), row["label"]
        except (OSError, ValueError, SyntaxError) as error:
            raise DataError(f"{self.where(i)} cannot be decoded ({error}); {MEND}") from error

    def name(self, i):
        """What the source called image i, for messages."""
        try:
            row, data = self.record(i)
        except DataError:
            return f"image {i} of {self.root}"
        return data[row["length"]:].decode(errors="replace")

    def record(self, i):
        """The row of image i, as a dict, and the bytes of its record. DataError unless they are those that were written."""
        shard, number = self.place(i)
        at = self.shards[shard]["table"]
        raw = pread(self.handles[shard], ROW.itemsize, at + number * ROW.itemsize)
        row = dict(zip(ROW.names or (), np.frombuffer(raw, ROW)[0].item(), strict=True)) if len(raw) == ROW.itemsize else None
        if row is None or row["offset"] < 0 or row["offset"] + row["length"] + row["name"] > at:      # before memory is taken for it
            raise DataError(f"{self.where(i)} is damaged: its row in the table is wrong; {MEND}")
        data = pread(self.handles[shard], row["length"] + row["name"], row["offset"])
        if zlib.crc32(data, zlib.crc32(raw[:-4])) != row["crc"]:
            raise DataError(f"{self.where(i)} is damaged: its checksum is wrong; {MEND}")
        return row, data

    def place(self, i):
        """The shard that image i is in, and its number there."""
        i, n = operator.index(i), len(self)
        if not -n <= i < n:
            raise IndexError(f"{self.root}: there are {n} images, so none has number {i}")
        shard = bisect.bisect_right(self.ends, i % n)
        return shard, i % n - (self.ends[shard] - self.shards[shard]["images"])

    def where(self, i):
        shard, number = self.place(i)
        return f"{shard_path(self.root, shard)}: image {i} (record {number})"

    def fingerprint(self):
        """A checksum (SHA-256) over everything that is in the set."""
        return self.contents["fingerprint"]

    def __reduce__(self):
        return reopened, (str(self.root), self.fingerprint())

    def __del__(self):
        while self.handles:
            os.close(self.handles.pop())


class Pixels(Picture):
    """A Picture whose pixels are an array already: a piece of it is a view."""

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def scaled(self, height, width):
        """The same in another size."""
        return self if (height, width) == self.shape[:2] else Picture(to_image(self.array), height, width)

    def __array__(self, dtype=None, copy=None):
        return np.array(self.array, dtype, copy=copy)

    def pixels(self, top, left, bottom, right):
        """A view of this rectangle."""
        return self.array[top:bottom, left:right]


def to_image(pixels):
    """An array (H, W, 1 or 3) as a Pillow image."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def reopened(root, fingerprint):
    """What a Packed becomes in another process."""
    packed = Packed(root)
    if packed.fingerprint() != fingerprint:
        raise DataError(f"{root}: was packed anew since it was opened; start again")
    return packed


def pread(handle, count, offset, lock=threading.Lock()):        # noqa: B008 (one lock for all, on purpose)
    """`count` bytes from `offset` on; fewer if the file ends. Threads and forked processes do not disturb each other."""
    if hasattr(os, "pread"):
        return os.pread(handle, count, offset)
    with lock:                                                  # Windows: no pread, and no fork either
        os.lseek(handle, offset, os.SEEK_SET)
        return os.read(handle, count)
