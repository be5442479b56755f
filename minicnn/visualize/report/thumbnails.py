"""Arrays as small images, each a data URL of a few hundred bytes: red is positive, blue negative, white zero.

The colour scale is the square root of |x| / largest |x|, so that small values are visible too.
"""

import base64
import io
import math
from typing import Any

import numpy as np
from PIL import Image

from minicnn.backend.arrays import ceil_div
from minicnn.data.lazy_image import to_pillow
from minicnn.visualize.figures.common import make_grid

LEVELS = 7                              # shades of red, and as many of blue; with white and grey, 16 colours: 4 bits a pixel
GAP = NOT_FINITE = 15                   # the last colour, grey: between two tiles, and where a value is NaN or infinite
MAX_TILE = 28                           # pixels, the side of a tile: larger maps are averaged down to it
MAX_UNITS = 4096                        # drawn of a layer without channels
MAX_CHANNELS = {20: 12, 8: 20, 0: 32}   # channels drawn of maps whose shorter side is at least so many pixels
RED, BLUE, WHITE = np.array([178, 24, 43]), np.array([33, 102, 172]), np.array([255, 255, 255])


def make_palette() -> list[int]:
    """The 16 colours as [r, g, b, r, ...]."""
    blues = [WHITE + (BLUE - WHITE) * level / LEVELS for level in range(LEVELS, 0, -1)]
    reds = [WHITE + (RED - WHITE) * level / LEVELS for level in range(1, LEVELS + 1)]
    return [round(c) for shade in [*blues, WHITE, *reds, np.array([140, 140, 140])] for c in shade]


PALETTE = make_palette()


def quantize(array: np.ndarray, limit: float) -> np.ndarray:
    """Palette indices, uint8, of an array's values; `limit` is the magnitude that gets the strongest colours."""
    with np.errstate(invalid="ignore"):
        share = np.clip(np.abs(array) / max(limit, 1e-30), 0, 1)
        index = LEVELS + np.rint(LEVELS * np.sqrt(share)) * np.sign(array)
    return np.where(np.isfinite(array), index, NOT_FINITE).astype(np.uint8)


def select_channels(channels: int, side: int) -> np.ndarray:
    """Indices of the channels that are drawn, evenly spread, of maps whose shorter side is `side` pixels."""
    count = next(count for min_side, count in MAX_CHANNELS.items() if side >= min_side)
    return np.unique(np.linspace(0, channels - 1, min(channels, count)).astype(int))


def activation_tiles(array: Any) -> np.ndarray:
    """A layer's output for one image, or the gradient with respect to it, as palette indices: tiles of (C, H, W), or a pixel for each
    of K units."""
    array = np.asarray(array, np.float32)
    if array.ndim == 3:
        maps = array[select_channels(len(array), min(array.shape[1:]))]
        maps = average_pool(maps, ceil_div(max(maps.shape[1:]), MAX_TILE))
    else:
        flat = array.reshape(-1)[:MAX_UNITS]
        columns = flat.size if flat.size <= 40 else 2 ** math.ceil(math.log2(math.sqrt(flat.size)))
        rows = ceil_div(flat.size, columns)
        maps = np.pad(flat, (0, rows * columns - flat.size), constant_values=np.nan).reshape(1, rows, columns)
    return tile(quantize(maps, largest(maps)))


def average_pool(maps: np.ndarray, factor: int) -> np.ndarray:
    """Means over squares of factor x factor pixels of maps (C, H, W); incomplete squares at the right and bottom are dropped."""
    if factor == 1:
        return maps
    C, H, W = maps.shape
    H, W = H // factor * factor, W // factor * factor
    return maps[:, :H, :W].reshape(C, H // factor, factor, W // factor, factor).mean(axis=(2, 4))


def tile(maps: np.ndarray, columns: int | None = None) -> np.ndarray:
    """Palette indices (C, H, W) in a grid, a pixel apart; by default a little wider than high."""
    return make_grid(maps, columns or min(len(maps), math.ceil(math.sqrt(len(maps) * 1.4))), 1, GAP)


def weight_url(weight: np.ndarray) -> str:
    """A layer's weights, or their gradient, as an image: filters of a first layer (O, 3, KH, KW) in colours, others as tiles."""
    return colour_filters(weight) if weight.ndim == 4 and weight.shape[1] == 3 else data_url(weight_tiles(weight))


def weight_tiles(weight: Any) -> np.ndarray:
    """Weights as palette indices: of filters (O, C, KH, KW) a selection, their first channels below each other; of (O, I) the top left."""
    weight = np.asarray(weight, np.float32)
    if weight.ndim == 4:
        O, C, KH, KW = weight.shape
        if C == 1:
            return tile(quantize(weight[:64, 0], largest(weight)))
        some = weight[np.linspace(0, O - 1, min(O, 16)).astype(int)][:, :6]
        maps = quantize(some.transpose(1, 0, 2, 3).reshape(-1, KH, KW), largest(some))
        return tile(maps, columns=len(some))                        # a row for each channel, a column for each filter
    return quantize(weight[:64, :96], largest(weight[:64, :96]))


def colour_filters(weight: Any) -> str:
    """Filters of a first layer (O, 3, KH, KW) as a data URL of an image like the paper's figure 3: each scaled to its own largest
    magnitude, grey is 0; 16 shades of each colour."""
    weight = np.nan_to_num(np.asarray(weight, np.float32))[:48]
    share = weight / np.maximum(np.abs(weight).max(axis=(1, 2, 3), keepdims=True), 1e-30)
    shades = np.rint(7.5 + 7.5 * share).astype(np.uint8) * 17                                           # (O, 3, KH, KW)
    image = np.stack([tile(shades[:, c]) for c in range(3)], axis=2)
    gaps = tile(np.ones_like(shades[:, 0])) == GAP
    image[gaps] = 255
    return encode(to_pillow(image))


def describe_selection(shape: tuple[int, ...]) -> str:
    """Which part of weights of this shape `weight_url` draws, to be appended to a caption; empty if all."""
    if len(shape) == 4 and shape[1] == 3:
        return f"; shown: {min(shape[0], 48)} of {shape[0]} filters in colours, each scaled to its own largest magnitude; grey is 0"
    if len(shape) == 4:
        O, C = shape[:2]
        if C == 1:
            return f"; shown: {min(O, 64)} of {O} filters"
        return f"; shown: {min(O, 16)} of {O} filters, a column each: their first {min(C, 6)} of {C} channels"
    O, I = shape
    return "" if O <= 64 and I <= 96 else f"; shown: the first {min(O, 64)} units (rows) and {min(I, 96)} inputs"


def largest(array: np.ndarray) -> float:
    """The largest finite magnitude; 1 if there is none."""
    finite = array[np.isfinite(array)]
    return float(np.abs(finite).max()) if finite.size else 1.0


def data_url(indices: np.ndarray) -> str:
    """Palette indices (H, W) as a PNG, in a data URL."""
    image = Image.frombytes("P", indices.shape[::-1], indices.tobytes())
    image.putpalette(PALETTE)
    return encode(image, bits=4, transparency=GAP)


def photo_url(pixels: np.ndarray) -> str:
    """An image (H, W, C), uint8, as a data URL of a PNG or, if it is large, of a JPEG."""
    image = to_pillow(pixels)
    return encode(image) if pixels.size <= 64 * 64 * 3 else encode(image, "JPEG", quality=85)


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> str:
    """A Pillow image as a data URL."""
    out = io.BytesIO()
    image.save(out, kind, optimize=True, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(out.getvalue()).decode()}"
