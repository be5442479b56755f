"""Checkpoints of a run: when to write one, which ones to keep, which one to resume from; and how to stop a run cleanly.

    with run_lock(folder), GracefulShutdown() as shutdown:
        manager = CheckpointManager(folder, every_steps=1000)
        for step in range(1, steps + 1):
            ...
            if shutdown.signal or manager.should_save(step):
                manager.save(step, model=model.state_dict(), optimizer=optimizer.state_dict(), random=mc.random.state())

A run's folder holds checkpoint-000001200.npz, written after 1,200 steps, and so on: the last few and the best one. The step is in the
name, so nothing depends on the clock. Each file is written atomically (see checkpoint.py), and none is removed before a newer one is
safely on the disk.
"""

import contextlib
import os
import pathlib
import re
import signal
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

from minicnn.checkpoint import CheckpointError, load_checkpoint, save_checkpoint

NAME = re.compile(r"checkpoint-(\d{9,})\.npz")


class CheckpointManager:
    """Writes the checkpoints of one run, and removes those that are no longer needed.

    Args:
        folder: the run's folder; it must exist.
        every_steps: save every so many steps; None: not by steps.
        every_seconds: save when so many seconds have passed since the last save; None: not by time.
        keep_last: how many of the last checkpoints to keep, beside the best one; at least 1.

    Attribute best: {"step": ..., "score": ...} of the best checkpoint so far, or None; set it when a run is resumed.
    """

    def __init__(self, folder: str | os.PathLike[str], every_steps: int | None = None, every_seconds: float | None = 600,
                 keep_last: int = 3) -> None:
        if keep_last < 1:
            raise ValueError(f"CheckpointManager: keep_last must be at least 1, got {keep_last!r}")
        self.folder, self.every_steps, self.every_seconds, self.keep_last = pathlib.Path(folder), every_steps, every_seconds, keep_last
        self.best: dict[str, Any] | None = None
        self.saved_at = time.monotonic()

    def set_aside_newer(self, step: int) -> list[pathlib.Path]:
        """Rename the checkpoints newer than `step`, where the run starts or resumes; returns their new paths.

        They belong to a previous run, and `load_latest` would take them for the newest.
        """
        newer = [path for number, path in list_checkpoints(self.folder) if number > step]
        return [path.replace(path.with_name(f"set-aside-{path.name}")) for path in newer]

    def should_save(self, step: int) -> bool:
        """Whether a checkpoint is due after this step, by `every_steps` or by `every_seconds`."""
        by_step = self.every_steps and step % self.every_steps == 0
        return bool(by_step or (self.every_seconds and time.monotonic() - self.saved_at >= self.every_seconds))

    def save(self, step: int, score: float | None = None, **contents: Any) -> None:
        """Write the checkpoint of this step, then remove those that are neither among the last nor the best.

        Args:
            step: how many steps are done; the number in the file's name.
            score: of the validation, if there was one; higher is better.
            contents: what to save, by name: see `save_checkpoint`. "step" and "best" are added.

        Raises OSError if writing fails; the older checkpoints are then unchanged.
        """
        if score is not None and (self.best is None or score > self.best["score"]):
            self.best = {"step": step, "score": score}
        save_checkpoint(self.folder / f"checkpoint-{step:09}.npz", step=step, best=self.best, **contents)
        self.saved_at = time.monotonic()
        for number, path in list_checkpoints(self.folder)[:-self.keep_last]:
            if not (self.best and number == self.best["step"]):
                remove(path)
        for path in self.folder.glob("checkpoint-*.tmp"):   # of an interrupted save
            remove(path)


def remove(path: pathlib.Path) -> None:
    """Remove a file if possible; one that stays does no harm."""
    with contextlib.suppress(OSError):
        os.unlink(path)


def list_checkpoints(folder: str | os.PathLike[str]) -> list[tuple[int, pathlib.Path]]:
    """[(step, path), ...] of a run's checkpoints, the oldest first."""
    found = [(NAME.fullmatch(path.name), path) for path in pathlib.Path(folder).iterdir()]
    return sorted((int(match[1]), path) for match, path in found if match)


def load_latest(folder: str | os.PathLike[str]) -> tuple[pathlib.Path, dict[str, Any], list[str]]:
    """The newest undamaged checkpoint of the run in this folder: (path, contents, errors of the damaged ones that are newer).

    Raises CheckpointError if there is none.
    """
    damaged: list[str] = []
    for _, path in reversed(list_checkpoints(folder)):
        try:
            return path, load_checkpoint(path), damaged
        except (CheckpointError, FileNotFoundError) as error:           # not found: removed meanwhile by the run, which is still training
            damaged.append(str(error))
    if not damaged:
        raise CheckpointError(f"{folder}: no checkpoint of a run is here; if the run was stopped before its first one, "
                              "start it again with --out")
    raise CheckpointError(f"{folder}: all {len(damaged)} checkpoints are damaged; the newest: {damaged[0]}")


@contextlib.contextmanager
def run_lock(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Exclusive access to a run's folder: inside, no other process can train in it.

    Raises FileExistsError if another one does. The operating system releases the lock when the process ends, however it ends. On
    Windows there is no lock.
    """
    with open(pathlib.Path(folder) / "log.jsonl", "a") as file:
        try:
            import fcntl
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:                                 # Windows has no flock
            pass
        except OSError as error:
            raise FileExistsError(f"{folder}: another training is running in this folder; wait for it, or name another folder "
                                  "with --out") from error
        yield


class GracefulShutdown:
    """Ctrl-C and SIGTERM set an attribute that the training loop polls: `with GracefulShutdown() as shutdown: ... if shutdown.signal:`.

    signal: the name of the signal, "SIGINT" or "SIGTERM"; None until one arrives. A second Ctrl-C raises KeyboardInterrupt as usual.
    """

    def __init__(self) -> None:
        self.signal: str | None = None

    def __enter__(self) -> "GracefulShutdown":
        self.previous_handlers: dict[int, Any] = {}
        with contextlib.suppress(ValueError):               # not the main thread: it receives no signals
            for number in (signal.SIGINT, signal.SIGTERM):
                self.previous_handlers[number] = signal.signal(number, self._handle_signal)
        return self

    def _handle_signal(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number).name

    def __exit__(self, *exc: object) -> None:
        for number, handler in self.previous_handlers.items():
            signal.signal(number, handler)
