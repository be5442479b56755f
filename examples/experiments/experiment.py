"""One network is trained under one condition with one seed, and its errors are noted on the way. An experiment is a few of these.

    python examples/experiments/NAME.py [--seeds 3] [--epochs N] [--limit N] [--data fashion-mnist] [--out DIR]

Each experiment is a file of its own: what the paper claims, the conditions that are compared, and by what number. With the same seed
all conditions have the same first weights and the same images in the same order (and, where they draw as many, the same dropout
masks and crops). What is finished is kept in DIR/NAME.json: the same command goes on where it was interrupted, and more --seeds add to it.
"""

import argparse
import dataclasses
import itertools
import math
import pathlib
import sys
import time
from collections.abc import Callable

import numpy as np
from draw import draw
from error_bars import effects, interval, iterations_to, mean_and_error, verdict
from record import begun, save, settings

import minicnn as mc
from minicnn.data import DataError, DataLoader, Subset, open_dataset
from minicnn.data.transforms import CenterCrop, Compose, Normalize, RandomCrop, Resize, channel_statistics, shorter_side

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
from alexnet import alexnet

# AlexNet mini with half of its filters: it trains twice as fast, so that there is time for twice as many seeds.
SMALL = {"small": ((16, 32, 48, 48, 32), (1, 2, 1, 2, 2), (5, 1, 2), 256, 28, "before pool", "after")}

BATCH = 32
LOOK_AT = 500           # images of each set on the way; at the end all test images, and as many training images


@dataclasses.dataclass
class Condition:
    """What is different. `network(classes, channels, side)` makes it; `augment(data)` is a list of transforms, by default the middle."""

    network: Callable
    lr: float = 0.02
    momentum: float = 0.9
    weight_decay: float = 0.0005
    augment: Callable = lambda data: data.middle


@dataclasses.dataclass
class Claim:
    """That one condition has a larger number than another. Of several names, the condition with the smallest mean stands for all.

    Attributes:
        what: the number, in words.   measure: called with a run, gives it; None if there is none.
        larger, smaller: a name, or a tuple of names.
        paper: what the paper says, in words.   expect: its number, if it has one.   ratio: compare by division.
    """

    what: str
    measure: Callable
    larger: str | tuple
    smaller: str | tuple
    paper: str
    expect: float | None = None
    ratio: bool = False


@dataclasses.dataclass
class Experiment:
    """Conditions by name, claims about them, and how long each network is trained unless the command line says otherwise."""

    name: str
    title: str
    about: str
    conditions: dict
    claims: list
    seeds: int
    epochs: int
    limit: int
    looks: int = 10                     # times that the errors are noted on the way
    decay: bool = False                 # the rate falls in a straight line to 0; else it stays
    curves: tuple = ("test_error",)     # what the figure shows, over the steps
    levels: tuple = ()                  # where the figure has a dotted line
    y_range: tuple = (0, 50)


def small(classes, channels, side):
    """The network that most experiments start from."""
    return alexnet("small", classes, channels, side, SMALL)


def at_end(what):
    """A measure: "train_error", "test_error", "train_loss" or "test_loss" when training is over."""
    return lambda run: run["end"][what]


def gap(run):
    """A measure of overfitting: how much larger the test error is than the training error, when training is over."""
    return run["end"]["test_error"] - run["end"]["train_error"]


def until(error):
    """A measure: iterations until the training error is `error` percent or less."""
    return lambda run: iterations_to(error, run["steps"], run["train_error"])


