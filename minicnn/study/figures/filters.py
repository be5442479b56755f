"""What the first layer looks for: its filters, as pictures."""

import numpy as np

from minicnn.study.figures.canvas import AS_IT_IS, figure_class, saved


def filters(weight, path, title=""):
    """The filters of a first layer, weight (O, C, KH, KW) with 1 or 3 channels, as a grid of pictures (PNG).

    As the paper's figure 3: each filter is scaled to its own largest magnitude; grey is 0.
    """
    weight = np.asarray(weight, np.float32)
    columns = int(np.ceil(np.sqrt(len(weight) * 2)))
    rows = -(-len(weight) // columns)
    figure = figure_class()(figsize=(columns * 0.8, rows * 0.8 + 0.5), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, w in zip(grid.flat, weight, strict=False):
        picture = 0.5 + 0.5 * w.transpose(1, 2, 0) / max(np.abs(w).max(), 1e-12)
        if picture.shape[2] == 1:
            axes.imshow(picture[..., 0], cmap="gray", vmin=0, vmax=1)
        else:
            axes.imshow(picture)
    for axes in grid.flat:
        axes.axis("off")
    figure.suptitle(title or f"first layer: {len(weight)} filters of {weight.shape[2]} x {weight.shape[3]}", **AS_IT_IS)
    return saved(figure, path)
