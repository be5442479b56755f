"""`minicnn figures`: draw all figures of a run.

    minicnn figures runs/mini-1                     into runs/mini-1/figures/
    minicnn figures runs/mini-1 --image 7           feature maps, saliency and occlusion of test image 7

Exit code 0: done. 2: no such run, its data are missing, no such image, no matplotlib, or a file cannot be written.
"""

import argparse
import pathlib
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

import minicnn as mc
from minicnn.data import DataError, EvenSample
from minicnn.data.transforms import Compose
from minicnn.examples.recipe import load_run
from minicnn.train.evaluation import predict
from minicnn.train.run import Run
from minicnn.visualize import figures

NUM_PREDICTIONS = 8     # test images of predictions.png
NUM_QUERIES = 5         # rows of nearest.png


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="minicnn figures", description=(__doc__ or "").partition("\n")[0],
                                     epilog="Exit code 0: done; 2: no such run, its data are missing, no such image, no matplotlib, "
                                            "or a file cannot be written.")
    parser.add_argument("run", type=pathlib.Path, metavar="RUN", help="folder of a run, for instance runs/mini-1")
    parser.add_argument("--image", type=int, default=0, metavar="N", help="index of the test image for feature maps, saliency and "
                        "occlusion (default: 0)")
    parser.add_argument("--max-images", type=int, default=5000, metavar="N", help="search at most N training images for nearest "
                        "neighbours and count at most N test images in the confusion matrix, evenly spread (default: 5000)")
    parser.add_argument("--out", type=pathlib.Path, metavar="DIR", help="output folder (default: RUN/figures)")
    args = parser.parse_args(argv)
    out = args.out or args.run / "figures"
    began = time.perf_counter()
    try:
        figures.figure_class()
        run = load_run(args.run)
        validation = run.data.validation
        if not 0 <= args.image < len(validation):
            raise ValueError(f"--image must be the index of a test image, 0 to {len(validation) - 1}, got {args.image}")
        if args.max_images < 1:
            raise ValueError(f"--max-images must be at least 1, got {args.max_images}")
        out.mkdir(parents=True, exist_ok=True)
        for name in draw(run, args.image, args.max_images, out):
            print(out / name, flush=True)
    except (DataError, mc.CheckpointError, ImportError, OSError, RuntimeError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{time.perf_counter() - began:.0f} s")
    return 0


def draw(run: Run, index: int, max_images: int, out: pathlib.Path) -> Iterator[str]:
    """Draw a run's figures into the folder `out`; yields the name of each file when it is written.

    Args:
        run: a `minicnn.train.run.Run`.
        index: of the test image for feature maps, saliency and occlusion.
        max_images: sample size where a whole data set would take long.
    """
    model, data, classes = run.model, run.data, run.data.classes
    image, x, label = load_input(data, index)
    title = f"{run.checkpoint['arguments']['arch']} on {run.checkpoint['arguments']['data']}, {run.checkpoint['step']} steps"

    if any(r["kind"] == "train" for r in run.records):
        figures.training_curves(run.records, out / "curves.png", title)
        yield "curves.png"
    first_weight = next(p for p in model.parameters() if p.ndim == 4).numpy()
    if first_weight.shape[1] in (1, 3):
        figures.filters(first_weight, out / "filters.png")
        yield "filters.png"
    images, labels = next(data.train.epoch(0))
    figures.histograms(model, run.optimizer, images, labels, out / "histograms.png")
    yield "histograms.png"

    figures.feature_maps(model, x, out / "feature_maps.png", image, f"{title}: feature maps of test image {index}, {classes[label]}")
    yield "feature_maps.png"
    figures.saliency(model, x, label, image, out / "saliency.png", classes)
    yield "saliency.png"
    figures.occlusion(model, x, label, image, out / "occlusion.png", classes=classes)
    yield "occlusion.png"

    spread = np.linspace(0, len(data.validation) - 1, NUM_PREDICTIONS).astype(int).tolist()
    samples = [data.validation[i] for i in list(dict.fromkeys([index, *spread]))[:NUM_PREDICTIONS]]
    probabilities, true_labels = predict(model, samples, data.test_transform, workers=0)
    figures.predictions([image for image, _ in samples], probabilities, true_labels, classes, out / "predictions.png")
    yield "predictions.png"
    if len(classes) <= 20:
        probabilities, true_labels = predict(model, EvenSample(data.validation, max_images), data.test_transform)
        figures.confusion_matrix(probabilities.argmax(axis=1), true_labels, classes, out / "confusion.png")
        yield "confusion.png"
    training = EvenSample(data.train.dataset, max_images)
    figures.nearest_neighbours(model, samples[:NUM_QUERIES], training, data.test_transform, out / "nearest.png", classes=classes,
                               title=f"test images, and beside each its nearest of {len(training):,} training images, and their distances")
    yield "nearest.png"


def load_input(data: Any, index: int) -> tuple[np.ndarray, np.ndarray, int]:
    """A test image as the network gets it, before normalization, (H, W, C) uint8, and after, (C, H, W) float32; and its label."""
    image, label = data.validation[index]
    resize_and_crop, normalize = data.test_transform.split_affine()
    image = np.asarray(resize_and_crop(image))
    return image, np.asarray(Compose(*normalize)(image), np.float32).transpose(2, 0, 1), label
