"""One moment of a training: what every layer did with a few images then, and what came back to it.

A frame is a dict that JSON can hold: the steps done, and for each layer its pictures and the numbers under them. The first "layer" is
the image itself, the last one the loss, whose gradient everything begins with: probability minus 1 for the right class.
"""

import zlib

import numpy as np

from minicnn.backend import to_device
from minicnn.study.inside import look_inside, to_numbers
from minicnn.study.report import pictures
from minicnn.tensor import Tensor

BINS = 41               # of a histogram, odd: one is around 0


def frame(model, images, labels, step, velocities=None):
    """What `model` does with these images, after so many steps.

    Args:
        model: a Module; left as it was.   images: (N, ...) for the network, an array or Tensor on its device.   labels: (N,) integers.
        velocities: {parameter name: array} of the optimiser, for how much a step changes.
    """
    seen = look_inside(model, images, labels)
    layers = {"image": came_back(cpu(seen.input_gradient))}
    first: dict[int, str] = {}          # by the answer: the layer that made it
    for name, layer in seen.layers.items():
        same = first.setdefault(id(layer.output), name)         # dropout, which is off, hands on what it got
        layers[name] = {"same": same} if same != name else {
            **both_ways(layer), **weights(name.partition("#")[0], layer, velocities or {})}
    scores = cpu(seen.scores).astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        probabilities = powers / powers.sum(axis=1, keepdims=True)
        losses = -np.log(probabilities[np.arange(len(labels)), labels])
    layers["loss"] = loss_layer(probabilities, labels)
    return {"step": step, "images": mark(images, labels), "loss": [rounded(x) for x in losses], "layers": layers}


def mark(images, labels):
    """A number that says which images a frame is of: a checksum of them and their labels."""
    return zlib.crc32(np.ascontiguousarray(cpu(images)).tobytes() + np.asarray(labels, np.int64).tobytes())


def cpu(array):
    array = array.data if isinstance(array, Tensor) else array
    return np.asarray(to_device(array, "cpu"))


def both_ways(layer):
    """Pictures of a layer's answers and of the gradients that came back to them, one for each image, and what to write below."""
    answers = cpu(layer.output)
    found = {"forward": [pictures.png(pictures.sheet(a)) for a in answers], "forward_text": [answer_text(a) for a in answers]}
    if layer.gradient is not None:
        gradients = cpu(layer.gradient)
        found |= came_back(gradients)
        found["sizes"] = [[rounded(norm(a) / a.size ** 0.5), rounded(norm(g))] for a, g in zip(answers, gradients, strict=True)]
    return found


def came_back(gradients):
    """Pictures of gradients, one for each image, and what to write below."""
    return {"backward": [pictures.png(pictures.sheet(g)) for g in gradients], "backward_text": [gradient_text(g) for g in gradients]}


def loss_layer(probabilities, labels):
    """For each image up to ten classes, the most probable and the right one: [class, probability, gradient of the loss by its score]."""
    rows = []
    for p, label in zip(probabilities, labels, strict=True):
        best = np.argsort(-np.nan_to_num(p), kind="stable")[:10]
        some = sorted(best) if len(p) <= 10 else [*best[:9], *([label] if label not in best[:9] else [best[9]])]
        rows.append([[int(c), rounded(p[c]), rounded(p[c] - (c == label))] for c in some])
    return {"bars": rows}


def weights(name, layer, velocities):
    """A layer's own parameters: the picture and histogram of its weights and of their gradient, and how much a step changes them."""
    if "weight" not in layer.parameters:
        return {}
    weight, gradient = layer.parameters["weight"]
    w = cpu(weight)
    shown = pictures.part_of(w.shape)
    found = {"weight": filters(w), "weight_text": answer_text(w) + shown, "weight_bins": histogram(to_numbers(weight), pictures.largest(w))}
    if gradient is not None:
        g = cpu(gradient)
        found |= {"gradient": filters(g), "gradient_text": gradient_text(g) + shown,
                  "gradient_bins": histogram(to_numbers(gradient), pictures.largest(g))}
    velocity = velocities.get(f"{name}.weight")
    if velocity is not None:
        found["update"] = rounded(norm(cpu(velocity)) / max(norm(w), 1e-30))
    return found


def filters(weight):
    """The picture of a layer's weights, or of their gradient; of a first layer for colours, in colours."""
    colour = weight.ndim == 4 and weight.shape[1] == 3
    return pictures.colour_filters(weight) if colour else pictures.png(pictures.filters(weight))


def histogram(numbers, m):
    """[counts in BINS equal bins from -m to m, m]; m is the largest magnitude."""
    counts, _ = np.histogram(numbers[np.isfinite(numbers)], BINS, (-max(m, 1e-30), max(m, 1e-30)))
    return [counts.tolist(), rounded(m)]


def answer_text(a):
    """The range of an array, its mean, and the share of zeros."""
    if not np.isfinite(a).all():
        return f"{np.count_nonzero(~np.isfinite(a)):,} of {a.size:,} are NaN or infinite"
    zeros = 100 * np.mean(a == 0)
    return f"{a.min():.3g} to {a.max():.3g}, mean {a.mean():.3g}" + (f", {zeros:.0f} % are zero" if zeros >= 0.5 else "")


def gradient_text(g):
    """The largest magnitude, the norm and the share of zeros of a gradient."""
    if not np.isfinite(g).all():
        return f"{np.count_nonzero(~np.isfinite(g)):,} of {g.size:,} are NaN or infinite"
    zeros = 100 * np.mean(g == 0)
    return f"at most {np.abs(g).max():.2g}, norm {norm(g):.2g}" + (f", {zeros:.0f} % are zero" if zeros >= 0.5 else "")


def norm(a):
    return float(np.linalg.norm(a.reshape(-1).astype(np.float64)))


def rounded(x):
    """A number with four digits, as JSON knows it; None for what is no number."""
    return float(f"{x:.4g}") if np.isfinite(x) else None
