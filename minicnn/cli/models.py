"""The networks that the commands know by name (--arch)."""

import functools
from collections.abc import Callable

from minicnn.examples.alexnet import VARIANTS, alexnet, input_size
from minicnn.nn import Conv2d, Flatten, Linear, MaxPool2d, Module, ReLU, Sequential


def available_models() -> dict[str, tuple[Callable[[], Module], tuple[int, int, int]]]:
    """By name: a function that builds the network, and (channels, height = width, classes) of its input and output."""
    models: dict[str, tuple[Callable[[], Module], tuple[int, int, int]]] = {"lenet": (lenet, (1, 28, 10))}
    for variant in VARIANTS:
        C, classes = (1, 10) if variant == "mini" else (3, 1000)
        models[variant] = functools.partial(alexnet, variant, classes, C), (C, input_size(variant), classes)
    return models


def lenet() -> Sequential:
    """LeNet for Fashion-MNIST: the network of examples/lenet_fashion.py, a script that trains when it is imported."""
    return Sequential(conv1=Conv2d(1, 6, 5, padding=2), relu1=ReLU(), pool1=MaxPool2d(2),
                      conv2=Conv2d(6, 16, 5), relu2=ReLU(), pool2=MaxPool2d(2), flatten=Flatten(),
                      fc3=Linear(400, 120), relu3=ReLU(), fc4=Linear(120, 84), relu4=ReLU(), fc5=Linear(84, 10))
