"""The report of a real short run: its thumbnails and numbers equal the network's outputs and gradients, and the page works in a browser."""

import base64
import io
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import types

import numpy as np
import pytest
from browser import Page, chromium
from PIL import Image

import minicnn as mc
from minicnn import nn
from minicnn.backend.arrays import to_device
from minicnn.checkpoint import load_checkpoint
from minicnn.cli.report import main
from minicnn.data import DataError
from minicnn.examples.recipe import load_run
from minicnn.inspect.activations import capture_activations
from minicnn.train.checkpoint_manager import CheckpointManager, list_checkpoints, load_latest
from minicnn.train.monitor import TrainingMonitor
from minicnn.visualize.report import curves, html, static_sections, thumbnails
from minicnn.visualize.report.recorder import SnapshotRecorder
from minicnn.visualize.report.snapshots import list_snapshots, loss_layer, snapshot

ROOT = pathlib.Path(__file__).parents[1]
SHORT = ["--device", "cpu", "--max-images", "64", "--batch-size", "8", "--max-steps", "12"]


def train(*args):
    result = subprocess.run([sys.executable, ROOT / "examples" / "train_alexnet.py", *map(str, args)], capture_output=True, text=True,
                            env={**os.environ, "MPLBACKEND": "agg"}, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "run"
    assert f"{out}/report.html: every layer" in train(*SHORT, "--out", out)
    return out


@pytest.fixture(scope="module")
def text(run):
    return (run / "report.html").read_text(encoding="utf-8")


def inside(text, name):
    """The JSON of the <script> with this id."""
    return json.loads(re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', text, re.S)[1])


def indices(url):
    """The palette indices (H, W) of a thumbnail in the page."""
    kind, data = url.split(",", 1)
    assert kind == "data:image/png;base64"
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert image.mode == "P"
    return np.asarray(image)


# ---- thumbnails

def test_colours_encode_sign_and_magnitude():
    a = np.array([[-1.0, 1.0, 0.0], [0.25, -0.25, np.nan]])
    assert thumbnails.quantize(a, 1.0).tolist() == [[0, 14, 7], [11, 3, 15]]         # the square root of a quarter is a half: 4 of 7 levels
    rgb = np.reshape(thumbnails.PALETTE, (16, 3))
    assert rgb[7].tolist() == [255, 255, 255]
    assert rgb[14, 0] > rgb[14, 2]                                              # red
    assert rgb[0, 2] > rgb[0, 0]                                                # blue
    assert np.array_equal(indices(thumbnails.data_url(thumbnails.quantize(a, 1.0))), thumbnails.quantize(a, 1.0))


def test_every_channel_has_its_tile():
    maps = np.arange(1, 7, dtype=float)[:, None, None] * np.ones((6, 3, 4))
    tiles = thumbnails.activation_tiles(maps)
    assert tiles.shape == (2 * 4 - 1, 3 * 5 - 1)
    assert [tiles[r, c] for r in (0, 4) for c in (0, 5, 10)] == thumbnails.quantize(maps[:, 0, 0], 6).tolist()
    assert (tiles[3] == thumbnails.GAP).all()


def test_large_maps_are_averaged_down_and_channels_selected():
    maps = np.random.default_rng(0).standard_normal((96, 55, 55))
    assert thumbnails.activation_tiles(maps).shape == (3 * 28 - 1, 5 * 28 - 1)               # 12 channels of 27 pixels
    assert thumbnails.select_channels(96, 55).tolist()[:2] == [0, 8]
    assert np.allclose(thumbnails.average_pool(maps, 2)[3, 4, 5], maps[3, 8:10, 10:12].mean())


@pytest.mark.parametrize("units, shape", [(10, (1, 10)), (512, (16, 32)), (4096, (64, 64)), (1000, (32, 32))])
def test_units_are_a_pixel_each(units, shape):
    tiles = thumbnails.activation_tiles(np.linspace(-1, 1, units))
    assert tiles.shape == shape
    assert (tiles.flat[0], tiles.flat[units - 1]) == (0, 14)
    assert (tiles.reshape(-1)[units:] == thumbnails.GAP).all()


def test_filters_of_colour_images_are_in_colours():
    weight = np.zeros((2, 3, 2, 2), np.float32)
    weight[0, 0] = 0.5                                                          # all red
    weight[1, 2, 0, 0] = -4
    data = base64.b64decode(thumbnails.colour_filters(weight).split(",")[1])
    image = np.asarray(Image.open(io.BytesIO(data)))
    assert image.shape == (2, 5, 3)
    grey = 8 * 17                                                               # 7.5 of 15, rounded to even
    assert image[0, 0].tolist() == [255, grey, grey]
    assert image[0, 3].tolist() == [grey, grey, 0]
    assert image[1, 4].tolist() == [grey, grey, grey]
    assert image[0, 2].tolist() == [255, 255, 255]                              # the gap


@pytest.mark.parametrize("shape, text", [
    ((96, 3, 11, 11), "; shown: 48 of 96 filters in colours, each scaled to its own largest magnitude; grey is 0"),
    ((32, 1, 5, 5), "; shown: 32 of 32 filters"),
    ((64, 16, 5, 5), "; shown: 16 of 64 filters, a column each: their first 6 of 16 channels"),
    ((512, 256), "; shown: the first 64 units (rows) and 96 inputs"),
    ((10, 90), "")])
def test_the_caption_of_weights_names_the_selection(shape, text):
    assert thumbnails.describe_selection(shape) == text


# ---- snapshots

def test_snapshots_are_recorded_at_these_steps(run):
    assert [step for step, _ in list_snapshots(run)] == [0, 1, 3, 10, 12]
    assert [s for s in range(20_000) if SnapshotRecorder.should_record(None, s)] == [1, 3, 10, 30, 100, 300, 1000, 3000, 10_000]


def test_a_snapshot_equals_the_forward_and_backward_of_the_checkpoint(run):
    """Every thumbnail, level for level, and the numbers below it."""
    opened = load_run(run)
    inputs, labels = static_sections.select_samples(opened.data)
    recorded = json.loads((run / "snapshots" / "000000012.json").read_text())
    activations = capture_activations(opened.model, inputs, labels)
    assert list(recorded["layers"]) == ["image", *activations.layers, "loss"]
    assert [name for name, layer in recorded["layers"].items() if layer.get("same_as")] == ["drop6", "drop7"]
    for name, layer in activations.layers.items():
        got = recorded["layers"][name]
        got = recorded["layers"][got["same_as"]] if "same_as" in got else got
        for i in range(len(labels)):
            assert np.array_equal(indices(got["forward"][i]), thumbnails.activation_tiles(layer.output[i])), name
            assert np.array_equal(indices(got["backward"][i]), thumbnails.activation_tiles(layer.gradient[i])), name
            assert got["forward_text"][i].startswith(f"{layer.output[i].min():.3g} to {layer.output[i].max():.3g}")
            assert f"norm {np.linalg.norm(layer.gradient[i].ravel()):.2g}" in got["backward_text"][i]
            magnitudes = np.sqrt(np.mean(layer.output[i] ** 2)), np.linalg.norm(layer.gradient[i].ravel())
            assert got["magnitudes"][i] == pytest.approx(magnitudes, rel=1e-3)
    weight, gradient = activations.layers["conv2"].parameters["weight"]
    assert sum(recorded["layers"]["conv2"]["weight_bins"][0]) == weight.size
    assert recorded["layers"]["conv2"]["gradient_bins"][1] == pytest.approx(np.abs(gradient).max(), rel=1e-3)
    velocity = opened.optimizer.velocities[[n for n, _ in opened.model.named_parameters()].index("conv2.weight")]
    assert recorded["layers"]["conv2"]["update_ratio"] == pytest.approx(np.linalg.norm(velocity) / np.linalg.norm(weight), rel=1e-3)


def test_the_gradient_of_the_loss_is_p_minus_1_for_the_true_class(run):
    opened = load_run(run)
    inputs, labels = static_sections.select_samples(opened.data)
    recorded = json.loads((run / "snapshots" / "000000012.json").read_text())
    with mc.no_grad():
        p = mc.ops.softmax(opened.model(mc.Tensor(inputs))).numpy()
    activations = capture_activations(opened.model, inputs, labels)
    for i, rows in enumerate(recorded["layers"]["loss"]["bars"]):
        assert [r[0] for r in rows] == list(range(10))
        assert np.allclose([r[1] for r in rows], p[i], atol=1e-4)
        assert np.allclose([r[2] for r in rows], activations.layers["fc8"].gradient[i], atol=1e-4)
        assert recorded["loss"][i] == pytest.approx(-np.log(p[i, labels[i]]), rel=1e-3)


def test_of_many_classes_the_most_probable_and_the_true_one_are_shown():
    p = np.full((1, 1000), 0.0005)
    p[0, 7] = 1 - 999 * 0.0005
    rows = loss_layer(p, np.array([500]))["bars"][0]
    assert (len(rows), rows[0][0], rows[-1][0]) == (10, 7, 500)
    assert rows[-1][2] == pytest.approx(0.0005 - 1)


def test_a_run_has_the_same_bits_with_and_without_a_report(run, tmp_path):
    train(*SHORT, "--out", tmp_path / "plain", "--no-report")
    assert sorted(p.name for p in (tmp_path / "plain").iterdir() if p.suffix != ".npz") == ["curves.png", "filters.png", "log.jsonl"]
    with_report, without = (load_latest(folder)[1] for folder in (run, tmp_path / "plain"))
    assert with_report["random"] == without["random"]
    for name, w in with_report["model"].items():
        assert np.array_equal(w, without["model"][name]), name


def test_a_resumed_run_has_the_same_snapshots(run, tmp_path):
    out = tmp_path / "run"
    train(*SHORT[:-1], 5, "--out", out)
    assert [step for step, _ in list_snapshots(out)] == [0, 1, 3, 5]
    (out / "snapshots" / "000000900.json").write_text("{}")                # of a previous run
    (out / "snapshots" / "000000010.tmp").write_text("{")
    train("--resume", out, "--device", "cpu", "--max-steps", 12)
    assert [step for step, _ in list_snapshots(out)] == [0, 1, 3, 5, 10, 12]
    assert not list(out.rglob("*.tmp"))
    for step in (0, 1, 3, 10, 12):
        assert (out / "snapshots" / f"{step:09}.json").read_bytes() == (run / "snapshots" / f"{step:09}.json").read_bytes(), step


def test_a_snapshot_of_a_network_with_nan(device):
    model = nn.Sequential(conv1=nn.Conv2d(1, 2, 3), relu1=nn.ReLU(), flatten=nn.Flatten(), fc2=nn.Linear(8, 3)).to(device)
    model.conv1.weight.data[0] = np.nan
    recorded = snapshot(model, to_device(np.ones((2, 1, 4, 4), np.float32), device), np.array([0, 2]), 7)
    text = json.dumps(recorded, allow_nan=False)
    assert "4 of 8 are NaN or infinite" in text
    assert recorded["layers"]["loss"]["bars"][0] == [[0, None, None], [1, None, None], [2, None, None]]
    assert recorded["loss"] == [None, None]
    assert thumbnails.NOT_FINITE in indices(recorded["layers"]["conv1"]["forward"][0])


def test_the_report_of_a_run_that_diverged(tmp_path):
    result = subprocess.run([sys.executable, ROOT / "examples" / "train_alexnet.py", *SHORT, "--lr", "1e6", "--out", tmp_path / "run"],
                            capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert f"{tmp_path}/run/report.html: every layer before and at the divergence" in result.stdout + result.stderr
    text = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    steps = [s["step"] for s in inside(text, "snapshots")]
    assert steps[0] == 0
    assert inside(text, "snapshots")[-1]["loss"][0] is None
    assert any(f["code"] == "non-finite" for f in inside(text, "run")["findings"])
    assert "are NaN or infinite" in inside(text, "snapshots")[-1]["layers"]["fc8"]["forward_text"][0]


# ---- the page

def test_the_static_sections_describe_the_run(run, text):
    found, opened = inside(text, "run"), load_run(run)
    assert found["classes"] == opened.data.classes
    layers = {layer["name"]: layer for layer in found["layers"]}
    assert list(layers) == ["image", *(name for name, _ in opened.model.named_children()), "loss"]
    parameters = sum(int(dict(layer.get("costs", [])).get("parameters", "0").replace(",", "")) for layer in found["layers"])
    assert parameters == sum(p.size for p in opened.model.parameters())
    assert layers["conv2"]["formula"] == sys.modules[mc.ops.conv2d.__module__].__doc__.strip()
    assert "def backward(self, gy" in layers["norm1"]["backward_source"]
    assert layers["pool1"]["in"] == [32, 28, 28]
    assert layers["pool1"]["out"] == [32, 13, 13]
    for name, layer in layers.items():
        assert (layer["speed"]["forward"][0] > 0 if name not in ("image",) else "speed" not in layer), name
    summary = dict(found["summary"])
    val = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()][-1]
    assert f"top-1 {val['top1']:.2f} %" in summary["test accuracy"]
    assert "12 steps with batches of 8 images" in summary["training"]
    assert "--seed 0" in summary["command"]
    assert "--batch-size 8" in summary["command"]


def test_the_test_section_equals_the_predictions_of_the_network(run, text):
    opened, found = load_run(run), inside(text, "run")["test"]
    x = np.stack([opened.data.test_transform(opened.data.validation[i][0], None) for i in range(64)]).transpose(0, 3, 1, 2)
    y = np.array([opened.data.validation[i][1] for i in range(64)])
    with mc.no_grad():
        p = mc.ops.softmax(opened.model(mc.Tensor(x))).numpy()
    guess = p.argmax(axis=1)
    assert found["images"] == 64
    assert found["accuracy"] == pytest.approx(100 * (guess == y).mean())
    counts = np.array(found["confusion_matrix"])
    assert counts.sum() == 64
    assert np.trace(counts) == (guess == y).sum()
    assert counts[y[0], guess[0]] >= 1
    worst = max(p[i, guess[i]] for i in range(64) if guess[i] != y[i])
    assert found["mistakes"][0]["bars"][0][1] == pytest.approx(worst, abs=1e-3)
    assert all(m["bars"][0][0] != m["label"] for m in found["mistakes"])
    assert all(len(a["bars"]) == 5 for a in found["examples"])


def test_the_page_is_small_and_loads_nothing(text):
    assert len(text.encode()) < 5_000_000
    assert not re.search(r'(?:src|href)\s*=\s*"(?!data:)', text)
    program = re.sub(r'<script type="application.*?</script>', "", text, flags=re.S)
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|https?://(?!www\.w3\.org/2000/svg)", program)
    assert "{{" not in text


def test_checkpoints_without_a_snapshot_are_in_the_report(run, text):
    assert [s["step"] for s in inside(text, "snapshots")] == [0, 1, 3, 8, 10, 12]          # 8: the end of the first epoch
    step, path = list_checkpoints(run)[0]
    saved = load_checkpoint(path)
    assert step == 8
    found = inside(text, "snapshots")[3]["layers"]["fc8"]["weight_text"]
    assert found.startswith(f"{saved['model']['fc8.weight'].min():.3g} to ")


def test_class_names_cannot_end_the_script(run, tmp_path):
    opened = load_run(run)
    opened.data.classes[0] = "</script><b>&"
    opened.checkpoint["arguments"]["data"] = "<i>&x"
    text = html.write(opened, tmp_path / "page.html", max_images=16).read_text(encoding="utf-8")
    assert inside(text, "run")["classes"][0] == "</script><b>&"
    assert "<title>AlexNet mini on &lt;i&gt;&amp;x</title>" in text
    assert text.count("</script>") == 3
    opened.data.classes[0] = "{{SNAPSHOTS}}"
    opened.checkpoint["arguments"]["data"] = "{{RUN}}"
    text = html.write(opened, tmp_path / "page.html", max_images=16).read_text(encoding="utf-8")
    assert inside(text, "run")["classes"][0] == "{{SNAPSHOTS}}"
    assert "<title>AlexNet mini on {{RUN}}</title>" in text


def test_of_too_many_snapshots_those_that_look_alike_are_skipped():
    found = {s: f'{{"step": {s}}}' for s in (0, 1, 3, 10, 30, 100, 9000, 9500, 10_000)}
    selected = [json.loads(t)["step"] for t in html.select_snapshots(found, sum(map(len, found.values())) - 1)]
    assert selected == [0, 1, 3, 10, 30, 100, 9000, 10_000]
    usual = {s: f'{{"step": {s}}}' for s in (0, 1, 3, 10, 30, 100, 300, 1000, 3000, 10_000, 20_625)}
    expected = [0, 1, 10, 100, 1000, 10_000, 20_625]
    assert [json.loads(t)["step"] for t in html.select_snapshots(usual, sum(len(usual[s]) for s in expected))] == expected
    assert [json.loads(t)["step"] for t in html.select_snapshots(found, 1)] == [0, 10_000]


def test_damaged_snapshots_and_those_of_other_images_are_skipped(run, tmp_path, capsys):
    old = tmp_path / "run"
    shutil.copytree(run, old)
    (old / "snapshots" / "000000001.json").write_bytes(b"")
    (old / "snapshots" / "000000003.json").write_bytes(b"\xff\xfe{")
    other = json.loads((old / "snapshots" / "000000010.json").read_text())
    (old / "snapshots" / "000000010.json").write_text(json.dumps({**other, "images_crc32": 1}))
    (old / "snapshots" / "000000900.json").write_text((run / "snapshots" / "000000012.json").read_text())
    assert main([str(old)]) == 0
    out = capsys.readouterr().out
    assert [re.search(rf"skipped: .*{step:09}.json", out) is not None for step in (0, 1, 3, 10, 12, 900)] == [0, 1, 1, 1, 0, 1]
    assert [s["step"] for s in inside((old / "report.html").read_text(encoding="utf-8"), "snapshots")] == [0, 8, 12]


def test_a_run_goes_on_if_its_report_cannot_be_written(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "snapshots").write_text("in the way")
    (tmp_path / "run" / "report.html").mkdir()
    result = subprocess.run([sys.executable, ROOT / "examples" / "train_alexnet.py", *SHORT, "--out", tmp_path / "run"],
                            capture_output=True, text=True, check=False)
    assert result.returncode == 0
    assert result.stderr.count("no picture: ") == 6                 # five snapshots and the page
    assert "validation: top-1" in result.stdout


def test_the_monitor_does_not_see_the_images_of_a_snapshot(run):
    """Which units are dead depends on the training's batches alone."""
    opened = load_run(run)
    images, labels = next(opened.data.train.epoch(0))
    peaks = []
    for recorder in (None, SnapshotRecorder(opened)):
        with TrainingMonitor(opened.model, opened.optimizer, 10) as health:
            mc.ops.cross_entropy(opened.model(mc.Tensor(images)), labels).backward()
            if recorder:
                recorder.record(12)
            peaks.append({name: np.array(peak) for name, peak in health.relu_hook.peaks.items()})
    np.testing.assert_equal(*peaks)
    assert peaks[0]


def test_curves_go_through_the_values():
    records = [{"kind": "train", "step": s, "loss": 4 - s / 25, "top1": s} for s in range(1, 101)]
    records.append({"kind": "val", "step": 100, "loss": 1.0, "top1": 60.0, "top5": 90.0})
    records.append({"kind": "train", "step": 101, "loss": None, "top1": 0})
    loss, accuracy = curves.curves(records)
    line = [tuple(map(float, p.split(","))) for p in re.search(r'polyline class="train" points="([^"]*)"', accuracy)[1].split()]
    width, height = curves.WIDTH - curves.LEFT - curves.RIGHT, curves.HEIGHT - curves.TOP - curves.BOTTOM
    assert line[49] == pytest.approx((curves.LEFT + width * 50 / 101, curves.HEIGHT - curves.BOTTOM - height * 0.5), abs=0.06)
    assert f'cy="{curves.HEIGHT - curves.BOTTOM - height * 0.9:.1f}"' in accuracy           # top-5
    assert 'data-last="101"' in loss
    assert curves.curves([]) == []
    assert curves.ticks(100) == [0, 20, 40, 60, 80, 100]
    assert curves.ticks(2.6) == pytest.approx([0, 0.5, 1, 1.5, 2, 2.5])


def test_curves_of_odd_logs():
    assert "polyline" not in curves.curves([{"kind": "train", "step": 1}])[0]
    zeros = [{"kind": "train", "step": s, "loss": 0.0, "top1": 100.0} for s in (1, 2, 3)]
    steps = re.findall(r'text-anchor="middle">([^<]*)<', curves.curves(zeros)[0])
    assert steps == ["0", "1", "2", "3"]
    assert ">1,000,000<" in curves.curves([{"kind": "train", "step": 5_000_000, "loss": 1.0, "top1": 1.0}])[0]


class ThreeOfEach:
    """A data set with three images of each class in a row; image 0 is unreadable."""

    def __init__(self, classes):
        self.classes = classes

    def __len__(self):
        return 3 * self.classes

    def __getitem__(self, i):
        if i == 0:
            raise DataError("image 0 cannot be read")
        return np.full((4, 4, 1), i % 256, np.uint8), i // 3


@pytest.mark.parametrize("classes, expected", [(2, [0, 1]), (10, [0, 2, 4, 6, 9]), (1000, None)])
def test_samples_are_spread_over_the_classes_and_readable(classes, expected):
    data = types.SimpleNamespace(side=28, classes=list(range(classes)), validation=ThreeOfEach(classes),
                                 test_transform=lambda image, rng: image.astype(np.float32))
    inputs, labels = static_sections.select_samples(data)
    assert inputs.shape == (len(labels), 1, 4, 4)
    if expected:
        assert labels.tolist() == expected
    else:
        assert np.abs(labels - np.linspace(0, 999, 5)).max() < 20
    broken = ThreeOfEach(1)
    broken.__class__ = type("Broken", (ThreeOfEach,), {"__getitem__": lambda self, i: ThreeOfEach.__getitem__(self, 0)})
    data.validation = broken
    with pytest.raises(DataError, match="--no-report"):
        static_sections.select_samples(data)


def test_duration_of_a_resumed_run():
    seconds = [{"kind": "train", "seconds": 40.0}, {"kind": "resume", "seconds": 0.1}, {"kind": "val", "seconds": 22.0}]
    assert static_sections.duration(seconds) == "62 s"
    assert static_sections.duration([{"kind": "val", "seconds": 36_000.0}]) == "10.0 h"


# ---- the command

def test_the_command_rewrites_the_report(run, tmp_path, capsys):
    assert main([str(run), "--out", str(tmp_path / "page.html")]) == 0
    assert re.match(rf"{re.escape(str(tmp_path))}/page.html: \d\.\d MB, in \d+ s", capsys.readouterr().out)
    assert [s["step"] for s in inside((tmp_path / "page.html").read_text(encoding="utf-8"), "snapshots")] == [0, 1, 3, 8, 10, 12]


def test_a_run_without_snapshots_has_those_of_its_checkpoints(run, tmp_path):
    (tmp_path / "old").mkdir()
    for _, path in list_checkpoints(run):
        (tmp_path / "old" / path.name).write_bytes(path.read_bytes())
    assert main([str(tmp_path / "old")]) == 0
    assert [s["step"] for s in inside((tmp_path / "old" / "report.html").read_text(encoding="utf-8"), "snapshots")] == [8, 12]


def test_errors_are_one_line(run, tmp_path, capsys):
    for argv, message in (([str(tmp_path / "nowhere")], "no such folder; name the folder of a run"),
                          ([str(tmp_path)], "no checkpoint of a run is here"),
                          ([str(run), "--out", str(tmp_path / "no" / "page.html")], "there is no folder"),
                          ([str(run), "--out", str(tmp_path)], "is a folder; name a file in it")):
        assert main(argv) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert message in error
        assert error.count("\n") == 1


class SignDescent(mc.optim.Optimizer):
    """A user's optimizer: a fixed step against the sign of the gradient. It keeps no velocities and no last update."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})

    def step(self):
        for p in self.params:
            p.data -= self.param_groups[0]["lr"] * np.sign(p.grad)


def test_an_optimizer_without_velocities(run, tmp_path):
    """Snapshots and checkpoints of its run have no update ratio; the rest of the report is there."""
    opened = load_run(run)
    opened.folder, opened.records = tmp_path, []
    opened.optimizer = SignDescent(opened.model.parameters(), 1e-3)
    assert not hasattr(opened.optimizer, "velocities")
    recorder = SnapshotRecorder(opened)
    recorder.start(0)
    images, labels = next(opened.data.train.epoch(0))
    for step in (1, 2):
        opened.optimizer.zero_grad()
        mc.ops.cross_entropy(opened.model(mc.Tensor(images)), labels).backward()
        opened.optimizer.step()
        if recorder.should_record(step):
            recorder.record(step)
    opened.checkpoint["step"] = 2
    assert "velocities" not in opened.optimizer.state_dict()
    CheckpointManager(tmp_path).save(2, model=opened.model.state_dict(), optimizer=opened.optimizer.state_dict())
    text = html.write(opened, max_images=16).read_text(encoding="utf-8")
    snapshots = inside(text, "snapshots")
    assert [s["step"] for s in snapshots] == [0, 1, 2]
    for s in snapshots:
        assert "update_ratio" not in s["layers"]["conv2"]
        assert sum(s["layers"]["conv2"]["weight_bins"][0]) > 0


def test_a_report_that_cannot_be_written_leaves_the_old_one(run, tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    path.write_text("old")
    monkeypatch.setattr(os, "replace", lambda *a: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        html.write(load_run(run), path, max_images=8)
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]


def test_the_command_works_from_any_folder(run, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main([str(run), "--out", "page.html"]) == 0
    assert inside((tmp_path / "page.html").read_text(encoding="utf-8"), "run")["layers"][1]["name"] == "conv1"


# ---- in a browser

@pytest.fixture
def browser(tmp_path):
    if os.name != "posix" or not chromium():
        pytest.skip("there is no Chromium here (Debian: apt-get install chromium)")
    with Page(tmp_path / "browser") as page:
        yield page


def displayed(browser):
    """What the page shows: layer, snapshot, and the thumbnails of forward and backward."""
    return types.SimpleNamespace(**browser.run("""({
        layer: document.getElementById("name").textContent, snapshot: document.getElementById("snapshot-label").textContent,
        loss: document.getElementById("loss").textContent, hash: location.hash,
        thumbnails: [...document.querySelectorAll(".panels article .drawing img")].map(i => i.src),
        bars: [...document.querySelectorAll("#forward .bars .number")].map(n => n.textContent)})"""))


def test_every_layer_can_be_chosen_by_keyboard(run, text, browser):
    layers = [layer["name"] for layer in inside(text, "run")["layers"]]
    last = inside(text, "snapshots")[-1]["layers"]
    browser.open(run / "report.html", "#layer=image")
    browser.run('document.getElementById("layer-0").focus()')
    seen = []
    for _ in layers:
        shown = displayed(browser)
        seen.append(shown.layer)
        if shown.layer not in ("image", "loss"):
            source = last[last[shown.layer].get("same_as", shown.layer)]
            assert shown.thumbnails[:2] == [source["forward"][0], source["backward"][0]]
        if "weight" in last[shown.layer]:
            assert shown.thumbnails[2:] == [last[shown.layer]["weight"], last[shown.layer]["gradient"]]
        if shown.layer == "loss":
            assert shown.bars == [f"{100 * p:.1f} %" for _, p, _ in last["loss"]["bars"][0]]
        browser.press("ArrowDown", 40)
    assert seen == layers
    assert browser.run("Promise.all([...document.images].map(i => i.decode())).then(() => document.images.length)") > 10
    assert browser.console == []
    assert [r.partition("#")[0] for r in browser.requests if not r.startswith("data:")] == [(run / "report.html").resolve().as_uri()]


def test_snapshots_and_images_can_be_chosen_by_keyboard(run, text, browser):
    recorded = inside(text, "snapshots")
    browser.open(run / "report.html", "#layer=conv1")
    assert displayed(browser).snapshot == "after 12 steps"
    lengths = browser.run('[...document.querySelectorAll("#layers .magnitude.back")].map(bar => parseFloat(bar.style.width))')
    norms = [recorded[-1]["layers"][name].get("magnitudes", [[0, 0]])[0][1] for name in recorded[-1]["layers"]]
    conv2, fc8 = (list(recorded[-1]["layers"]).index(name) for name in ("conv2", "fc8"))
    for i in (conv2, fc8):
        assert lengths[i] == pytest.approx(100 + 25 * np.log10(norms[i] / max(norms)), abs=0.1)
    assert lengths[0] == 0
    browser.run('document.getElementById("step").focus()')
    labels = ["after 10 steps", "after 8 steps", "after 3 steps", "after 1 step", "before the first step"]
    for snapshot_, label in zip(reversed(recorded[:-1]), labels, strict=True):
        browser.press("ArrowLeft", 37)
        shown = displayed(browser)
        assert shown.snapshot == label
        assert shown.thumbnails[0] == snapshot_["layers"]["conv1"]["forward"][0]
    browser.run('document.getElementById("sample-0").focus()')
    browser.press("ArrowRight", 39)
    assert displayed(browser).thumbnails[0] == recorded[0]["layers"]["conv1"]["forward"][1]
    assert displayed(browser).hash == "#layer=conv1&image=2&step=0"
    assert browser.console == []


def test_the_address_selects_layer_image_and_snapshot(run, browser):
    browser.open(run / "report.html", "#layer=pool2&image=3&step=3")
    shown = displayed(browser)
    assert (shown.layer, shown.snapshot) == ("pool2", "after 3 steps")
    browser.run('location.hash = "#layer=nonsense&image=99&step=x"')
    browser.run("new Promise(done => setTimeout(done, 50))")
    assert displayed(browser).layer == "pool2"
    assert browser.console == []


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_nothing_is_wider_than_the_window(run, text, browser, width):
    browser.resize(width, 800)
    for layer in ("conv2", "loss", "fc6"):
        browser.open(run / "report.html", f"#layer={layer}")
        assert browser.run("document.documentElement.scrollWidth") <= width
    if width == 360:                    # forward above backward; on a wide window they are side by side
        assert browser.run('document.getElementById("forward").getBoundingClientRect().bottom <= '
                           'document.getElementById("backward").getBoundingClientRect().top')
    else:
        assert browser.run('document.getElementById("forward").getBoundingClientRect().top == '
                           'document.getElementById("backward").getBoundingClientRect().top')


def test_the_browser_notices_a_broken_page(run, tmp_path, browser, text):
    """A negative control: an exception, and an image that is requested."""
    broken = tmp_path / "broken.html"
    broken.write_text(text.replace('fillTable(byId("summary"), run.summary);', "nonsense();").replace(
        "<main>", '<main><img src="missing.png">'), encoding="utf-8")
    browser.open(broken)
    assert any("nonsense is not defined" in c for c in browser.console)
    assert any(r.endswith("missing.png") for r in browser.requests)
