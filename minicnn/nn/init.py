"""Initialisation of weights and biases.

benchmarks/overfit_one_batch.py measures whether a network learns with each, and docs/stuck_loss.md explains the results.
AlexNet's own two, the paper's and Caffe's, are beside the networks in examples/alexnet.py.
"""

import math
from typing import Any

from minicnn.backend import random
from minicnn.backend.arrays import to_device
from minicnn.nn.module import Module
from minicnn.tensor import Tensor


def normal_(p: Tensor, std: float) -> None:
    """Fill a parameter with random numbers from N(0, std^2), the next draw of the seed."""
    values = random.next_generator("parameters").standard_normal(p.shape, dtype="float32")
    values *= std
    p.data[...] = to_device(values, p.device)


def constant_(p: Tensor, value: float) -> None:
    """Fill a parameter with a constant."""
    p.data[...] = value


def kaiming_normal_(p: Tensor) -> None:
    """Fill a parameter from N(0, 2 / fan_in), which preserves the variance of activations through a ReLU layer (He et al. 2015, eq. 10)."""
    normal_(p, math.sqrt(2 / math.prod(p.shape[1:])))


def kaiming_(model: Module) -> None:
    """He's initialisation for every layer with a weight but the last, whose weights are from N(0, 0.01^2); all biases are 0.

    Activations have about unit variance in every layer if the inputs have. A small last layer makes the first loss ln(classes):
    the network begins with almost equal probabilities, rather than with confident and wrong ones. ValueError if no layer has a weight.
    """
    layers = layers_with_weights(model)
    if not layers:
        raise ValueError("nn.init.kaiming_: the model must have a layer with a weight")
    for layer in layers[:-1]:
        kaiming_normal_(layer.weight)
    normal_(layers[-1].weight, 0.01)
    for layer in layers:
        if layer.bias is not None:
            constant_(layer.bias, 0)


def layers_with_weights(model: Module) -> list[Any]:
    """The layers that have an attribute `weight`, in order."""
    return [m for _, m in model.named_modules() if getattr(m, "weight", None) is not None]
