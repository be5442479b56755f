"""The answer of every layer to one image: channels as tiles, the numbers of a linear layer as a strip.

Red is positive, blue negative, white zero. A row begins at each layer that has parameters; what follows it without any is beside it.
"""

import math

import numpy as np

from minicnn.backend import to_device
from minicnn.study.figures.canvas import AS_IT_IS, figure_class, one_input, saved, show_picture
from minicnn.study.inside import look_inside

WIDTH, GAP, TEXT = 12.0, 0.12, 0.24             # inches: of the page, between two panels, and of the line above a panel
TALL, FLAT = 2.4, 0.55                          # inches: of a panel of tiles, of a strip
BESIDE = 4                                      # panels in a row, at most
STRONGEST = 0.998                               # this part of the numbers is within the range of the colours


def feature_maps(model, x, path, picture=None, title=""):
    """Draw what each layer of a network answers to one image, in evaluation mode, as a PNG.

    Args:
        model: a Module, on either device.
        x: one input of it, (C, H, W) float32, a Tensor or an array.
        path: of the file.
        picture: the image as a user knows it, (H, W, C) uint8, in any size; shown first.

    Layers that hand on what they got (dropout in a test) are named and not drawn. Each panel tells the shape and the range of its
    numbers; its colours reach to the 99.8th percentile of their magnitudes. Returns the Figure. Source: Zeiler and Fergus 2013 show
    such maps, for few channels.
    """
    x = one_input("feature_maps", model, x)
    layers = look_inside(model, x).layers
    idle = [name for name, layer in layers.items() if not layer.functions]
    rows = [[("input", to_device(x[0], "cpu"))]]
    for name, layer in layers.items():
        if layer.functions:
            if layer.parameters or len(rows[-1]) == BESIDE or len(rows) == 1:
                rows.append([])
            rows[-1].append((name, to_device(layer.output[0], "cpu")))
    if picture is not None:
        rows[0].insert(0, ("the image", picture))
    panels = [place(row, first=row is rows[0]) for row in rows]
    heights = [TEXT + max(height for *_, height in row) for row in panels]
    H = sum(heights) + GAP * len(rows) + 0.62
    figure = figure_class()(figsize=(WIDTH, H))
    note = "red: positive, white: 0, blue: negative; each panel has its own scale"
    note += f"; not drawn, they hand on what they get: {', '.join(idle)}" * bool(idle)
    figure.text(0.5, 1 - 0.2 / H, title or "what each layer answers", ha="center", va="center", fontsize=12, **AS_IT_IS)
    figure.text(0.5, 1 - 0.42 / H, note, ha="center", va="center", fontsize=8, color="0.35", **AS_IT_IS)
    top = H - 0.55
    for row, row_height in zip(panels, heights, strict=True):
        for name, array, sheet, left, width, height in row:
            box = (left / WIDTH, (top - TEXT - height) / H, width / WIDTH, height / H)
            axes = figure.add_axes(box, anchor="NW", label=name)
            if name == "the image":
                show_picture(axes, array)
            else:
                show_numbers(axes, sheet)
            axes.set_title(f"{name}   {caption(array)}" if name != "the image" else name, fontsize=8, loc="left", pad=3, **AS_IT_IS)
        top -= row_height + GAP
    return saved(figure, path, dpi=130)


def place(row, first):
    """[(name, array, its sheet of tiles, left, width, height)] in inches: side by side across the page (the first row: narrow, wide)."""
    unit = (WIDTH - GAP) / (BESIDE if first else len(row))
    found, left = [], GAP
    for name, array in row:
        width = (unit * (BESIDE - 1) if first and name != "the image" and len(row) > 1 else unit) - GAP
        height = TALL if array.ndim == 3 else FLAT
        sheet = None if name == "the image" else tiles(array, width / height)
        if sheet is not None:
            height = min(height, width * sheet.shape[0] / sheet.shape[1])           # no higher than its tiles are
        found.append((name, array, sheet, left, width, height))
        left += width + GAP
    return found


def show_numbers(axes, sheet):
    """A sheet of signed numbers; NaN are gaps."""
    import matplotlib
    strongest = float(np.nanquantile(np.abs(sheet), STRONGEST)) or float(np.nanmax(np.abs(sheet))) or 1.0
    colours = matplotlib.colormaps["RdBu_r"].with_extremes(bad="0.72")          # where there is no number: the gaps
    axes.imshow(sheet, cmap=colours, vmin=-strongest, vmax=strongest, interpolation="nearest")
    axes.set_axis_off()


def tiles(array, aspect):
    """The channels (C, H, W), gaps of NaN between them, as one sheet about `aspect` times as wide as high; (K,): K channels of a pixel."""
    maps = array if array.ndim == 3 else array.reshape(-1, 1, 1)
    zoom = max(1, 24 // max(maps.shape[1:])) if array.ndim == 3 else 1          # a gap is thin beside small maps, too
    maps = maps.repeat(zoom, axis=1).repeat(zoom, axis=2)
    C, H, W = maps.shape
    gap = 0 if array.ndim < 3 else max(1, round(0.03 * max(H, W)))
    columns = columns_of(C, math.sqrt(C * aspect * (H + gap) / (W + gap)))
    rows = -(-C // columns)
    sheet = np.full((rows * columns, H + gap, W + gap), np.nan, np.float32)
    sheet[:C, :H, :W] = maps
    sheet = sheet.reshape(rows, columns, H + gap, W + gap).transpose(0, 2, 1, 3).reshape(rows * (H + gap), columns * (W + gap))
    return sheet[:rows * (H + gap) - gap, :columns * (W + gap) - gap]


def columns_of(count, wanted):
    """About so many columns for `count` tiles as are wanted; if it can be, so many that no row is left half empty."""
    wanted = min(max(wanted, 1), count)
    even = [n for n in range(1, count + 1) if count % n == 0 and wanted / 1.5 <= n <= wanted * 1.5]
    return min(even, key=lambda n: abs(math.log(n / wanted))) if even else round(wanted)


def caption(array):
    """Shape and range: 96 × 55 × 55   -1.2 ... 3.4"""
    return f"{' × '.join(map(str, array.shape))}   {array.min():.2g} … {array.max():.2g}"
