"""A run that was trained, opened again: its network, its data, its log and its checkpoints.

    run = open_run("runs/mini-1")
    run.model, run.data.validation, run.records

How a run's network and data are made from its checkpoint is told by examples/recipe.py, so this works in a checkout.
"""

import argparse
import contextlib
import dataclasses
import importlib
import pathlib
import sys
from typing import Any

import minicnn as mc
from minicnn.keeper import load_newest
from minicnn.nn import Module
from minicnn.study.log import read_log
from minicnn.study.networks import EXAMPLES


@dataclasses.dataclass
class Run:
    """A run, as far as it is trained: opened again by `open_run`, or while it trains."""

    folder: pathlib.Path
    model: Module               # by open_run: in evaluation mode, on the CPU, with the weights of the newest checkpoint
    data: Any                   # recipe.Data: train and val, DataLoaders; validation, the data set; test_transform; classes, channels, side
    checkpoint: dict            # by open_run: contents of the newest one that is whole; else its "arguments" and "versions"
    records: list               # of its log; [] while it trains
    optimizer: mc.optim.SGD     # with its velocities and rates


def open_run(folder):
    """The run in this folder, on the CPU.

    Raises FileNotFoundError if there is no such folder, CheckpointError if it holds no whole checkpoint or one of another program,
    DataError if its data are not where they were, and RuntimeError where the examples are missing (an installed package).
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; name that of a run, for instance runs/mini-1")
    recipe, alexnet = examples("recipe", "alexnet")
    path, checkpoint, damaged = load_newest(folder)
    for reason in damaged:
        print(f"passed over: {reason}")
    recipe.check_contents(path, checkpoint)
    args = argparse.Namespace(**checkpoint["arguments"], device="cpu", workers=0, on_bad="skip", bad_limit=10 ** 9, eval=True)
    data = recipe.Data(args, checkpoint)
    model = alexnet.alexnet(args.arch, len(data.classes), data.channels, data.side)
    model.load_state_dict(checkpoint["model"])
    optimizer = mc.optim.SGD(model.parameters(), args.lr, args.momentum, args.weight_decay)
    optimizer.load_state_dict(checkpoint["optimizer"])
    log = folder / "log.jsonl"
    return Run(folder, model.eval(), data, checkpoint, read_log(log) if log.exists() else [], optimizer)


def examples(*names):
    """The modules of the folder examples/ with these names. RuntimeError if that is not beside the package."""
    if not (EXAMPLES / "recipe.py").exists():
        raise RuntimeError("this needs the folder examples/ of the repository, which is not beside this package: run it in a checkout "
                           'where  python -m pip install -e .  was run')
    with contextlib.ExitStack() as stack:
        if str(EXAMPLES) not in sys.path:
            sys.path.insert(0, str(EXAMPLES))
            stack.callback(sys.path.remove, str(EXAMPLES))
        return [importlib.import_module(name) for name in names]
