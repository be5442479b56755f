"""Arrays as small pictures: red is positive, blue negative, white zero. A few hundred bytes each, as text that a page can hold.

A colour stands for the root of a number's share of the largest magnitude: small ones would not be seen otherwise.
"""

import base64
import io
import math

import numpy as np
from PIL import Image

LEVELS = 7                      # shades of red, and as many of blue; with white and the gap between tiles, 16 colours: 4 bits
GAP, BAD = 15, 15               # the last colour: between two tiles, and where there is no number
WIDEST = 28                     # pixels of a tile: a larger map is averaged down to it
UNITS = 4096                    # of a layer that are shown, at most
TILES = {20: 12, 8: 20, 0: 32}  # how many channels are shown of maps whose side is at least so many pixels
RED, BLUE, WHITE = np.array([178, 24, 43]), np.array([33, 102, 172]), np.array([255, 255, 255])


def palette():
    """The 16 colours as [r, g, b, r, ...]."""
    shades = [WHITE + (end - WHITE) * level / LEVELS for end, level in
              [*((BLUE, level) for level in range(LEVELS, 0, -1)), (WHITE, 1), *((RED, level) for level in range(1, LEVELS + 1))]]
    return [round(c) for shade in [*shades, np.array([140, 140, 140])] for c in shade]


PALETTE = palette()


def levels(array, strongest):
    """Numbers as places in the palette, uint8; `strongest` is the magnitude of the strongest colour."""
    with np.errstate(invalid="ignore"):
        share = np.clip(np.abs(array) / max(strongest, 1e-30), 0, 1)
        place = LEVELS + np.rint(LEVELS * np.sqrt(share)) * np.sign(array)
    return np.where(np.isfinite(array), place, BAD).astype(np.uint8)


def shown(channels, side):
    """Which of so many channels a sheet shows, maps of `side` pixels: evenly spread."""
    most = next(count for at_least, count in TILES.items() if side >= at_least)
    return np.unique(np.linspace(0, channels - 1, min(channels, most)).astype(int))


def sheet(array):
    """A layer's answer for one image, or the gradient of it, as places in the palette: tiles (C, H, W), or one field (K,)."""
    array = np.asarray(array, np.float32)
    if array.ndim == 3:
        maps = array[shown(len(array), min(array.shape[1:]))]
        maps = shrunk(maps, -(-max(maps.shape[1:]) // WIDEST))
    else:                                                   # a pixel for each unit
        flat = array.reshape(-1)[:UNITS]
        columns = flat.size if flat.size <= 40 else 2 ** math.ceil(math.log2(math.sqrt(flat.size)))
        rows = -(-flat.size // columns)
        maps = np.pad(flat, (0, rows * columns - flat.size), constant_values=np.nan).reshape(1, rows, columns)
    return tiled(levels(maps, largest(maps)))


def shrunk(maps, factor):
    """Means over squares of factor x factor; what does not fill a square at the right and bottom is left out."""
    if factor == 1:
        return maps
    C, H, W = maps.shape
    H, W = H // factor * factor, W // factor * factor
    return maps[:, :H, :W].reshape(C, H // factor, factor, W // factor, factor).mean(axis=(2, 4))


def tiled(maps, columns=None):
    """Tiles (C, H, W) in a sheet, a pixel apart; it is a little wider than high, unless the number of columns is given."""
    C, H, W = maps.shape
    columns = columns or min(C, math.ceil(math.sqrt(C * 1.4)))
    rows = -(-C // columns)
    out = np.full((rows * (H + 1) - 1, columns * (W + 1) - 1), GAP, np.uint8)
    for i, tile in enumerate(maps):
        top, left = i // columns * (H + 1), i % columns * (W + 1)
        out[top:top + H, left:left + W] = tile
    return out


def filters(weight):
    """The weights of a layer as a sheet: of filters (O, C, KH, KW) some, their first channels below each other; of (O, I) a corner."""
    weight = np.asarray(weight, np.float32)
    if weight.ndim == 4:
        O, C, KH, KW = weight.shape
        if C == 1:
            return tiled(levels(weight[:64, 0], largest(weight)))
        some = weight[np.linspace(0, O - 1, min(O, 16)).astype(int)][:, :6]
        places = levels(some.transpose(1, 0, 2, 3).reshape(-1, KH, KW), largest(some))
        return tiled(places, columns=len(some))                     # a row for each channel, a column for each filter
    return levels(weight[:64, :96], largest(weight[:64, :96]))


def colour_filters(weight):
    """Filters of a first layer (O, 3, KH, KW) as the address of a picture like the paper's figure 3: each scaled to its own largest
    magnitude, grey is 0; 16 shades of each colour."""
    weight = np.nan_to_num(np.asarray(weight, np.float32))[:48]
    share = weight / np.maximum(np.abs(weight).max(axis=(1, 2, 3), keepdims=True), 1e-30)
    shades = np.rint(7.5 + 7.5 * share).astype(np.uint8) * 17                                           # (O, 3, KH, KW)
    sheet = np.stack([tiled(shades[:, c]) for c in range(3)], axis=2)
    gap = tiled(np.ones_like(shades[:, 0])) == GAP
    sheet[gap] = 255
    return encoded(Image.fromarray(sheet))


def part_of(shape):
    """What `filters` and `colour_filters` show of weights of this shape, in words that go on after others."""
    if len(shape) == 4 and shape[1] == 3:
        return f"; shown: {min(shape[0], 48)} of {shape[0]} filters in colours, each scaled to its own largest; grey is 0"
    if len(shape) == 4:
        O, C = shape[:2]
        few, of = (64, "") if C == 1 else (16, f", a column each: their first {min(C, 6)} of {C} channels")
        return f"; shown: {min(O, few)} of {O} filters{of}"
    O, I = shape
    return "" if O <= 64 and I <= 96 else f"; shown: the first {min(O, 64)} units (rows) and {min(I, 96)} inputs"


def largest(array):
    """The largest magnitude of those that are numbers; 1 if there is none."""
    finite = array[np.isfinite(array)]
    return float(np.abs(finite).max()) if finite.size else 1.0


def png(places):
    """Places in the palette (H, W) as a PNG, in the form of an address that an <img> takes."""
    image = Image.frombytes("P", places.shape[::-1], places.tobytes())
    image.putpalette(PALETTE)
    return encoded(image, bits=4, transparency=GAP)


def photograph(pixels):
    """An image (H, W, C), uint8, as the address of a PNG or, if it is large, of a JPEG."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    return encoded(image) if pixels.size <= 64 * 64 * 3 else encoded(image, "JPEG", quality=85)


def encoded(image, kind="PNG", **options):
    out = io.BytesIO()
    image.save(out, kind, optimize=True, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(out.getvalue()).decode()}"
