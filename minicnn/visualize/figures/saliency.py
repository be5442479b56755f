"""Saliency: the gradient of a class score with respect to the pixels. It is large where a small change of the image changes the score most.

    map[h, w] = max over channels c of |d score / d x[c, h, w]|

Source: Simonyan, Vedaldi, Zisserman, "Deep Inside Convolutional Networks", 2013 (arXiv:1312.6034), section 3.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from minicnn.backend.arrays import to_device
from minicnn.inspect.activations import capture_activations
from minicnn.nn.module import Module
from minicnn.visualize.figures.common import (
    PLAIN_TEXT,
    FilePath,
    batch_of_one,
    check_same_size,
    class_name,
    figure_class,
    remove_ticks,
    save_figure,
    show_image,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def saliency_map(model: Module, x: Any, label: int) -> np.ndarray:
    """The saliency map (H, W), on the CPU, of the score (before softmax) of class `label`, in evaluation mode.

    Args:
        model: a Module, on either device.
        x: one input of it, (C, H, W).
        label: a class, an int.

    Raises ValueError for a class that the model does not have.
    """
    activations = capture_activations(model, batch_of_one("saliency", model, x), target_classes=[label])
    return np.abs(to_device(activations.input_gradient[0], "cpu")).max(axis=0)


def saliency(model: Module, x: Any, label: int, image: Any, path: FilePath, classes: Sequence[str] | None = None,
             title: str = "") -> "Figure":
    """Draw the saliency map beside the image, as a PNG.

    Args:
        model, x, label: as for `saliency_map`.
        image: x before normalization: (H, W, C) uint8, of the same H and W as x.
        path: file to write.
        classes: names of the classes.

    Brightness goes from 0 to the largest value of the map, in units of the score for one unit of the input (see the colour bar).
    Returns the Figure.
    """
    check_same_size("saliency", batch_of_one("saliency", model, x), image)
    values = saliency_map(model, x, label)
    figure = figure_class()(figsize=(8.6, 4.3), layout="constrained")
    left, right = figure.subplots(1, 2)
    show_image(left, image)
    left.set_title("the input, before normalization", fontsize=10)
    drawn = right.imshow(values, cmap="inferno", vmin=0)
    remove_ticks(right)
    right.set_title("gradient of the score with respect to each pixel", fontsize=10)
    figure.colorbar(drawn, ax=right, shrink=0.85, label="|d score / d pixel|, largest of the channels")
    figure.suptitle(title or f"saliency of {class_name(classes, label)}", **PLAIN_TEXT)
    return save_figure(figure, path)
