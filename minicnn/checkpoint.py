"""Everything needed to go on as if nothing had happened, in one file.

The file is a zip archive of .npy arrays, as numpy.savez writes it, plus one text, `tree.json`, that says what each
array is and what it must look like. There is no pickle in it: loading runs no code. It is written under another name,
forced to the disk, and only then given its own, so that a crash leaves either the old file or the new one, whole.
"""

import io
import json
import os
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
                archive.writestr("tree.json", json.dumps(tree))
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
        with file, zipfile.ZipFile(file) as archive:
            size = os.path.getsize(path)
            if any(m.compress_type != zipfile.ZIP_STORED or m.file_size > size for m in archive.infolist()):
                raise CheckpointError(f"{path}: damaged or foreign: it claims to hold more than the file does")
            if "tree.json" not in archive.namelist():
                raise CheckpointError(f"{path}: a zip archive, but not a minicnn checkpoint (it has no tree.json)")
            tree = json.loads(archive.read("tree.json"))
            if not isinstance(tree, dict) or tree.get("format") != FORMAT:
                raise CheckpointError(f"{path}: not a minicnn checkpoint")
            if tree["version"] > VERSION:
                raise CheckpointError(f"{path}: written by a newer minicnn (format {tree['version']}, this one reads {VERSION}); "
                                      "upgrade minicnn to read it")
            return from_tree(tree["contents"], archive)
    except CheckpointError:
        raise
    except zipfile.BadZipFile as error:
        raise CheckpointError(f"{path}: not a checkpoint, or one that is cut short or damaged ({error})") from error
    except Exception as error:              # NumPy's and zipfile's readers meet any bytes there are, and raise whatever they stumble on
        raise CheckpointError(f"{path}: damaged ({type(error).__name__}: {error})") from error


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


def from_tree(node, archive):
    """The inverse of `to_tree`."""
    if "array" in node:
        with archive.open(node["array"] + ".npy") as member:
            data = member.read()            # checks the CRC
        array = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
        if list(array.shape) != node["shape"] or array.dtype.str != node["dtype"]:
            raise ValueError(f"{node['array']} is {array.dtype} {array.shape}, but {node['dtype']} {node['shape']} was written")
        return array
    if "dict" in node:
        return {k: from_tree(v, archive) for k, v in node["dict"].items()}
    if "list" in node:
        return [from_tree(v, archive) for v in node["list"]]
    return node["value"]


def sync_folder(folder):
    """Force a rename in `folder` to the disk, where the system can (Windows cannot)."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
