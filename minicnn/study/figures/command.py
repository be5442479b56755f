"""`minicnn figures`: draws all pictures of a run.

    minicnn figures runs/mini-1                     into runs/mini-1/figures/
    minicnn figures runs/mini-1 --image 7           of test image 7: feature maps, saliency, occlusion

Exit code 0: done. 2: no such run, its data are gone, there is no such image, no matplotlib, or a file cannot be written.
"""

import argparse
import pathlib
import sys
import time

import numpy as np

import minicnn as mc
from minicnn.data import DataError, Subset
from minicnn.data.transforms import Compose
from minicnn.data.views import predict
from minicnn.study import figures
from minicnn.study.run import open_run

SHOWN = 8               # test images of predictions.png
ROWS = 5                # of nearest.png


def main(argv=None):
    parser = argparse.ArgumentParser(prog="minicnn figures", description=__doc__.partition("\n")[0],
                                     epilog="Exit code 0: done; 2: no such run, its data are gone, there is no such image, no matplotlib, "
                                            "or a file cannot be written.")
    parser.add_argument("run", type=pathlib.Path, metavar="RUN", help="the folder of a run, for instance runs/mini-1")
    parser.add_argument("--image", type=int, default=0, metavar="N", help="the test image that is looked at closely (default: 0)")
    parser.add_argument("--among", type=int, default=5000, metavar="N", help="how many training images the nearest are looked for in, and "
                        "test images are counted, evenly spread (default: 5000)")
    parser.add_argument("--out", type=pathlib.Path, metavar="DIR", help="where to (default: RUN/figures)")
    args = parser.parse_args(argv)
    out = args.out or args.run / "figures"
    began = time.perf_counter()
    try:
        figures.figure_class()
        run = open_run(args.run)
        validation = run.data.validation
        if not 0 <= args.image < len(validation):
            raise ValueError(f"--image {args.image}: the test images are numbered 0 to {len(validation) - 1}")
        if args.among < 1:
            raise ValueError(f"--among {args.among}: at least 1 image is wanted")
        out.mkdir(parents=True, exist_ok=True)
        for name in draw(run, args.image, args.among, out):
            print(out / name, flush=True)
    except (DataError, mc.CheckpointError, ImportError, OSError, RuntimeError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{time.perf_counter() - began:.0f} s")
    return 0


def draw(run, number, among, out):
    """Draw a run's pictures into the folder `out`; yields the name of each as it is done.

    Args:
        run: a `minicnn.study.run.Run`.
        number: of the test image that is looked at closely.
        among: images that are used where all of the data set would take long.
    """
    model, data, classes = run.model, run.data, run.data.classes
    validation, training = data.validation, Subset(data.train.dataset, among)
    picture, x, label = seen(data, number)
    what = f"{run.checkpoint['arguments']['arch']} on {run.checkpoint['arguments']['data']}, {run.checkpoint['step']} steps"

    if any(r["kind"] == "train" for r in run.records):
        figures.training_curves(run.records, out / "curves.png", what)
        yield "curves.png"
    first = next(p for p in model.parameters() if p.ndim == 4).numpy()
    if first.shape[1] in (1, 3):
        figures.filters(first, out / "filters.png")
        yield "filters.png"
    images, labels = next(data.train.epoch(0))
    figures.histograms(model, run.optimizer, images, labels, out / "histograms.png")
    yield "histograms.png"

    figures.feature_maps(model, x, out / "feature_maps.png", picture, f"{what}: what each layer answers to test image {number}, "
                         f"{classes[label]}")
    yield "feature_maps.png"
    figures.saliency(model, x, label, picture, out / "saliency.png", classes)
    yield "saliency.png"
    figures.occlusion(model, x, label, picture, out / "occlusion.png", classes=classes)
    yield "occlusion.png"

    some = Subset(validation, among)
    numbers = [number, *(i for i in np.linspace(0, len(validation) - 1, SHOWN).astype(int).tolist() if i != number)][:SHOWN]
    few = [validation[i] for i in dict.fromkeys(numbers)]
    pictures, right = [image for image, _ in few], np.array([label for _, label in few])
    figures.predictions(pictures, predict(model, few, data.test_transform, workers=0)[0], right, classes, out / "predictions.png")
    yield "predictions.png"
    if len(classes) <= 20:
        probabilities, right = predict(model, some, data.test_transform)
        figures.confusion(probabilities.argmax(axis=1), right, classes, out / "confusion.png")
        yield "confusion.png"
    queries = few[:ROWS]
    figures.nearest(model, queries, training, data.test_transform, out / "nearest.png", classes=classes,
                    title=f"test images, and beside each the nearest of {len(training):,} training images, with their distances")
    yield "nearest.png"


def seen(data, number):
    """Of a test image what the network sees, (H, W, C) uint8; the same as its input, (C, H, W) float32; and the label."""
    image, label = data.validation[number]
    choose, arithmetic = data.test_transform.without_arithmetic()
    picture = np.asarray(choose(image))
    return picture, np.asarray(Compose(*arithmetic)(picture), np.float32).transpose(2, 0, 1), label


if __name__ == "__main__":
    sys.exit(main())
