"""What a report says of a run that is the same at every moment: its recipe, its network layer by layer, and how it does in the test."""

import collections
import platform
import shlex
from typing import Any

import numpy as np

from minicnn.data import DataError, DataLoader, Subset
from minicnn.data.views import device_of_model, evaluating, softmax_of
from minicnn.ops.cross_entropy import CrossEntropy
from minicnn.study import anatomy
from minicnn.study.inside import in_mode, look_inside
from minicnn.study.profile import profile
from minicnn.study.report import pictures
from minicnn.study.summary import summary
from minicnn.study.trace import readable

SAMPLES = 5             # test images that every layer is shown with
GALLERY = 6             # of the test: so many answers, and so many mistakes


# ---- images

def samples(data):
    """(inputs (N, C, H, W), labels (N,)) of a few test images of different classes, evenly spread over the classes."""
    count = SAMPLES if data.side <= 64 else SAMPLES - 1             # the pictures of a large network take more room
    dataset, wanted = data.validation, np.linspace(0, len(data.classes) - 1, min(count, len(data.classes))).astype(int).tolist()
    found: dict[int, np.ndarray] = {}               # label: the network's input, (H, W, C)
    for i in np.unique(np.linspace(0, len(dataset) - 1, min(len(dataset), 20 * count)).astype(int)).tolist():
        try:
            image, label = dataset[i]
        except DataError:                           # whoever trains with it says what is to be done about it
            continue
        if int(label) not in found:
            found[int(label)] = data.test_transform(image, None)
        if all(label in found for label in wanted):
            break
    if not found:
        raise DataError("none of the test images that were tried can be read, so a report has nothing to show; leave it out (--no-report)")
    if not all(label in found for label in wanted):         # more classes than images were tried
        there = sorted(found)
        wanted = [there[j] for j in np.unique(np.linspace(0, len(there) - 1, count).astype(int))]
    return np.stack([found[label] for label in wanted]).transpose(0, 3, 1, 2), np.array(wanted)


def as_seen(data, x):
    """The network's input (C, H, W) as an image again (H, W, C), uint8."""
    scale = data.test_transform.steps[-1]
    return np.clip(np.rint(x.transpose(1, 2, 0) * scale.std + scale.mean), 0, 255).astype(np.uint8)


# ---- the network

def layers_of(model, inputs, labels, batch):
    """A dict for each layer, in order: its name and constructor, shapes, costs, speed, and its op's formula and source.

    Times are of a training step with `batch`, inputs (N, C, H, W) on the device of the model.
    """
    device = device_of_model(model)
    rows = {r.name: r for r in summary(model.to("cpu"), inputs.shape[1:])}
    model.to(device)
    seen = look_inside(model, batch[:1], labels[:1], training=True).layers
    with in_mode(model, True):
        speed = profile(model, batch, np.resize(labels, len(batch)), repeats=3)
    parts = collections.defaultdict(list)
    for row in speed.rows:
        parts[row.layer or "loss"].append(row)
    found = [{"name": "image", "kind": "what the network gets", "out": list(inputs.shape[1:])}]
    for name, layer in seen.items():
        row = rows.get(name.partition("#")[0])
        found.append({"name": name, "kind": repr(layer.module), "in": list(layer.input.shape[1:]), "out": list(layer.output.shape[1:]),
                      "costs": costs(row) if row else [], "speed": speeds(parts[name]), **source(layer.functions),
                      "channels": channels(layer.output.shape[1:])})
    found.append({"name": "loss", "kind": "softmax, and the negative logarithm of the right class's probability",
                  "in": found[-1]["out"], "out": [], "speed": speeds(parts["loss"]), **source([CrossEntropy])})
    return found, speed


def costs(row):
    """[what, how much] of a layer, for one image."""
    found = [["parameters", f"{row.parameters:,}"]] if row.parameters else []
    if row.multiply_adds:
        found.append(["multiply-adds", f"{row.multiply_adds:,}"])
    return [*found, ["kept for backward", readable(row.saved_bytes) if row.saved_bytes else "nothing"]]


def speeds(rows):
    """{"forward": "1.2 ms, 80 GFLOP/s, 60 % of the peak", "backward": ...} of the ops of a layer."""
    found = {}
    for way in ("forward", "backward"):
        parts = [p for p in (getattr(r, way) for r in rows) if p]
        if parts:
            most = max(parts, key=lambda p: p.ms)
            # What is over in no time says nothing about speed: most of it is Python.
            speed = f", {most.speed:,.0f} {most.unit}, {most.percent:.0f} % of this machine's peak" if most.percent >= 1 else ""
            found[way] = [sum(p.ms for p in parts), f"{sum(p.ms for p in parts):.2f} ms{speed}"]
    return found


def source(functions):
    """The formula of an op and its forward and backward, from its module."""
    if not functions:
        return {"formula": "Nothing is computed here in a test: the answer is what came in."}
    cls = functions[-1]
    op = anatomy.Op("", cls, cls, anatomy.source_of(cls.__module__))
    return {"formula": op.formula, **{f"{way}_source": "\n\n".join(op.source.cut(node) for _, node in reversed(op.methods(way)))
                                      for way in ("forward", "backward")}}


