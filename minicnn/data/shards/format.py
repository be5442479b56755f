"""The files of a packed set as bytes: the index file and the footer of a shard. (minicnn.data.shards describes the format.)"""

import collections
import concurrent.futures
import hashlib
import json
import os
import pathlib
import struct
import zlib
from collections.abc import Callable, Generator, Iterable
from typing import Any, BinaryIO, TypeVar

import numpy as np

from minicnn.data.datasets import DataError

INDEX_FILE, HEADER = "minicnn-pack.json", {"format": "minicnn packed images", "version": 1}
INDEX_DTYPE = np.dtype([("offset", "<i8"), ("length", "<u4"), ("height", "<u4"), ("width", "<u4"), ("label", "<i4"), ("name", "<u2"),
                        ("channels", "<u2"), ("crc", "<u4")])       # length and name: bytes of the image and of its name
FOOTER, MAGIC = struct.Struct("<8sqII"), b"minicnnp"
REPAIR_HINT = "delete this file and run the same pack command again (only missing files are rewritten), or copy the set again"
INDEX_KEYS = {"classes": list, "images": int, "skipped": list, "fingerprint": str, "shards": list, "settings": dict}

T = TypeVar("T")
R = TypeVar("R")


def shard_path(folder: pathlib.Path, number: int) -> pathlib.Path:
    """The path of a shard."""
    return folder / f"shard-{number:05}.bin"


def read_index(root: pathlib.Path) -> dict[str, Any]:
    """The content of minicnn-pack.json. Raises DataError if it is missing, of another version, or inconsistent."""
    path = root / INDEX_FILE
    try:
        index: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{root}: not a packed set, or an incomplete one (there is no {INDEX_FILE}); run the pack command again") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read ({error}); {REPAIR_HINT}") from error
    if not isinstance(index, dict) or index.get("format") != HEADER["format"]:
        raise DataError(f"{path}: not an index file that minicnn wrote; {REPAIR_HINT}")
    if (version := index.get("version")) != HEADER["version"]:
        raise DataError(f"{path}: version must be {HEADER['version']}, got {version!r}; upgrade minicnn, or pack again with this one")
    if not is_consistent(index):
        raise DataError(f"{path}: damaged; {REPAIR_HINT}")
    return index


def is_consistent(index: dict[str, Any]) -> bool:
    """Whether the index has all keys, of the right types, and sizes that fit each other."""
    try:
        for shard in index["shards"]:
            size, images, table = (shard[key] for key in ("bytes", "images", "table"))
            if {type(size), type(images), type(table)} != {int} or min(images, table) < 0:
                return False
            if table + images * INDEX_DTYPE.itemsize + FOOTER.size > size:
                return False
        return bool(all(type(index[key]) is kind for key, kind in INDEX_KEYS.items())
                    and all(type(name) is str for name in index["classes"])
                    and index["settings"]["format"] in ("jpeg", "raw")
                    and sum(shard["images"] for shard in index["shards"]) == index["images"] > 0)
    except (KeyError, TypeError):
        return False


def write_footer(file: BinaryIO, rows: np.ndarray, table: int, metadata: dict[str, Any]) -> None:
    """Write the end of a shard at the current position: the table, whose offset is `table`, the metadata and the footer."""
    text = json.dumps(metadata).encode()
    tail = rows.tobytes() + text
    file.write(tail + FOOTER.pack(MAGIC, table, len(text), zlib.crc32(tail)))


def read_footer(path: pathlib.Path) -> tuple[np.ndarray, int, dict[str, Any]]:
    """(table, its offset, metadata) of a shard. Raises DataError if the shard is incomplete or damaged."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END) - FOOTER.size
            file.seek(max(size, 0))
            magic, table, length, crc = FOOTER.unpack(file.read())
            images, rest = divmod(size - table - length, INDEX_DTYPE.itemsize)
            if magic != MAGIC or rest or min(table, images) < 0:
                raise ValueError("its footer is wrong")
            file.seek(table)
            tail = file.read(size - table)
        if zlib.crc32(tail) != crc:
            raise ValueError("the checksum of its table is wrong")
        return np.frombuffer(tail, INDEX_DTYPE, images), table, json.loads(tail[images * INDEX_DTYPE.itemsize:])
    except (OSError, ValueError, struct.error) as error:
        raise DataError(f"{path}: not a complete shard ({error}); {REPAIR_HINT}") from error


def fingerprint(index: dict[str, Any], shards: Iterable[pathlib.Path]) -> str:
    """SHA-256 of the index (without its fingerprint) and of all tables, which hold a checksum of every image."""
    sha = hashlib.sha256(json.dumps({k: v for k, v in index.items() if k != "fingerprint"}, sort_keys=True).encode())
    for path in shards:
        sha.update(read_footer(path)[0].tobytes())
    return sha.hexdigest()


def ordered_prefetch_map(function: Callable[[T], R], items: Iterable[T], workers: int) -> Generator[R, None, None]:
    """function(item) for each item, in order; `workers` threads compute a few items ahead of the consumer."""
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        pending: collections.deque[concurrent.futures.Future[R]] = collections.deque()
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > 4 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
