"""Packing: a data set is decoded, resized and written to packed files, shard by shard; an interruption costs the work on one shard."""

import contextlib
import io
import json
import os
import pathlib
import re
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from tqdm import tqdm

from minicnn.backend import threads
from minicnn.checkpoint import atomic_write
from minicnn.data.datasets import DataError
from minicnn.data.lazy_image import to_pillow
from minicnn.data.shards.format import (
    HEADER,
    INDEX_DTYPE,
    INDEX_FILE,
    fingerprint,
    ordered_prefetch_map,
    read_footer,
    shard_path,
    write_footer,
)
from minicnn.data.shards.reader import Packed
from minicnn.data.transforms import Resize

PACK_FILES = re.compile(r"(shard-\d{5,}\.bin|minicnn-pack\.json)(\.\d+\.tmp)?")
MAX_SIDE, MAX_PIXELS = 65535, 1 << 26          # the longest side of a JPEG file, and the largest image, in pixels


def pack(source: Any, destination: str | os.PathLike[str], format: str = "jpeg", side: int = 256, quality: int = 90,
         workers: int | None = None, shard_bytes: int = 1 << 30, progress: bool = True, on_error: str = "raise") -> Packed:
    """Pack a data set: write it to a few large files, and return these as a `Packed`. If it is killed, the same call resumes.

    Args:
        source: a data set: len, classes, and load(i, min_size) or [i]; name(i) is optional.
        destination: the folder; created if it does not exist. Its bytes depend on neither `workers` nor interruptions.
        format: "jpeg" (a twelfth of the size, lossy; see `quality`) or "raw" (lossless, and nothing to decode).
        side: the shorter side of each image in pixels; images are scaled down or up to it, exactly as transforms.Resize(side) does.
        quality: of the JPEGs, 1 to 100.
        workers: threads; by default one per core. (Pillow releases the GIL while it decodes and resizes.)
        shard_bytes: the maximum size of a shard's records; an interruption costs the work on one shard.
        progress: show a progress bar on stderr.
        on_error: what to do about images that cannot be read: "raise", or "skip" them and list them in the set's `skipped`.

    Raises DataError: an image cannot be read (the message names it), there is nothing to pack, or the destination holds something else
    (other files, another source, other settings). OSError if writing fails: complete shards remain, and nothing incomplete.
    ValueError: an argument is out of range.
    """
    for argument, value, allowed in (("format", format, ("jpeg", "raw")), ("on_error", on_error, ("raise", "skip"))):
        if value not in allowed:
            raise ValueError(f'pack: {argument} must be "{allowed[0]}" or "{allowed[1]}", got {value!r}')
    if not (1 <= side <= MAX_SIDE and 1 <= quality <= 100 and shard_bytes > 0 and (workers is None or workers > 0)):
        raise ValueError(f"pack: side must be 1 to {MAX_SIDE}, quality 1 to 100, shard_bytes and workers positive, "
                         f"got side {side}, quality {quality}, shard_bytes {shard_bytes}, workers {workers}")
    settings = {"format": format, "side": side, "quality": quality if format == "jpeg" else None, "shard_bytes": shard_bytes}
    folder, workers = pathlib.Path(destination), workers or threads.available_cores()
    if len(source) == 0:
        raise DataError(f"{describe_source(source)}: has no images; there is nothing to pack")
    with explain_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        others = sorted(path.name for path in folder.iterdir() if not PACK_FILES.fullmatch(path.name))
        if others:
            raise DataError(f"{folder}: must be empty or a packed set, but holds {others[0]}; choose a new folder")
        for incomplete in folder.glob("*.tmp"):         # left by a run that was killed
            incomplete.unlink()
    shards: list[pathlib.Path] = []
    start = 0
    with tqdm(total=len(source), unit=" images", dynamic_ncols=True, disable=not progress) as bar:
        while start < len(source):
            path = shard_path(folder, len(shards))
            if path.exists():
                check_resumable(path, source, start, settings)
            else:
                write_shard(path, source, start, settings, workers, on_error, bar)
            shards.append(path)
            start = read_footer(path)[2]["next"]
            bar.update(start - bar.n)
    if (extra := shard_path(folder, len(shards))).exists():
        raise mismatch_error(folder, f"{extra.name} is one shard too many")
    index = build_index(source, settings, shards)
    with explain_write_errors(folder), atomic_write(folder / INDEX_FILE) as file:
        file.write(json.dumps(index, indent=1).encode())
    return Packed(folder)


def write_shard(path: pathlib.Path, source: Any, start: int, settings: dict[str, Any], workers: int, on_error: str, bar: Any) -> None:
    """Write the shard that begins with image `start` and ends where the next image would exceed `shard_bytes`, or with the last image."""
    rows: list[np.ndarray] = []
    skipped, offset = [], 0
    indices = range(start, len(source))
    encoded = ordered_prefetch_map(lambda i: encode(source, i, settings), indices, workers)
    with contextlib.closing(encoded), explain_write_errors(path.parent), atomic_write(path) as file:
        for i, (data, name, fields, reason) in zip(indices, encoded, strict=True):
            if reason and on_error == "raise":
                raise DataError(reason)
            if reason:
                skipped.append([i, name.decode(errors="replace"), reason])
                continue
            if rows and offset + len(data) + len(name) > settings["shard_bytes"]:
                break
            row = np.array((offset, len(data), *fields[:3], len(name), fields[3], 0), INDEX_DTYPE)
            row["crc"] = zlib.crc32(name, zlib.crc32(data, zlib.crc32(row.tobytes()[:-4])))
            file.write(data)
            file.write(name)
            rows.append(row)
            offset += len(data) + len(name)
            bar.update()
        else:
            i = len(source)
        if not rows:
            raise DataError(f"{describe_source(source)}: none of {len(source) - start} images can be read; the first: {skipped[0][2]}")
        metadata = {"settings": settings, "classes": list(source.classes), "first": start, "next": i, "skipped": skipped}
        write_footer(file, np.array(rows, INDEX_DTYPE), offset, metadata)


