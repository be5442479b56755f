"""Images, and the five classes that the network thinks likeliest: the paper's figure 4, left."""

import numpy as np

from minicnn.study.figures.canvas import AS_IT_IS, figure_class, no_axes, saved, show_picture

RIGHT, OTHER = "#e8836b", "#9dbbe0"             # bars: of the right class, and of the others


def predictions(images, probabilities, labels, classes, path, most=5, columns=4, title=""):
    """Draw images, the right class under each, and bars of the most probable classes, the right one in red; as a PNG.

    Args:
        images: N pictures (H, W, C) uint8, of any size.
        probabilities: (N, classes), rows of softmax outputs, for instance from `minicnn.data.views.predict`.
        labels: (N,) the right classes, ints.   classes: their names.
        path: of the file.
        most: how many bars, at most.   columns: images in a row, at most.

    Bars are from 0 to 1. Returns the Figure; axes are labelled "image 0", "bars 0", "image 1" and so on.
    Raises ValueError if the arguments are not of N images.
    """
    probabilities = np.asarray(probabilities)
    N = len(images)
    if not N or probabilities.shape != (N, len(classes)) or np.shape(labels) != (N,):
        raise ValueError(f"predictions: {N} images want probabilities ({max(N, 1)}, {len(classes)}) and labels ({max(N, 1)},), "
                         f"not {probabilities.shape} and {np.shape(labels)}")
    most, columns = min(most, len(classes)), min(columns, N)
    rows = -(-N // columns)
    figure = figure_class()(figsize=(2.5 * columns, 3.75 * rows + 0.4), layout="constrained")
    grid = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=[2.2, 1.25] * rows)
    for axes in grid.flat[:]:
        axes.set_axis_off()
    for n, (picture, p, label) in enumerate(zip(images, probabilities, np.asarray(labels).tolist(), strict=True)):
        above, below = grid[2 * (n // columns):2 * (n // columns) + 2, n % columns]
        above.set_label(f"image {n}")
        above.set_axis_on()
        show_picture(above, picture)
        above.set_xlabel(shortened(classes[label]), fontsize=10, weight="bold", **AS_IT_IS)
        below.set_label(f"bars {n}")
        below.set_axis_on()
        best = np.argsort(-p, kind="stable")[:most]
        below.barh(range(most), p[best], color=[RIGHT if i == label else OTHER for i in best.tolist()], height=0.86)
        for y, i in enumerate(best.tolist()):
            below.text(0.02, y, shortened(classes[i]), va="center", fontsize=8, **AS_IT_IS)
            below.text(0.98, y, percent(p[i]), va="center", ha="right", fontsize=7, color="0.3")
        below.set(xlim=(0, 1), ylim=(most - 0.5, -0.5))
        no_axes(below)
    right = np.mean(probabilities.argmax(axis=1) == labels)
    figure.suptitle(title or f"{100 * right:.0f} % of {N} right; below each its class, and the likeliest classes (red: the right one)",
                    fontsize=10, **AS_IT_IS)
    return saved(figure, path)


def shortened(name, most=26):
    """A name that fits under an image."""
    name = str(name)
    return name if len(name) <= most else name[:most - 1] + "…"


def percent(p):
    """A probability in percent; a small one is not 0."""
    return f"{100 * p:.0f} %" if p >= 0.005 else "< 0.5 %"
