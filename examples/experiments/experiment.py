"""Experiments: networks are trained under a few conditions with several seeds, and claims of the AlexNet paper are tested on their errors.

    python examples/experiments/NAME.py [--num-seeds 3] [--epochs N] [--max-images N] [--data fashion-mnist] [--out DIR]

Each experiment is a file of its own: what the paper claims, the conditions that are compared, and the quantity that is measured. With
the same seed, all conditions have the same initial weights and the same images in the same order (and, where they draw equally many
random numbers, the same dropout masks and crops). Finished runs are saved in DIR/NAME.json: the same command resumes an interrupted
experiment, and a larger --num-seeds adds to it.
"""

import argparse
import dataclasses
import itertools
import math
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import minicnn as mc
from minicnn.data import DataError, DataLoader, EvenSample, open_dataset
from minicnn.data.transforms import CenterCrop, Compose, Normalize, RandomCrop, Resize, channel_statistics, shorter_side
from minicnn.examples.alexnet import alexnet
from minicnn.examples.arguments import positive_int
from minicnn.examples.experiments.draw import draw
from minicnn.examples.experiments.error_bars import confidence_interval, effects, iterations_to, mean_and_error, verdict
from minicnn.examples.experiments.record import load_record, save_record, settings
from minicnn.train.evaluation import classification_metrics, predict_batches

# AlexNet mini with half of its filters: it trains twice as fast, so that there is time for twice as many seeds.
SMALL = {"small": ((16, 32, 48, 48, 32), (1, 2, 1, 2, 2), (5, 1, 2), 256, 28, "before pool", "after")}

BATCH_SIZE = 32
NUM_EVALUATED = 500     # images of each set during training; at the end all test images, and as many training images

Run = dict[str, Any]                                # one finished training: condition, seed, steps, errors
Measure = Callable[[Run], "float | None"]


@dataclasses.dataclass
class Condition:
    """The settings that differ. `network(classes, channels, side)` returns the network; `augment(data)` returns a list of transforms,
    by default the centre crop."""

    network: Callable[[int, int, int], Any]
    lr: float = 0.02
    momentum: float = 0.9
    weight_decay: float = 0.0005
    augment: Callable[["Data"], list[Any]] = lambda data: data.center


@dataclasses.dataclass
class Claim:
    """A claim that one condition has a larger value than another. Of several conditions, the one with the smallest mean is compared.

    Attributes:
        what: the measured quantity, in words.   measure: its value for a run; None if there is none.
        larger, smaller: the name of a condition, or a tuple of names.
        paper: the paper's statement, in words.   expected: its number, if it gives one.   ratio: compare by division.
    """

    what: str
    measure: Measure
    larger: str | tuple[str, ...]
    smaller: str | tuple[str, ...]
    paper: str
    expected: float | None = None
    ratio: bool = False


@dataclasses.dataclass
class Experiment:
    """Conditions by name, claims about them, and the default length of training."""

    name: str
    title: str
    description: str
    conditions: dict[str, Condition]
    claims: list[Claim]
    num_seeds: int
    epochs: int
    max_images: int
    evaluations: int = 10                       # how often the errors are measured during training
    decay: bool = False                         # whether the learning rate falls linearly to 0; else it is constant
    curves: tuple[str, ...] = ("test_error",)   # that the figure shows
    levels: tuple[float, ...] = ()              # dotted lines in the figure
    y_range: tuple[float, float] = (0, 50)


def small(classes: int, channels: int, side: int) -> Any:
    """AlexNet "small", the network that most experiments start from."""
    return alexnet("small", classes, channels, side, SMALL)


def at_end(what: str) -> Measure:
    """Measures "train_error", "test_error", "train_loss" or "test_loss" at the end of training."""
    return lambda run: run["end"][what]


def generalization_gap(run: Run) -> float:
    """Measures overfitting: the test error minus the training error at the end of training, in percentage points."""
    return float(run["end"]["test_error"] - run["end"]["train_error"])


def iterations_until(error: float) -> Measure:
    """Measures the number of iterations until the training error is at most `error` percent."""
    return lambda run: iterations_to(error, run["steps"], run["train_error"])