class Data:
    """What the networks of an experiment are trained and tested with.

    Attributes: training, test, the data sets; classes, channels, side; size, the transforms that make all images one size; then comes
    middle, or crop with chance in it; scale, the last one, to pixels of mean 0 and variance 1.
    """

    def __init__(self, where, limit):
        training, test = open_dataset(where)
        self.training, self.test = Subset(training, limit), Subset(test, 2 * limit)
        if len(self.training) < BATCH:
            raise ValueError(f"{len(self.training)} training images make no batch of {BATCH}; give a larger --limit, or other --data")
        self.classes = training.classes
        height, width, self.channels = training[0][0].shape
        if training.in_memory and max(height, width) <= 64:     # small images stay as they are
            self.side, self.size, self.middle, self.crop = height, [], [], RandomCrop(height, padding=2)
        else:
            self.side = 64
            self.size, self.middle, self.crop = [Resize(shorter_side(64))], [CenterCrop(64)], RandomCrop(64)
        self.scale = Normalize(*channel_statistics(self.training, 500))

    def loader(self, dataset, augment, **how):
        """Batches of one of the data sets."""
        return DataLoader(dataset, transform=Compose(*self.size, *augment, self.scale), workers=0, **how)


def train(condition, data, seed, epochs, looks, decay):
    """The run of one condition with one seed: a dict of errors (%) and losses on the way and at the end."""
    mc.seed(seed)
    network = condition.network(len(data.classes), data.channels, data.side)
    mc.init.he(network)
    sgd = mc.optim.SGD(network.parameters(), condition.lr, condition.momentum, condition.weight_decay)
    batches = data.loader(data.training, condition.augment(data), batch_size=BATCH, shuffle=True, drop_last=True)
    total = epochs * len(batches)
    schedule = mc.optim.LinearDecay(sgd, total)
    seen_often = [list(data.loader(Subset(d, LOOK_AT), data.middle, batch_size=250)) for d in (data.training, data.test)]
    when = {round(i * total / looks) for i in range(looks)}
    run: dict = {"steps": [], "train_error": [], "test_error": []}

    def look(step):
        run["steps"].append(step)
        for which, looked_at in zip(("train", "test"), seen_often, strict=True):
            run[f"{which}_error"].append(error_and_loss(network, looked_at)[0])

    for step, (images, labels) in enumerate(itertools.chain.from_iterable(map(batches.epoch, range(epochs)))):
        if step in when:
            look(step)
        network.train()
        loss = mc.ops.cross_entropy(network(mc.Tensor(images)), labels)
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        if decay:
            schedule.step()
    look(total)
    run["end"] = {}
    for which, dataset in (("train", Subset(data.training, len(data.test))), ("test", data.test)):
        error, loss = error_and_loss(network, data.loader(dataset, data.middle, batch_size=250))
        run["end"].update({f"{which}_error": error, f"{which}_loss": loss})
    return run


def error_and_loss(network, batches):
    """Of a network that only looks: how many percent are wrong, and the mean loss (None if it is no number)."""
    network.eval()
    wrong = loss = count = 0
    with mc.no_grad():
        for images, labels in batches:
            scores = network(mc.Tensor(images))             # (N, classes)
            good = (scores.data.argmax(1) == labels) & np.isfinite(scores.data).all(1)      # NaN is no answer
            wrong += int((~good).sum())
            loss += mc.ops.cross_entropy(scores, labels).item() * len(labels)
            count += len(labels)
    return round(100 * wrong / count, 3), round(loss / count, 5) if math.isfinite(loss) else None


def compared(claim, runs):
    """What the runs {condition: [run of each seed]} say about a claim: a dict for the JSON file."""
    larger, smaller = (best(names, claim.measure, runs) for names in (claim.larger, claim.smaller))
    values = {name: [v if v is None else round(v, 4) for v in map(claim.measure, runs[name])] for name in (larger, smaller)}
    effect = [round(v, 4) for v in effects(values[larger], values[smaller], claim.ratio)]
    unit = f"{larger} {'/' if claim.ratio else '-'} {smaller}"
    here = f"{shown(effect)} ({', '.join(f'{v:.2f}' for v in interval(effect))})" if len(effect) > 1 else shown(effect)
    return {"what": claim.what, "larger": larger, "smaller": smaller, "values": values, "compared": unit, "effects": effect, "here": here,
            "paper": claim.paper, "verdict": verdict(effect, float(claim.ratio), claim.expect)}


