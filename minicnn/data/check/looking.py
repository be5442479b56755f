"""A look at one image: of all its bytes, or, in a hurry, of the first few."""

import dataclasses
import hashlib
import io
import os
import sys

from PIL import Image

from minicnn.data.datasets import DataError, FileDataset
from minicnn.data.datasets.images import decoded, explained, opened

HEAD = 4096                     # bytes that a fast look reads of each file
SAME = {"MPO": "JPEG"}          # cameras put several JPEGs into one file, and call it .jpg


@dataclasses.dataclass(slots=True)
class Look:
    """What was seen; `problem` is why the image cannot be read, or empty."""

    label: int = -1             # -1: not known, for the image cannot be read
    nbytes: int = 0
    width: int = 0
    height: int = 0
    kind: str = ""              # format and mode: "JPEG RGB"
    misnamed: bool = False      # it has another format than its name says
    digest: bytes = b""
    problem: str = ""


def look(everything, n, fast):
    """Look at image n: at its file if it has one."""
    dataset, i = everything.place(n)
    return look_at_file(dataset.name(i), int(dataset.labels[i]), fast) if isinstance(dataset, FileDataset) else look_at_item(dataset, i)


def look_at_item(dataset, i):
    try:
        image, label = dataset[i]
    except DataError as error:
        return Look(problem=str(error))
    H, W, C = image.shape
    kind = {1: "grey", 3: "RGB"}.get(C, f"{C} channels")
    return Look(label, image.nbytes, W, H, kind, digest=digest(repr(image.shape).encode(), image.tobytes()))


def look_at_file(path, label, fast):
    seen = Look(label)
    try:
        with open(path, "rb") as file:
            seen.nbytes = os.fstat(file.fileno()).st_size
            data = file.read(HEAD if fast else -1)
            seen.digest = digest(b"%d " % seen.nbytes, data)
            file.seek(0)
            image = opened(file if fast else io.BytesIO(data))
            seen.width, seen.height = image.size
            seen.kind = sys.intern(f"{image.format} {image.mode}")
            seen.misnamed = SAME.get(image.format, image.format) != Image.registered_extensions().get(os.path.splitext(path)[1].lower())
            if not fast:
                decoded(image, at_least=1)      # a JPEG to an eighth of its size: through all of its bytes all the same
    except Exception as error:                  # as in read_picture: decoders raise whatever they stumble on
        seen.problem = explained(path, error)
    return seen


def digest(*parts):
    """16 bytes that tell contents apart."""
    blake = hashlib.blake2b(digest_size=16)
    for part in parts:
        blake.update(part)
    return blake.digest()


def digest_of_file(path):
    """The digest of a whole file, a piece at a time; None if it cannot be read any more."""
    try:
        with open(path, "rb") as file:
            return digest(*iter(lambda: file.read(1 << 20), b""))
    except OSError:
        return None
