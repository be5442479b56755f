"""A report in one file: page.html with its style, its program, and the numbers of a run; it asks nothing of a network."""

import html
import json
import os
import pathlib
import re

from minicnn.backend import to_device
from minicnn.checkpoint import CheckpointError, load_checkpoint
from minicnn.data.views import device_of_model
from minicnn.keeper import checkpoints
from minicnn.study.report import curves, facts, pictures
from minicnn.study.report.frame import frame, mark

HERE = pathlib.Path(__file__).parent
MOST_BYTES = 4_800_000          # of a report; with more frames than fit, some in the middle are left out


def write(run, path=None, images=None):
    """Write the report of a run (a minicnn.study.run.Run); returns its path.

    Args:
        path: of the file; by default report.html in the run's folder.
        images: how many test images are looked at; by default 2,000 small ones or 200 photographs.

    Raises OSError if it cannot be written; then what was there before is still there.
    """
    path = pathlib.Path(path or run.folder / "report.html")
    if path.is_dir() or not path.parent.is_dir():
        raise OSError(f"{path} is a folder; name a file in it" if path.is_dir() else f"{path}: there is no folder {path.parent}; make it")
    small = run.data.side <= 64
    inputs, labels = facts.samples(run.data)
    on_device = to_device(inputs, device_of_model(run.model))
    batch = on_device[[i % len(inputs) for i in range(min(run.checkpoint["arguments"]["batch_size"], 32 if small else 8))]]
    layers, speed = facts.layers_of(run.model, inputs, labels, batch)
    fixed = {"recipe": facts.recipe(run, speed), "classes": list(run.data.classes), "layers": layers,
             "samples": [{"picture": pictures.photograph(facts.as_seen(run.data, x)), "label": int(label)}
                         for x, label in zip(inputs, labels, strict=True)],
             "findings": [r for r in run.records if r["kind"] == "finding"], "test": facts.test(run, images or (2000 if small else 200))}
    head = assemble(run, fixed, [])
    chosen = fitting(frames_of(run, on_device, labels), MOST_BYTES - len(head.encode()))
    text = assemble(run, fixed, chosen)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def frames(folder):
    """[(step, path), ...] of the frames of the run in this folder, the earliest first."""
    found = pathlib.Path(folder, "frames").glob("*.json")
    return sorted((int(path.stem), path) for path in found if path.stem.isdigit())


def frames_of(run, images, labels):
    """{step: JSON text}: the frames that were taken during the training, and one for each checkpoint that has none.

    What is damaged, of other test images, or of an earlier life of this run (later than its log), is passed over.
    """
    last = max([r["step"] for r in run.records], default=run.checkpoint.get("step", 0))
    found, before = {}, {name: p.data.copy() for name, p in run.model.named_parameters()}
    of = mark(images, labels)
    for step, path in frames(run.folder):
        text = path.read_text(encoding="utf-8", errors="replace")
        if step <= last and is_frame(text, of):
            found[step] = text
        else:
            print(f"passed over: {path} is damaged, or of other test images, or of an earlier life of this run")
    try:
        for step, path in checkpoints(run.folder):
            if step not in found and step <= last:
                try:
                    saved = load_checkpoint(path)
                except (CheckpointError, FileNotFoundError) as error:       # damaged; or removed by the run, which goes on meanwhile
                    print(f"passed over: {error}")
                    continue
                run.model.load_state_dict(saved["model"])
                velocities = dict(zip(before, saved["optimizer"]["velocities"], strict=True))
                found[step] = json.dumps(frame(run.model, images, labels, step, velocities), allow_nan=False)
    finally:
        run.model.load_state_dict(before)
    if not found:
        found[last] = json.dumps(frame(run.model, images, labels, last), allow_nan=False)
    return dict(sorted(found.items()))


def is_frame(text, of):
    """Whether this is a whole frame of the images with this mark."""
    try:
        found = json.loads(text)
    except ValueError:
        return False
    return isinstance(found, dict) and found.get("images") == of


def fitting(found, room):
    """The frames (JSON texts) that fit into so many bytes; the first and the last stay, and of the others those go that tell least."""
    steps = list(found)
    while len(steps) > 2 and sum(len(found[s]) for s in steps) > room:
        # The one that is nearest to the one before it, as ratios go: 9,000 and 9,500 look alike, 1 and 3 do not, and 0 is far from all.
        nearest = min(range(1, len(steps) - 1), key=lambda i: steps[i] / (steps[i - 1] + 0.1))
        del steps[nearest]
    return [found[s] for s in steps]


def assemble(run, fixed, chosen):
    """The page as text."""
    arguments = run.checkpoint["arguments"]
    title = f"AlexNet {arguments['arch']} on {arguments['data']}"
    parts = {"TITLE": html.escape(title), "STYLE": (HERE / "page.css").read_text(encoding="utf-8"),
             "PROGRAM": (HERE / "page.js").read_text(encoding="utf-8"), "CURVES": "".join(curves.curves(run.records)),
             "FACTS": inside_script(json.dumps(fixed, allow_nan=False)), "FRAMES": inside_script("[" + ",\n".join(chosen) + "]")}
    return re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], (HERE / "page.html").read_text(encoding="utf-8"))


def inside_script(text):
    """JSON that can stand in a <script>: nothing in it ends that."""
    return text.replace("<", "\\u003c")
