"""Occlusion sensitivity: the probability of the true class while a grey patch covers one part of the image after the other.

Where the probability drops, the covered pixels matter.

Source: Zeiler, Fergus, "Visualizing and Understanding Convolutional Networks", 2013 (arXiv:1311.2901), section 4.2.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from minicnn.backend.arrays import ceil_div, to_device
from minicnn.nn.module import Module, eval_mode
from minicnn.train.evaluation import predict_proba
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

COLOURS = ["#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#ee8866", "#bbbbbb"]     # the last one: all other classes


def occlusion_map(model: Module, x: Any, patch_size: int | None = None, stride: int | None = None, fill: float = 0.0,
                  batch_size: int = 64) -> np.ndarray:
    """The model's probabilities for each position of the patch: (rows, columns, classes) float64, on the CPU.

    Args:
        model: a Module, on either device; used in evaluation mode.
        x: one input of it, (C, H, W).
        patch_size: side of the square patch, in pixels; by default a quarter of the shorter side.
        stride: the image is divided into blocks of stride x stride pixels, and the patch is centred on each in turn (at the border it
            is clipped); by default at most 28 blocks along the shorter side.
        fill: value of the covered inputs. Normalized inputs have mean 0, so 0 is a grey without information.
        batch_size: how many covered images go through the model at once.

    Raises ValueError for a patch_size or stride that is not between 1 and the shorter side.
    """
    x = to_device(batch_of_one("occlusion", model, x), "cpu")
    H, W = x.shape[2:]
    patch_size, stride = resolve_sizes(H, W, patch_size, stride)
    rows, columns = ceil_div(H, stride), ceil_div(W, stride)
    corners = [patch_corner(row, column, patch_size, stride) for row in range(rows) for column in range(columns)]
    probabilities = []
    with eval_mode(model):
        for i in range(0, len(corners), batch_size):
            batch = corners[i:i + batch_size]
            covered = np.repeat(x, len(batch), axis=0)
            for image, (top, left) in zip(covered, batch, strict=True):
                image[:, max(top, 0):top + patch_size, max(left, 0):left + patch_size] = fill
            probabilities.append(predict_proba(model, covered))
    return np.concatenate(probabilities).reshape(rows, columns, -1)


def occlusion(model: Module, x: Any, label: int, image: Any, path: FilePath, patch_size: int | None = None, stride: int | None = None,
              classes: Sequence[str] | None = None, title: str = "") -> "Figure":
    """Draw the image with the patch that lowers the probability of class `label` most, and that probability and the predicted class for
    each position of the patch, as a PNG.

    Args:
        model, x, patch_size, stride: as for `occlusion_map`.
        label: the true class, an int.
        image: x before normalization: (H, W, C) uint8, of the same H and W as x.
        path: file to write.
        classes: names of the classes.

    Returns the Figure. Raises ValueError for a label that the model does not have, and for an image of another size than x.
    """
    x = batch_of_one("occlusion", model, x)
    check_same_size("occlusion", x, image)
    H, W = x.shape[2:]
    patch_size, stride = resolve_sizes(H, W, patch_size, stride)
    maps = occlusion_map(model, x, patch_size, stride)
    if not 0 <= label < maps.shape[2]:
        raise ValueError(f"occlusion: label must be a class, 0 to {maps.shape[2] - 1}, got {label!r}")
    with eval_mode(model):
        uncovered = predict_proba(model, x)[0, label]
    figure = figure_class()(figsize=(13, 4.4), layout="constrained")
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Patch, Rectangle
    left_axes, middle, right = figure.subplots(1, 3)

    show_image(left_axes, image)
    row, column = np.unravel_index(maps[..., label].argmin(), maps.shape[:2])
    top, left = patch_corner(int(row), int(column), patch_size, stride)
    left_axes.add_patch(Rectangle((left - 0.5, top - 0.5), patch_size, patch_size, fill=False, edgecolor="#ee3377", linewidth=2))
    left_axes.set_title(f"covered here, the probability is {100 * maps[row, column, label]:.3g} %", fontsize=10)

    extent = (-0.5, maps.shape[1] * stride - 0.5, maps.shape[0] * stride - 0.5, -0.5)           # pixels: left, right, bottom, top
    drawn = middle.imshow(maps[..., label], cmap="viridis", vmin=0, vmax=max(maps[..., label].max(), uncovered), extent=extent)
    bar = figure.colorbar(drawn, ax=middle, shrink=0.85, label=f"probability of {class_name(classes, label)}")
    bar.ax.yaxis.label.set(**PLAIN_TEXT)
    middle.set_title(f"patch of {patch_size} x {patch_size} pixels; without it: {100 * uncovered:.3g} %", fontsize=10)

    predicted = maps.argmax(axis=2)
    found, counts = np.unique(predicted, return_counts=True)
    by_frequency = found[np.argsort(-counts, kind="stable")].tolist()
    rgb_of = {c: to_rgb(COLOURS[min(i, 7)]) for i, c in enumerate(by_frequency)}
    right.imshow(np.array([[rgb_of[c] for c in line] for line in predicted.tolist()]), extent=extent)
    names = [class_name(classes, c) for c in by_frequency[:7]] + (["others"] if len(by_frequency) > 7 else [])
    legend = right.legend(handles=[Patch(color=c, label=n) for c, n in zip(COLOURS, names, strict=False)], fontsize=8,
                          loc="center left", bbox_to_anchor=(1.02, 0.5), borderaxespad=0)
    for text in legend.get_texts():
        text.set(**PLAIN_TEXT)
    right.set_title("predicted class while covered", fontsize=10)
    for axes in (middle, right):
        remove_ticks(axes)
        axes.set(xlim=(-0.5, W - 0.5), ylim=(H - 0.5, -0.5))
    figure.suptitle(title or f"occlusion sensitivity of {class_name(classes, label)}", **PLAIN_TEXT)
    return save_figure(figure, path)


def resolve_sizes(H: int, W: int, patch_size: int | None, stride: int | None) -> tuple[int, int]:
    """(patch_size, stride) for an image of H x W pixels, checked; defaults where they are None."""
    patch_size = max(1, min(H, W) // 4) if patch_size is None else patch_size
    stride = ceil_div(min(H, W), 28) if stride is None else stride
    for name, value in (("patch_size", patch_size), ("stride", stride)):
        if not (isinstance(value, int) and 1 <= value <= min(H, W)):
            raise ValueError(f"occlusion: {name} must be a number of pixels from 1 to {min(H, W)} for an image of {H} x {W}, got {value!r}")
    return patch_size, stride


def patch_corner(row: int, column: int, patch_size: int, stride: int) -> tuple[int, int]:
    """(top, left), in pixels, of the patch centred on this block; negative where it is clipped."""
    offset = (stride - patch_size) // 2
    return row * stride + offset, column * stride + offset