def channels(shape):
    """Which part of a layer's answer the pictures show."""
    if len(shape) != 3:
        units = int(np.prod(shape))
        return f"{units} units, a pixel each" if units <= pictures.UNITS else f"the first {pictures.UNITS} of {units} units, a pixel each"
    count = len(pictures.shown(shape[0], min(shape[1:])))
    return f"{count} of {shape[0]} channels" if count < shape[0] else f"all {shape[0]} channels"


# ---- the run

def recipe(run, speed):
    """[what, value] of the run, as a table."""
    arguments, records = run.checkpoint["arguments"], run.records
    train = [r for r in records if r["kind"] == "train"]
    val = [r for r in records if r["kind"] == "val"]
    total = sum(p.size for p in run.model.parameters())
    rows = [["network", f"{arguments['arch']}, {total:,} parameters"],
            ["data", f"{arguments['data']}: {len(run.data.train.dataset):,} training and {len(run.data.validation):,} test images, "
                     f"{len(run.data.classes)} classes"]]
    if val:
        best = max(val, key=lambda r: r["top1"])
        rows.append(["test", f"top-1 {val[-1]['top1']:.2f} %, top-5 {val[-1]['top5']:.2f} % after step {val[-1]['step']:,}; "
                             f"best {best['top1']:.2f} % after step {best['step']:,}"])
    if train:
        rows.append(["training", f"{train[-1]['step']:,} steps of {arguments['batch_size']} images, {duration(records)}"])
    rows.append(["recipe", ", ".join(f"{name.replace('_', ' ')} {arguments[name]}" for name in
                                     ("lr", "schedule", "momentum", "weight_decay", "init", "seed") if name in arguments)])
    where = f"{speed.threads} cores, {platform.machine()}" if speed.device == "cpu" else speed.device
    rows.append(["a step here", f"{speed.step_ms:.1f} ms for {speed.input_shape[0]} images ({where}): forward {speed.forward_ms:.1f}, "
                                f"backward {speed.backward_ms:.1f}; at most {readable(speed.peak_bytes)} of answers and gradients at once"])
    rows.append(["trained with", ", ".join(f"{name} {version}" for name, version in run.checkpoint.get("versions", {}).items())])
    steps = max((r["step"] for r in records), default=0)
    end = f" --steps {steps}" if 0 < steps < arguments["epochs"] * len(run.data.train) else ""
    resumed = " (it was resumed on the way: of what was changed then, this has the last values)" if any(
        r["kind"] == "resume" and r["step"] for r in records) else ""
    rows.append(["once more", f"python examples/train_alexnet.py {command(arguments)}{end}{resumed}"])
    return rows


def command(arguments):
    """The arguments of a run as one would type them."""
    return " ".join(f"--{name.replace('_', '-')} {shlex.quote(str(value))}" for name, value in arguments.items() if value is not None)


def duration(records):
    """How long the training took, without its pauses: each part of a run that was resumed counts its own seconds."""
    seconds, last = 0.0, 0.0
    for r in records:
        if r["kind"] == "resume":
            seconds, last = seconds + last, 0.0
        elif "seconds" in r:
            last = max(last, r["seconds"])
    seconds += last
    return f"{seconds:.0f} s" if seconds < 300 else f"{seconds / 60:.0f} min" if seconds < 18000 else f"{seconds / 3600:.1f} h"


# ---- the test

def test(run, most):
    """How the network does with up to `most` test images: its answers, its worst mistakes, and who is taken for whom."""
    some = Subset(run.data.validation, most)
    loader = DataLoader(some, min(len(some), run.checkpoint["arguments"]["batch_size"]), run.data.test_transform, workers=0,
                        on_bad="skip", bad_limit=10 ** 9)
    probabilities, labels = [], []
    with evaluating(run.model):
        for images, right in loader:
            probabilities.append(softmax_of(run.model, images))
            labels.append(right)
    p, y = np.concatenate(probabilities), np.concatenate(labels)
    good = np.isfinite(p).all(axis=1)               # NaN is no answer, and wrong
    guess = np.where(good, np.nan_to_num(p).argmax(axis=1), -1)
    wrong = np.flatnonzero(good & (guess != y))
    found: dict[str, Any] = {"images": len(y), "right": 100 * float((guess == y).mean()), "no_answer": int((~good).sum()),
                             "step": run.checkpoint.get("step", 0)}
    if not loader.bad:                      # else the numbers of the images are not those of the answers
        worst = wrong[np.argsort(-p[wrong, guess[wrong]], kind="stable")][:GALLERY].tolist()
        usual = [i for i in np.unique(np.linspace(0, len(y) - 1, GALLERY).astype(int)).tolist() if good[i]]
        found |= {name: [answer(run, some, i, p[i], y[i]) for i in chosen] for name, chosen in (("answers", usual), ("mistakes", worst))}
    if len(run.data.classes) <= 20:
        counts = np.zeros((len(run.data.classes),) * 2, int)
        np.add.at(counts, (y[good], guess[good]), 1)
        found["confusion"] = counts.tolist()
    return found


def answer(run, dataset, i, p, label):
    """A test image with the five most probable classes: [class, probability]."""
    x = run.data.test_transform(dataset[i][0], None).transpose(2, 0, 1)
    best = np.argsort(-p, kind="stable")[:5]
    return {"picture": pictures.photograph(as_seen(run.data, x)), "label": int(label),
            "bars": [[int(c), round(float(p[c]), 4)] for c in best]}
