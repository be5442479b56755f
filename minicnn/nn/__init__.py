"""Networks: modules that own parameters, the layers, and the initialisation of their weights."""

from typing import TYPE_CHECKING, Any

from minicnn.nn import init
from minicnn.nn.layers import (
    AdaptiveAvgPool2d,
    Conv2d,
    Dropout,
    Flatten,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    ReLU,
    Sigmoid,
    Tanh,
)
from minicnn.nn.module import Module, Sequential, eval_mode, train_mode

__all__ = ["AdaptiveAvgPool2d", "Conv2d", "Dropout", "Flatten", "Linear", "LocalResponseNorm", "MaxPool2d", "Module", "ReLU", "Sequential",
           "Sigmoid", "Tanh", "eval_mode", "init", "train_mode"]

# Names of PyTorch's nn that this module lacks, and what to write instead.
HINTS = {
    "functional": "the functions of minicnn.ops, such as ops.relu(x)",
    "CrossEntropyLoss": "ops.cross_entropy(logits, labels)",
    "NLLLoss": "ops.cross_entropy(logits, labels), of the logits instead of log_softmax(logits)",
    "MSELoss": "((y - target) ** 2).mean()",
    "Softmax": "ops.softmax(x)", "LogSoftmax": "ops.log_softmax(x)",
    "BatchNorm2d": "LocalResponseNorm, AlexNet's normalisation, or a Module of your own",
    "AvgPool2d": "AdaptiveAvgPool2d(output_size)", "Dropout2d": "Dropout(p)",
    "Parameter": "Tensor(array, requires_grad=True), as an attribute of a Module",
    "ModuleList": "Sequential(*layers), or an attribute for each layer", "ModuleDict": "Sequential(**layers)",
    "Identity": "Sequential()",
}

if not TYPE_CHECKING:           # type checkers reject unknown names themselves
    def __getattr__(name: str) -> Any:
        """Called for names that do not exist: the error says what to write instead."""
        if name in HINTS:
            raise AttributeError(f"minicnn.nn has no {name!r}; write {HINTS[name]}")
        raise AttributeError(f"module 'minicnn.nn' has no attribute {name!r}")
