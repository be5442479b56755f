"""Everything around the training loop: log, progress bar, monitor, checkpoints, snapshots for the report, signals, figures.

    with Bookkeeping(args, data, model, optimizer, schedule, checkpoint, last_step) as run:
        ...                             # the loop of train_alexnet.py, which calls check_gradients, after_step and after_validation
"""

import argparse
import contextlib
import math
import platform
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

import minicnn as mc
from minicnn.backend import cuda
from minicnn.backend.threads import num_threads
from minicnn.examples.recipe import CONFIG_KEYS, Data
from minicnn.inspect.anomaly import detect_anomaly
from minicnn.text import format_shape
from minicnn.train.checkpoint_manager import CheckpointManager, GracefulShutdown, run_lock
from minicnn.train.log import DivergenceError, TrainingLogger, read_log
from minicnn.train.monitor import TrainingMonitor
from minicnn.train.run import Run
from minicnn.visualize import figures, report


class TrainingStopped(Exception):
    """The run was stopped by a signal, after a whole step, and saved. args: (name of the signal, step)."""


class Bookkeeping:
    """The progress of a run, and all its output.

    step: how many steps are done.
    validated: the step of the last validation.
    """

    def __init__(self, args: argparse.Namespace, data: Data, model: Any, optimizer: mc.optim.SGD, schedule: Any,
                 checkpoint: dict[str, Any] | None, last_step: int) -> None:
        self.args, self.data, self.model, self.optimizer, self.schedule, self.last_step = args, data, model, optimizer, schedule, last_step
        self.checkpoints = CheckpointManager(args.out, args.checkpoint_steps, 60 * args.checkpoint_minutes, args.keep_last)
        self.step = self.validated = 0
        if checkpoint:
            self.step, self.validated, self.checkpoints.best = checkpoint["step"], checkpoint["validated"], checkpoint["best"]
        self.metadata = {"arguments": {name: getattr(args, name) for name in CONFIG_KEYS},
                         "versions": {"minicnn": mc.__version__, "numpy": np.__version__, "python": platform.python_version(),
                                      "device": args.device, "threads": num_threads()}}

    def __enter__(self) -> "Bookkeeping":
        args, data = self.args, self.data
        run = Run(args.out, self.model, data, self.metadata, [], self.optimizer)
        self.recorder = report.SnapshotRecorder(run) if args.report else None
        args.out.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            stack.enter_context(run_lock(args.out))
            stack.enter_context(explain_out_of_memory(self.model, (data.channels, data.side, data.side), args.batch_size))
            self.shutdown = stack.enter_context(GracefulShutdown())
            self.bar = stack.enter_context(tqdm(total=self.last_step * args.batch_size, initial=self.step * args.batch_size,
                                                unit=" images", dynamic_ncols=True))
            self.log = stack.enter_context(TrainingLogger(args.out / "log.jsonl", self.bar, args.device, self.step))
            self.monitor = stack.enter_context(TrainingMonitor(self.model, self.optimizer, len(data.classes)))
            stack.enter_context(self.report_divergence())
            if args.detect_anomaly:
                stack.enter_context(detect_anomaly(self.model))
            for path in self.checkpoints.set_aside_newer(self.step):
                self.log.write(f"set aside: checkpoint of a previous run: {path}")
            if self.recorder:
                with best_effort_plots():
                    self.recorder.start(self.step)
            self.contexts = stack.pop_all()
        return self

    def __exit__(self, *exc: Any) -> bool | None:
        return self.contexts.__exit__(*exc)

    def validation_due(self) -> bool:
        """Whether to validate now: after each epoch and after the last step, unless the run was resumed after that validation."""
        return self.step > self.validated and (self.step % len(self.data.train) == 0 or self.step >= self.last_step)

    def after_validation(self, metrics: dict[str, float]) -> None:
        """Log the metrics, and save a checkpoint; the one with the highest top-1 accuracy is the best."""
        self.log.val(self.step, metrics)
        self.validated = self.step
        self.save(score=metrics["top1"])

    def check_gradients(self, loss: mc.Tensor) -> None:
        """To call between backward and the update, so that NaN is found before it gets into the weights. Log what the monitor finds."""
        for finding in self.monitor.step(self.step + 1, loss):
            self.log.finding(finding)

    def after_step(self, loss: mc.Tensor, correct: Any) -> None:
        """Count the step, and log it; take a snapshot and save a checkpoint if they are due.

        Args:
            loss: of the batch, a Tensor of shape ().
            correct: (N,) booleans, whether the predictions of the batch were correct; on either device.

        Raises TrainingStopped after a signal, DivergenceError if the loss is not finite.
        """
        self.step += 1
        self.log.train(self.step, loss.data, correct.mean(), self.optimizer.param_groups[0]["lr"], len(correct))
        if self.recorder and (self.recorder.should_record(self.step) or self.step == self.last_step):
            with best_effort_plots():
                self.recorder.record(self.step)
        if self.shutdown.signal or self.checkpoints.should_save(self.step):
            self.log.flush()                        # raises DivergenceError: a network of NaN is not worth a checkpoint
            self.save()
        if self.shutdown.signal:
            raise TrainingStopped(self.shutdown.signal, self.step)

    def save(self, score: float | None = None) -> None:
        """Write a checkpoint of this step. score: the accuracy of its validation, if there was one."""
        self.checkpoints.save(self.step, score, model=self.model.state_dict(), optimizer=self.optimizer.state_dict(),
                              schedule=self.schedule.state_dict(), random=mc.random.state(), validated=self.validated,
                              classes=self.data.classes, pixels=self.data.pixels, fingerprint=self.data.fingerprint, **self.metadata)

    def draw(self) -> None:
        """Draw the run's figures and write its report; print where they are, and which images could not be read."""
        out = self.args.out
        with best_effort_plots():
            figures.training_curves(read_log(out / "log.jsonl"), out / "curves.png", f"AlexNet {self.args.arch} on {self.args.data}")
            figures.filters(self.model.conv1.weight.numpy(), out / "filters.png")
            print(f"see {out}/curves.png and {out}/filters.png")
        if self.recorder:
            with best_effort_plots():
                print(f"{self.recorder.write(self.step)}: every layer, forward and backward; open it in a browser")
        for loader in (self.data.train, self.data.val):
            for reason in loader.bad.values():
                print(f"skipped: {reason}")

    @contextlib.contextmanager
    def report_divergence(self) -> Iterator[None]:
        """If the run ends because its loss is not finite, log what the monitor finds, and write the report."""
        try:
            yield
        except DivergenceError as error:
            _, step = error.args
            for finding in self.monitor.check():
                self.log.finding(finding)
            if self.recorder:
                with best_effort_plots():
                    self.recorder.record(step)
                    self.log.write(f"{self.recorder.write(step)}: every layer before and at the divergence; open it in a browser")
            raise


