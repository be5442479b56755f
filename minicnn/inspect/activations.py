"""Activations: the input and output of every layer for one batch, and the gradient of the loss with respect to each output.

    cache = capture_activations(model, images, labels)
    cache.layers["conv2"].output            # (N, C, H, W)
    cache.layers["conv2"].gradient          # (N, C, H, W): of each image's own loss with respect to this output
    cache.input_gradient                    # (N, C, H, W): of each image's own loss with respect to its pixels

Figures, the report, and experiments of your own start from here. Arrays stay on the model's device.
"""

import dataclasses
from typing import Any

import numpy as np

from minicnn import ops
from minicnn.autograd import Function
from minicnn.backend.arrays import device_scope, is_array, to_device, xp_of
from minicnn.hooks import Hook
from minicnn.inspect.trace import as_leaf, preserve_grads_and_rng
from minicnn.nn.module import Module, train_mode


@dataclasses.dataclass
class Layer:
    """The activations and gradients of one layer without submodules, for one batch."""

    name: str                               # dotted
    module: Module
    functions: list[type[Function]]         # the ops that it called, in order; empty if the layer returned its input unchanged
    input: Any                              # array
    output: Any                             # array
    gradient: Any = None                    # array like output: of each image's own loss; None if no gradient reached it
    parameters: dict[str, tuple[Any, Any]] = dataclasses.field(default_factory=dict)    # "weight": (array, its gradient, the batch mean)


@dataclasses.dataclass
class ActivationCache:
    """What `capture_activations` recorded.

    layers: by dotted name, in order of execution; the second call of a layer is "name#2".
    scores: array (N, classes), the model's output.
    input_gradient: array like the input.
    parameters: by dotted name, (array, its gradient averaged over the batch, or None if no gradient reached it).
    """

    layers: dict[str, Layer]
    scores: Any
    input_gradient: Any
    parameters: dict[str, tuple[Any, Any]]


class ActivationHook(Hook):
    """Stores each layer's input and output during forward, and the gradient of its output during backward."""

    def __init__(self, model: Module) -> None:
        self.names = {id(module): name or "(model)" for name, module in model.named_modules() if not module.named_children()}
        self.layers: dict[str, Layer] = {}
        self.called: list[type[Function]] = []              # the ops that ran since the current layer began
        self.by_node: dict[Function, list[Layer]] = {}      # node: the layers whose output it computed (dropout may return its input)

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
                self.by_node.setdefault(output.node, []).append(self.layers[name])
        self.called = []                # ops between two layers belong to neither

    def before_backward(self, function, gy):
        for layer in self.by_node.get(function, ()):
            layer.gradient = gy


def capture_activations(model: Module, images: Any, labels: Any = None, training: bool = False,
                        target_classes: Any = None) -> ActivationCache:
    """Run one batch forward and backward and record the activations and gradients of every layer.

    Args:
        model: a Module; its parameters' gradients, its mode and the random numbers are left as they were.
        images: (N, ...), a Tensor or an array on the model's device.
        labels: (N,) integers: backward starts at the cross-entropy loss of each image, not divided by N.
            None: backward starts at a score, without a loss.
        training: whether dropout is active.
        target_classes: (N,) integers, instead of labels: the class of each image whose score backward starts at.
            None: the class with the highest score.

    Returns an ActivationCache. Raises ValueError for labels together with target_classes and for a class that does not exist, and
    what the model raises.
    """
    if labels is not None and target_classes is not None:
        raise ValueError("capture_activations: backward starts either at a loss (labels) or at scores (target_classes); give one of them")
    x = as_leaf(images)
    x.requires_grad = True
    with preserve_grads_and_rng(model), train_mode(model, training), ActivationHook(model) as hook:
        scores = model(x)
        xp, N = xp_of(scores.data), len(scores.data)
        with device_scope(scores.data):
            if labels is not None:
                loss = ops.cross_entropy(scores, labels)
                loss.backward(xp.full_like(loss.data, N))
            else:
                classes = scores.data.argmax(axis=1) if target_classes is None else check_classes(target_classes, scores.shape)
                scores.backward(xp.eye(scores.shape[1], dtype=scores.dtype)[xp.asarray(classes)])
            means = {id(p): (p.data, None if p.grad is None else p.grad / N) for p in model.parameters()}
            for layer in hook.layers.values():
                own = [(name, p) for name, p in layer.module.named_parameters() if "." not in name]
                layer.parameters = {name: means[id(p)] for name, p in own}
    return ActivationCache(hook.layers, scores.data, x.grad, {name: means[id(p)] for name, p in model.named_parameters()})


def check_classes(classes: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Class indices as an array; ValueError unless there is a valid one for each row of scores of this shape (N, classes)."""
    classes = np.asarray(to_device(classes, "cpu") if is_array(classes) else classes)
    if classes.shape != shape[:1] or classes.dtype.kind not in "iu" or not ((0 <= classes) & (classes < shape[1])).all():
        raise ValueError(f"capture_activations: target_classes must be {shape[0]} integers from 0 to {shape[1] - 1}, one for each image, "
                         f"got {classes!r:.80}")
    return classes


def subsample(array: Any, max_count: int = 200_000) -> np.ndarray:
    """An array, flat, on the CPU; of a large one about `max_count` evenly spaced elements, which is enough for a histogram."""
    flat = array.reshape(-1)
    return np.asarray(to_device(flat[::max(1, flat.size // max_count)], "cpu"))
