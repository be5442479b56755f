"""Feature maps: the output of every layer for one image, channels as tiles, the units of a linear layer as a strip.

Red is positive, blue negative, white zero. Each layer with parameters starts a row; the layers without that follow it share the row.
"""

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from minicnn.backend.arrays import to_device
from minicnn.inspect.activations import capture_activations
from minicnn.nn.module import Module
from minicnn.visualize.figures.common import PLAIN_TEXT, FilePath, batch_of_one, figure_class, make_grid, save_figure, show_image

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH, GAP, TEXT = 12.0, 0.12, 0.24             # inches: the page, the gap between two panels, the line above a panel
MAPS_HEIGHT, STRIP_HEIGHT = 2.4, 0.55           # inches: a panel of feature maps, a strip of units
MAX_PANELS = 4                                  # in a row
COLOR_QUANTILE = 0.998                          # this fraction of the magnitudes is within the colour scale


class Panel(NamedTuple):
    """One array and its box on the page; the box in inches from the left edge, and within its row."""

    name: str
    array: Any              # (C, H, W) or (K,); of the image (H, W, C) uint8
    grid: Any               # what is drawn, (rows, columns) with NaN for gaps; None for the image
    left: float
    width: float
    height: float


def feature_maps(model: Module, x: Any, path: FilePath, image: Any = None, title: str = "") -> "Figure":
    """Draw the output of each layer of a network for one image, in evaluation mode, as a PNG.

    Args:
        model: a Module, on either device.
        x: one input of it, (C, H, W) float32, a Tensor or an array.
        path: file to write.
        image: the image before normalization, (H, W, C) uint8, in any size; drawn first.

    Layers that return their input unchanged (dropout in evaluation) are named and not drawn. Each panel gives the shape and the range
    of its array; its colour scale reaches to the 99.8th percentile of the magnitudes. Returns the Figure.
    Source: Zeiler and Fergus 2013 (arXiv:1311.2901) show such maps, for few channels.
    """
    x = batch_of_one("feature_maps", model, x)
    layers = capture_activations(model, x).layers
    identities = [name for name, layer in layers.items() if not layer.functions]
    rows = [[("input", to_device(x[0], "cpu"))]]
    for name, layer in layers.items():
        if layer.functions:
            if layer.parameters or len(rows[-1]) == MAX_PANELS or len(rows) == 1:
                rows.append([])
            rows[-1].append((name, to_device(layer.output[0], "cpu")))
    if image is not None:
        rows[0].insert(0, ("image", image))
    panels = [lay_out(row, first=row is rows[0]) for row in rows]
    heights = [TEXT + max(panel.height for panel in row) for row in panels]
    H = sum(heights) + GAP * len(rows) + 0.62
    figure = figure_class()(figsize=(WIDTH, H))
    note = "red: positive, white: 0, blue: negative; each panel has its own scale"
    if identities:
        note += f"; not drawn, as they return their input unchanged: {', '.join(identities)}"
    figure.text(0.5, 1 - 0.2 / H, title or "feature maps of each layer", ha="center", va="center", fontsize=12, **PLAIN_TEXT)
    figure.text(0.5, 1 - 0.42 / H, note, ha="center", va="center", fontsize=8, color="0.35", **PLAIN_TEXT)
    top = H - 0.55
    for row, row_height in zip(panels, heights, strict=True):
        for panel in row:
            box = (panel.left / WIDTH, (top - TEXT - panel.height) / H, panel.width / WIDTH, panel.height / H)
            axes = figure.add_axes(box, anchor="NW", label=panel.name)
            if panel.grid is None:
                show_image(axes, panel.array)
            else:
                show_signed(axes, panel.grid)
            text = panel.name if panel.grid is None else f"{panel.name}   {caption(panel.array)}"
            axes.set_title(text, fontsize=8, loc="left", pad=3, **PLAIN_TEXT)
        top -= row_height + GAP
    return save_figure(figure, path, dpi=130)


def lay_out(row: list[tuple[str, Any]], first: bool) -> list[Panel]:
    """The panels of one row, side by side across the page; in the first row the image is narrow and the input beside it wide."""
    unit = (WIDTH - GAP) / (MAX_PANELS if first else len(row))
    panels, left = [], GAP
    for name, array in row:
        is_image = first and name == "image"
        width = (unit * (MAX_PANELS - 1) if first and not is_image and len(row) > 1 else unit) - GAP
        height = MAPS_HEIGHT if array.ndim == 3 else STRIP_HEIGHT
        grid = None if is_image else channel_grid(array, width / height)
        if grid is not None:
            height = min(height, width * grid.shape[0] / grid.shape[1])             # no higher than its tiles need
        panels.append(Panel(name, array, grid, left, width, height))
        left += width + GAP
    return panels


def show_signed(axes: Any, grid: Any) -> None:
    """Draw an array of signed numbers in blue, white and red; NaN are grey."""
    import matplotlib
    magnitudes = np.abs(grid)
    limit = float(np.nanquantile(magnitudes, COLOR_QUANTILE)) or float(np.nanmax(magnitudes)) or 1.0
    colours = matplotlib.colormaps["RdBu_r"].with_extremes(bad="0.72")
    axes.imshow(grid, cmap=colours, vmin=-limit, vmax=limit, interpolation="nearest")
    axes.set_axis_off()


def channel_grid(array: Any, aspect: float) -> Any:
    """Feature maps (C, H, W) as tiles with gaps of NaN, in a grid about `aspect` times as wide as high; units (K,) a pixel each."""
    if array.ndim < 3:
        maps, gap = array.reshape(-1, 1, 1), 0
    else:
        zoom = max(1, 24 // max(array.shape[1:]))               # small maps are enlarged, so that the gaps are thin beside them too
        maps = array.repeat(zoom, axis=1).repeat(zoom, axis=2)
        gap = max(1, round(0.03 * max(maps.shape[1:])))
    C, H, W = maps.shape
    columns = choose_columns(C, math.sqrt(C * aspect * (H + gap) / (W + gap)))
    return make_grid(maps.astype(np.float32, copy=False), columns, gap, np.nan)


def choose_columns(count: int, preferred: float) -> int:
    """A number of columns for `count` tiles near the preferred one, if possible one that fills every row."""
    preferred = min(max(preferred, 1), count)
    even = [n for n in range(1, count + 1) if count % n == 0 and preferred / 1.5 <= n <= preferred * 1.5]
    return min(even, key=lambda n: abs(math.log(n / preferred))) if even else round(preferred)


def caption(array: Any) -> str:
    """Shape and range: 96 × 55 × 55   -1.2 … 3.4"""
    return f"{' × '.join(map(str, array.shape))}   {array.min():.2g} … {array.max():.2g}"
