"""Checkpoints: the whole state of a training run in one file, written atomically and verified when read.

The file is a zip archive of .npy arrays, as numpy.savez writes it, plus `tree.json`, which holds all other values and the name,
shape and dtype of each array. There is no pickle in it: loading runs no code. It is written under a temporary name, flushed
to the disk (fsync), and then renamed, so that a crash leaves either the old file or the new one, complete.
"""

import contextlib
import io
import json
import math
import os
import struct
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from minicnn.backend.arrays import is_array, to_device

FORMAT = "minicnn checkpoint"
VERSION = 1


class CheckpointError(ValueError):
    """The file is not a valid checkpoint; the message names it and says what is wrong."""


def save_checkpoint(path: str | os.PathLike[str], **contents: Any) -> None:
    """Write `contents` to the checkpoint `path` atomically.

    Args:
        path: the file; an existing one is replaced only once the new one is safely on the disk.
        contents: values by name: dicts and lists (nested), arrays (on either device), numbers, strings, booleans, None.
            For instance model=net.state_dict(), optimizer=sgd.state_dict(), random=minicnn.random.state(), step=1000.

    Raises TypeError, naming it, for a value of any other type; OSError if writing fails (then the old file is unchanged).
    """
    path = os.fspath(path)
    arrays: dict[str, np.ndarray] = {}
    tree = {"format": FORMAT, "version": VERSION, "contents": flatten(contents, "", arrays)}
    with atomic_write(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:      # zip stores a CRC of every member
        archive.writestr(zipfile.ZipInfo("tree.json"), json.dumps(tree))        # ZipInfo without a date: same contents, same bytes
        for name, array in arrays.items():
            with archive.open(name + ".npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The contents that `save_checkpoint` wrote, as a dict; arrays are NumPy arrays, tuples have become lists.

    Raises FileNotFoundError, or CheckpointError that says what is wrong: not a checkpoint, truncated, damaged (every
    byte of the contents is covered by a checksum), or of a newer version.
    """
    path = os.fspath(path)
    try:
        file = open(path, "rb")             # noqa: SIM115 (outside the try below: an OSError here does not mean a damaged file)
    except FileNotFoundError:
        raise FileNotFoundError(f"no checkpoint at {path}") from None
    try:
        with file:
            size = check_eocd(file)
            archive = zipfile.ZipFile(file)
            if any(m.compress_type != zipfile.ZIP_STORED or not m.compress_size == m.file_size <= size for m in archive.infolist()):
                raise CheckpointError(f"{path}: damaged or foreign: its members claim to be larger than the file")
            names = archive.namelist()
            if len(names) > len(set(names)):
                raise CheckpointError(f"{path}: damaged or foreign: two members have the same name")
            if "tree.json" not in names:
                raise CheckpointError(f"{path}: a zip archive, but not a minicnn checkpoint (it has no tree.json)")
            tree = json.loads(archive.read("tree.json"))
            if not isinstance(tree, dict) or tree.get("format") != FORMAT:
                raise CheckpointError(f"{path}: not a minicnn checkpoint")
            if tree["version"] > VERSION:
                raise CheckpointError(f"{path}: written by a newer minicnn (format {tree['version']}, this one reads {VERSION}); "
                                      "upgrade minicnn to read it")
            unread = {name for name in names if name != "tree.json"}
            contents = unflatten(tree["contents"], archive, unread)
            if not isinstance(contents, dict) or unread:
                raise ValueError(f"members that tree.json does not mention: {', '.join(sorted(unread))}")
            return contents
    except CheckpointError:
        raise
    except zipfile.BadZipFile as error:
        raise CheckpointError(f"{path}: not a checkpoint, or a truncated or damaged one ({error})") from error
    except Exception as error:              # on arbitrary bytes, NumPy's and zipfile's readers raise errors of many types
        raise CheckpointError(f"{path}: damaged ({type(error).__name__}: {error})") from error


def check_eocd(file: BinaryIO) -> int:
    """Check that the zip archive ends with its end-of-central-directory record (EOCD), right after the directory; the file's size."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 22))
    record = file.read(22)
    if len(record) < 22 or record[:4] != b"PK\5\6":
        raise zipfile.BadZipFile("the end-of-archive record is not at the end of the file")
    length, start = struct.unpack_from("<II", record, 12)
    if 0xFFFFFFFF not in (length, start) and size - 22 - (start + length) not in (0, 20 + 56):     # 76: zip64's records, from 2 GB on
        raise zipfile.BadZipFile("bytes are missing or added")
    return size


def flatten(value: Any, where: str, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """`value` as a JSON tree; each array is added to `arrays`, and the tree has its name, shape and dtype instead.

    `where` is the path of keys that leads to the value, such as "/model/conv1.weight".
    """
    if is_array(value):
        name = where.strip("/") or "array"
        array = to_device(value, "cpu")
        if name in arrays:
            raise TypeError(f"save_checkpoint: two arrays would have the same name {name!r}; use keys without '/'")
        if array.dtype.kind not in "fiub":
            raise TypeError(f"save_checkpoint: {name} must be an array of numbers, got dtype {array.dtype}")
        arrays[name] = array
        return {"array": name, "shape": list(array.shape), "dtype": array.dtype.str}
    if isinstance(value, dict):
        if not all(isinstance(k, str) for k in value):
            raise TypeError(f"save_checkpoint: the keys of {where or 'the contents'} must be strings")
        return {"dict": {k: flatten(v, f"{where}/{k}", arrays) for k, v in value.items()}}
    if isinstance(value, (list, tuple)):
        return {"list": [flatten(v, f"{where}/{i}", arrays) for i, v in enumerate(value)]}
    if isinstance(value, (np.integer, np.floating, np.bool_)):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return {"value": value}
    raise TypeError(f"save_checkpoint: {where.strip('/')} must be a number, string, array, dict or list, got {type(value).__name__}")


def unflatten(node: Any, archive: zipfile.ZipFile, unread: set[str]) -> Any:
    """The inverse of `flatten`; removes the names of the members that it reads from `unread`."""
    [(kind, value)] = [(k, v) for k, v in node.items() if k not in ("shape", "dtype")]
    if kind == "array":
        unread.remove(value + ".npy")
        return read_array(archive.read(value + ".npy"), value, node["shape"], node["dtype"])        # read() checks the CRC
    if kind == "dict":
        return {k: unflatten(v, archive, unread) for k, v in value.items()}
    if kind == "list":
        return [unflatten(v, archive, unread) for v in value]
    if kind != "value" or not (value is None or isinstance(value, (bool, int, float, str))):
        raise ValueError(f"{kind} {value!r:.50} is not a valid entry of tree.json")
    return value


def read_array(data: bytes, name: str, shape: list[int], dtype: str) -> np.ndarray[Any, Any]:
    """The array in the bytes of a .npy file. The header is checked against tree.json and the bytes before any memory is allocated."""
    file = io.BytesIO(data)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError(f"{name}: unknown version of NumPy's format")
    found, columns_first, found_dtype = np.lib.format.read_array_header_1_0(file)
    if [*found] != shape or found_dtype.str != dtype or found_dtype.kind not in "fiub":
        raise ValueError(f"{name} must be {dtype} {shape}, got {found_dtype.str} {[*found]}")
    if math.prod(found) * found_dtype.itemsize != len(data) - file.tell():
        raise ValueError(f"{name} has {len(data) - file.tell()} bytes, which does not fit {found_dtype} {[*found]}")
    return np.frombuffer(data, found_dtype, offset=file.tell()).reshape(found, order="F" if columns_first else "C").copy(order="A")


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A context manager that gives a binary file to write to, and renames it to `path` when it is complete and on the disk.

    After any exception `path` is unchanged and the temporary file is removed.
    """
    path = os.fspath(path)
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    fsync_dir(os.path.dirname(path) or ".")


def fsync_dir(folder: str) -> None:
    """Flush a rename in `folder` to the disk, where the system supports it (Windows does not)."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
