"""Everything needed to go on as if nothing had happened, in one file.

The file is a zip archive of .npy arrays, as numpy.savez writes it, plus one text, `tree.json`, that says what each
array is and what it must look like. There is no pickle in it: loading runs no code. It is written under another name,
forced to the disk, and only then given its own, so that a crash leaves either the old file or the new one, whole.
"""

import io
import json
import math
import os
import struct
import zipfile

import numpy as np

from minicnn.backend import is_array, to_device

FORMAT = "minicnn checkpoint"
VERSION = 1


class CheckpointError(ValueError):
    """This file cannot be used as a checkpoint; the message says what is wrong with it."""


def save_checkpoint(path, **contents):
    """Write `contents` to `path`, all or nothing.

    Args:
        path: where; a file already there is replaced only once the new one is safely on the disk.
        contents: what, by name: dicts and lists (nested), arrays (of either device), numbers, strings, booleans, None.
            For instance model=net.state_dict(), optimizer=sgd.state_dict(), random=minicnn.random.state(), step=1000.

    Raises TypeError for anything else, naming it; OSError if the disk refuses (then the old file is untouched).
    """
    path = os.fspath(path)
    arrays: dict[str, np.ndarray] = {}
    tree = {"format": FORMAT, "version": VERSION, "contents": to_tree(contents, "", arrays)}
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:     # a CRC of every member comes with it
                archive.writestr(zipfile.ZipInfo("tree.json"), json.dumps(tree))        # without a date: the same contents, the same bytes
                for name, array in arrays.items():
                    with archive.open(name + ".npy", "w", force_zip64=True) as member:
                        np.lib.format.write_array(member, array, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise
    sync_folder(os.path.dirname(path) or ".")


def load_checkpoint(path):
    """What `save_checkpoint` was given, as a dict; arrays are NumPy arrays.

    Raises FileNotFoundError, or CheckpointError that says what is wrong: not a checkpoint, cut short, damaged (every
    byte of the contents is covered by a checksum), or of a newer version.
    """
    path = os.fspath(path)
    try:
        file = open(path, "rb")             # noqa: SIM115 (a file that cannot be opened is no damaged file: this OSError is the reader's)
    except FileNotFoundError:
        raise FileNotFoundError(f"no checkpoint at {path}") from None
    try:
        with file:
            size = check_end(file)
            archive = zipfile.ZipFile(file)
            if any(m.compress_type != zipfile.ZIP_STORED or not m.compress_size == m.file_size <= size for m in archive.infolist()):
                raise CheckpointError(f"{path}: damaged or foreign: it claims to hold more than the file does")
            names = archive.namelist()
            if len(names) > len(set(names)):
                raise CheckpointError(f"{path}: damaged or foreign: two of its parts have one name")
            if "tree.json" not in names:
                raise CheckpointError(f"{path}: a zip archive, but not a minicnn checkpoint (it has no tree.json)")
            tree = json.loads(archive.read("tree.json"))
            if not isinstance(tree, dict) or tree.get("format") != FORMAT:
                raise CheckpointError(f"{path}: not a minicnn checkpoint")
            if tree["version"] > VERSION:
                raise CheckpointError(f"{path}: written by a newer minicnn (format {tree['version']}, this one reads {VERSION}); "
                                      "upgrade minicnn to read it")
            unread = {name for name in names if name != "tree.json"}
            contents = from_tree(tree["contents"], archive, unread)
            if not isinstance(contents, dict) or unread:
                raise ValueError(f"parts that do not belong to it: {', '.join(sorted(unread))}")
            return contents
    except CheckpointError:
        raise
    except zipfile.BadZipFile as error:
        raise CheckpointError(f"{path}: not a checkpoint, or one that is cut short or damaged ({error})") from error
    except Exception as error:              # NumPy's and zipfile's readers meet any bytes there are, and raise whatever they stumble on
        raise CheckpointError(f"{path}: damaged ({type(error).__name__}: {error})") from error


def check_end(file):
    """The size of the file, whose last record says where the archive's directory is: right before it, so nothing is missing or too much."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 22))
    record = file.read(22)
    if len(record) < 22 or record[:4] != b"PK\5\6":
        raise zipfile.BadZipFile("the archive's last record is not at the end of the file")
    length, start = struct.unpack_from("<II", record, 12)
    if 0xFFFFFFFF not in (length, start) and size - 22 - (start + length) not in (0, 20 + 56):      # 76: from 2 GB on, zip64's records
        raise zipfile.BadZipFile("bytes are missing or too many")
    return size


def to_tree(value, where, arrays):
    """`value` as JSON can hold it; each array goes to `arrays`, and an entry that says what it is stays in its place."""
    if is_array(value):
        name = where.strip("/") or "array"
        array = to_device(value, "cpu")
        if name in arrays:
            raise TypeError(f"save_checkpoint: two arrays would both be called {name!r}; use keys without '/'")
        if array.dtype.kind not in "fiub":
            raise TypeError(f"save_checkpoint: {name} has dtype {array.dtype}; arrays of numbers are wanted")
        arrays[name] = array
        return {"array": name, "shape": list(array.shape), "dtype": array.dtype.str}
    if isinstance(value, dict):
        if not all(isinstance(k, str) for k in value):
            raise TypeError(f"save_checkpoint: the keys of {where or 'the contents'} must be strings")
        return {"dict": {k: to_tree(v, f"{where}/{k}", arrays) for k, v in value.items()}}
    if isinstance(value, (list, tuple)):
        return {"list": [to_tree(v, f"{where}/{i}", arrays) for i, v in enumerate(value)]}
    if isinstance(value, (np.integer, np.floating, np.bool_)):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return {"value": value}
    raise TypeError(f"save_checkpoint: {where.strip('/')} is a {type(value).__name__}; "
                    "numbers, strings, arrays, dicts and lists can be saved")


def from_tree(node, archive, unread):
    """The inverse of `to_tree`; takes the names of the arrays that it reads out of the set `unread`."""
    [(kind, what)] = [(k, v) for k, v in node.items() if k not in ("shape", "dtype")]
    if kind == "array":
        unread.remove(what + ".npy")
        return read_array(archive.read(what + ".npy"), what, node["shape"], node["dtype"])          # checks the CRC
    if kind == "dict":
        return {k: from_tree(v, archive, unread) for k, v in what.items()}
    if kind == "list":
        return [from_tree(v, archive, unread) for v in what]
    if kind != "value" or not (what is None or isinstance(what, (bool, int, float, str))):
        raise ValueError(f"{kind} {what!r:.50} is not something that was saved")
    return what


def read_array(data, name, shape, dtype):
    """The array in the bytes of a .npy file. A header may claim anything: nothing is reserved before it agrees with the bytes there are."""
    file = io.BytesIO(data)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError(f"{name} is in another version of NumPy's format")
    found, columns_first, found_dtype = np.lib.format.read_array_header_1_0(file)
    if [*found] != shape or found_dtype.str != dtype or found_dtype.kind not in "fiub":
        raise ValueError(f"{name} is {found_dtype} {found}, but {dtype} {shape} was written")
    if math.prod(found) * found_dtype.itemsize != len(data) - file.tell():
        raise ValueError(f"{name} has {len(data) - file.tell()} bytes, not what {found_dtype} {found} takes")
    return np.frombuffer(data, found_dtype, offset=file.tell()).reshape(found, order="F" if columns_first else "C").copy(order="A")


def sync_folder(folder):
    """Force a rename in `folder` to the disk, where the system can (Windows cannot)."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
