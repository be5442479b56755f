"""A picture file, whatever is in it, becomes an upright RGB picture, or an error that names the file.

The content decides how a file is read, not its name: ImageNet has a PNG that is called .JPEG. What else there is, and what becomes of it:

    CMYK                            RGB (as Adobe writes it: inverted)
    grey, palette, 1 bit            RGB
    16 bits                         the upper 8 of them
    transparent                     laid on white, as most programs show it
    animated                        the first frame
    taken sideways (EXIF)           turned upright; EXIF data that are broken are passed over
    truncated, empty, no image,     DataError
    more pixels than Pillow allows
"""

import codecs
import contextlib
import os
import struct
import threading
import warnings

import numpy as np
from PIL import Image, UnidentifiedImageError

from minicnn.data.datasets.files import DataError, shown
from minicnn.data.picture import Picture

IMAGE_FILES = {".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
QUIETLY = threading.Lock()          # warnings.catch_warnings changes the whole process: one thread at a time

TO_UPRIGHT = {                      # EXIF's orientation, and what undoes it
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}


def read_image(path):
    """A picture file as RGB, upright, uint8 (H, W, 3). DataError that names the file if it cannot be read."""
    return np.asarray(read_picture(path))


def read_picture(path, at_least=None):
    """A picture file as a `Picture`, RGB and upright. DataError that names the file if it cannot be read.

    Args:
        at_least: how many pixels of the shorter side are enough. A large JPEG is then decoded to 1/2, 1/4 or 1/8 of its size,
            which is several times as fast, and never to less than this.
    """
    try:
        with open(path, "rb") as file:
            return Picture(decoded(opened(file), at_least))
    except Exception as error:          # decoders meet any bytes there are, and raise whatever they stumble on
        raise DataError(explained(path, error)) from error


def opened(file):
    """A file, open for reading, as a Pillow image of which only the header was read."""
    with QUIETLY, warnings.catch_warnings():
        warnings.simplefilter("ignore")                                     # of broken EXIF, say: it does not matter here
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return Image.open(file)


def decoded(image, at_least=None):
    """The pixels of an opened image, RGB and upright."""
    if at_least and min(image.size) >= 2 * at_least:
        image.draft(None, (at_least, at_least))         # only JPEG knows how; the others leave it
    image.load()
    turn = TO_UPRIGHT.get(orientation(image.info.get("exif")))
    image = rgb(image)
    return image if turn is None else image.transpose(turn)


def rgb(image):
    """Any image as RGB."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError(f"its pixels are {'floats' if image.mode == 'F' else '32-bit integers'}, of which nobody knows what is white")
    if image.mode in ("LA", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def orientation(exif):
    """1 to 8, as EXIF data tell: an order of bytes, then a table of tags, 12 bytes each. 1 (upright) if they do not, or are broken.

    (Pillow's own reader fails on broken data; many of ImageNet's photographs have some.)
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


def explained(path, error):
    """What an error in reading this file means, and what to do: the message of a DataError."""
    reason, cure = str(error) or type(error).__name__, "replace it or remove it"
    if isinstance(error, UnidentifiedImageError):
        reason = what_it_is(path)
    elif isinstance(error, PermissionError):
        reason, cure = "no permission", "allow reading it, or remove it"
    elif isinstance(error, FileNotFoundError):
        reason, cure = "no such file" + (": a link to nowhere" if os.path.islink(path) else ""), "put it back, or remove its name"
    elif isinstance(error, IsADirectoryError):
        reason = "a folder"
    elif isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        reason = f"more than the {Image.MAX_IMAGE_PIXELS} pixels that Pillow allows, against files made to fill the memory"
        cure = "scale it down, or remove it"
    return f"{shown(path)}: this image cannot be read ({reason}); {cure}"


def what_it_is(path):
    """What is in a file that is no image."""
    try:
        with open(path, "rb") as file:
            head = file.read(200)
    except OSError as error:
        return str(error)
    if not head:
        return "the file is empty"
    with contextlib.suppress(UnicodeDecodeError):
        text = codecs.getincrementaldecoder("utf-8")().decode(head)         # its last letter may be cut
        if all(letter >= " " or letter in "\t\n\r" for letter in text):
            return f"it is text: {text[:30]!r}"
    return "its content is no known kind of image, or only the beginning of one"
