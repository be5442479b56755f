"""Frames of a run, taken as it trains: after 0, 1, 3, 10, 30, 100, ... steps, and at its end.

Most happens early, so the steps between two frames grow; a run of a million steps has fourteen. A frame looks at the network in
evaluation mode and leaves it, its gradients and all random numbers as they were: the run goes on with the same bits.
"""

import json
import os
import pathlib

from minicnn.backend import to_device
from minicnn.study.report.facts import samples
from minicnn.study.report.frame import frame


class Album:
    """The frames in a run's folder.

    Args:
        folder: of the run; the frames are in its folder frames/.
        model, optimizer: what is trained.
        data: with what; a few of its test images are looked at.
        step: how many steps the run has done; frames of later ones, of an earlier life of this run, are removed.
    """

    def __init__(self, folder, model, optimizer, data, step=0):
        self.folder, self.model, self.optimizer = pathlib.Path(folder), model, optimizer
        inputs, self.labels = samples(data)
        self.images = to_device(inputs, model.parameters()[0].device)
        for number, path in frames(self.folder):
            if number > step:
                path.unlink()
        for path in (self.folder / "frames").glob("*.tmp"):         # of a run that was killed while it wrote one
            path.unlink()
        if step == 0:
            self.take(0)

    def due(self, step):
        """Whether there is to be a frame after so many steps."""
        return str(step).rstrip("0") in ("1", "3")

    def take(self, step):
        """Take a frame now."""
        velocity_of = {id(p): v for p, v in zip(self.optimizer.params, self.optimizer.velocities, strict=True)} if step else {}
        velocities = {name: velocity_of[id(p)] for name, p in self.model.named_parameters() if id(p) in velocity_of}
        folder = self.folder / "frames"
        folder.mkdir(exist_ok=True)
        path = folder / f"{step:09}.json"
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(frame(self.model, self.images, self.labels, step, velocities)), encoding="utf-8")
        os.replace(temporary, path)


def frames(folder):
    """[(step, path), ...] of the frames of the run in this folder, the earliest first."""
    found = pathlib.Path(folder, "frames").glob("*.json")
    return sorted((int(path.stem), path) for path in found if path.stem.isdigit())
