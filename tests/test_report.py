"""The report of a real short run: its pictures are what the layers did, its numbers are the run's, and the page works in a browser."""

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
from minicnn.backend import to_device
from minicnn.checkpoint import load_checkpoint
from minicnn.data import DataError
from minicnn.keeper import checkpoints, load_newest
from minicnn.study.health import Health
from minicnn.study.inside import look_inside
from minicnn.study.report import curves, facts, page, pictures
from minicnn.study.report.album import Album
from minicnn.study.report.command import main
from minicnn.study.report.frame import frame
from minicnn.study.report.page import frames
from minicnn.study.run import open_run

ROOT = pathlib.Path(__file__).parents[1]
SHORT = ["--device", "cpu", "--limit", "64", "--batch-size", "8", "--steps", "12"]


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
    """The JSON that is in the page under this id."""
    return json.loads(re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', text, re.S)[1])


def places(address):
    """The palette's numbers of a picture in the page, (H, W)."""
    kind, data = address.split(",", 1)
    assert kind == "data:image/png;base64"
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert image.mode == "P"
    return np.asarray(image)


# ---- pictures

def test_colours_say_sign_and_size():
    a = np.array([[-1.0, 1.0, 0.0], [0.25, -0.25, np.nan]])
    assert pictures.levels(a, 1.0).tolist() == [[0, 14, 7], [11, 3, 15]]         # the root of a quarter is a half: 4 of 7 levels
    rgb = np.reshape(pictures.PALETTE, (16, 3))
    assert rgb[7].tolist() == [255, 255, 255]
    assert rgb[14, 0] > rgb[14, 2]                                              # red
    assert rgb[0, 2] > rgb[0, 0]                                                # blue
    assert np.array_equal(places(pictures.png(pictures.levels(a, 1.0))), pictures.levels(a, 1.0))


def test_a_sheet_has_every_channel_at_its_place():
    maps = np.arange(1, 7, dtype=float)[:, None, None] * np.ones((6, 3, 4))
    sheet = pictures.sheet(maps)
    assert sheet.shape == (2 * 4 - 1, 3 * 5 - 1)
    assert [sheet[r, c] for r in (0, 4) for c in (0, 5, 10)] == pictures.levels(maps[:, 0, 0], 6).tolist()
    assert (sheet[3] == pictures.GAP).all()


def test_large_maps_are_averaged_down_and_some_channels_chosen():
    maps = np.random.default_rng(0).standard_normal((96, 55, 55))
    assert pictures.sheet(maps).shape == (3 * 28 - 1, 5 * 28 - 1)               # 12 channels of 27 pixels
    assert pictures.shown(96, 55).tolist()[:2] == [0, 8]
    assert np.allclose(pictures.shrunk(maps, 2)[3, 4, 5], maps[3, 8:10, 10:12].mean())


@pytest.mark.parametrize("units, shape", [(10, (1, 10)), (512, (16, 32)), (4096, (64, 64)), (1000, (32, 32))])
def test_units_are_a_field(units, shape):
    sheet = pictures.sheet(np.linspace(-1, 1, units))
    assert sheet.shape == shape
    assert (sheet.flat[0], sheet.flat[units - 1]) == (0, 14)
    assert (sheet.reshape(-1)[units:] == pictures.GAP).all()


def test_filters_for_colours_are_in_colours():
    weight = np.zeros((2, 3, 2, 2), np.float32)
    weight[0, 0] = 0.5                                                          # all red
    weight[1, 2, 0, 0] = -4
    data = base64.b64decode(pictures.colour_filters(weight).split(",")[1])
    image = np.asarray(Image.open(io.BytesIO(data)))
    assert image.shape == (2, 5, 3)
    grey = 8 * 17                                                               # 7.5 of 15, rounded to even
    assert image[0, 0].tolist() == [255, grey, grey]
    assert image[0, 3].tolist() == [grey, grey, 0]
    assert image[1, 4].tolist() == [grey, grey, grey]
    assert image[0, 2].tolist() == [255, 255, 255]                              # the gap


@pytest.mark.parametrize("shape, words", [
    ((96, 3, 11, 11), "; shown: 48 of 96 filters in colours, each scaled to its own largest; grey is 0"),
    ((32, 1, 5, 5), "; shown: 32 of 32 filters"),
    ((64, 16, 5, 5), "; shown: 16 of 64 filters, a column each: their first 6 of 16 channels"),
    ((512, 256), "; shown: the first 64 units (rows) and 96 inputs"),
    ((10, 90), "")])
def test_what_is_shown_of_weights_is_said(shape, words):
    assert pictures.part_of(shape) == words


# ---- frames

def test_frames_are_taken_at_these_steps(run):
    assert [step for step, _ in frames(run)] == [0, 1, 3, 10, 12]
    assert [s for s in range(20_000) if Album.due(None, s)] == [1, 3, 10, 30, 100, 300, 1000, 3000, 10_000]


def test_a_frame_is_what_the_network_did(run):
    """From the checkpoint the same forward and backward again: every picture, level for level, and the numbers below."""
    opened = open_run(run)
    inputs, labels = facts.samples(opened.data)
    taken = json.loads((run / "frames" / "000000012.json").read_text())
    seen = look_inside(opened.model, inputs, labels)
    assert list(taken["layers"]) == ["image", *seen.layers, "loss"]
    assert [name for name, layer in taken["layers"].items() if layer.get("same")] == ["drop6", "drop7"]
    for name, layer in seen.layers.items():
        got = taken["layers"][name]
        got = taken["layers"][got["same"]] if "same" in got else got
        for i in range(len(labels)):
            assert np.array_equal(places(got["forward"][i]), pictures.sheet(layer.output[i])), name
            assert np.array_equal(places(got["backward"][i]), pictures.sheet(layer.gradient[i])), name
            assert got["forward_text"][i].startswith(f"{layer.output[i].min():.3g} to {layer.output[i].max():.3g}")
            assert f"norm {np.linalg.norm(layer.gradient[i].ravel()):.2g}" in got["backward_text"][i]
            sizes = np.sqrt(np.mean(layer.output[i] ** 2)), np.linalg.norm(layer.gradient[i].ravel())
            assert got["sizes"][i] == pytest.approx(sizes, rel=1e-3)
    weight, gradient = seen.layers["conv2"].parameters["weight"]
    assert sum(taken["layers"]["conv2"]["weight_bins"][0]) == weight.size
    assert taken["layers"]["conv2"]["gradient_bins"][1] == pytest.approx(np.abs(gradient).max(), rel=1e-3)
    velocity = opened.optimizer.velocities[[n for n, _ in opened.model.named_parameters()].index("conv2.weight")]
    assert taken["layers"]["conv2"]["update"] == pytest.approx(np.linalg.norm(velocity) / np.linalg.norm(weight), rel=1e-3)


def test_the_loss_is_probabilities_and_its_gradient_is_p_minus_the_right_class(run):
    opened = open_run(run)
    inputs, labels = facts.samples(opened.data)
    taken = json.loads((run / "frames" / "000000012.json").read_text())
    with mc.no_grad():
        p = mc.ops.softmax(opened.model(mc.Tensor(inputs))).numpy()
    seen = look_inside(opened.model, inputs, labels)
    for i, rows in enumerate(taken["layers"]["loss"]["bars"]):
        assert [r[0] for r in rows] == list(range(10))
        assert np.allclose([r[1] for r in rows], p[i], atol=1e-4)
        assert np.allclose([r[2] for r in rows], seen.layers["fc8"].gradient[i], atol=1e-4)
        assert taken["loss"][i] == pytest.approx(-np.log(p[i, labels[i]]), rel=1e-3)


def test_of_many_classes_the_most_probable_and_the_right_one_are_shown():
    p = np.full((1, 1000), 0.0005)
    p[0, 7] = 1 - 999 * 0.0005
    from minicnn.study.report.frame import loss_layer
    rows = loss_layer(p, np.array([500]))["bars"][0]
    assert (len(rows), rows[0][0], rows[-1][0]) == (10, 7, 500)
    assert rows[-1][2] == pytest.approx(0.0005 - 1)


def test_the_run_is_the_same_with_and_without_pictures(run, tmp_path):
    train(*SHORT, "--out", tmp_path / "plain", "--no-report")
    assert sorted(p.name for p in (tmp_path / "plain").iterdir() if p.suffix != ".npz") == ["curves.png", "filters.png", "log.jsonl"]
    with_pictures, without = (load_newest(folder)[1] for folder in (run, tmp_path / "plain"))
    assert with_pictures["random"] == without["random"]
    for name, w in with_pictures["model"].items():
        assert np.array_equal(w, without["model"][name]), name


def test_a_resumed_run_has_the_same_frames(run, tmp_path):
    out = tmp_path / "run"
    train(*SHORT[:-1], 5, "--out", out)
    assert [step for step, _ in frames(out)] == [0, 1, 3, 5]
    (out / "frames" / "000000900.json").write_text("{}")                # of an earlier life
    (out / "frames" / "000000010.tmp").write_text("{")
    train("--resume", out, "--device", "cpu", "--steps", 12)
    assert [step for step, _ in frames(out)] == [0, 1, 3, 5, 10, 12]
    assert not list(out.rglob("*.tmp"))
    for step in (0, 1, 3, 10, 12):
        assert (out / "frames" / f"{step:09}.json").read_bytes() == (run / "frames" / f"{step:09}.json").read_bytes(), step


def test_a_network_whose_numbers_are_gone_can_be_shown(device):
    model = nn.Sequential(conv1=nn.Conv2d(1, 2, 3), relu1=nn.ReLU(), flatten=nn.Flatten(), fc2=nn.Linear(8, 3)).to(device)
    model.conv1.weight.data[0] = np.nan
    taken = frame(model, to_device(np.ones((2, 1, 4, 4), np.float32), device), np.array([0, 2]), 7)
    text = json.dumps(taken, allow_nan=False)
    assert "4 of 8 are NaN or infinite" in text
    assert taken["layers"]["loss"]["bars"][0] == [[0, None, None], [1, None, None], [2, None, None]]
    assert taken["loss"] == [None, None]
    assert pictures.BAD in places(taken["layers"]["conv1"]["forward"][0])


def test_a_run_that_diverges_shows_how(tmp_path):
    result = subprocess.run([sys.executable, ROOT / "examples" / "train_alexnet.py", *SHORT, "--lr", "1e6", "--out", tmp_path / "run"],
                            capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert f"{tmp_path}/run/report.html: what every layer did before and then" in result.stdout + result.stderr
    text = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    steps = [f["step"] for f in inside(text, "frames")]
    assert steps[0] == 0
    assert inside(text, "frames")[-1]["loss"][0] is None
    assert any(f["code"] == "non-finite" for f in inside(text, "facts")["findings"])
    assert "are NaN or infinite" in inside(text, "frames")[-1]["layers"]["fc8"]["forward_text"][0]


# ---- the page

def test_facts_are_those_of_the_run(run, text):
    found, opened = inside(text, "facts"), open_run(run)
    assert found["classes"] == opened.data.classes
    layers = {layer["name"]: layer for layer in found["layers"]}
    assert list(layers) == ["image", *(name for name, _ in opened.model.children()), "loss"]
    parameters = sum(int(dict(layer.get("costs", [])).get("parameters", "0").replace(",", "")) for layer in found["layers"])
    assert parameters == sum(p.size for p in opened.model.parameters())
    assert layers["conv2"]["formula"].startswith("A small window slides over the image")
    assert "def backward(self, gy" in layers["norm1"]["backward_source"]
    assert layers["pool1"]["in"] == [32, 28, 28]
    assert layers["pool1"]["out"] == [32, 13, 13]
    for name, layer in layers.items():
        assert (layer["speed"]["forward"][0] > 0 if name not in ("image",) else "speed" not in layer), name
    recipe = dict(found["recipe"])
    val = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()][-1]
    assert f"top-1 {val['top1']:.2f} %" in recipe["test"]
    assert "12 steps of 8 images" in recipe["training"]
    assert "--seed 0" in recipe["once more"]
    assert "--batch-size 8" in recipe["once more"]


def test_the_test_is_counted_right(run, text):
    opened, found = open_run(run), inside(text, "facts")["test"]
    x = np.stack([opened.data.test_transform(opened.data.validation[i][0], None) for i in range(64)]).transpose(0, 3, 1, 2)
    y = np.array([opened.data.validation[i][1] for i in range(64)])
    with mc.no_grad():
        p = mc.ops.softmax(opened.model(mc.Tensor(x))).numpy()
    guess = p.argmax(axis=1)
    assert found["images"] == 64
    assert found["right"] == pytest.approx(100 * (guess == y).mean())
    counts = np.array(found["confusion"])
    assert counts.sum() == 64
    assert np.trace(counts) == (guess == y).sum()
    assert counts[y[0], guess[0]] >= 1
    worst = max(p[i, guess[i]] for i in range(64) if guess[i] != y[i])
    assert found["mistakes"][0]["bars"][0][1] == pytest.approx(worst, abs=1e-3)
    assert all(m["bars"][0][0] != m["label"] for m in found["mistakes"])
    assert all(len(a["bars"]) == 5 for a in found["answers"])


def test_the_page_is_small_and_asks_for_nothing(text):
    assert len(text.encode()) < 5_000_000
    assert not re.search(r'(?:src|href)\s*=\s*"(?!data:)', text)
    program = re.sub(r'<script type="application.*?</script>', "", text, flags=re.S)
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|https?://(?!www\.w3\.org/2000/svg)", program)
    assert "{{" not in text


def test_frames_of_checkpoints_are_in_it_too(run, text):
    assert [f["step"] for f in inside(text, "frames")] == [0, 1, 3, 8, 10, 12]          # 8: the end of the first epoch
    step, path = checkpoints(run)[0]
    saved = load_checkpoint(path)
    assert step == 8
    found = inside(text, "frames")[3]["layers"]["fc8"]["weight_text"]
    assert found.startswith(f"{saved['model']['fc8.weight'].min():.3g} to ")


def test_names_cannot_end_the_script(run, tmp_path):
    opened = open_run(run)
    opened.data.classes[0] = "</script><b>&"
    opened.checkpoint["arguments"]["data"] = "<i>&x"
    text = page.write(opened, tmp_path / "page.html", images=16).read_text(encoding="utf-8")
    assert inside(text, "facts")["classes"][0] == "</script><b>&"
    assert "<title>AlexNet mini on &lt;i&gt;&amp;x</title>" in text
    assert text.count("</script>") == 3
    opened.data.classes[0] = "{{FRAMES}}"
    opened.checkpoint["arguments"]["data"] = "{{FACTS}}"
    text = page.write(opened, tmp_path / "page.html", images=16).read_text(encoding="utf-8")
    assert inside(text, "facts")["classes"][0] == "{{FRAMES}}"
    assert "<title>AlexNet mini on {{FACTS}}</title>" in text


def test_of_too_many_frames_those_that_look_alike_are_left_out():
    found = {s: f'{{"step": {s}}}' for s in (0, 1, 3, 10, 30, 100, 9000, 9500, 10_000)}
    kept = [json.loads(t)["step"] for t in page.fitting(found, sum(map(len, found.values())) - 1)]
    assert kept == [0, 1, 3, 10, 30, 100, 9000, 10_000]
    usual = {s: f'{{"step": {s}}}' for s in (0, 1, 3, 10, 30, 100, 300, 1000, 3000, 10_000, 20_625)}
    kept = [json.loads(t)["step"] for t in page.fitting(usual, sum(len(usual[s]) for s in (0, 1, 10, 100, 1000, 10_000, 20_625)))]
    assert kept == [0, 1, 10, 100, 1000, 10_000, 20_625]
    assert [json.loads(t)["step"] for t in page.fitting(found, 1)] == [0, 10_000]


def test_frames_that_are_damaged_or_of_other_images_are_passed_over(run, tmp_path, capsys):
    old = tmp_path / "run"
    shutil.copytree(run, old)
    (old / "frames" / "000000001.json").write_bytes(b"")
    (old / "frames" / "000000003.json").write_bytes(b"\xff\xfe{")
    other = json.loads((old / "frames" / "000000010.json").read_text())
    (old / "frames" / "000000010.json").write_text(json.dumps({**other, "images": 1}))
    (old / "frames" / "000000900.json").write_text((run / "frames" / "000000012.json").read_text())
    assert main([str(old)]) == 0
    out = capsys.readouterr().out
    assert [re.search(rf"passed over: .*{step:09}.json", out) is not None for step in (0, 1, 3, 10, 12, 900)] == [0, 1, 1, 1, 0, 1]
    assert [f["step"] for f in inside((old / "report.html").read_text(encoding="utf-8"), "frames")] == [0, 8, 12]


def test_a_run_does_not_end_for_want_of_a_picture(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "frames").write_text("in the way")
    (tmp_path / "run" / "report.html").mkdir()
    result = subprocess.run([sys.executable, ROOT / "examples" / "train_alexnet.py", *SHORT, "--out", tmp_path / "run"],
                            capture_output=True, text=True, check=False)
    assert result.returncode == 0
    assert result.stderr.count("no picture: ") == 6                 # five frames and the page
    assert "validation: top-1" in result.stdout


def test_a_frame_is_no_part_of_what_health_watches(run):
    """Which units are silent is a matter of the training's batch, not of the images of a frame."""
    opened = open_run(run)
    images, labels = next(opened.data.train.epoch(0))
    peaks = []
    for album in (None, Album(opened)):
        with Health(opened.model, opened.optimizer, 10) as health:
            mc.ops.cross_entropy(opened.model(mc.Tensor(images)), labels).backward()
            if album:
                album.take(12)
            peaks.append({name: np.array(peak) for name, peak in health.watch.peaks.items()})
    np.testing.assert_equal(*peaks)
    assert peaks[0]


def test_curves_go_through_the_numbers():
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


class Pictures:
    """A data set of so many classes, an image each 3 times in a row; image 0 cannot be read."""

    def __init__(self, classes):
        self.classes = classes

    def __len__(self):
        return 3 * self.classes

    def __getitem__(self, i):
        if i == 0:
            raise DataError("image 0 cannot be read")
        return np.full((4, 4, 1), i % 256, np.uint8), i // 3


@pytest.mark.parametrize("classes, wanted", [(2, [0, 1]), (10, [0, 2, 4, 6, 9]), (1000, None)])
def test_samples_are_spread_over_the_classes_and_pass_over_what_cannot_be_read(classes, wanted):
    data = types.SimpleNamespace(side=28, classes=list(range(classes)), validation=Pictures(classes),
                                 test_transform=lambda image, rng: image.astype(np.float32))
    inputs, labels = facts.samples(data)
    assert inputs.shape == (len(labels), 1, 4, 4)
    if wanted:
        assert labels.tolist() == wanted
    else:
        assert np.abs(labels - np.linspace(0, 999, 5)).max() < 20
    broken = Pictures(1)
    broken.__class__ = type("Broken", (Pictures,), {"__getitem__": lambda self, i: Pictures.__getitem__(self, 0)})
    data.validation = broken
    with pytest.raises(DataError, match="--no-report"):
        facts.samples(data)


def test_how_long_a_run_took():
    seconds = [{"kind": "train", "seconds": 40.0}, {"kind": "resume", "seconds": 0.1}, {"kind": "val", "seconds": 22.0}]
    assert facts.duration(seconds) == "62 s"
    assert facts.duration([{"kind": "val", "seconds": 36_000.0}]) == "10.0 h"


# ---- the command

def test_the_command_writes_it_anew(run, tmp_path, capsys):
    assert main([str(run), "--out", str(tmp_path / "page.html")]) == 0
    assert re.match(rf"{re.escape(str(tmp_path))}/page.html: \d\.\d MB, in \d+ s", capsys.readouterr().out)
    assert [f["step"] for f in inside((tmp_path / "page.html").read_text(encoding="utf-8"), "frames")] == [0, 1, 3, 8, 10, 12]


def test_a_run_without_frames_has_those_of_its_checkpoints(run, tmp_path):
    (tmp_path / "old").mkdir()
    for _, path in checkpoints(run):
        (tmp_path / "old" / path.name).write_bytes(path.read_bytes())
    assert main([str(tmp_path / "old")]) == 0
    assert [f["step"] for f in inside((tmp_path / "old" / "report.html").read_text(encoding="utf-8"), "frames")] == [8, 12]


def test_mistakes_are_told_in_one_line(run, tmp_path, capsys):
    for argv, message in (([str(tmp_path / "nowhere")], "no such folder; name that of a run"),
                          ([str(tmp_path)], "no checkpoint of a run is here"),
                          ([str(run), "--out", str(tmp_path / "no" / "page.html")], "there is no folder"),
                          ([str(run), "--out", str(tmp_path)], "is a folder; name a file in it")):
        assert main(argv) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert message in error
        assert error.count("\n") == 1


def test_a_report_that_cannot_be_written_leaves_the_old_one(run, tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    path.write_text("old")
    monkeypatch.setattr(page.os, "replace", lambda *a: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        page.write(open_run(run), path, images=8)
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]


def test_without_the_examples_it_says_what_is_missing(run, monkeypatch, capsys, tmp_path):
    from minicnn.study import run as module
    monkeypatch.setattr(module, "EXAMPLES", tmp_path)
    assert main([str(run)]) == 2
    assert "run it in a checkout" in capsys.readouterr().err


# ---- in a browser

@pytest.fixture
def browser(tmp_path):
    if os.name != "posix" or not chromium():
        pytest.skip("there is no Chromium here (Debian: apt-get install chromium)")
    with Page(tmp_path / "browser") as page:
        yield page


def chosen(browser):
    """What the page shows: layer, moment, and the pictures of forward and backward."""
    return types.SimpleNamespace(**browser.run("""({
        layer: document.getElementById("name").textContent, moment: document.getElementById("moment").textContent,
        loss: document.getElementById("loss").textContent, hash: location.hash,
        pictures: [...document.querySelectorAll(".ways article .shown img")].map(i => i.src),
        bars: [...document.querySelectorAll("#forward .bars .number")].map(n => n.textContent)})"""))


def test_every_layer_can_be_chosen_by_keyboard(run, text, browser):
    layers = [layer["name"] for layer in inside(text, "facts")["layers"]]
    last = inside(text, "frames")[-1]["layers"]
    browser.open(run / "report.html", "#layer=image")
    browser.run('document.getElementById("layer-0").focus()')
    seen = []
    for _ in layers:
        shown = chosen(browser)
        seen.append(shown.layer)
        if shown.layer not in ("image", "loss"):
            source = last[last[shown.layer].get("same", shown.layer)]
            assert shown.pictures[:2] == [source["forward"][0], source["backward"][0]]
        if "weight" in last[shown.layer]:
            assert shown.pictures[2:] == [last[shown.layer]["weight"], last[shown.layer]["gradient"]]
        if shown.layer == "loss":
            assert shown.bars == [f"{100 * p:.1f} %" for _, p, _ in last["loss"]["bars"][0]]
        browser.press("ArrowDown", 40)
    assert seen == layers
    assert browser.run("Promise.all([...document.images].map(i => i.decode())).then(() => document.images.length)") > 10
    assert browser.complaints == []
    assert [r.partition("#")[0] for r in browser.requests if not r.startswith("data:")] == [(run / "report.html").resolve().as_uri()]


def test_moments_and_images_can_be_chosen_by_keyboard(run, text, browser):
    taken = inside(text, "frames")
    browser.open(run / "report.html", "#layer=conv1")
    assert chosen(browser).moment == "after 12 steps"
    lengths = browser.run('[...document.querySelectorAll("#layers .size.back")].map(bar => parseFloat(bar.style.width))')
    norms = [taken[-1]["layers"][name].get("sizes", [[0, 0]])[0][1] for name in taken[-1]["layers"]]
    conv2, fc8 = (list(taken[-1]["layers"]).index(name) for name in ("conv2", "fc8"))
    for i in (conv2, fc8):
        assert lengths[i] == pytest.approx(100 + 25 * np.log10(norms[i] / max(norms)), abs=0.1)
    assert lengths[0] == 0
    browser.run('document.getElementById("step").focus()')
    moments = ["after 10 steps", "after 8 steps", "after 3 steps", "after 1 step", "before the first step"]
    for frame_, words in zip(reversed(taken[:-1]), moments, strict=True):
        browser.press("ArrowLeft", 37)
        shown = chosen(browser)
        assert shown.moment == words
        assert shown.pictures[0] == frame_["layers"]["conv1"]["forward"][0]
    browser.run('document.getElementById("sample-0").focus()')
    browser.press("ArrowRight", 39)
    assert chosen(browser).pictures[0] == taken[0]["layers"]["conv1"]["forward"][1]
    assert chosen(browser).hash == "#layer=conv1&image=2&step=0"
    assert browser.complaints == []


def test_the_address_says_what_is_shown(run, browser):
    browser.open(run / "report.html", "#layer=pool2&image=3&step=3")
    shown = chosen(browser)
    assert (shown.layer, shown.moment) == ("pool2", "after 3 steps")
    browser.run('location.hash = "#layer=nonsense&image=99&step=x"')
    browser.run("new Promise(done => setTimeout(done, 50))")
    assert chosen(browser).layer == "pool2"
    assert browser.complaints == []


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


def test_the_browser_would_notice_a_broken_page(run, tmp_path, browser, text):
    """A negative control: an exception, and a picture that is asked of a network."""
    broken = tmp_path / "broken.html"
    broken.write_text(text.replace("rows(at(\"recipe\"), facts.recipe);", "nonsense();").replace(
        "<main>", '<main><img src="missing.png">'), encoding="utf-8")
    browser.open(broken)
    assert any("nonsense is not defined" in c for c in browser.complaints)
    assert any(r.endswith("missing.png") for r in browser.requests)
