"""Predictions: images, and their five most probable classes: the paper's figure 4, left."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from minicnn.backend.arrays import ceil_div
from minicnn.visualize.figures.common import PLAIN_TEXT, FilePath, figure_class, remove_ticks, save_figure, show_image, truncate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TRUE_CLASS, OTHER_CLASS = "#e8836b", "#9dbbe0"          # colours of the bars


def predictions(images: Sequence[Any], probabilities: Any, labels: Any, classes: Sequence[str], path: FilePath, top_k: int = 5,
                columns: int = 4, title: str = "") -> "Figure":
    """Draw images with the true class under each, and bars of the most probable classes, the true one in red; as a PNG.

    Args:
        images: N images (H, W, C) uint8, of any size.
        probabilities: (N, classes), rows of softmax outputs, for instance from `minicnn.train.evaluation.predict`.
        labels: (N,) the true classes, ints.   classes: their names.
        path: file to write.
        top_k: number of bars, at most.   columns: images in a row, at most.

    Bars are from 0 to 1. Returns the Figure; axes are labelled "image 0", "bars 0", "image 1" and so on.
    Raises ValueError if the numbers of images, probabilities and labels differ.
    """
    probabilities = np.asarray(probabilities)
    N = len(images)
    if not N or probabilities.shape != (N, len(classes)) or np.shape(labels) != (N,):
        raise ValueError(f"predictions: for {N} images, probabilities must be ({max(N, 1)}, {len(classes)}) and labels ({max(N, 1)},), "
                         f"got {probabilities.shape} and {np.shape(labels)}")
    top_k, columns = min(top_k, len(classes)), min(columns, N)
    rows = ceil_div(N, columns)
    figure = figure_class()(figsize=(2.5 * columns, 3.75 * rows + 0.4), layout="constrained")
    grid = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=[2.2, 1.25] * rows)
    for axes in grid.flat[:]:
        axes.set_axis_off()
    for n, (image, p, label) in enumerate(zip(images, probabilities, np.asarray(labels).tolist(), strict=True)):
        above, below = grid[2 * (n // columns):2 * (n // columns) + 2, n % columns]
        above.set_label(f"image {n}")
        above.set_axis_on()
        show_image(above, image)
        above.set_xlabel(truncate(classes[label]), fontsize=10, weight="bold", **PLAIN_TEXT)
        below.set_label(f"bars {n}")
        below.set_axis_on()
        best = np.argsort(-p, kind="stable")[:top_k]
        below.barh(range(top_k), p[best], color=[TRUE_CLASS if i == label else OTHER_CLASS for i in best.tolist()], height=0.86)
        for y, i in enumerate(best.tolist()):
            below.text(0.02, y, truncate(classes[i]), va="center", fontsize=8, **PLAIN_TEXT)
            below.text(0.98, y, format_percent(p[i]), va="center", ha="right", fontsize=7, color="0.3")
        below.set(xlim=(0, 1), ylim=(top_k - 0.5, -0.5))
        remove_ticks(below)
    accuracy = np.mean(probabilities.argmax(axis=1) == labels)
    figure.suptitle(title or f"accuracy {100 * accuracy:.0f} % of {N} images; under each its true class and the most probable classes "
                             "(red: the true one)", fontsize=10, **PLAIN_TEXT)
    return save_figure(figure, path)


def format_percent(p: float) -> str:
    """A probability in percent; a small one is not rounded to 0."""
    return f"{100 * p:.0f} %" if p >= 0.005 else "< 0.5 %"
