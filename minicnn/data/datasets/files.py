"""Helpers of the file readers: DataError, whole files, file names as printable text, and memory-efficient lists of names."""

import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np


class DataError(ValueError):
    """Something is wrong with the data; the message names the file or folder and what to do."""


class PackedStrings:
    """A read-only sequence of file names, stored end to end in one byte string with the end of each.

    ImageNet has 1.28 million; as Python strings they would take 90 bytes each, and every worker process gets a copy.
    """

    def __init__(self, names: Iterable[str]) -> None:
        encoded = [os.fsencode(name) for name in names]
        ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
        self.text, self.ends = b"".join(encoded), ends.astype(np.min_scalar_type(ends[-1]) if len(ends) else np.uint8)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, i: int) -> str:
        i = range(len(self))[i]                                     # IndexError beyond the end; -1 is the last
        return os.fsdecode(self.text[int(self.ends[i - 1]) if i else 0:int(self.ends[i])])

    def __iter__(self) -> Iterator[str]:
        start = 0
        for end in self.ends.tolist():
            yield os.fsdecode(self.text[start:end])
            start = end


def read_bytes(path: str | os.PathLike[str], opener: Callable[..., Any] = open) -> bytes:
    """The content of a file, opened by `opener` (gzip.open, say). Raises DataError if it is missing or damaged."""
    try:
        with opener(path, "rb") as file:
            content: bytes = file.read()
            return content
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{printable_path(path)}: cannot be read ({error})") from error


def read_lines(path: str | os.PathLike[str]) -> list[str]:
    """The lines of a text file, without blank ones. Raises DataError if it is missing or not UTF-8."""
    try:
        return [line for line in read_bytes(path).decode("utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise DataError(f"{printable_path(path)}: not a text file ({error}); download it again") from error


def first_existing(candidates: Iterable[str]) -> str | None:
    """The first of these paths that exists (a broken symbolic link counts), or None."""
    return next((path for path in candidates if os.path.lexists(path)), None)


def check_split(split: str, names: Sequence[str] = ("train", "test")) -> None:
    """Raises DataError unless `split` is one of the names."""
    if split not in names:
        raise DataError(f"""split must be {' or '.join(f'"{name}"' for name in names)}, got {split!r}""")


def printable_path(path: str | os.PathLike[str]) -> str:
    """A path as text that can be printed, even if its bytes are not UTF-8."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