class Data:
    """The data sets of an experiment and their transforms.

    Attributes:
        training, test: the data sets.   classes, channels, side: their class names and the shape of their images.
        size: transforms that make all images the same size.   center, crop: what follows them, without and with randomness.
        normalize: the last transform, to pixels of mean 0 and variance 1.
    """

    def __init__(self, name: str, max_images: int) -> None:
        training, test = open_dataset(name)
        self.training, self.test = EvenSample(training, max_images), EvenSample(test, 2 * max_images)
        if len(self.training) < BATCH_SIZE:
            raise ValueError(f"{len(self.training)} training images are fewer than a batch of {BATCH_SIZE}; "
                             "use a larger --max-images or other --data")
        self.classes = training.classes
        height, width, self.channels = training[0][0].shape
        self.size: list[Any] = []
        self.center: list[Any] = []
        if training.in_memory and max(height, width) <= 64:     # small images keep their size
            self.side, self.crop = height, RandomCrop(height, padding=2)
        else:
            self.side, self.crop = 64, RandomCrop(64)
            self.size, self.center = [Resize(shorter_side(64))], [CenterCrop(64)]
        self.normalize = Normalize(*channel_statistics(self.training, 500))

    def loader(self, dataset: Any, augment: list[Any], **options: Any) -> DataLoader:
        """A DataLoader for one of the data sets."""
        return DataLoader(dataset, transform=Compose(*self.size, *augment, self.normalize), workers=0, **options)


