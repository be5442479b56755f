"""The results of an experiment in one JSON file: its settings, each finished run, and the outcome of each claim.

A run is appended when it is finished and never changed, so an interrupted experiment is resumed at the first missing run. Runs with
other settings (another number of images, network or version of NumPy) are not mixed with these: that is an error.
"""

import json
import pathlib
import platform
from typing import Any

import numpy as np

import minicnn as mc
from minicnn.backend import random, threads
from minicnn.checkpoint import atomic_write


def settings(experiment: Any, args: Any, data: Any, batch_size: int) -> dict[str, Any]:
    """Everything that the numbers depend on, except the seeds."""
    def describe(condition: Any) -> dict[str, Any]:
        with random.fork_rng():
            network = condition.network(len(data.classes), data.channels, data.side)
        return {"network": [line.strip() for line in repr(network).splitlines()[1:-1]], "lr": condition.lr, "momentum": condition.momentum,
                "weight_decay": condition.weight_decay, "augment": repr(condition.augment(data))}
    return {"data": args.data, "images": [len(data.training), len(data.test)],
            "fingerprint": [d.fingerprint() for d in (data.training, data.test)],
            "epochs": args.epochs, "batch": batch_size, "rate": "falls to 0" if experiment.decay else "constant",
            "evaluations": experiment.evaluations,
            "versions": {"minicnn": mc.__version__, "numpy": np.__version__, "python": platform.python_version()}, "machine": machine(),
            "conditions": {name: describe(condition) for name, condition in experiment.conditions.items()}}


def machine() -> str:
    """The processor's name and the number of threads."""
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {threads.num_threads()} threads"


def load_record(path: pathlib.Path, expected: dict[str, Any]) -> dict[str, Any]:
    """The record in this file, or a new one if there is no file. ValueError if it is not a record, or its settings are not as expected."""
    if not path.exists():
        return {"settings": expected, "results": [], "runs": []}
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found = dict(record["settings"])
        list(record["runs"])
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path} is not the result of an experiment; choose another folder with --out") from None
    for name, value in expected.items():
        if found.get(name) != value:
            values = "" if name in ("conditions", "fingerprint") else f" (this run: {value!r}; the file: {found.get(name)!r})"
            raise ValueError(f"{path} has results for different {name}{values}; choose another folder with --out, or remove the file")
    return record


def save_record(path: pathlib.Path, record: dict[str, Any]) -> None:
    """Write the file atomically, with each condition, result and run on a line of its own."""
    conditions = record["settings"]["conditions"].items()
    others = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in record["settings"].items() if name != "conditions"]
    parts = ['{"settings": {', ",\n".join(others) + ",", ' "conditions": {',
             ",\n".join(f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in conditions), '}},\n"results": [',
             ",\n".join(map(json.dumps, record["results"])), '],\n"runs": [', ",\n".join(map(json.dumps, record["runs"])), "]}\n"]
    with atomic_write(path) as file:
        file.write("\n".join(parts).encode())
