"""Images, and the training images that the network finds most like them: the paper's figure 4, right.

Two images are alike if their features, the last layer's inputs, are near each other (Euclidean distance; AlexNet, section 6.1).
That is not nearness of pixels: the same thing from another side, in other colours, is near.
"""

import numpy as np

from minicnn.data.transforms import Compose
from minicnn.study.features import features
from minicnn.study.figures.canvas import AS_IT_IS, class_name, figure_class, saved, show_picture
from minicnn.study.figures.predictions import shortened


def nearest_images(model, queries, dataset, transform, count=6, **how):
    """For each of Q images the numbers (Q, count) of the images in `dataset` that are nearest, and their distances (Q, count) float32.

    Args:
        model: a Module, on either device; used in evaluation mode.
        queries: a data set, or a list of (picture (H, W, C) uint8, label).
        dataset: where to look; it goes by batch by batch, so it may be large.
        transform: how a picture becomes an input, without chance.
        count: how many. Where the set has fewer, all.
        how: layer, batch_size, workers, on_bad, as for `minicnn.study.features.features`.

    Of two at the same distance, the one with the lower number is first.
    """
    own = np.concatenate([found for _, found in features(model, queries, transform, **{**how, "workers": 0, "on_bad": "raise"})])
    best: np.ndarray = np.empty((len(own), 0), np.float32)
    where: np.ndarray = np.empty((len(own), 0), np.int64)
    for numbers, found in features(model, dataset, transform, **how):
        distances = np.stack([np.sqrt(((found - q) ** 2).sum(axis=1)) for q in own])            # (Q, n)
        best = np.concatenate([best, distances], axis=1)
        where = np.concatenate([where, np.tile(numbers, (len(own), 1))], axis=1)
        order = np.argsort(best, axis=1, kind="stable")[:, :count]
        best, where = np.take_along_axis(best, order, axis=1), np.take_along_axis(where, order, axis=1)
    return where, best


def nearest(model, queries, dataset, transform, path, count=6, classes=None, title="", **how):
    """Draw each query in the first column and, beside it, the images of `dataset` nearest to it, the nearest first; as a PNG.

    Arguments as for `nearest_images`; classes: their names. Under each image is its class (red if it is not the query's) and its
    distance. Images are shown as the network sees them. Returns the Figure; axes are labelled "row 0 column 0" and so on.
    """
    numbers, distances = nearest_images(model, queries, dataset, transform, count, **how)
    choose = Compose(transform).without_arithmetic()[0]
    rows, columns = len(numbers), numbers.shape[1] + 1
    figure = figure_class()(figsize=(1.5 * columns, 1.78 * rows + 0.45), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for row in range(rows):
        picture, label = queries[row]
        found = [dataset[int(i)] for i in numbers[row]]
        for column, (image, its_label) in enumerate([(picture, label), *found]):
            axes = grid[row, column]
            axes.set_label(f"row {row} column {column}")
            show_picture(axes, np.asarray(choose(image)))
            text = shortened(class_name(classes, its_label), 18) + (f"\n{distances[row, column - 1]:.3g}" if column else "")
            axes.set_xlabel(text, fontsize=8, labelpad=2, weight="normal" if column else "bold",
                            color="black" if its_label == label else "#cc3311", **AS_IT_IS)
            for side in axes.spines.values():
                side.set(color="black" if not column else "0.75", linewidth=1.5 if not column else 0.5)
    figure.suptitle(title or f"in the first column {rows} images; beside each the nearest of {len(dataset)}, with their distances",
                    fontsize=10, **AS_IT_IS)
    return saved(figure, path)