def train(condition: Condition, data: Data, seed: int, epochs: int, evaluations: int, decay: bool) -> Run:
    """Train one network. Returns its errors (in percent) during training, and its errors and losses at the end."""
    mc.seed(seed)
    network = condition.network(len(data.classes), data.channels, data.side)
    mc.nn.init.kaiming_(network)
    optimizer = mc.optim.SGD(network.parameters(), condition.lr, condition.momentum, condition.weight_decay)
    batches = data.loader(data.training, condition.augment(data), batch_size=BATCH_SIZE, shuffle=True, drop_last=True)
    total = epochs * len(batches)
    schedule = mc.optim.LinearLR(optimizer, total)
    samples = {which: list(data.loader(EvenSample(dataset, NUM_EVALUATED), data.center, batch_size=250))
               for which, dataset in (("train", data.training), ("test", data.test))}
    evaluation_steps = {round(i * total / evaluations) for i in range(evaluations)}
    run: Run = {"steps": [], "train_error": [], "test_error": []}

    def evaluate_samples(step: int) -> None:
        run["steps"].append(step)
        for which, sample in samples.items():
            run[f"{which}_error"].append(error_and_loss(network, sample)[0])

    for step, (images, labels) in enumerate(itertools.chain.from_iterable(map(batches.epoch, range(epochs)))):
        if step in evaluation_steps:
            evaluate_samples(step)
        network.train()
        loss = mc.ops.cross_entropy(network(mc.Tensor(images)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if decay:
            schedule.step()
    evaluate_samples(total)
    run["end"] = {}
    for which, dataset in (("train", EvenSample(data.training, len(data.test))), ("test", data.test)):
        error, mean_loss = error_and_loss(network, data.loader(dataset, data.center, batch_size=250))
        run["end"].update({f"{which}_error": error, f"{which}_loss": mean_loss})
    return run


def error_and_loss(network: Any, batches: Any) -> tuple[float, float | None]:
    """(percentage of misclassified images, mean loss) in evaluation mode. NaN outputs are misclassified; a NaN loss is None."""
    probabilities, labels = predict_batches(network, batches)
    wrong = (probabilities.argmax(axis=1) != labels) | np.isnan(probabilities).any(axis=1)
    loss = classification_metrics(probabilities, labels)["loss"]
    return round(100 * float(wrong.mean()), 3), round(loss, 5) if math.isfinite(loss) else None


def compare(claim: Claim, runs: dict[str, list[Run]]) -> dict[str, Any]:
    """Test a claim on the runs, {condition: [run of each seed]}: a dict for the JSON file."""
    larger, smaller = (best_condition(names, claim.measure, runs) for names in (claim.larger, claim.smaller))
    values = {name: [v if v is None else round(v, 4) for v in map(claim.measure, runs[name])] for name in (larger, smaller)}
    effect = [round(v, 4) for v in effects(values[larger], values[smaller], claim.ratio)]
    here = format_mean(effect)
    if len(effect) > 1:
        here += f" ({', '.join(f'{v:.2f}' for v in confidence_interval(effect))})"
    return {"what": claim.what, "larger": larger, "smaller": smaller, "values": values,
            "compared": f"{larger} {'/' if claim.ratio else '-'} {smaller}", "effects": effect, "here": here,
            "paper": claim.paper, "verdict": verdict(effect, 1.0 if claim.ratio else 0.0, claim.expected)}


def best_condition(names: str | tuple[str, ...], measure: Measure, runs: dict[str, list[Run]]) -> str:
    """Of several conditions, the one with the smallest mean; conditions without a value for some seed come last."""
    def order(name: str) -> float:
        values = [measure(run) for run in runs[name]]
        return math.inf if None in values else mean_and_error([v for v in values if v is not None])[0]
    return names if isinstance(names, str) else min(names, key=order)


def format_mean(values: list[float | None] | list[float]) -> str:
    """Mean +- standard error of the values that are not None, and how many these are if some are."""
    given = [v for v in values if v is not None]
    if not given:
        return "never"
    mean, error = mean_and_error(given)
    digits = 0 if mean >= 50 else 2             # iterations are integers; errors and ratios are not
    text = f"{mean:.{digits}f}" + ("" if math.isnan(error) else f" +- {error:.{digits}f}")
    return text if len(given) == len(values) else f"{text} ({len(given)} of {len(values)} seeds)"


def tables(experiment: Experiment, runs: dict[str, list[Run]], results: list[dict[str, Any]]) -> list[str]:
    """The lines of two Markdown tables: the measurements of each condition; and each claim, with the paper's effect and the one found."""
    measures = {claim.what: claim.measure for claim in experiment.claims}
    conditions = [["condition", *measures],
                  *([name, *(format_mean([m(run) for run in runs[name]]) for m in measures.values())] for name in runs)]
    claims = [["compared", "paper", "here (95 %)", "effect"],
              *([f"{r['what']}: {r['compared']}", r["paper"], r["here"], r["verdict"]] for r in results)]
    return [*table(conditions), "", *table(claims)]


def table(rows: list[list[str]]) -> list[str]:
    """The lines of a Markdown table with aligned columns; the first row is its header."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows]
    return [lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]]


def run_experiment(experiment: Experiment, args: argparse.Namespace) -> None:
    """Train the networks that are missing from the JSON file; then write the results, the tables and the figure."""
    data = Data(args.data, args.max_images)
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / f"{experiment.name}.json"
    record = load_record(path, settings(experiment, args, data, BATCH_SIZE))
    done = {(run["condition"], run["seed"]): run for run in record["runs"]}
    for seed, name in itertools.product(range(args.num_seeds), experiment.conditions):
        if (name, seed) not in done:
            start = time.perf_counter()
            run = train(experiment.conditions[name], data, seed, args.epochs, experiment.evaluations, experiment.decay)
            run = {"condition": name, "seed": seed, "seconds": round(time.perf_counter() - start, 1), **run}
            done[name, seed] = run
            record["runs"].append(run)
            save_record(path, record)
            print(f"seed {seed}, {name}: training error {run['end']['train_error']:.1f} %, test error {run['end']['test_error']:.1f} %, "
                  f"{run['seconds']:.0f} s", flush=True)
    runs = {name: [done[name, seed] for seed in range(args.num_seeds)] for name in experiment.conditions}
    record["results"] = [compare(claim, runs) for claim in experiment.claims]
    save_record(path, record)
    print("\n".join(["", *tables(experiment, runs, record["results"])]))
    draw(experiment, runs, record["results"], path.with_suffix(".png"))
    print(f"\nwrote {path.with_suffix('.png')} and {path}")


def main(experiment: Experiment, argv: list[str] | None = None) -> int:
    """The command line of an experiment. Exit code 0: done. 2: an error in the arguments or the data. 3: interrupted by Ctrl-C."""
    parser = argparse.ArgumentParser(description=experiment.description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-seeds", type=positive_int, default=experiment.num_seeds, metavar="N",
                        help="networks for each condition (default: %(default)s)")
    parser.add_argument("--epochs", type=positive_int, default=experiment.epochs, metavar="N",
                        help="epochs of each training (default: %(default)s)")
    parser.add_argument("--max-images", type=positive_int, default=experiment.max_images, metavar="N",
                        help="training images, an even sample, and twice as many test images if there are so many (default: %(default)s)")
    parser.add_argument("--data", default="fashion-mnist", help="fashion-mnist (the default), photos, or a folder, as of CIFAR-10")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/experiments"),
                        help="folder for the results (default: %(default)s)")
    args = parser.parse_args(argv)
    try:
        with np.errstate(over="ignore", invalid="ignore"):      # a network that diverges has an error of 100 %
            run_experiment(experiment, args)
    except KeyboardInterrupt:
        print(f"interrupted; the same command resumes from {args.out}", file=sys.stderr)
        return 3
    except (DataError, ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
