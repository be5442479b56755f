"""Which pixels a class's score hangs on: where a small change of the image changes the score most.

    map[h, w] = max over channels c of |d score / d x[c, h, w]|

Source: Simonyan, Vedaldi, Zisserman, "Deep Inside Convolutional Networks", 2013 (arXiv:1312.6034), section 3.
"""

import numpy as np

from minicnn.backend import to_device
from minicnn.study.figures.canvas import AS_IT_IS, class_name, figure_class, no_axes, one_input, same_place, saved, show_picture
from minicnn.study.inside import look_inside


def saliency_map(model, x, label):
    """The map (H, W), on the CPU, of the score (before softmax) of class `label`, in evaluation mode.

    Args:
        model: a Module, on either device.
        x: one input of it, (C, H, W).
        label: an int.

    Raises ValueError for a class that the model does not have.
    """
    seen = look_inside(model, one_input("saliency", model, x), scores_of=[label])
    return np.abs(to_device(seen.input_gradient[0], "cpu")).max(axis=0)


def saliency(model, x, label, picture, path, classes=None, title=""):
    """Draw the saliency map beside the image, as a PNG; returns the Figure.

    Args:
        model, x, label: as for `saliency_map`.
        picture: what the network sees, as a user knows it: (H, W, C) uint8, of the same H and W as x.
        path: of the file.
        classes: their names.

    Brightness is from 0 to the map's largest value, which the colour bar tells: in units of the score for one unit of the input.
    """
    same_place("saliency", one_input("saliency", model, x), picture)
    map_ = saliency_map(model, x, label)
    figure = figure_class()(figsize=(8.6, 4.3), layout="constrained")
    left, right = figure.subplots(1, 2)
    show_picture(left, picture)
    left.set_title("what the network sees", fontsize=10)
    shown = right.imshow(map_, cmap="inferno", vmin=0)
    no_axes(right)
    right.set_title("how the score changes with each pixel", fontsize=10)
    figure.colorbar(shown, ax=right, shrink=0.85, label="|d score / d pixel|, largest of the channels")
    figure.suptitle(title or f"saliency of {class_name(classes, label)}", **AS_IT_IS)
    return saved(figure, path)
