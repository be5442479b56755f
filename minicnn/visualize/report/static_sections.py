"""The parts of a report that are the same for every snapshot: the settings of the run, its network layer by layer, its test predictions."""

import collections
import platform
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from minicnn.autograd import Function
from minicnn.data import DataError, DataLoader, EvenSample
from minicnn.inspect.activations import capture_activations
from minicnn.inspect.profile import Profile, profile
from minicnn.inspect.profile import Row as ProfileRow
from minicnn.inspect.summary import Row as SummaryRow
from minicnn.inspect.summary import summary
from minicnn.learn import op_source
from minicnn.nn.module import Module, train_mode
from minicnn.ops.cross_entropy import CrossEntropy
from minicnn.text import format_bytes
from minicnn.train.evaluation import predict_batches
from minicnn.train.run import Run
from minicnn.visualize.report import thumbnails

NUM_SAMPLES = 5         # test images that every layer is shown for
GALLERY_SIZE = 6        # test images in each of the two galleries, of predictions and of mistakes


def collect(run: Run, inputs: np.ndarray, on_device: Any, labels: np.ndarray, max_images: int | None = None) -> dict[str, Any]:
    """All static sections as one dict that JSON can hold.

    Args:
        run: a minicnn.train.run.Run.
        inputs, labels: as from `select_samples`; on_device: the inputs on the model's device.
        max_images: test images to evaluate, at most; None: 2,000 small ones or 200 photographs.
    """
    small = run.data.side <= 64
    batch = on_device[[i % len(inputs) for i in range(min(run.checkpoint["arguments"]["batch_size"], 32 if small else 8))]]
    layers, speed = describe_layers(run.model, inputs, labels, batch)
    return {"summary": describe_run(run, speed), "classes": list(run.data.classes), "layers": layers,
            "samples": [{"image": thumbnails.photo_url(denormalize(run.data, x)), "label": int(label)}
                        for x, label in zip(inputs, labels, strict=True)],
            "findings": [r for r in run.records if r["kind"] == "finding"],
            "test": describe_test(run, max_images or (2000 if small else 200))}


# ---- images

def select_samples(data: Any) -> tuple[np.ndarray, np.ndarray]:
    """(inputs (N, C, H, W), labels (N,)) of a few test images of different classes, evenly spread over the classes.

    Unreadable images are skipped. Raises DataError if none of those tried can be read.
    """
    count = NUM_SAMPLES if data.side <= 64 else NUM_SAMPLES - 1     # the thumbnails of a large network take more room
    dataset, targets = data.validation, np.linspace(0, len(data.classes) - 1, min(count, len(data.classes))).astype(int).tolist()
    found: dict[int, np.ndarray] = {}               # label: the network's input, (H, W, C)
    for i in np.unique(np.linspace(0, len(dataset) - 1, min(len(dataset), 20 * count)).astype(int)).tolist():
        try:
            image, label = dataset[i]
        except DataError:                           # reported by the training's own loaders
            continue
        if int(label) not in found:
            found[int(label)] = data.test_transform(image, None)
        if all(label in found for label in targets):
            break
    if not found:
        raise DataError("report: none of the test images that were tried can be read; train without a report (--no-report)")
    if not all(label in found for label in targets):         # more classes than images were tried
        available = sorted(found)
        targets = [available[j] for j in np.unique(np.linspace(0, len(available) - 1, count).astype(int))]
    return np.stack([found[label] for label in targets]).transpose(0, 3, 1, 2), np.array(targets)


def denormalize(data: Any, x: np.ndarray) -> np.ndarray:
    """A network's input (C, H, W) as an image again, (H, W, C) uint8."""
    normalize = data.test_transform.steps[-1]
    return np.clip(np.rint(x.transpose(1, 2, 0) * normalize.std + normalize.mean), 0, 255).astype(np.uint8)


# ---- the network

