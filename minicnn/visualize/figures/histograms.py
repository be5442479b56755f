"""Histograms of gradients and updates, parameter by parameter: whether every layer learns, and how fast.

The update is what one step adds to a weight. While a network learns, updates are about a thousandth of the weights in size; at a tenth
of that a layer hardly changes, at ten times as much it may diverge.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from minicnn import optim
from minicnn.backend.arrays import device_scope, dot, to_device
from minicnn.inspect.activations import capture_activations, subsample
from minicnn.nn.module import Module
from minicnn.visualize.figures.common import PLAIN_TEXT, FilePath, figure_class, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

USUAL_RATIO = 1e-3      # of |update| to |weights|: Karpathy, CS231n (Stanford), "Ratio of weights:updates"


@dataclasses.dataclass
class ParameterUpdate:
    """One parameter in one training step."""

    name: str               # dotted
    gradient: np.ndarray    # (n,) on the CPU, the mean over the batch; of a large parameter an evenly spread sample; empty: no gradient
    update: np.ndarray      # (n,) what the step adds to the same elements; empty: none, or not known
    zero_fraction: float    # of the gradient's elements; NaN: no gradient
    ratio: float            # |update| / |weights|, Euclidean norms; NaN where all weights are 0, or there is no update


def update_ratios(model: Module, optimizer: optim.Optimizer | float, images: Any, labels: Any) -> list[ParameterUpdate]:
    """The gradient and the update of every parameter in one training step, in the model's order. The model is left unchanged.

    Args:
        model: a Module, on either device; it runs in training mode (dropout on).
        optimizer: the one that trains it; or a learning rate (then SGD without momentum and decay). For an optimiser other than SGD
            the update is that of its last step, if it provides one (`Optimizer.last_update`).
        images, labels: (N, C, H, W), on the model's device, and (N,) integers: one batch.

    A parameter without a gradient has no update either; one that is not in the optimiser, or whose update it does not provide, has only
    a gradient. Raises ValueError for a learning rate that is not positive.
    """
    if not isinstance(optimizer, optim.Optimizer):
        optimizer = optim.SGD(model.parameters(), optimizer, momentum=0.0)
    group_of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    updates = {id(p): optimizer.last_update(i) for i, p in enumerate(optimizer.params)}
    gradients = capture_activations(model, images, labels, training=True).parameters
    rows = []
    for name, p in model.named_parameters():
        w, g = gradients[name]
        row = ParameterUpdate(name, np.empty(0, w.dtype), np.empty(0, w.dtype), math.nan, math.nan)
        rows.append(row)
        if g is None:
            continue
        with device_scope(w):
            row.gradient, row.zero_fraction = subsample(g), float((g == 0).mean())
            v = updates.get(id(p))
            if v is None:
                continue
            v = to_device(v, p.device)
            if isinstance(optimizer, optim.SGD):                # compute the coming update, on copies: v becomes what is added to w
                group, v = group_of[id(p)], v.copy(order="K")
                optim.update(w.copy(order="K"), v, g, float(group["lr"]), group["momentum"], group["weight_decay"])
            w_norm, v_norm = (math.sqrt(float(dot(a, a))) for a in (w, v))
            row.update, row.ratio = subsample(v), v_norm / w_norm if w_norm else math.nan
    return rows


def histograms(model: Module, optimizer: optim.Optimizer | float, images: Any, labels: Any, path: FilePath, title: str = "") -> "Figure":
    """Draw the magnitudes of gradients and updates of one training step, and the ratio of updates to weights, as a PNG.

    Arguments as for `update_ratios`; path: file to write. Each row is one parameter; its histogram is of log10 |element|, scaled to its
    fullest bin. Elements that are exactly 0 have no logarithm: their share is written beside it. Returns the Figure.
    """
    rows = update_ratios(model, optimizer, images, labels)
    figure = figure_class()(figsize=(12, 1.5 + 0.36 * len(rows)), layout="constrained")
    left, middle, right = figure.subplots(1, 3, sharey=True, width_ratios=[1.25, 1.25, 1])
    for axes, name, colour in ((left, "gradient", "#4477aa"), (middle, "update", "#228833")):
        draw_histograms(axes, [getattr(row, name) for row in rows], colour)
        axes.set_xlabel(f"log10 |{name}|")
    for y, row in enumerate(rows):
        if row.zero_fraction > 0.0005:
            left.text(0.01, y - 0.32, f"{100 * row.zero_fraction:.1f} % are 0", transform=left.get_yaxis_transform(), va="center",
                      fontsize=7, color="0.4")
        elif math.isnan(row.zero_fraction):
            left.text(0.5, y, "no gradient", transform=left.get_yaxis_transform(), ha="center", va="center", fontsize=7)
        if row.ratio > 0:
            right.plot(row.ratio, y, "o", color="#228833", markersize=5)
            right.annotate(f"{row.ratio:.1e}", (row.ratio, y), xytext=(7, 0), textcoords="offset points", va="center", fontsize=7)
        else:
            reason = "update unknown, or none" if not len(row.update) else "all weights are 0" if row.update.any() else "the update is 0"
            right.text(0.5, y, reason, transform=right.get_yaxis_transform(), ha="center", va="center", fontsize=7, color="0.4")
    right.axvline(USUAL_RATIO, color="#cc3311", linestyle="--", linewidth=1)
    right.set_xscale("log")
    ratios = [row.ratio for row in rows if row.ratio > 0] + [USUAL_RATIO]
    right.set_xlim(min(ratios) / 5, max(ratios) * 20)
    right.set_xlabel("|update| / |weights|")
    right.set_title("dashed: 1e-3, usual while a network learns", fontsize=8, color="#cc3311")
    right.grid(axis="x", alpha=0.3)
    left.set_yticks(range(len(rows)), [row.name for row in rows], fontsize=8, **PLAIN_TEXT)
    left.set_ylim(len(rows) - 0.4, -1.1)
    figure.suptitle(title or f"one training step: a batch of {len(labels)}, {describe_optimizer(optimizer)}", **PLAIN_TEXT)
    return save_figure(figure, path)


def draw_histograms(axes: Any, arrays: Sequence[Any], colour: str) -> None:
    """One histogram of log10 |element| on each line y = 0, 1, 2, ..., upwards (the axis points down); at most 0.9 high."""
    logs = [np.log10(np.abs(a[a != 0].astype(np.float64))) for a in arrays]
    nonempty = [a for a in logs if len(a)]
    low, high = -1.0, 0.0
    if nonempty:
        low, high = min(a.min() for a in nonempty), max(a.max() for a in nonempty)
        low = max(low, min(np.quantile(a, 0.01) for a in nonempty) - 1)         # a few tiny elements do not squeeze the rest
    edges = np.linspace(low, high + 1e-9, 81)
    for y, a in enumerate(logs):
        counts = np.histogram(a, edges)[0]
        axes.axhline(y, color="0.85", linewidth=0.5, zorder=0)
        if counts.any():
            axes.stairs(y - 0.9 * counts / counts.max(), edges, baseline=y, fill=True, color=colour, alpha=0.75)
            median = np.median(a)
            axes.plot([median, median], [y, y - 0.9], color="black", linewidth=1)
    axes.grid(axis="x", alpha=0.3)


def describe_optimizer(optimizer: optim.Optimizer | float) -> str:
    """The learning rate and the other settings of the first parameter group, in words."""
    if not isinstance(optimizer, optim.Optimizer):
        return f"learning rate {optimizer:.2g}"
    group = optimizer.param_groups[0]
    settings = [f"{name.replace('_', ' ')} {f'{value:g}' if isinstance(value, (int, float)) else value}"
                for name, value in group.items() if name not in ("params", "lr")]
    return ", ".join([f"learning rate {group['lr']:.2g}", *settings])