@contextlib.contextmanager
def best_effort_plots() -> Iterator[None]:
    """Inside, a figure that cannot be drawn or written (no matplotlib, a full disk) prints one line instead of ending the run."""
    try:
        yield
    except (ImportError, OSError) as error:
        print(f"no picture: {error}", file=sys.stderr)


@contextlib.contextmanager
def explain_out_of_memory(model: mc.nn.Module, input_shape: Sequence[int], batch_size: int) -> Iterator[None]:
    """Turn an out-of-memory error into one that says which batch size would fit."""
    try:
        yield
    except MemoryError as error:
        what = f"not enough memory for a batch of {batch_size} images of {format_shape(input_shape)}"
        if not cuda.is_out_of_memory(error):
            raise MemoryError(f"{what}; try --batch-size {max(1, batch_size // 2)}") from error
        now, total = cuda.memory_stats(), mc.summary(model.to("cpu"), input_shape).total
        # Weights, gradients and velocities; the workspace; and for each image what forward saves, and as much again in backward.
        fixed = 3 * 4 * total.parameters + cuda.WORKSPACE_BYTES
        available = now["used"] + now["cached"] + now["free"] - fixed
        # A fifth is left for temporary arrays, and for fragments too small to be used.
        fits = min(batch_size - 1, int(0.8 * available / (2 * total.saved_bytes + 8 * math.prod(input_shape))))
        advice = f"about {fits} would fit: try --batch-size {fits}" if fits > 0 else "no batch would fit; use a smaller network (--arch)"
        raise MemoryError(f"{what} on the GPU: {now['used'] / 1e9:.2f} GB are in use by arrays, "
                          f"{now['cached'] / 1e9:.2f} GB cached for reuse, {now['free'] / 1e9:.2f} GB free of "
                          f"{now['total'] / 1e9:.2f} GB; {advice}") from error