def best(names, measure, runs):
    """Of several conditions, the one whose numbers have the smallest mean; one that has no number for some seed comes last."""
    def order(name):
        values = [measure(run) for run in runs[name]]
        return math.inf if None in values else mean_and_error(values)[0]
    return names if isinstance(names, str) else min(names, key=order)


def shown(values):
    """Mean +- standard error of the values that are there, and how many they are if not all are."""
    there = [v for v in values if v is not None]
    if not there:
        return "never"
    mean, error = mean_and_error(there)
    digits = 0 if mean >= 50 else 2             # iterations are whole; errors and ratios are not
    text = f"{mean:.{digits}f}" + ("" if math.isnan(error) else f" +- {error:.{digits}f}")
    return text if len(there) == len(values) else f"{text} ({len(there)} of {len(values)} seeds)"


def tables(experiment, runs, results):
    """Two tables, as lines: each condition's numbers; and each claim, the paper's number beside what was found."""
    measures = {claim.what: claim.measure for claim in experiment.claims}
    numbers = [["condition", *measures], *([name, *(shown([m(run) for run in runs[name]]) for m in measures.values())] for name in runs)]
    claims = [["compared", "paper", "here (95 %)", "effect"],
              *([f"{r['what']}: {r['compared']}", r["paper"], r["here"], r["verdict"]] for r in results)]
    return [*table(numbers), "", *table(claims)]


def table(rows):
    """Lines of a table, columns aligned; the first row is its head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows]
    return [lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]]


def carry_out(experiment, args):
    """Train what is not trained yet; then the tables, the figure and the JSON file."""
    data = Data(args.data, args.limit)
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / f"{experiment.name}.json"
    record = begun(path, settings(experiment, args, data, BATCH))
    done = {(run["condition"], run["seed"]): run for run in record["runs"]}
    for seed, name in itertools.product(range(args.seeds), experiment.conditions):
        if (name, seed) not in done:
            start = time.perf_counter()
            run = train(experiment.conditions[name], data, seed, args.epochs, experiment.looks, experiment.decay)
            run = {"condition": name, "seed": seed, "seconds": round(time.perf_counter() - start, 1), **run}
            done[name, seed] = run
            record["runs"].append(run)
            save(path, record)
            print(f"seed {seed}, {name}: training error {run['end']['train_error']:.1f} %, test error {run['end']['test_error']:.1f} %, "
                  f"{run['seconds']:.0f} s", flush=True)
    runs = {name: [done[name, seed] for seed in range(args.seeds)] for name in experiment.conditions}
    record["results"] = [compared(claim, runs) for claim in experiment.claims]
    save(path, record)
    print("\n".join(["", *tables(experiment, runs, record["results"])]))
    draw(experiment, runs, record["results"], path.with_suffix(".png"))
    print(f"\nsee {path.with_suffix('.png')} and {path}")


def main(experiment, argv=None):
    """The command. Exit code 0: done. 2: something is wrong with the arguments or the data. 3: stopped by Ctrl-C."""
    parser = argparse.ArgumentParser(description=experiment.about, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, of in (("seeds", "networks for each condition"), ("epochs", "of each network"), ("limit", "training images, evenly spread; "
                     "and twice as many of the test set, if it has them")):
        parser.add_argument(f"--{name}", type=positive_int, default=getattr(experiment, name), metavar="N",
                            help=f"{of} (default: %(default)s)")
    parser.add_argument("--data", default="fashion-mnist", help="fashion-mnist (the default), photos, or a folder, as of CIFAR-10")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/experiments"), help="for results (default: %(default)s)")
    args = parser.parse_args(argv)
    try:
        with np.errstate(over="ignore", invalid="ignore"):      # a network that explodes has an error of 100 %
            carry_out(experiment, args)
    except KeyboardInterrupt:
        print(f"stopped; the same command goes on with what is in {args.out}", file=sys.stderr)
        return 3
    except (DataError, ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def positive_int(text):
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive whole number")
    return int(text)
