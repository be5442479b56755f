"""The log of a training run: JSON lines in a file, and a progress bar."""

import contextlib
import json
import math
import os
import pathlib
import time
from types import TracebackType
from typing import Any

from minicnn.backend.arrays import to_device, xp_of
from minicnn.train.monitor import Finding


class DivergenceError(Exception):
    """The loss is NaN or infinite. args: (loss, step)."""


class TrainingLogger:
    """Writes the log of a training run: one JSON line for each step and each validation.

        with TrainingLogger(folder / "log.jsonl", tqdm(total=images)) as log:
            ...
            log.train(step, loss.data, accuracy, lr, len(labels))

    GPU execution is asynchronous: reading a loss waits until the GPU has computed it. So on a GPU the losses stay there and are read
    20 steps at a time.

    The file stays small: each of the first 10,000 steps has a line, then every tenth up to 100,000 steps, and so on (1.3 MB for each
    power of ten). The progress bar shows moving averages over all steps.

    Args:
        path: of the file; lines are appended.
        bar: a tqdm progress bar that counts images.
        device: where the losses are.
        step: where the run starts or resumes; records of later steps in the file are then ignored (see `read_log`).
    """

    def __init__(self, path: str | os.PathLike[str], bar: Any, device: str = "cpu", step: int = 0) -> None:
        path = pathlib.Path(path)
        has_records = path.exists() and path.stat().st_size > 0
        if has_records and path.read_bytes()[-1:] != b"\n":
            with open(path, "a", encoding="utf-8") as truncated:        # a crash cut off the last line: end it
                truncated.write("\n")
        self.file = open(path, "a", encoding="utf-8", buffering=1)      # noqa: SIM115 (a line is written when it is complete)
        self.bar, self.flush_every = bar, 1 if device == "cpu" else 20
        self.unread: list[tuple[int, Any, Any, float, int]] = []
        self.loss: float | None = None              # moving averages, for the progress bar
        self.top1: float | None = None
        self.start = time.perf_counter()
        if step or has_records:
            self.write_record("resume", step)

    def __enter__(self) -> "TrainingLogger":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        with contextlib.suppress(Exception):        # an error that ended the run must not be replaced by one of its last losses
            self.flush()
        self.file.close()

    def write_record(self, kind: str, step: int, **fields: Any) -> None:
        """Append one record: a JSON object with kind, step, seconds since the start, and these fields."""
        seconds = round(time.perf_counter() - self.start, 3)
        self.file.write(json.dumps({"kind": kind, "step": step, "seconds": seconds, **fields}) + "\n")

    def train(self, step: int, loss: Any, top1: Any, lr: float, images: int) -> None:
        """Log a training step.

        Args:
            step: its number, from 1.
            loss, top1: arrays of shape (), on either device; top1 is the fraction of correct predictions in the batch.
            lr: the learning rate.
            images: how many are in the batch.

        Raises DivergenceError as `flush` does.
        """
        self.unread.append((step, loss, top1, lr, images))
        if len(self.unread) == self.flush_every:
            self.flush()

    def flush(self) -> None:
        """Read the losses of the steps since the last flush, and write their records. Raises DivergenceError at one that is not finite."""
        unread, self.unread = self.unread, []
        if not unread:
            return
        xp = xp_of(unread[0][1])
        losses, top1s = (to_device(xp.stack([xp.asarray(row[i]) for row in unread]), "cpu").tolist() for i in (1, 2))
        for (step, _, _, lr, images), loss, top1 in zip(unread, losses, top1s, strict=True):
            finite = math.isfinite(loss)
            if step % log_interval(step) == 0 or not finite:
                self.write_record("train", step, loss=loss if finite else None, top1=100 * top1, lr=lr)
            if not finite:
                raise DivergenceError(loss, step)
            self.loss = loss if self.loss is None else 0.95 * self.loss + 0.05 * loss
            self.top1 = 100 * top1 if self.top1 is None else 0.95 * self.top1 + 0.05 * 100 * top1
            self.bar.set_postfix_str(f"loss {self.loss:.3f}, top-1 {self.top1:.1f} %", refresh=False)
            self.bar.update(images)

    def val(self, step: int, metrics: dict[str, float]) -> None:
        """Log a validation: a dict with loss, top1, top5 (percent) and images, as `evaluate` returns it."""
        self.write_record("val", step, **metrics)
        self.write(f"step {step}: validation loss {metrics['loss']:.4f}, top-1 {metrics['top1']:.2f} %, top-5 {metrics['top5']:.2f} %")

    def finding(self, finding: Finding) -> None:
        """Log what the training monitor found."""
        self.write_record("finding", **vars(finding))
        self.write(str(finding))

    def write(self, line: str) -> None:
        """Print a line above the progress bar."""
        self.bar.write(line)


def log_interval(step: int) -> int:
    """The number of steps between two records of the log, at this step: 1 up to step 10,000, then 10 up to 100,000, and so on."""
    return 10 ** max(0, len(str(step - 1)) - 4)


def read_log(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The records of a run's log, in order. Steps and validations that a resumed run repeated count once: the newer record.

    Lines that are not records, for instance one that a crash cut off, are skipped.
    """
    records: list[dict[str, Any]] = []
    for line in pathlib.Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if not isinstance(record, dict) or not isinstance(record.get("kind"), str) or not isinstance(record.get("step"), int):
            continue
        if record["kind"] == "resume":
            records = [r for r in records if r["step"] <= record["step"]]
        if record["kind"] == "val":             # repeated after a resume: the run ended before the checkpoint that follows a validation
            records = [r for r in records if (r["kind"], r["step"]) != ("val", record["step"])]
        records.append(record)
    return records
