"""How a run went: its loss and its accuracy over the steps."""

import numpy as np

from minicnn.study.figures.canvas import AS_IT_IS, figure_class, saved


def training_curves(records, path, title=""):
    """Loss and accuracy over the steps of a run, as a PNG at `path`; `records` as `minicnn.study.log.read_log` gives them."""
    train = [r for r in records if r["kind"] == "train"]
    val = [r for r in records if r["kind"] == "val"]
    figure = figure_class()(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, name in ((left, "loss"), (right, "top1")):
        values = [np.nan if r[name] is None else r[name] for r in train]        # None: the loss was no number
        axes.plot([r["step"] for r in train], values, color="0.88", linewidth=0.7)
        step, smooth = running_mean([r["step"] for r in train], values)
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
    figure.suptitle(title, **AS_IT_IS)
    return saved(figure, path)


def running_mean(x, y, parts=60):
    """Means over runs of neighbouring points, about `parts` of them."""
    width = max(1, len(y) // parts)
    whole = len(y) // width * width
    return [np.reshape(v[:whole], (-1, width)).mean(1) for v in (x, y)]
