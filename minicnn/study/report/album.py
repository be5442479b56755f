"""Frames of a run, taken as it trains: after 0, 1, 3, 10, 30, 100, ... steps, and at its end.

Most happens early, so the steps between two frames grow; a run of a million steps has fourteen. A frame looks at the network in
evaluation mode and leaves it, its gradients and all random numbers as they were: the run goes on with the same bits.
"""

import dataclasses
import json
import os

from minicnn.autograd import unwatched
from minicnn.backend import to_device
from minicnn.data.views import device_of_model
from minicnn.study.log import read_log
from minicnn.study.report.facts import samples
from minicnn.study.report.frame import frame
from minicnn.study.report.page import frames, write


class Album:
    """The frames of a run (a minicnn.study.run.Run), in the folder frames/ of its folder: `begin`, `take` when `due`, `write`."""

    def __init__(self, run):
        self.run = run
        inputs, self.labels = samples(run.data)
        self.images = to_device(inputs, device_of_model(run.model))

    def begin(self, step):
        """The run begins, or goes on, after so many steps: frames of later ones, of an earlier life of it, are removed."""
        for number, path in frames(self.run.folder):
            if number > step:
                path.unlink()
        for path in (self.run.folder / "frames").glob("*.tmp"):         # of a run that was killed while it wrote one
            path.unlink()
        if step == 0:
            self.take(0)

    def due(self, step):
        """Whether there is to be a frame after so many steps."""
        return str(step).rstrip("0") in ("1", "3")

    def take(self, step):
        """Take a frame now."""
        model, optimizer = self.run.model, self.run.optimizer
        velocity_of = {id(p): v for p, v in zip(optimizer.params, optimizer.velocities, strict=True)} if step else {}
        velocities = {name: velocity_of[id(p)] for name, p in model.named_parameters() if id(p) in velocity_of}
        folder = self.run.folder / "frames"
        folder.mkdir(exist_ok=True)
        path = folder / f"{step:09}.json"
        temporary = path.with_suffix(".tmp")
        with unwatched():                       # what watches the training sees its batches only
            text = json.dumps(frame(model, self.images, self.labels, step, velocities), allow_nan=False)
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)

    def write(self, step):
        """Write the report of the run, which has done so many steps; returns its path."""
        with unwatched():
            return write(dataclasses.replace(self.run, records=read_log(self.run.folder / "log.jsonl"),
                                             checkpoint={**self.run.checkpoint, "step": step}))
