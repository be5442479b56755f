"""What one batch does inside of a network: the answer of every layer, and the gradient that comes back to it.

    seen = look_inside(model, images, labels)
    seen.layers["conv2"].output             # (N, C, H, W)
    seen.layers["conv2"].gradient           # of the same shape: how the loss of each image changes with each number of it
    seen.input_gradient                     # (N, C, H, W): and with each pixel

Figures, the report, and experiments of your own start from here. Arrays stay on the device of the model.
"""

import contextlib
import dataclasses

import numpy as np

from minicnn import ops
from minicnn.autograd import Hook
from minicnn.backend import device_scope, is_array, to_device, xp_of
from minicnn.nn import Module
from minicnn.study.trace import leaf, unchanged


@dataclasses.dataclass
class Layer:
    """One layer that has no parts of its own, as one batch passed it forward and backward."""

    name: str                   # dotted
    module: Module
    functions: list             # classes of the ops that it called, in order; none: it handed on what it got
    input: object               # array, as the layer got it
    output: object              # array
    gradient: object = None     # of the loss with respect to the output, of each image for itself; None: none came by
    parameters: dict = dataclasses.field(default_factory=dict)      # {"weight": (its array, its gradient, the mean over the batch)}


@dataclasses.dataclass
class Inside:
    """What was seen.  layers: {dotted name: Layer}, in order of execution; one that runs twice is there twice, as "name" and "name#2"."""

    layers: dict
    scores: object              # array (N, classes): the model's answer
    input_gradient: object      # array like the input
    parameters: dict            # {dotted name: (its array, its gradient, the mean over the batch, or None: none came by)}


class Watch(Hook):
    """Notes each layer's answer as it comes, and the gradient of it on the way back."""

    def __init__(self, model):
        self.names = {id(module): name or "(model)" for name, module in model.named_modules() if not module.children()}
        self.layers: dict[str, Layer] = {}
        self.called: list = []          # the ops' classes since the last layer began
        self.waiting: dict = {}         # the node that made an answer -> the layers whose answer it is (dropout hands on what it got)

    def before_module(self, module, inputs):
        self.called = []

    def after_forward(self, function, arrays, y, saved):
        self.called.append(type(function))

    def after_module(self, module, inputs, output):
        if id(module) in self.names:
            name = first = self.names[id(module)]
            count = 1
            while name in self.layers:
                count += 1
                name = f"{first}#{count}"
            self.layers[name] = Layer(name, module, self.called, inputs[0].data, output.data)
            if output.node:
                self.waiting.setdefault(output.node, []).append(self.layers[name])
        self.called = []                # what comes between two layers belongs to none

    def before_backward(self, function, gy):
        for layer in self.waiting.get(function, ()):
            layer.gradient = gy


def look_inside(model, images, labels=None, training=False, scores_of=None):
    """Run one batch forward and backward and keep what every layer saw.

    Args:
        model: a Module; its parameters' gradients, its mode and all random numbers are left as they were.
        images: (N, ...), a Tensor or an array on the device of the model.
        labels: (N,) integers: the loss is cross-entropy, and gradients are those of each image's own loss (not divided by N).
            None: backward starts at a score, without a loss.
        training: whether dropout is on.
        scores_of: (N,) integers, without labels: of each image the class at whose score backward starts; None: the highest.

    Returns an Inside. Raises ValueError for a class that is none of the model's, and what the model raises.
    """
    if labels is not None and scores_of is not None:
        raise ValueError("look_inside: backward starts at a loss (labels) or at scores (scores_of), not at both; give one of them")
    x = leaf(images)
    x.requires_grad = True
    with unchanged(model), in_mode(model, training), Watch(model) as watch:
        scores = model(x)
        xp, N = xp_of(scores.data), len(scores.data)
        with device_scope(scores.data):
            if labels is not None:
                loss = ops.cross_entropy(scores, labels)
                loss.backward(xp.full_like(loss.data, N))
            else:
                classes = scores.data.argmax(axis=1) if scores_of is None else checked(scores_of, scores.shape)
                scores.backward(xp.eye(scores.shape[1], dtype=scores.dtype)[xp.asarray(classes)])
            means = {id(p): (p.data, None if p.grad is None else p.grad / N) for p in model.parameters()}
            for layer in watch.layers.values():
                layer.parameters = {name: means[id(p)] for name, p in own_parameters(layer.module)}
    return Inside(watch.layers, scores.data, x.grad, {name: means[id(p)] for name, p in model.named_parameters()})


def checked(classes, shape):
    """Class numbers as an array, one for each row of scores of this shape."""
    classes = np.asarray(to_device(classes, "cpu") if is_array(classes) else classes)
    if classes.shape != shape[:1] or classes.dtype.kind not in "iu" or not ((0 <= classes) & (classes < shape[1])).all():
        raise ValueError(f"look_inside: scores_of is a class, 0 to {shape[1] - 1}, for each of {shape[0]} images, not {classes!r:.80}")
    return classes


def own_parameters(module):
    """[(name, tensor)] of the parameters that a layer holds itself."""
    return [(name, p) for name, p in module.named_parameters() if "." not in name]


@contextlib.contextmanager
def in_mode(model, training):
    """Inside, the model and all its parts are in training mode or not; afterwards each is as it was."""
    before = [(module, module.training) for _, module in model.named_modules()]
    try:
        yield model.train(training)
    finally:
        for module, mode in before:
            module.training = mode


def to_numbers(array, most=200_000):
    """An array, flat, on the CPU; of a large one so many numbers, evenly spread: for histograms."""
    flat = array.reshape(-1)
    return np.asarray(to_device(flat[::max(1, flat.size // most)], "cpu"))