def encode(source: Any, i: int, settings: dict[str, Any]) -> tuple[bytes, bytes, tuple[int, ...], str | None]:
    """Image i as it is stored: (bytes, name, (height, width, label, channels), None); if that fails, the last is the reason."""
    name, side = stored_name(source, i), settings["side"]
    try:
        image, label = source.load(i, side) if hasattr(source, "load") else source[i]
        if image.dtype != np.uint8 or image.shape[2:] not in ((1,), (3,)) or not 0 <= label < len(source.classes):
            raise DataError(f"{name.decode()}: must be uint8 (H, W, 3 or 1) with a label from 0 to {len(source.classes) - 1}, "
                            f"got {image.dtype} {tuple(image.shape)} with label {label}")
        resized = Resize(side)(image)                           # a LazyImage: its pixels are not computed yet
        H, W, C = resized.shape
        if max(H, W) > MAX_SIDE or H * W > MAX_PIXELS:
            raise DataError(f"{name.decode()}: too elongated: it would have {H} x {W} pixels; remove it")
        pixels = np.asarray(resized)
        if settings["format"] == "raw":
            return pixels.tobytes(), name, (H, W, label, C), None
        file = io.BytesIO()             # baseline and 4:2:0 are fast to decode; optimize saves 3 % and does not slow decoding
        to_pillow(pixels).save(file, "JPEG", quality=settings["quality"], subsampling="4:2:0", optimize=True)
        return file.getvalue(), name, (H, W, label, C), None
    except DataError as error:
        return b"", name, (), str(error)
    except OSError as error:
        return b"", name, (), f"{name.decode()}: this image cannot be read or stored ({error}); replace it or remove it"


def check_resumable(path: pathlib.Path, source: Any, start: int, settings: dict[str, Any]) -> None:
    """Raises DataError unless the shard is what packing from image `start` on would write. (Only its first image is encoded again.)"""
    rows, _, metadata = read_footer(path)
    if metadata["settings"] != settings:
        raise mismatch_error(path.parent, f"{metadata['settings']}, not {settings}")
    if metadata["classes"] != list(source.classes) or metadata["first"] != start or metadata["next"] > len(source):
        raise mismatch_error(path.parent, f"other classes or another number of images, according to {path.name}")
    skipped = {i for i, _, _ in metadata["skipped"]}
    indices = [i for i in range(start, metadata["next"]) if i not in skipped]
    with open(path, "rb", buffering=0) as file:
        for i, offset, length in zip(indices, (rows["offset"] + rows["length"]).tolist(), rows["name"].tolist(), strict=True):
            file.seek(offset)
            if (name := file.read(length)) != stored_name(source, i):
                raise mismatch_error(path.parent, f"image {i} was {name.decode(errors='replace')}")
        data, _, fields, _ = encode(source, indices[0], settings)
        file.seek(0)
        if file.read(len(data)) != data or tuple(rows[0][["height", "width", "label", "channels"]].item()) != fields:
            raise mismatch_error(path.parent, f"image {indices[0]} had other pixels or another label, or was packed with another Pillow")


def mismatch_error(folder: pathlib.Path, difference: str) -> DataError:
    return DataError(f"{folder}: was packed from another source or with other settings ({difference}); "
                     "choose another folder, or delete this one")


@contextlib.contextmanager
def explain_write_errors(folder: pathlib.Path) -> Iterator[None]:
    """Replace an OSError by one that says what to do."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, f"{folder}: cannot be written to ({error.strerror or error}). The complete shards are safe: free some "
                                   "space, or fix the cause, and run the same pack command again; it resumes after them") from error


def build_index(source: Any, settings: dict[str, Any], shards: list[pathlib.Path]) -> dict[str, Any]:
    """The content of minicnn-pack.json."""
    footers = [(path.stat().st_size, *read_footer(path)) for path in shards]
    labels = np.concatenate([rows["label"] for _, rows, _, _ in footers])
    index = {**HEADER, "classes": list(source.classes), "images": len(labels),
             "counts": np.bincount(labels, minlength=len(source.classes)).tolist(), "settings": settings, "source": describe_source(source),
             "skipped": [entry for _, _, _, metadata in footers for entry in metadata["skipped"]],
             "shards": [{"bytes": size, "images": len(rows), "table": table} for size, rows, table, _ in footers]}
    return {**index, "fingerprint": fingerprint(index, shards)}


def describe_source(source: Any) -> str:
    """The class of the data set and the name of its folder, if it has one."""
    return " ".join([type(source).__name__, *([pathlib.Path(source.root).absolute().name] if hasattr(source, "root") else [])])


def stored_name(source: Any, i: int) -> bytes:
    """The name of image i; for a file, its path relative to the root, so that the set does not depend on where the root is."""
    name = source.name(i) if hasattr(source, "name") else f"image {i}"
    if hasattr(source, "root"):
        name = name.removeprefix(os.path.join(source.root, ""))
    return str(name).encode("utf-8", "backslashreplace")[:65535]
