"""Who is taken for whom: a table of the right classes and the answers."""

import numpy as np

from minicnn.study.figures.canvas import AS_IT_IS, figure_class, saved


def confusion(predicted, labels, classes, path, title=""):
    """Who is taken for whom, as a PNG: rows are the right classes, columns the answers; each row in percent.

    Args:
        predicted, labels: (N,) ints, the answers and what would have been right.
        classes: their names, in label order.
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
    axes.set_xticks(range(len(classes)), classes, rotation=90, **AS_IT_IS)
    axes.set_yticks(range(len(classes)), classes, **AS_IT_IS)
    axes.set_xlabel("the network's answer")
    axes.set_ylabel("the right class")
    right = 100 * np.mean(np.asarray(predicted) == labels)
    figure.suptitle(title or f"of {len(labels)} images, {right:.1f} % right (rows in %)", **AS_IT_IS)
    return saved(figure, path)
