"""The filters of the first layer, as images: the paper's figure 3."""

from typing import TYPE_CHECKING, Any

import numpy as np

from minicnn.backend.arrays import ceil_div
from minicnn.visualize.figures.common import PLAIN_TEXT, FilePath, figure_class, save_figure, show_pixels

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def filters(weight: Any, path: FilePath, title: str = "") -> "Figure":
    """Draw the filters of a first layer as a grid of images, as a PNG.

    Args:
        weight: (O, C, KH, KW), on the CPU, with C = 1 or 3 channels. Each filter is scaled to its own largest magnitude; grey is 0.
        path: file to write.

    Returns the Figure. Source: AlexNet, figure 3.
    """
    weight = np.asarray(weight, np.float32)
    columns = int(np.ceil(np.sqrt(len(weight) * 2)))
    rows = ceil_div(len(weight), columns)
    figure = figure_class()(figsize=(columns * 0.8, rows * 0.8 + 0.5), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, w in zip(grid.flat, weight, strict=False):
        show_pixels(axes, 0.5 + 0.5 * w.transpose(1, 2, 0) / max(np.abs(w).max(), 1e-12), 1)
    for axes in grid.flat:
        axes.axis("off")
    figure.suptitle(title or f"first layer: {len(weight)} filters of {weight.shape[2]} x {weight.shape[3]}", **PLAIN_TEXT)
    return save_figure(figure, path)
