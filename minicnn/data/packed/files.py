"""The two kinds of file of a packed set, as bytes: minicnn-pack.json and the end of a shard (the package's first page has the format)."""

import collections
import concurrent.futures
import contextlib
import hashlib
import json
import os
import struct
import zlib

import numpy as np

from minicnn.checkpoint import sync_folder
from minicnn.data.datasets import DataError

CONTENTS, HEADER = "minicnn-pack.json", {"format": "minicnn packed images", "version": 1}
ROW = np.dtype([("offset", "<i8"), ("length", "<u4"), ("height", "<u4"), ("width", "<u4"), ("label", "<i4"), ("name", "<u2"),
                ("channels", "<u2"), ("crc", "<u4")])       # length and name: bytes of the image and of its name
END, MAGIC = struct.Struct("<8sqII"), b"minicnnp"
MEND = "delete this file and run the same pack again (it makes only what is missing), or copy the set again"


def shard_path(folder, number):
    return folder / f"shard-{number:05}.bin"


def read_contents(root):
    """What minicnn-pack.json says, once it is clear that it can be used; or a DataError."""
    path = root / CONTENTS
    try:
        contents = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{root}: no packed images, or not all of them yet (there is no {CONTENTS}); run pack, or run it again") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read ({error}); {MEND}") from error
    if not isinstance(contents, dict) or contents.get("format") != HEADER["format"]:
        raise DataError(f"{path}: not a list of contents that minicnn wrote; {MEND}")
    if (version := contents.get("version")) != HEADER["version"]:
        raise DataError(f"{path}: of version {version!r}, which this minicnn cannot read; upgrade minicnn, or pack again with this one")
    try:
        kinds = {"classes": list, "images": int, "skipped": list, "fingerprint": str, "shards": list, "settings": dict}
        good = all(type(contents[key]) is kind for key, kind in kinds.items()) and contents["settings"]["format"] in ("jpeg", "raw")
        for shard in contents["shards"]:
            size, images, table = (shard[key] for key in ("bytes", "images", "table"))
            good = good and {type(size), type(images), type(table)} == {int}
            good = good and min(images, table) >= 0 and table + images * ROW.itemsize + END.size <= size
        good = good and sum(shard["images"] for shard in contents["shards"]) == contents["images"] > 0
        good = good and all(type(name) is str for name in contents["classes"])
    except (KeyError, TypeError):
        good = False
    if not good:
        raise DataError(f"{path}: damaged; {MEND}")
    return contents


def write_end(file, rows, table, about):
    """The end of a shard: its table, which begins at `table`, and the rest."""
    text = json.dumps(about).encode()
    tail = rows.tobytes() + text
    file.write(tail + END.pack(MAGIC, table, len(text), zlib.crc32(tail)))


def read_end(path):
    """The table of a shard, where that begins, and what its `about` says. DataError if it is not a complete shard."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END) - END.size
            file.seek(max(size, 0))
            magic, table, length, crc = END.unpack(file.read())
            images, rest = divmod(size - table - length, ROW.itemsize)
            if magic != MAGIC or rest or min(table, images) < 0:
                raise ValueError("its end is wrong")
            file.seek(table)
            tail = file.read(size - table)
        if zlib.crc32(tail) != crc:
            raise ValueError("the checksum of its table is wrong")
        return np.frombuffer(tail, ROW, images), table, json.loads(tail[images * ROW.itemsize:])
    except (OSError, ValueError, struct.error) as error:
        raise DataError(f"{path}: not a complete shard ({error}); {MEND}") from error


def fingerprint(contents, shards):
    """SHA-256 of what the set is and of all tables (which have the checksum of every image)."""
    sha = hashlib.sha256(json.dumps({k: v for k, v in contents.items() if k != "fingerprint"}, sort_keys=True).encode())
    for path in shards:
        sha.update(read_end(path)[0].tobytes())
    return sha.hexdigest()


@contextlib.contextmanager
def writing(folder):
    """An OSError inside becomes one that says what to do."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, f"{folder}: cannot be written to ({error.strerror or error}). The complete shards are safe: make room, "
                                   "or mend what is wrong, and run the same pack again; it goes on from there") from error


@contextlib.contextmanager
def replacing(path):
    """A file to write to; it gets its name when it is complete and on the disk, and is gone if it is not."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with writing(path.parent):
        try:
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def ahead(function, numbers, workers):
    """function(number) for each, in order; threads compute a little ahead of whoever takes them."""
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        waiting: collections.deque[concurrent.futures.Future] = collections.deque()
        try:
            for number in numbers:
                waiting.append(pool.submit(function, number))
                if len(waiting) > 4 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
