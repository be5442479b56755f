"""Image files of any format, read as upright RGB images, or rejected with an error that names the file.

The content decides how a file is decoded, not its name: ImageNet has a PNG named .JPEG. How the other cases are converted:

    CMYK                            RGB (as Adobe writes it: inverted)
    grey, palette, 1 bit            RGB
    16 bits                         the upper 8 of them
    transparent                     composited over white, as most programs show it
    animated                        the first frame
    EXIF orientation                rotated upright; broken EXIF data are ignored
    truncated, empty, no image,     DataError
    more pixels than Pillow allows
"""

import codecs
import contextlib
import os
import struct
import threading
import warnings
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from minicnn.data.datasets.files import DataError, printable_path
from minicnn.data.lazy_image import LazyImage

IMAGE_FILES = {".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
WARNINGS_LOCK = threading.Lock()    # warnings.catch_warnings changes the whole process: one thread at a time

TO_UPRIGHT = {                      # EXIF's orientation, and the transpose that undoes it
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """The image in a file: RGB, upright, uint8 (H, W, 3). Raises DataError, which names the file, if it cannot be read."""
    return np.asarray(read_lazy_image(path))


def read_lazy_image(path: str | os.PathLike[str], min_size: int | None = None) -> LazyImage:
    """The image in a file as a `LazyImage`: RGB, upright. Raises DataError, which names the file, if it cannot be read.

    Args:
        path: the file.
        min_size: pixels that the shorter side must keep. A large JPEG is then decoded at 1/2, 1/4 or 1/8 of its size, which is
            several times as fast, and never below this.
    """
    try:
        with open(path, "rb") as file:
            return LazyImage(decode(open_image(file), min_size))
    except Exception as error:          # decoders are fed arbitrary bytes, and raise many kinds of exception
        raise DataError(explain_error(path, error)) from error


def open_image(file: BinaryIO) -> Any:
    """A file that is open for reading as a Pillow image; only the header has been read."""
    with WARNINGS_LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")                                     # about broken EXIF, for instance, which is ignored
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return Image.open(file)


def decode(image: Any, min_size: int | None = None) -> Any:
    """The pixels of an opened Pillow image as an RGB image, upright."""
    if min_size and min(image.size) >= 2 * min_size:
        image.draft(None, (min_size, min_size))         # only JPEG supports this; other formats ignore it
    image.load()
    transpose = TO_UPRIGHT.get(orientation(image.info.get("exif")))
    image = rgb(image)
    return image if transpose is None else image.transpose(transpose)


def rgb(image: Any) -> Any:
    """Any Pillow image as RGB."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError(f"its pixels are {'floats' if image.mode == 'F' else '32-bit integers'}, whose range is unknown")
    if image.mode in ("LA", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def orientation(exif: Any) -> int:
    """The orientation in EXIF data (bytes or None), 1 to 8; 1 (upright) if they have none or are broken.

    EXIF data are a byte order, then a table of tags, 12 bytes each. (Pillow's own reader fails on broken data; many of ImageNet's
    photographs have some.)
    """
    try:
        tiff = exif.removeprefix(b"Exif\0\0")
        order = {b"II": "<", b"MM": ">"}[tiff[:2]]
        table, = struct.unpack_from(order + "I", tiff, 4)
        entries, = struct.unpack_from(order + "H", tiff, table)
        for entry in range(entries):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", tiff, table + 2 + 12 * entry)
            if (tag, kind) == (0x0112, 3):              # 3: a 16-bit number
                return value if 1 <= value <= 8 else 1
    except (AttributeError, KeyError, struct.error):
        pass
    return 1


def explain_error(path: str | os.PathLike[str], error: Exception) -> str:
    """The message of a DataError: why this file cannot be read, and what to do."""
    reason, remedy = str(error) or type(error).__name__, "replace it or remove it"
    if isinstance(error, UnidentifiedImageError):
        reason = sniff_content(path)
    elif isinstance(error, PermissionError):
        reason, remedy = "no permission", "allow reading it, or remove it"
    elif isinstance(error, FileNotFoundError):
        reason, remedy = ("broken symbolic link" if os.path.islink(path) else "no such file"), "restore it, or remove it from the data set"
    elif isinstance(error, IsADirectoryError):
        reason = "a folder"
    elif isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        reason = f"more than the {Image.MAX_IMAGE_PIXELS} pixels that Pillow allows, a limit against decompression bombs"
        remedy = "scale it down, or remove it"
    return f"{printable_path(path)}: this image cannot be read ({reason}); {remedy}"


def sniff_content(path: str | os.PathLike[str]) -> str:
    """A description of a file that is not an image."""
    try:
        with open(path, "rb") as file:
            head = file.read(200)
    except OSError as error:
        return str(error)
    if not head:
        return "the file is empty"
    with contextlib.suppress(UnicodeDecodeError):
        text = codecs.getincrementaldecoder("utf-8")().decode(head)         # the last character may be incomplete
        if all(character >= " " or character in "\t\n\r" for character in text):
            return f"it is text: {text[:30]!r}"
    return "not a known image format, or only the beginning of a file"
