"""A run's numbers: as JSON lines in a file, and as words beside a progress bar."""

import contextlib
import json
import math
import pathlib
import time

from minicnn.backend import to_device, xp_of


class Diverged(Exception):
    """The loss (first argument) is no longer a number at this step (second)."""


class RunLog:
    """Writes the log of a training: a line for each step and each validation.

    A GPU works behind the back of Python, which goes on to the next step at once; looking at a loss would mean to wait for it. So there
    the losses of 20 steps are left where they are, and read together.

    A file never grows large: each of the first 10,000 steps has its line, then each tenth up to 100,000 steps, and so on (1.3 MB for
    each power of ten). What the bar shows is of all steps.

    Args:
        path: of the file; lines are added to what is there.
        bar: a tqdm bar that counts images.
        device: where the losses are.
        step: the one that the run goes on from; what the file already says of later ones no longer counts.
    """

    def __init__(self, path, bar, device="cpu", step=0):
        begun = path.exists() and path.stat().st_size > 0
        if begun and path.read_bytes()[-1:] != b"\n":
            with open(path, "a", encoding="utf-8") as cut_short:       # by a crash: the next record gets a line of its own
                cut_short.write("\n")
        self.file = open(path, "a", encoding="utf-8", buffering=1)      # noqa: SIM115 (a line is written when it is complete)
        self.bar, self.read_every = bar, 1 if device == "cpu" else 20
        self.unread: list = []
        self.loss = self.top1 = None
        self.start = time.perf_counter()
        if step or begun:
            self.write("resume", step)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        with contextlib.suppress(Exception):        # what ended the run is the news, not that its last losses cannot be read
            self.read()
        self.file.close()

    def write(self, kind, step, **what):
        """One record."""
        seconds = round(time.perf_counter() - self.start, 3)
        self.file.write(json.dumps({"kind": kind, "step": step, "seconds": seconds, **what}) + "\n")

    def train(self, step, loss, top1, lr, images):
        """Note a step; `loss` and `top1` (a fraction) are arrays of one number, on either device."""
        self.unread.append((step, loss, top1, lr, images))
        if len(self.unread) == self.read_every:
            self.read()

    def read(self):
        """Write down the steps noted since the last time; raises Diverged at a loss that is no longer a number."""
        unread, self.unread = self.unread, []
        if not unread:
            return
        xp = xp_of(unread[0][1])
        losses, top1s = (to_device(xp.stack([xp.asarray(row[i]) for row in unread]), "cpu").tolist() for i in (1, 2))
        for (step, _, _, lr, images), loss, top1 in zip(unread, losses, top1s, strict=True):
            finite = math.isfinite(loss)
            if step % lines_apart(step) == 0 or not finite:
                self.write("train", step, loss=loss if finite else None, top1=100 * top1, lr=lr)
            if not finite:
                raise Diverged(loss, step)
            self.loss = loss if self.loss is None else 0.95 * self.loss + 0.05 * loss
            self.top1 = 100 * top1 if self.top1 is None else 0.95 * self.top1 + 0.05 * 100 * top1
            self.bar.set_postfix_str(f"loss {self.loss:.3f}, top-1 {self.top1:.1f} %", refresh=False)
            self.bar.update(images)

    def val(self, step, result):
        """Note a validation: a dict with loss, top1, top5 (percent) and images."""
        self.write("val", step, **result)
        self.say(f"step {step}: validation loss {result['loss']:.4f}, top-1 {result['top1']:.2f} %, top-5 {result['top5']:.2f} %")

    def finding(self, finding):
        """Note what `minicnn.study.health` found."""
        self.write("finding", **vars(finding))
        self.say(str(finding))

    def say(self, words):
        """A line above the progress bar."""
        self.bar.write(words)


def lines_apart(step):
    """How many steps after one has its line in the log the next one has."""
    return 10 ** max(0, len(str(step - 1)) - 4)


def read_log(path):
    """The records of a run's log, in order. What a resumed run did again counts once: the newer time.

    A line that is no record, cut short by a crash for instance, is left out.
    """
    records: list[dict] = []
    for line in pathlib.Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if not isinstance(record, dict) or not isinstance(record.get("kind"), str) or not isinstance(record.get("step"), int):
            continue
        if record["kind"] == "resume":
            records = [r for r in records if r["step"] <= record["step"]]
        if record["kind"] == "val":             # of one that was not in the checkpoint yet, when the run ended
            records = [r for r in records if (r["kind"], r["step"]) != ("val", record["step"])]
        records.append(record)
    return records
