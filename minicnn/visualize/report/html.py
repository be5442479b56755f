"""The report as one HTML file: page.html with its style sheet, its script and the data of the run; it is self-contained."""

import html
import json
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from minicnn.backend.arrays import to_device
from minicnn.checkpoint import CheckpointError, atomic_write, load_checkpoint
from minicnn.train.checkpoint_manager import list_checkpoints
from minicnn.train.run import Run
from minicnn.visualize.report import curves, static_sections
from minicnn.visualize.report.snapshots import checksum, list_snapshots, snapshot

HERE = pathlib.Path(__file__).parent
MAX_BYTES = 4_800_000           # of a report; if the snapshots do not fit, some in the middle are skipped


def write(run: Run, path: str | os.PathLike[str] | None = None, max_images: int | None = None) -> pathlib.Path:
    """Write the report of a run; returns its path.

    Args:
        run: a minicnn.train.run.Run.
        path: the file to write; by default report.html in the run's folder.
        max_images: test images to evaluate, at most; by default 2,000 small ones or 200 photographs.

    Raises OSError if it cannot be written; an older report is then unchanged.
    """
    path = pathlib.Path(path or run.folder / "report.html")
    if path.is_dir():
        raise OSError(f"{path} is a folder; name a file in it")
    if not path.parent.is_dir():
        raise OSError(f"{path}: there is no folder {path.parent}; create it first")
    inputs, labels = static_sections.select_samples(run.data)
    on_device = to_device(inputs, run.model.device)
    sections = static_sections.collect(run, inputs, on_device, labels, max_images)
    max_bytes = MAX_BYTES - len(render(run, sections, []).encode())
    text = render(run, sections, select_snapshots(collect_snapshots(run, on_device, labels), max_bytes))
    with atomic_write(path) as file:
        file.write(text.encode())
    return path


def collect_snapshots(run: Run, images: Any, labels: Any) -> dict[int, str]:
    """{step: JSON text}: the snapshots recorded during the training, and one computed from each checkpoint that has none.

    Snapshots that are damaged, of other test images, or of a previous run (of later steps than the log) are skipped.
    """
    last = max([r["step"] for r in run.records], default=run.checkpoint.get("step", 0))
    found, crc = {}, checksum(images, labels)
    for step, path in list_snapshots(run.folder):
        text = path.read_text(encoding="utf-8", errors="replace")
        if step <= last and is_snapshot_of(crc, text):
            found[step] = text
        else:
            print(f"skipped: {path} is damaged, of other test images, or of a previous run")
    weights = {name: p.data.copy() for name, p in run.model.named_parameters()}
    name_of = {id(p): name for name, p in run.model.named_parameters()}
    try:
        for step, path in list_checkpoints(run.folder):
            if step not in found and step <= last:
                try:
                    saved = load_checkpoint(path)
                except (CheckpointError, FileNotFoundError) as error:       # damaged; or removed by the run, if it is still training
                    print(f"skipped: {error}")
                    continue
                run.model.load_state_dict(saved["model"])
                velocities = saved["optimizer"].get("velocities", ())       # SGD's are its last updates; another optimiser may have none
                updates = {name_of[id(p)]: v for p, v in zip(run.optimizer.params, velocities, strict=False)}
                found[step] = json.dumps(snapshot(run.model, images, labels, step, updates), allow_nan=False)
    finally:
        run.model.load_state_dict(weights)
    if not found:
        found[last] = json.dumps(snapshot(run.model, images, labels, last), allow_nan=False)
    return dict(sorted(found.items()))


def is_snapshot_of(crc: int, text: str) -> bool:
    """Whether this text is a complete snapshot of the images with this checksum."""
    try:
        found = json.loads(text)
    except ValueError:
        return False
    return isinstance(found, dict) and found.get("images_crc32") == crc


def select_snapshots(snapshots: Mapping[int, str], max_bytes: int) -> list[str]:
    """The snapshots (JSON texts) that fit into `max_bytes` bytes: the first and the last, and those between that differ most in step."""
    steps = list(snapshots)
    while len(steps) > 2 and sum(len(snapshots[s]) for s in steps) > max_bytes:
        # Drop the one nearest to its predecessor, by ratio: 9,000 and 9,500 look alike, 1 and 3 do not, and 0 is far from all.
        nearest = min(range(1, len(steps) - 1), key=lambda i: steps[i] / (steps[i - 1] + 0.1))
        del steps[nearest]
    return [snapshots[s] for s in steps]


def render(run: Run, sections: dict[str, Any], snapshots: Sequence[str]) -> str:
    """The HTML text of the page."""
    arguments = run.checkpoint["arguments"]
    title = f"AlexNet {arguments['arch']} on {arguments['data']}"
    values = {"TITLE": html.escape(title), "STYLE": (HERE / "page.css").read_text(encoding="utf-8"),
              "SCRIPT": (HERE / "page.js").read_text(encoding="utf-8"), "CURVES": "".join(curves.curves(run.records)),
              "RUN": escape_for_script(json.dumps(sections, allow_nan=False)),
              "SNAPSHOTS": escape_for_script("[" + ",\n".join(snapshots) + "]")}
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], (HERE / "page.html").read_text(encoding="utf-8"))


def escape_for_script(text: str) -> str:
    """JSON text without "<", so that nothing in it can end the <script> element that holds it."""
    return text.replace("<", "\\u003c")
