"""How large gradients and updates are, parameter by parameter: whether every layer learns, and how fast.

The update is what one step of SGD adds to a weight. While a network learns, updates are about a thousandth of the weights; at a tenth
of that a layer hardly moves, at ten times as much it may be torn apart.
"""

import dataclasses
import math

import numpy as np

from minicnn import optim
from minicnn.backend import device_scope, to_device
from minicnn.study.figures.canvas import AS_IT_IS, figure_class, saved
from minicnn.study.health import dot
from minicnn.study.inside import look_inside, to_numbers

USUAL = 1e-3            # of the weights: Karpathy, CS231n (Stanford), "Ratio of weights:updates"


@dataclasses.dataclass
class StepSize:
    """One parameter in one training step."""

    name: str               # dotted
    gradient: np.ndarray    # (n,) on the CPU, the mean over the batch; of a large one some hundred thousand numbers, evenly spread
    update: np.ndarray      # (n,) of the same places: what the step adds
    zero: float             # which part of the gradient is exactly 0
    ratio: float            # |update| / |weights|, Euclidean norms; NaN where all weights are 0, or nothing is added


def step_sizes(model, optimizer, images, labels):
    """What one step of training would do to each parameter: a list of StepSize, in the model's order. Nothing is changed.

    Args:
        model: a Module, on either device; dropout is on.
        optimizer: the SGD that trains it, with its velocities; or a learning rate (then without momentum and decay).
        images, labels: (N, C, H, W), on the model's device, and (N,) integers: one batch.

    A parameter that no gradient reaches has neither gradient nor update; one that the optimizer does not have, no update.
    Raises ValueError for a learning rate that is not positive.
    """
    if not isinstance(optimizer, optim.SGD):
        optimizer = optim.SGD(model.parameters(), optimizer, momentum=0.0)
    groups = [group for group in optimizer.groups for _ in group["params"]]
    how = {id(p): (group, v) for p, group, v in zip(optimizer.params, groups, optimizer.velocities, strict=True)}
    gradients = look_inside(model, images, labels, training=True).parameters
    found = []
    for name, p in model.named_parameters():
        w, g = gradients[name]
        row = StepSize(name, np.empty(0, w.dtype), np.empty(0, w.dtype), math.nan, math.nan)
        found.append(row)
        if g is None:
            continue
        with device_scope(w):
            row.gradient, row.zero = to_numbers(g), float((g == 0).mean())
            if id(p) in how:
                group, v = how[id(p)]
                v = to_device(v, p.device).copy(order="K")              # the step is done on copies: v becomes what it adds to w
                optim.update(w.copy(order="K"), v, g, float(group["lr"]), group["momentum"], group["weight_decay"])
                norm, moved = (math.sqrt(float(dot(a, a))) for a in (w, v))
                row.update, row.ratio = to_numbers(v), moved / norm if norm else math.nan
    return found


def histograms(model, optimizer, images, labels, path, title=""):
    """Draw the magnitudes of gradients and updates of one training step, and how the updates compare with the weights, as a PNG.

    Arguments as for `step_sizes`. Each row is one parameter; its histogram is of log10 |number|, as high as its fullest bin; what is
    exactly 0 is not in it, and said beside it. Returns the Figure.
    """
    rows = step_sizes(model, optimizer, images, labels)
    figure = figure_class()(figsize=(12, 1.5 + 0.36 * len(rows)), layout="constrained")
    left, middle, right = figure.subplots(1, 3, sharey=True, width_ratios=[1.25, 1.25, 1])
    for axes, of, colour in ((left, "gradient", "#4477aa"), (middle, "update", "#228833")):
        draw_histograms(axes, [getattr(row, of) for row in rows], colour)
        axes.set_xlabel(f"log10 |{of}|")
    for y, row in enumerate(rows):
        if row.zero > 0.0005:
            left.text(0.01, y - 0.32, f"{100 * row.zero:.1f} % are 0", transform=left.get_yaxis_transform(), va="center", fontsize=7,
                      color="0.4")
        elif math.isnan(row.zero):
            left.text(0.5, y, "no gradient comes here", transform=left.get_yaxis_transform(), ha="center", va="center", fontsize=7)
        if row.ratio > 0:
            right.plot(row.ratio, y, "o", color="#228833", markersize=5)
            right.annotate(f"{row.ratio:.1e}", (row.ratio, y), xytext=(7, 0), textcoords="offset points", va="center", fontsize=7)
        else:
            reason = "the weights are all 0" if len(row.update) and row.update.any() else "nothing is added"
            right.text(0.5, y, reason, transform=right.get_yaxis_transform(), ha="center", va="center", fontsize=7, color="0.4")
    right.axvline(USUAL, color="#cc3311", linestyle="--", linewidth=1)
    right.set_xscale("log")
    ratios = [row.ratio for row in rows if row.ratio > 0] + [USUAL]
    right.set_xlim(min(ratios) / 5, max(ratios) * 20)
    right.set_xlabel("|update| / |weights|")
    right.set_title("dashed: 1e-3, usual while a network learns", fontsize=8, color="#cc3311")
    right.grid(axis="x", alpha=0.3)
    left.set_yticks(range(len(rows)), [row.name for row in rows], fontsize=8, **AS_IT_IS)
    left.set_ylim(len(rows) - 0.4, -1.1)
    figure.suptitle(title or f"one training step: a batch of {len(labels)}{described(optimizer)}", **AS_IT_IS)
    return saved(figure, path)


def draw_histograms(axes, arrays, colour):
    """One histogram of log10 |number| on each line y = 0, 1, 2, ..., upwards (the axis points down); at most 0.9 high."""
    logs = [np.log10(np.abs(a[a != 0].astype(np.float64))) for a in arrays]
    there = [a for a in logs if len(a)]
    low, high = (min(a.min() for a in there), max(a.max() for a in there)) if there else (-1, 0)
    low = max(low, min(np.quantile(a, 0.01) for a in there) - 1) if there else low       # a few tiny ones do not squeeze the rest
    edges = np.linspace(low, high + 1e-9, 81)
    for y, a in enumerate(logs):
        counts = np.histogram(a, edges)[0]
        axes.axhline(y, color="0.85", linewidth=0.5, zorder=0)
        if counts.any():
            axes.stairs(y - 0.9 * counts / counts.max(), edges, baseline=y, fill=True, color=colour, alpha=0.75)
            middle = np.median(a)
            axes.plot([middle, middle], [y, y - 0.9], color="black", linewidth=1)
    axes.grid(axis="x", alpha=0.3)


def described(optimizer):
    """The rate and momentum of a step, in words."""
    if not isinstance(optimizer, optim.SGD):
        return f", learning rate {optimizer:.2g}"
    group = optimizer.groups[0]
    return f", learning rate {group['lr']:.2g}, momentum {group['momentum']:g}, weight decay {group['weight_decay']:g}"
