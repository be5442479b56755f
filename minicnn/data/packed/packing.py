"""A data set is decoded and scaled, once, and written as packed files, so that an interruption costs the work on one shard at most."""

import contextlib
import io
import json
import os
import pathlib
import re
import zlib

import numpy as np
from tqdm import tqdm

from minicnn import parallel
from minicnn.data.datasets import DataError
from minicnn.data.packed.files import CONTENTS, HEADER, ROW, ahead, fingerprint, read_end, replacing, shard_path, write_end, writing
from minicnn.data.packed.reading import Packed, to_image
from minicnn.data.transforms import Resize

OURS = re.compile(r"(shard-\d{5,}\.bin|minicnn-pack\.json)(\.\d+\.tmp)?")
LONGEST, MOST = 65535, 1 << 26          # pixels of a side (what a JPEG file can have), and of an image


def pack(source, destination, format="jpeg", side=256, quality=90, workers=None, shard_bytes=1 << 30, progress=True, on_bad="raise"):
    """Write a data set as packed files, and return it as a `Packed`. Killed at any moment, the same call goes on where it was.

    Args:
        source: a data set: len, classes, [i] or picture(i, at_least), and perhaps name(i).
        destination: a folder; made if there is none. The bytes in it depend on neither `workers` nor interruptions.
        format: "jpeg" (a twelfth of the size, with the loss of `quality`) or "raw" (no loss, and nothing to decode).
        side: the shorter side of each image, which is scaled down or up to that, exactly as transforms.Resize(side) does.
        workers: threads; by default one for each core. (Pillow lets others work while it decodes and scales.)
        shard_bytes: a shard ends before it would grow beyond this; an interruption costs the work on one shard.
        progress: show a bar on stderr.
        on_bad: "raise", or "skip" to leave out images that cannot be read, and list them in the set's `skipped`.

    Raises DataError: an image cannot be read (named), there is nothing to pack, or the destination holds something else (other files,
    another source, other settings). OSError if the disk refuses; complete shards stay, and nothing incomplete.
    """
    if format not in ("jpeg", "raw") or on_bad not in ("raise", "skip"):
        raise ValueError(f'pack: format is "jpeg" or "raw", not {format!r}, and on_bad is "raise" or "skip", not {on_bad!r}')
    if not (1 <= side <= LONGEST and 1 <= quality <= 100 and shard_bytes > 0 and (workers is None or workers > 0)):
        raise ValueError(f"pack: side {side}, quality {quality}, shard_bytes {shard_bytes} or workers {workers} is out of range")
    settings = {"format": format, "side": side, "quality": quality if format == "jpeg" else None, "shard_bytes": shard_bytes}
    folder, workers = pathlib.Path(destination), workers or parallel.cores()
    if len(source) == 0:
        raise DataError(f"{describe(source)}: no images; there is nothing to pack")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        others = sorted(path.name for path in folder.iterdir() if not OURS.fullmatch(path.name))
        if others:
            raise DataError(f"{folder}: holds something else ({others[0]}); give an empty folder, or a name for a new one")
        for left in folder.glob("*.tmp"):               # by a run that was killed
            left.unlink()
    shards: list[pathlib.Path] = []
    start = 0
    with tqdm(total=len(source), unit=" images", dynamic_ncols=True, disable=not progress) as bar:
        while start < len(source):
            path = shard_path(folder, len(shards))
            if path.exists():
                check_same(path, source, start, settings)
            else:
                write_shard(path, source, start, settings, workers, on_bad, bar)
            shards.append(path)
            start = read_end(path)[2]["next"]
            bar.update(start - bar.n)
    if shard_path(folder, len(shards)).exists():
        raise another(folder, f"there is a {shard_path(folder, len(shards)).name} too many")
    contents = describe_set(source, settings, shards)
    with replacing(folder / CONTENTS) as file:
        file.write(json.dumps(contents, indent=1).encode())
    return Packed(folder)


def write_shard(path, source, start, settings, workers, on_bad, bar):
    """The shard that begins with image number `start`: up to the image that does not fit any more, or to the last."""
    rows: list[np.ndarray] = []
    skipped, offset = [], 0
    numbers = range(start, len(source))
    encoded = ahead(lambda i: encode(source, i, settings), numbers, workers)
    with contextlib.closing(encoded), replacing(path) as file:
        for number, (data, name, fields, reason) in zip(numbers, encoded, strict=True):
            if reason and on_bad == "raise":
                raise DataError(reason)
            if reason:
                skipped.append([number, name.decode(errors="replace"), reason])
                continue
            if rows and offset + len(data) + len(name) > settings["shard_bytes"]:
                break
            row = np.array((offset, len(data), *fields[:3], len(name), fields[3], 0), ROW)
            row["crc"] = zlib.crc32(name, zlib.crc32(data, zlib.crc32(row.tobytes()[:-4])))
            file.write(data)
            file.write(name)
            rows.append(row)
            offset += len(data) + len(name)
            bar.update()
        else:
            number = len(source)
        if not rows:
            raise DataError(f"{describe(source)}: not one of {len(source) - start} images can be read; the first: {skipped[0][2]}")
        about = {"settings": settings, "classes": list(source.classes), "first": start, "next": number, "skipped": skipped}
        write_end(file, np.array(rows, ROW), offset, about)


