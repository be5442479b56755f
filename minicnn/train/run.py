"""A training run: one network, its data, its log and its checkpoint. Figures and the report are drawn from it.

Only the program that trained a run can rebuild its network and data; so that program reopens it: see `load_run` in examples/recipe.py.
"""

import dataclasses
import pathlib
from typing import Any

from minicnn.nn import Module
from minicnn.optim import Optimizer


@dataclasses.dataclass
class Run:
    """A run that is training, or one that was reopened.

    folder: where its checkpoints and its log are.
    model: of a reopened run, on the CPU, in evaluation mode, with the weights of the newest undamaged checkpoint.
    data: its train and val (DataLoaders), validation (the data set), test_transform, classes, channels, side, pixels.
    checkpoint: contents of the newest undamaged checkpoint; of a run that is training, only "arguments" and "versions".
    records: of its log, from `read_log`; [] while it is training.
    optimizer: with the state of the checkpoint.
    """

    folder: pathlib.Path
    model: Module
    data: Any
    checkpoint: dict[str, Any]
    records: list[dict[str, Any]]
    optimizer: Optimizer