def describe_layers(model: Module, inputs: np.ndarray, labels: np.ndarray, batch: Any) -> tuple[list[dict[str, Any]], Profile]:
    """A dict for each layer, in order: its name and constructor, shapes, costs, speed, and its op's formula and source; and the profile.

    Args:
        model: a Module, on either device.
        inputs, labels: (N, C, H, W) on the CPU, (N,).
        batch: (n, C, H, W) on the device of the model, for the profile of a training step.
    """
    device = model.device
    rows = {r.name: r for r in summary(model.to("cpu"), inputs.shape[1:])}
    model.to(device)
    layers = capture_activations(model, batch[:1], labels[:1], training=True).layers
    with train_mode(model, True):
        speed = profile(model, batch, np.resize(labels, len(batch)), repeats=3)
    ops_of = collections.defaultdict(list)
    for row in speed.rows:
        ops_of[row.layer or "loss"].append(row)
    found: list[dict[str, Any]] = [{"name": "image", "kind": "the input of the network", "out": list(inputs.shape[1:])}]
    for name, layer in layers.items():
        found.append({"name": name, "kind": repr(layer.module), "in": list(layer.input.shape[1:]), "out": list(layer.output.shape[1:]),
                      "costs": describe_costs(rows.get(name.partition("#")[0])), "speed": describe_speed(ops_of[name]),
                      **describe_op(layer.functions), "channels": describe_channels(layer.output.shape[1:])})
    found.append({"name": "loss", "kind": "softmax and cross-entropy: minus the logarithm of the true class's probability",
                  "in": found[-1]["out"], "out": [], "speed": describe_speed(ops_of["loss"]), **describe_op([CrossEntropy])})
    return found, speed


def describe_costs(row: SummaryRow | None) -> list[list[str]]:
    """[name, value] of a layer's costs for one image."""
    if row is None:
        return []
    costs = [["parameters", f"{row.parameters:,}"]] if row.parameters else []
    if row.multiply_adds:
        costs.append(["multiply-adds", f"{row.multiply_adds:,}"])
    return [*costs, ["saved for backward", format_bytes(row.saved_bytes) if row.saved_bytes else "nothing"]]


def describe_speed(rows: Sequence[ProfileRow]) -> dict[str, Any]:
    """{"forward": [ms, "1.2 ms, 80 GFLOP/s, 60 % of this machine's peak"], "backward": ...} of the ops of a layer."""
    found = {}
    for direction in ("forward", "backward"):
        timings = [t for t in (getattr(r, direction) for r in rows) if t]
        if timings:
            total, slowest = sum(t.ms for t in timings), max(timings, key=lambda t: t.ms)
            # Below a percent the time is Python's overhead, and says nothing about the op.
            speed = f", {slowest.speed:,.0f} {slowest.unit}, {slowest.percent:.0f} % of this machine's peak"
            found[direction] = [total, f"{total:.2f} ms" + (speed if slowest.percent >= 1 else "")]
    return found


def describe_op(functions: Sequence[type[Function]]) -> dict[str, str]:
    """The formula of a layer's last op and the source of its forward and backward, from its module."""
    if not functions:
        return {"formula": "Identity: the layer returns its input unchanged."}
    cls = functions[-1]
    op = op_source.Op("", cls, cls, op_source.source_of(cls.__module__))
    return {"formula": op.formula, **{f"{direction}_source": "\n\n".join(op.source.cut(node) for _, node in reversed(op.methods(direction)))
                                      for direction in ("forward", "backward")}}


def describe_channels(shape: Sequence[int]) -> str:
    """Which part of a layer's output the thumbnails show."""
    if len(shape) != 3:
        units = int(np.prod(shape))
        first = f"{units} units" if units <= thumbnails.MAX_UNITS else f"the first {thumbnails.MAX_UNITS} of {units} units"
        return f"{first}, a pixel each"
    count = len(thumbnails.select_channels(shape[0], min(shape[1:])))
    return f"{count} of {shape[0]} channels" if count < shape[0] else f"all {shape[0]} channels"


# ---- the run

