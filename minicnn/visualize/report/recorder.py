"""Records snapshots of a run while it trains: after 0, 1, 3, 10, 30, 100, ... steps, and at its end.

Most happens early, so the steps between two snapshots grow; a run of a million steps has fourteen. A snapshot runs the network in
evaluation mode and leaves it, its gradients and all random numbers unchanged: the training has the same bits with and without it.
"""

import dataclasses
import json
import pathlib

from minicnn.backend.arrays import to_device
from minicnn.checkpoint import atomic_write
from minicnn.hooks import hooks_disabled
from minicnn.train.log import read_log
from minicnn.train.run import Run
from minicnn.visualize.report.html import write
from minicnn.visualize.report.snapshots import FOLDER, list_snapshots, snapshot
from minicnn.visualize.report.static_sections import select_samples


class SnapshotRecorder:
    """Records the snapshots of a run, as files in `snapshots/` of its folder, and writes its report.

    Call `start` before the first step, `record` after each step for which `should_record` is true, and `write` at the end.

    Args:
        run: a minicnn.train.run.Run.

    Raises DataError if none of the test images can be read.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.folder = run.folder / FOLDER
        inputs, self.labels = select_samples(run.data)
        self.images = to_device(inputs, run.model.device)

    def start(self, step: int) -> None:
        """Begin or resume recording after `step` steps: snapshots of later steps belong to a previous run and are removed."""
        for number, path in list_snapshots(self.run.folder):
            if number > step:
                path.unlink()
        for path in self.folder.glob("*.tmp"):              # left by a run that was killed while it wrote one
            path.unlink()
        if step == 0:
            self.record(0)

    def should_record(self, step: int) -> bool:
        """Whether a snapshot is due after `step` steps."""
        return str(step).rstrip("0") in ("1", "3")

    def record(self, step: int) -> None:
        """Record a snapshot of the network as it is after `step` steps. Raises OSError if it cannot be written."""
        model, optimizer = self.run.model, self.run.optimizer
        index = {id(p): i for i, p in enumerate(optimizer.params)} if step else {}
        updates = {name: optimizer.last_update(index[id(p)]) for name, p in model.named_parameters() if id(p) in index}
        self.folder.mkdir(exist_ok=True)
        with hooks_disabled():                              # the training's hooks (monitor, anomaly detection) must not see these images
            text = json.dumps(snapshot(model, self.images, self.labels, step, updates), allow_nan=False)
        with atomic_write(self.folder / f"{step:09}.json") as file:
            file.write(text.encode())

    def write(self, step: int) -> pathlib.Path:
        """Write the report of the run after `step` steps; returns its path. Raises OSError if it cannot be written."""
        with hooks_disabled():
            return write(dataclasses.replace(self.run, records=read_log(self.run.folder / "log.jsonl"),
                                             checkpoint={**self.run.checkpoint, "step": step}))
