"""minicnn: forward and backward passes written by hand, on NumPy and CuPy. This is the public API on one screen."""

import importlib
from typing import TYPE_CHECKING, Any

from minicnn import autograd, backend, inspect, nn, ops, optim
from minicnn.autograd import Function, no_grad
from minicnn.backend import random
from minicnn.backend.arrays import has_gpu
from minicnn.backend.random import seed
from minicnn.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from minicnn.gradcheck import GradcheckError, gradcheck
from minicnn.inspect.summary import summary
from minicnn.tensor import Tensor

if TYPE_CHECKING:
    from minicnn import data, learn, train, visualize

__version__ = "0.1.0"

__all__ = [
    "Tensor", "Function", "no_grad", "seed", "random", "has_gpu",       # the engine
    "ops", "nn", "optim", "data",                                       # ops, layers, optimisers, data sets
    "gradcheck", "GradcheckError",                                      # is a backward right?
    "save_checkpoint", "load_checkpoint", "CheckpointError",            # resuming
    "summary", "inspect", "visualize", "train", "learn",                # measurements, figures, training loops, exercises
    "autograd", "backend",                                              # internals
]


def __getattr__(name: str) -> Any:
    if name in ("data", "learn", "train", "visualize"):         # these import Pillow or matplotlib: only when they are used
        return importlib.import_module(f"minicnn.{name}")
    raise AttributeError(f"minicnn has no {name!r}")