def describe_run(run: Run, speed: Profile) -> list[list[str]]:
    """[name, value] of the run's settings and results, as the rows of a table."""
    arguments, records = run.checkpoint["arguments"], run.records
    train = [r for r in records if r["kind"] == "train"]
    val = [r for r in records if r["kind"] == "val"]
    total = sum(p.size for p in run.model.parameters())
    rows = [["network", f"{arguments['arch']}, {total:,} parameters"],
            ["data", f"{arguments['data']}: {len(run.data.train.dataset):,} training and {len(run.data.validation):,} test images, "
                     f"{len(run.data.classes)} classes"]]
    if val:
        best = max(val, key=lambda r: r["top1"])
        rows.append(["test accuracy", f"top-1 {val[-1]['top1']:.2f} %, top-5 {val[-1]['top5']:.2f} % after step {val[-1]['step']:,}; "
                                      f"best top-1 {best['top1']:.2f} % after step {best['step']:,}"])
    if train:
        rows.append(["training", f"{train[-1]['step']:,} steps with batches of {arguments['batch_size']} images, {duration(records)}"])
    rows.append(["hyperparameters", ", ".join(f"{name.replace('_', ' ')} {arguments[name]}" for name in
                                              ("lr", "schedule", "momentum", "weight_decay", "init", "seed") if name in arguments)])
    machine = f"{speed.threads} cores, {platform.machine()}" if speed.device == "cpu" else speed.device
    rows.append(["time of a step", f"{speed.step_ms:.1f} ms for {speed.input_shape[0]} images on this machine ({machine}): forward "
                                   f"{speed.forward_ms:.1f} ms, backward {speed.backward_ms:.1f} ms"])
    rows.append(["peak memory of a step", f"{format_bytes(speed.peak_bytes)} of outputs, saved arrays and gradients"])
    rows.append(["versions", ", ".join(f"{name} {version}" for name, version in run.checkpoint.get("versions", {}).items())])
    steps = max((r["step"] for r in records), default=0)
    end = f" --max-steps {steps}" if 0 < steps < arguments["epochs"] * len(run.data.train) else ""
    was_resumed = any(r["kind"] == "resume" and r["step"] for r in records)
    note = " (the run was resumed; these are the arguments that it had at last)" if was_resumed else ""
    rows.append(["command", f"minicnn train {command_line(arguments)}{end}{note}"])
    return rows


def command_line(arguments: Mapping[str, Any]) -> str:
    """The arguments of a run as typed in a shell."""
    return " ".join(f"--{name.replace('_', '-')} {shlex.quote(str(value))}" for name, value in arguments.items() if value is not None)


def duration(records: Sequence[dict[str, Any]]) -> str:
    """How long the training took, without pauses: a resumed run's log counts the seconds of each session from 0."""
    seconds, last = 0.0, 0.0
    for r in records:
        if r["kind"] == "resume":
            seconds, last = seconds + last, 0.0
        elif "seconds" in r:
            last = max(last, r["seconds"])
    seconds += last
    return f"{seconds:.0f} s" if seconds < 300 else f"{seconds / 60:.0f} min" if seconds < 18000 else f"{seconds / 3600:.1f} h"


# ---- the test

def describe_test(run: Run, max_images: int) -> dict[str, Any]:
    """The network's predictions for at most `max_images` test images: accuracy, examples, its most confident mistakes, confusion matrix."""
    dataset = EvenSample(run.data.validation, max_images)
    loader = DataLoader(dataset, min(len(dataset), run.checkpoint["arguments"]["batch_size"]), run.data.test_transform, workers=0,
                        on_error="skip", max_errors=10 ** 9)
    p, y = predict_batches(run.model, loader)
    finite = np.isfinite(p).all(axis=1)             # a row of NaN is not a prediction, and counts as wrong
    predicted = np.where(finite, np.nan_to_num(p).argmax(axis=1), -1)
    wrong = np.flatnonzero(finite & (predicted != y))
    found: dict[str, Any] = {"images": len(y), "accuracy": 100 * float((predicted == y).mean()), "non_finite": int((~finite).sum()),
                             "step": run.checkpoint.get("step", 0)}
    if not loader.bad:                              # row i of p is image i of the data set only if no image was skipped
        mistakes = wrong[np.argsort(-p[wrong, predicted[wrong]], kind="stable")][:GALLERY_SIZE].tolist()
        examples = [i for i in np.unique(np.linspace(0, len(y) - 1, GALLERY_SIZE).astype(int)).tolist() if finite[i]]
        for name, indices in (("examples", examples), ("mistakes", mistakes)):
            found[name] = [describe_prediction(run, dataset, i, p[i], y[i]) for i in indices]
    if len(run.data.classes) <= 20:
        counts = np.zeros((len(run.data.classes),) * 2, int)
        np.add.at(counts, (y[finite], predicted[finite]), 1)
        found["confusion_matrix"] = counts.tolist()
    return found


def describe_prediction(run: Run, dataset: Any, i: int, p: np.ndarray, label: int) -> dict[str, Any]:
    """Test image i with its label and the five most probable classes: [class, probability]."""
    x = run.data.test_transform(dataset[i][0], None).transpose(2, 0, 1)
    best = np.argsort(-p, kind="stable")[:5]
    return {"image": thumbnails.photo_url(denormalize(run.data, x)), "label": int(label),
            "bars": [[int(c), round(float(p[c]), 4)] for c in best]}