def encode(source, i, settings):
    """Image i as it is stored: (its bytes, its name, (height, width, label, channels), None); or, the last, why it cannot be."""
    name, side = stored_name(source, i), settings["side"]
    try:
        picture, label = source.picture(i, side) if hasattr(source, "picture") else source[i]
        if picture.dtype != np.uint8 or picture.shape[2:] not in ((1,), (3,)) or not 0 <= label < len(source.classes):
            raise DataError(f"{name.decode()}: {picture.dtype} of shape {tuple(picture.shape)} and class {label}; uint8 (H, W, 3 or 1) "
                            f"and a class from 0 to {len(source.classes) - 1} are wanted")
        scaled = Resize(side)(picture)                          # a Picture: its pixels are not computed yet
        H, W, C = scaled.shape
        if max(H, W) > LONGEST or H * W > MOST:
            raise DataError(f"{name.decode()}: too long and thin: it would have {H} x {W} pixels; remove it")
        pixels = np.asarray(scaled)
        if settings["format"] == "raw":
            return pixels.tobytes(), name, (H, W, label, C), None
        file = io.BytesIO()             # baseline and 4:2:0 are quick to decode; optimize makes it 3 % smaller, at no cost to who decodes
        to_image(pixels).save(file, "JPEG", quality=settings["quality"], subsampling="4:2:0", optimize=True)
        return file.getvalue(), name, (H, W, label, C), None
    except DataError as error:
        return b"", name, (), str(error)
    except OSError as error:
        return b"", name, (), f"{name.decode()}: this image cannot be read or stored ({error}); replace it or remove it"


def check_same(path, source, start, settings):
    """The shard at `path` is what packing from image number `start` on would give; or a DataError. (Only its first image is made.)"""
    rows, _, about = read_end(path)
    if about["settings"] != settings:
        raise another(path.parent, f"{about['settings']} and not {settings}")
    if about["classes"] != list(source.classes) or about["first"] != start or about["next"] > len(source):
        raise another(path.parent, f"other classes or another number of images, as {path.name} says")
    left_out = {number for number, _, _ in about["skipped"]}
    numbers = [number for number in range(start, about["next"]) if number not in left_out]
    with open(path, "rb", buffering=0) as file:
        for number, at, length in zip(numbers, (rows["offset"] + rows["length"]).tolist(), rows["name"].tolist(), strict=True):
            file.seek(at)
            if (name := file.read(length)) != stored_name(source, number):
                raise another(path.parent, f"image {number} was {name.decode(errors='replace')}")
        data, _, fields, _ = encode(source, numbers[0], settings)
        file.seek(0)
        if file.read(len(data)) != data or tuple(rows[0][["height", "width", "label", "channels"]].item()) != fields:
            raise another(path.parent, f"image {numbers[0]} had other pixels or another class, or was packed by another version of Pillow")


def another(folder, what):
    return DataError(f"{folder}: was begun from another source or with other settings ({what}); give another folder, or delete this one")


def describe_set(source, settings, shards):
    """The contents of minicnn-pack.json."""
    ends = [(path.stat().st_size, *read_end(path)) for path in shards]
    labels = np.concatenate([rows["label"] for _, rows, _, _ in ends])
    contents = {**HEADER, "classes": list(source.classes), "images": len(labels),
                "counts": np.bincount(labels, minlength=len(source.classes)).tolist(), "settings": settings, "source": describe(source),
                "skipped": [entry for _, _, _, about in ends for entry in about["skipped"]],
                "shards": [{"bytes": size, "images": len(rows), "table": table} for size, rows, table, _ in ends]}
    return {**contents, "fingerprint": fingerprint(contents, shards)}


def describe(source):
    """The kind of data set and the name of its folder, if it has one."""
    return " ".join([type(source).__name__, *([pathlib.Path(source.root).absolute().name] if hasattr(source, "root") else [])])


def stored_name(source, i):
    """The name of image i: of a file, where it is below the root, so that the set is the same wherever that is."""
    name = source.name(i) if hasattr(source, "name") else f"image {i}"
    if hasattr(source, "root"):
        name = name.removeprefix(os.path.join(source.root, ""))
    return name.encode("utf-8", "backslashreplace")[:65535]
