"""What is kept of an experiment: one JSON file with all that its numbers depend on, each finished run, and what came of them.

A run is added when it is finished and never changed, so a command that was interrupted goes on with the next one. Runs that were made
otherwise (another limit, network, or version of NumPy) are not mixed with these: that is an error.
"""

import json
import os
import pathlib
import platform

import numpy as np

import minicnn as mc
from minicnn import parallel, random


def settings(experiment, args, data, batch):
    """All that the numbers depend on."""
    def of(condition):
        with random.preserved():
            network = condition.network(len(data.classes), data.channels, data.side)
        return {"network": [line.strip() for line in repr(network).splitlines()[1:-1]], "lr": condition.lr, "momentum": condition.momentum,
                "weight_decay": condition.weight_decay, "augment": repr(condition.augment(data))}
    return {"data": args.data, "images": [len(data.training), len(data.test)],
            "fingerprint": [d.fingerprint() for d in (data.training, data.test)],
            "epochs": args.epochs, "batch": batch, "rate": "falls to 0" if experiment.decay else "constant", "looks": experiment.looks,
            "versions": {"minicnn": mc.__version__, "numpy": np.__version__, "python": platform.python_version()}, "machine": machine(),
            "conditions": {name: of(condition) for name, condition in experiment.conditions.items()}}


def machine():
    """Which processor, and how many threads share the work."""
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {parallel.threads()} threads"


def begun(path, now):
    """The record in this file, or a new one if there is no file. ValueError if the file is something else, or of other settings."""
    if not path.exists():
        return {"settings": now, "results": [], "runs": []}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        then = dict(record["settings"])
        list(record["runs"])
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path} is not the result of an experiment; name another folder with --out") from None
    for name, value in now.items():
        if then.get(name) != value:
            which = "" if name in ("conditions", "fingerprint") else f" ({then.get(name)!r}, not {value!r})"
            raise ValueError(f"{path} has results of other {name}{which}; name another folder with --out, or remove the file")
    return record


def save(path, record):
    """Write it, whole or not at all; each condition, result and run on one line."""
    conditions = record["settings"]["conditions"].items()
    others = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in record["settings"].items() if name != "conditions"]
    parts = ['{"settings": {', ",\n".join(others) + ",", ' "conditions": {',
             ",\n".join(f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in conditions), '}},\n"results": [',
             ",\n".join(map(json.dumps, record["results"])), '],\n"runs": [', ",\n".join(map(json.dumps, record["runs"])), "]}\n"]
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_text("\n".join(parts), encoding="utf-8")
    os.replace(unfinished, path)
