"""Which checkpoints of a run are written when, which are kept, and which one to go on with.

A run's folder holds checkpoint-000001200.npz, after 1,200 steps, and so on: the last few, and the best. Their names say how far they
are, so nothing depends on the clock. Each is written whole or not at all (see checkpoint.py), and none is removed before a newer one
is safely on the disk.
"""

import contextlib
import os
import pathlib
import re
import signal
import time

from minicnn.checkpoint import CheckpointError, load_checkpoint, save_checkpoint

NAME = re.compile(r"checkpoint-(\d{9,})\.npz")


class Keeper:
    """Writes the checkpoints of one run.

    Args:
        folder: of the run.
        every_steps, every_seconds: when one is due; None: not for this reason.
        keep: how many of the last ones stay. The best one stays as well.
    """

    def __init__(self, folder, every_steps=None, every_seconds=600, keep=3):
        if keep < 1:
            raise ValueError(f"Keeper: keep is at least 1, not {keep!r}")
        self.folder, self.every_steps, self.every_seconds, self.keep = pathlib.Path(folder), every_steps, every_seconds, keep
        self.best = None                # {"step": ..., "score": ...} of the best checkpoint so far
        self.saved_at = time.monotonic()

    def begin(self, step):
        """The run begins, or goes on, after so many steps. Later checkpoints are of an earlier life of it: they get another name, or they
        would be taken for the newest. Returns their new paths."""
        later = [path for number, path in checkpoints(self.folder) if number > step]
        return [path.replace(path.with_name(f"left-behind-{path.name}")) for path in later]

    def due(self, step):
        """Whether it is time to save: so many steps, or so much time, have gone by."""
        by_step = self.every_steps and step % self.every_steps == 0
        return bool(by_step or (self.every_seconds and time.monotonic() - self.saved_at >= self.every_seconds))

    def save(self, step, score=None, **contents):
        """Write a checkpoint of this step; `score`, if it was measured, is better when it is higher. Then remove what need not stay."""
        if score is not None and (self.best is None or score > self.best["score"]):
            self.best = {"step": step, "score": score}
        save_checkpoint(self.folder / f"checkpoint-{step:09}.npz", step=step, best=self.best, **contents)
        self.saved_at = time.monotonic()
        steps = [number for number, _ in checkpoints(self.folder)]
        for number, path in checkpoints(self.folder):
            if number not in steps[-self.keep:] and not (self.best and number == self.best["step"]):
                remove(path)
        for path in self.folder.glob("checkpoint-*.tmp"):   # of a save that was cut short
            remove(path)


def remove(path):
    """Remove a file if that is possible; one too many does no harm."""
    with contextlib.suppress(OSError):
        os.unlink(path)


def checkpoints(folder):
    """[(step, path), ...] of a run's checkpoints, the earliest first."""
    found = [(NAME.fullmatch(path.name), path) for path in pathlib.Path(folder).iterdir()]
    return sorted((int(match[1]), path) for match, path in found if match)


def load_newest(folder):
    """(path, contents) of the newest checkpoint of a run that is whole, and [reasons why newer ones are not].

    Raises CheckpointError if there is none.
    """
    damaged: list[str] = []
    for _, path in reversed(checkpoints(folder)):
        try:
            return path, load_checkpoint(path), damaged
        except (CheckpointError, FileNotFoundError) as error:           # not found: the run, which goes on meanwhile, has removed it
            damaged.append(str(error))
    if not damaged:
        raise CheckpointError(f"{folder}: no checkpoint of a run is here; one that was stopped before its first is begun again with --out")
    raise CheckpointError(f"{folder}: none of its {len(damaged)} checkpoints is whole; the newest: {damaged[0]}")


@contextlib.contextmanager
def only_run_in(folder):
    """Inside, no other process can train in this folder: FileExistsError if one does. The lock ends with the process, however that ends."""
    with open(pathlib.Path(folder) / "log.jsonl", "a") as file:
        try:
            import fcntl
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:                                 # Windows has no such locks
            pass
        except OSError as error:
            raise FileExistsError(f"{folder}: another training is running in this folder; wait for it, or name another folder "
                                  "with --out") from error
        yield


class StopRequest:
    """Ctrl-C and SIGTERM become a wish that the loop can grant between two steps: `with StopRequest() as stop: ... if stop.signal:`.

    A second Ctrl-C is a KeyboardInterrupt as ever.
    """

    def __init__(self):
        self.signal = None

    def __enter__(self):
        self.before = {}
        with contextlib.suppress(ValueError):               # not the main thread: then there is nobody to ask
            for number in (signal.SIGINT, signal.SIGTERM):
                self.before[number] = signal.signal(number, self.note)
        return self

    def note(self, number, frame):
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number).name

    def __exit__(self, *exc):
        for number, handler in self.before.items():
            signal.signal(number, handler)
