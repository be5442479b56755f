"""minicnn: forward and backward passes written by hand, on NumPy and CuPy. This is the public API on one screen."""

from minicnn import autograd, backend, init, nn, ops, optim, parallel, random, study
from minicnn.autograd import Function, no_grad
from minicnn.backend import has_gpu
from minicnn.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from minicnn.gradcheck import GradcheckError, gradcheck
from minicnn.random import seed
from minicnn.study.summary import summary
from minicnn.tensor import Tensor

__version__ = "0.1.0"

__all__ = [
    "Tensor", "Function", "no_grad", "seed", "has_gpu",                 # the engine
    "ops", "nn", "init", "optim", "data",                               # what networks are made of and from
    "gradcheck", "GradcheckError", "summary", "study",                  # looking closely
    "save_checkpoint", "load_checkpoint", "CheckpointError",            # going on later
    "autograd", "backend", "parallel", "random",                        # the machinery
]


def __getattr__(name):
    if name == "data":              # imports Pillow: only when asked for
        import minicnn.data as data
        return data
    raise AttributeError(f"minicnn has no {name!r}")
