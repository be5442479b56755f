"""Training curves: loss and accuracy over the steps of a run."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from minicnn.visualize.figures.common import PLAIN_TEXT, FilePath, figure_class, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def training_curves(records: Sequence[dict[str, Any]], path: FilePath, title: str = "") -> "Figure":
    """Draw loss and accuracy over the steps of a run as a PNG.

    Args:
        records: of the run's log, from `minicnn.train.log.read_log`.
        path: file to write.

    Returns the Figure.
    """
    train = [r for r in records if r["kind"] == "train"]
    val = [r for r in records if r["kind"] == "val"]
    figure = figure_class()(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, name in ((left, "loss"), (right, "top1")):
        values = [np.nan if r[name] is None else r[name] for r in train]        # None: the loss was not finite
        axes.plot([r["step"] for r in train], values, color="0.88", linewidth=0.7)
        step, smooth = binned_mean([r["step"] for r in train], values)
        axes.plot(step, smooth, color="C0", label="training (dropout on)")
        axes.plot([r["step"] for r in val], [r[name] for r in val], "o-", color="C1", markersize=4, label="validation")
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
    left.set_ylabel("cross-entropy loss")
    left.legend(loc="upper right")
    right.set_ylabel("accuracy, %")
    right.plot([r["step"] for r in val], [r["top5"] for r in val], "o--", color="C2", markersize=3, label="validation, top-5")
    right.set_ylim(0, 101)
    if val:
        right.annotate(f"{val[-1]['top1']:.1f} %", (val[-1]["step"], val[-1]["top1"]), xytext=(0, -12), textcoords="offset points",
                       ha="right", va="top", color="C1", weight="bold", bbox={"facecolor": "white", "edgecolor": "C1", "pad": 2})
    right.legend(loc="lower right")
    figure.suptitle(title, **PLAIN_TEXT)
    return save_figure(figure, path)


def binned_mean(x: Sequence[float], y: Sequence[float], bins: int = 60) -> tuple[Any, Any]:
    """The means of x and of y over about `bins` bins of neighbouring points; the points that fill no bin at the end are dropped."""
    width = max(1, len(y) // bins)
    whole = len(y) // width * width
    return np.reshape(x[:whole], (-1, width)).mean(1), np.reshape(y[:whole], (-1, width)).mean(1)
