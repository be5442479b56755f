"""What every reader of files needs: a whole file, or an error that names it; and very many names in little memory."""

import os
import zlib

import numpy as np


class DataError(ValueError):
    """Something is wrong with the data; the message names the file or folder and what to do."""


class Names:
    """Many file names, end to end in one string of bytes, and where each ends.

    ImageNet has 1.28 million; as Python strings they would take 90 bytes each, and they travel to every process that reads images.
    """

    def __init__(self, names):
        encoded = [os.fsencode(name) for name in names]
        ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
        self.text, self.ends = b"".join(encoded), ends.astype(np.min_scalar_type(ends[-1]) if len(ends) else np.uint8)

    def __len__(self):
        return len(self.ends)

    def __getitem__(self, i):
        i = range(len(self))[i]                                     # IndexError beyond the end; -1 is the last
        return os.fsdecode(self.text[int(self.ends[i - 1]) if i else 0:int(self.ends[i])])

    def __iter__(self):
        start = 0
        for end in self.ends.tolist():
            yield os.fsdecode(self.text[start:end])
            start = end


def read_bytes(path, opener=open):
    """A whole file, or a DataError that says it is missing or damaged."""
    try:
        with opener(path, "rb") as file:
            return file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{shown(path)}: cannot be read ({error})") from error


def read_lines(path):
    """The lines of a text file; those with nothing in them are left out. DataError if it is missing, or is no text."""
    try:
        return [line for line in read_bytes(path).decode("utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise DataError(f"{shown(path)}: not a text file ({error}); get it again") from error


def first_that_exists(candidates):
    """The first of these paths at which there is something, or None."""
    return next((path for path in candidates if os.path.lexists(path)), None)


def check_split(split, names=("train", "test")):
    """A split is one of these names; else DataError."""
    if split not in names:
        raise DataError(f"""split is {' or '.join(f'"{name}"' for name in names)}, not {split!r}""")


def shown(path):
    """A path as text that can be printed, also if its bytes are no UTF-8."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def listed(things, most=10):
    """The first few of some names, for a message."""
    things = [str(thing) for thing in things]
    return ", ".join(things[:most]) + (f", ... ({len(things)} in all)" if len(things) > most else "")
