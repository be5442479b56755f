"""Nearest neighbours: images, and the training images whose features are nearest to theirs: the paper's figure 4, right.

Features are the inputs of the last layer, compared by Euclidean distance (AlexNet, section 6.1). Images with similar features may have very
different pixels: the same object from another side, or in other colours.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from minicnn.data.transforms import Compose
from minicnn.nn.module import Module
from minicnn.train.features import features
from minicnn.visualize.figures.common import PLAIN_TEXT, FilePath, class_name, figure_class, save_figure, show_image, truncate

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def nearest_images(model: Module, queries: Any, dataset: Any, transform: Any, k: int = 6, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    """The k images of `dataset` nearest to each of Q queries: their indices (Q, k), and their distances (Q, k) float32.

    Args:
        model: a Module, on either device; used in evaluation mode.
        queries: a data set, or a list of (image (H, W, C) uint8, label).
        dataset: the data set to search; it is read batch by batch, so it may be large.
        transform: from an image to an input, without randomness.
        k: neighbours of each query; fewer if the data set has fewer images.
        options: layer, batch_size, workers, on_error, as for `minicnn.train.features.features`.

    Equal distances are ordered by index.
    """
    own = np.concatenate([f for _, f in features(model, queries, transform, **{**options, "workers": 0, "on_error": "raise"})])
    nearest: np.ndarray = np.empty((len(own), 0), np.int64)
    distances: np.ndarray = np.empty((len(own), 0), np.float32)
    for indices, batch in features(model, dataset, transform, **options):
        nearest = np.concatenate([nearest, np.tile(indices, (len(own), 1))], axis=1)
        distances = np.concatenate([distances, np.stack([np.sqrt(((batch - q) ** 2).sum(axis=1)) for q in own])], axis=1)
        order = np.argsort(distances, axis=1, kind="stable")[:, :k]
        nearest, distances = np.take_along_axis(nearest, order, axis=1), np.take_along_axis(distances, order, axis=1)
    return nearest, distances


def nearest_neighbours(model: Module, queries: Any, dataset: Any, transform: Any, path: FilePath, k: int = 6,
                       classes: Sequence[str] | None = None, title: str = "", **options: Any) -> "Figure":
    """Draw each query in the first column and, beside it, its k nearest images of `dataset`, the nearest first; as a PNG.

    Arguments as for `nearest_images`; path: file to write; classes: names of the classes. Under each image is its class (red if it is not
    the query's) and its distance. Images are drawn as the network gets them: resized and cropped. Returns the Figure; its axes are
    labelled "row 0 column 0" and so on.
    """
    nearest, distances = nearest_images(model, queries, dataset, transform, k, **options)
    resize_and_crop = Compose(transform).split_affine()[0]
    rows, columns = len(nearest), nearest.shape[1] + 1
    figure = figure_class()(figsize=(1.5 * columns, 1.78 * rows + 0.45), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for row in range(rows):
        query = queries[row]
        for column, (image, label) in enumerate([query, *(dataset[int(i)] for i in nearest[row])]):
            axes = grid[row, column]
            axes.set_label(f"row {row} column {column}")
            show_image(axes, np.asarray(resize_and_crop(image)))
            text = truncate(class_name(classes, label), 18) + (f"\n{distances[row, column - 1]:.3g}" if column else "")
            axes.set_xlabel(text, fontsize=8, labelpad=2, weight="normal" if column else "bold",
                            color="black" if label == query[1] else "#cc3311", **PLAIN_TEXT)
            for side in axes.spines.values():
                side.set(color="0.75" if column else "black", linewidth=0.5 if column else 1.5)
    figure.suptitle(title or f"first column: {rows} query images; beside each its nearest of {len(dataset)} images, and their distances",
                    fontsize=10, **PLAIN_TEXT)
    return save_figure(figure, path)
