"""A snapshot: the output of every layer for a few test images, and the gradients of the loss with respect to it, at one step of a training.

It is a dict that JSON can hold: the step, and for each layer its thumbnails and the numbers below them. The first "layer" is the image
itself, the last one the loss, where backward starts: its gradient with respect to the scores is p - 1 for the true class, p for others.
"""

import os
import pathlib
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from minicnn.backend.arrays import to_device
from minicnn.inspect.activations import Layer, capture_activations, subsample
from minicnn.nn.module import Module
from minicnn.tensor import Tensor
from minicnn.visualize.report import thumbnails

FOLDER = "snapshots"    # in the folder of a run: <step>.json
BINS = 41               # of a histogram; odd, so that one bin is around 0


def list_snapshots(run_folder: str | os.PathLike[str]) -> list[tuple[int, pathlib.Path]]:
    """[(step, path), ...] of the snapshots in the folder of a run, by step."""
    return sorted((int(path.stem), path) for path in pathlib.Path(run_folder, FOLDER).glob("*.json") if path.stem.isdigit())


def snapshot(model: Module, images: Any, labels: Any, step: int, updates: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Run a few images forward and backward, in evaluation mode, and return the snapshot.

    Args:
        model: a Module; left unchanged.
        images: (N, C, H, W), inputs of the network, an array or Tensor on its device.
        labels: (N,) integers.
        step: training steps done so far.
        updates: {parameter name: what the last step added to it, or None if unknown}.
    """
    activations = capture_activations(model, images, labels)
    layers: dict[str, Any] = {"image": gradient_images(to_cpu(activations.input_gradient))}
    producer: dict[int, str] = {}       # id of an output: the layer that produced it
    for name, layer in activations.layers.items():
        first = producer.setdefault(id(layer.output), name)             # dropout returns its input unchanged in evaluation mode
        layers[name] = {"same_as": first} if first != name else {
            **activation_images(layer), **weight_images(name.partition("#")[0], layer, updates or {})}
    scores = to_cpu(activations.scores).astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        probabilities = powers / powers.sum(axis=1, keepdims=True)
        losses = -np.log(probabilities[np.arange(len(labels)), labels])
    layers["loss"] = loss_layer(probabilities, labels)
    return {"step": step, "images_crc32": checksum(images, labels), "loss": [json_number(x) for x in losses], "layers": layers}


def checksum(images: Any, labels: Any) -> int:
    """A CRC-32 of images and labels, by which a snapshot of other images is recognised."""
    return zlib.crc32(np.ascontiguousarray(to_cpu(images)).tobytes() + np.asarray(labels, np.int64).tobytes())


def to_cpu(array: Any) -> np.ndarray:
    """A Tensor or an array as a NumPy array."""
    array = array.data if isinstance(array, Tensor) else array
    return np.asarray(to_device(array, "cpu"))


def activation_images(layer: Layer) -> dict[str, Any]:
    """Thumbnails of a layer's output and of the gradient with respect to it, one for each image, with their captions and magnitudes."""
    outputs = to_cpu(layer.output)
    found: dict[str, Any] = {"forward": [thumbnails.data_url(thumbnails.activation_tiles(y)) for y in outputs],
                             "forward_text": [describe_values(y) for y in outputs]}
    if layer.gradient is not None:
        gradients = to_cpu(layer.gradient)
        found |= gradient_images(gradients)
        found["magnitudes"] = [[json_number(norm(y) / y.size ** 0.5), json_number(norm(g))]         # RMS, norm
                               for y, g in zip(outputs, gradients, strict=True)]
    return found


def gradient_images(gradients: np.ndarray) -> dict[str, Any]:
    """Thumbnails of gradients, one for each image, and their captions."""
    return {"backward": [thumbnails.data_url(thumbnails.activation_tiles(g)) for g in gradients],
            "backward_text": [describe_gradient(g) for g in gradients]}


def loss_layer(probabilities: np.ndarray, labels: Any) -> dict[str, Any]:
    """For each image up to ten classes, the most probable and the true one: [class, probability, d loss / d score]."""
    rows = []
    for p, label in zip(probabilities, labels, strict=True):
        best = np.argsort(-np.nan_to_num(p), kind="stable")[:10]
        some = sorted(best) if len(p) <= 10 else [*best[:9], best[9] if label in best[:9] else label]
        rows.append([[int(c), json_number(p[c]), json_number(p[c] - (c == label))] for c in some])
    return {"bars": rows}


def weight_images(name: str, layer: Layer, updates: Mapping[str, Any]) -> dict[str, Any]:
    """Thumbnails and histograms of a layer's weights and of their gradient, and |last update| / |weights| if the update is known."""
    if "weight" not in layer.parameters:
        return {}
    weight, gradient = layer.parameters["weight"]
    w = to_cpu(weight)
    selection = thumbnails.describe_selection(w.shape)
    found: dict[str, Any] = {"weight": thumbnails.weight_url(w), "weight_text": describe_values(w) + selection,
                             "weight_bins": histogram(subsample(weight), thumbnails.largest(w))}
    if gradient is not None:
        g = to_cpu(gradient)
        found |= {"gradient": thumbnails.weight_url(g), "gradient_text": describe_gradient(g) + selection,
                  "gradient_bins": histogram(subsample(gradient), thumbnails.largest(g))}
    update = updates.get(f"{name}.weight")
    if update is not None:
        found["update_ratio"] = json_number(norm(to_cpu(update)) / max(norm(w), 1e-30))
    return found


def histogram(values: np.ndarray, limit: float) -> list[Any]:
    """[counts in BINS equal bins from -limit to limit, limit]; non-finite values are not counted."""
    counts, _ = np.histogram(values[np.isfinite(values)], BINS, (-max(limit, 1e-30), max(limit, 1e-30)))
    return [counts.tolist(), json_number(limit)]


def describe_values(a: np.ndarray) -> str:
    """The range of an array, its mean, and the share of zeros; or how many elements are not finite."""
    return describe_non_finite(a) or f"{a.min():.3g} to {a.max():.3g}, mean {a.mean():.3g}" + describe_zeros(a)


def describe_gradient(g: np.ndarray) -> str:
    """The largest magnitude of a gradient, its norm, and the share of zeros; or how many elements are not finite."""
    return describe_non_finite(g) or f"at most {np.abs(g).max():.2g}, norm {norm(g):.2g}" + describe_zeros(g)


def describe_non_finite(a: np.ndarray) -> str:
    """How many elements are NaN or infinite; empty if none."""
    count = np.count_nonzero(~np.isfinite(a))
    return f"{count:,} of {a.size:,} are NaN or infinite" if count else ""


def describe_zeros(a: np.ndarray) -> str:
    """The share of zeros, to be appended to a caption; empty below half a percent."""
    zeros = 100 * np.mean(a == 0)
    return f", {zeros:.0f} % are zero" if zeros >= 0.5 else ""


def norm(a: np.ndarray) -> float:
    """The Euclidean norm, in float64."""
    return float(np.linalg.norm(a.reshape(-1).astype(np.float64)))


def json_number(x: float) -> float | None:
    """A number with four significant digits; None (JSON's null) for NaN and infinity."""
    return float(f"{x:.4g}") if np.isfinite(x) else None
