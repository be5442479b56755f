"""The confusion matrix: how often images of each class are predicted as each other class."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from minicnn.visualize.figures.common import PLAIN_TEXT, FilePath, figure_class, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def confusion_matrix(predicted: Any, labels: Any, classes: Sequence[str], path: FilePath, title: str = "") -> "Figure":
    """Draw the confusion matrix as a PNG: rows are the true classes, columns the predicted ones, each row in percent.

    Args:
        predicted, labels: (N,) ints, the predicted and the true classes.
        classes: their names, in label order.
        path: file to write.

    Returns the Figure.
    """
    counts = np.zeros((len(classes), len(classes)), int)
    np.add.at(counts, (labels, predicted), 1)
    percent = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = 2.5 + 0.5 * len(classes)
    figure = figure_class()(figsize=(size, size), layout="constrained")
    axes = figure.subplots()
    axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    for i, j in zip(*np.nonzero(counts), strict=True):
        axes.text(j, i, f"{percent[i, j]:.0f}", ha="center", va="center", fontsize=8, color="white" if percent[i, j] > 55 else "0.2")
    axes.set_xticks(range(len(classes)), classes, rotation=90, **PLAIN_TEXT)
    axes.set_yticks(range(len(classes)), classes, **PLAIN_TEXT)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    accuracy = 100 * np.mean(np.asarray(predicted) == labels)
    figure.suptitle(title or f"{len(labels)} images, accuracy {accuracy:.1f} % (rows in %)", **PLAIN_TEXT)
    return save_figure(figure, path)
