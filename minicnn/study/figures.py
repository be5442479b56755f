"""Pictures of a run: its training curves, and the filters of its first layer. They need matplotlib."""

import numpy as np


def training_curves(records, path, title=""):
    """Loss and accuracy over the steps of a run, as a PNG at `path`; `records` as `minicnn.study.log.read_log` gives them."""
    Figure = figure_class()
    train = [r for r in records if r["kind"] == "train"]
    val = [r for r in records if r["kind"] == "val"]
    figure = Figure(figsize=(11, 4), layout="constrained")
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
    figure.suptitle(title)
    figure.savefig(path, dpi=110)


def filters(weight, path, title=""):
    """The filters of a first layer, weight (O, C, KH, KW) with 1 or 3 channels, as a grid of pictures (PNG).

    As the paper's figure 3: each filter is scaled to its own largest magnitude; grey is 0.
    """
    weight = np.asarray(weight, np.float32)
    Figure = figure_class()
    columns = int(np.ceil(np.sqrt(len(weight) * 2)))
    rows = -(-len(weight) // columns)
    figure = Figure(figsize=(columns * 0.8, rows * 0.8 + 0.5), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, w in zip(grid.flat, weight, strict=False):
        picture = 0.5 + 0.5 * w.transpose(1, 2, 0) / max(np.abs(w).max(), 1e-12)
        if picture.shape[2] == 1:
            axes.imshow(picture[..., 0], cmap="gray", vmin=0, vmax=1)
        else:
            axes.imshow(picture)
    for axes in grid.flat:
        axes.axis("off")
    figure.suptitle(title or f"first layer: {len(weight)} filters of {weight.shape[2]} x {weight.shape[3]}")
    figure.savefig(path, dpi=110)


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
    axes.set_xticks(range(len(classes)), classes, rotation=90)
    axes.set_yticks(range(len(classes)), classes)
    axes.set_xlabel("the network's answer")
    axes.set_ylabel("the right class")
    figure.suptitle(title or f"of {len(labels)} images, {100 * np.mean(np.asarray(predicted) == labels):.1f} % right (rows in %)")
    figure.savefig(path, dpi=110)


def running_mean(x, y, parts=60):
    """Means over runs of neighbouring points, about `parts` of them."""
    width = max(1, len(y) // parts)
    whole = len(y) // width * width
    return [np.reshape(v[:whole], (-1, width)).mean(1) for v in (x, y)]


def figure_class():
    """matplotlib's Figure: it draws to files and leaves the caller's own plots, and their backend, alone."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError('pictures need matplotlib: run  python -m pip install "matplotlib>=3.8"') from None
    return Figure
