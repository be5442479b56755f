"""The training program, from the command line, as a user runs it."""

import json
import math
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import minicnn as mc
from minicnn.train.checkpoint_manager import load_latest
from minicnn.train.log import read_log

ROOT = pathlib.Path(__file__).parent.parent
SMALL = ["--batch-size", "8"]


def run(*args, cwd=None):
    """The program in its own process: (exit code, stdout, stderr). Without its report, which has its own tests."""
    program = ROOT / "examples" / "train_alexnet.py"
    result = subprocess.run([sys.executable, "-W", "error", program, *map(str, args), "--no-report"], cwd=cwd, text=True,
                            capture_output=True, env={**os.environ, "COLUMNS": "120"}, check=False)
    return result.returncode, result.stdout, result.stderr


def records(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def weights(out):
    """Contents of the newest checkpoint of a run."""
    return load_latest(out)[1]


def newest(out):
    """Path of the newest checkpoint of a run."""
    return load_latest(out)[0]


def same(a, b):
    """Equal to the last bit, at every leaf."""
    np.testing.assert_equal(a, b)
    return True


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two classes of crops of the photographs, train and val."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 3)):
        for name, photo in mc.data.photos()[:2]:
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                top, left = rng.integers(0, photo.shape[0] - 120), rng.integers(0, photo.shape[1] - 120)
                Image.fromarray(photo[top:top + 120, left:left + 120]).save(root / split / name / f"{i}.jpg")
    return root


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A run of seven steps without interruption."""
    out = tmp_path_factory.mktemp("straight") / "run"
    code, stdout, stderr = run("--max-steps", 7, *SMALL, "--out", out)
    assert code == 0, stderr
    return out, stdout, stderr


def test_output_files(straight):
    out, stdout, stderr = straight
    assert sorted(os.listdir(out)) == ["checkpoint-000000007.npz", "curves.png", "filters.png", "log.jsonl"]
    log = records(out)
    assert [r["kind"] for r in log] == ["train"] * 7 + ["val"]
    assert log[0]["loss"] == pytest.approx(math.log(10), abs=0.3)           # every class is as likely at first
    assert [r["step"] for r in log] == [1, 2, 3, 4, 5, 6, 7, 7]
    assert 0 <= log[-1]["top1"] <= log[-1]["top5"] <= 100
    assert "images/s" in stderr
    assert "loss" in stderr
    assert f"top-1 {log[-1]['top1']:.2f} %, top-5 {log[-1]['top5']:.2f} % of 2000 images" in stdout
    for picture, least in (("curves.png", 600), ("filters.png", 300)):
        with Image.open(out / picture) as image:
            pixels = np.asarray(image.convert("L"))
        assert min(pixels.shape) > least / 3
        assert pixels.shape[1] > least
        assert len(np.unique(pixels)) > 30                                  # not blank


def test_the_same_seed_gives_the_same_run_and_another_does_not(straight, tmp_path):
    assert run("--max-steps", 7, *SMALL, "--out", tmp_path / "again")[0] == 0
    assert run("--max-steps", 7, *SMALL, "--out", tmp_path / "other", "--seed", 1)[0] == 0
    again, other = weights(tmp_path / "again"), weights(tmp_path / "other")
    assert same(again, weights(straight[0]))
    assert not np.array_equal(again["model"]["fc8.weight"], other["model"]["fc8.weight"])


def test_resume_continues_bit_for_bit(straight, tmp_path):
    """Seven steps at once; or three, then two and two more, each in a new process."""
    out = tmp_path / "parts"
    assert run("--max-steps", 3, *SMALL, "--out", out)[0] == 0
    assert not np.array_equal(weights(out)["model"]["fc8.weight"], weights(straight[0])["model"]["fc8.weight"])
    assert run("--resume", out, "--max-steps", 5)[0] == 0
    assert run("--resume", newest(out), "--max-steps", 7)[0] == 0
    assert same(weights(out)["model"], weights(straight[0])["model"])
    assert same(weights(out)["optimizer"], weights(straight[0])["optimizer"])
    losses = {r["step"]: r["loss"] for r in records(out) if r["kind"] == "train"}
    assert losses == {r["step"]: r["loss"] for r in records(straight[0]) if r["kind"] == "train"}


def test_the_seed_of_dropout_matters_for_resume(straight, tmp_path):
    """Negative control: if the count of dropout masks is not restored, the weights differ."""
    out = tmp_path / "forgetful"
    assert run("--max-steps", 3, *SMALL, "--out", out)[0] == 0
    contents = weights(out)
    contents["random"]["dropout"] = 0
    mc.save_checkpoint(newest(out), **contents)
    assert run("--resume", out, "--max-steps", 7)[0] == 0
    assert not np.array_equal(weights(out)["model"]["fc8.weight"], weights(straight[0])["model"]["fc8.weight"])


def test_resume_across_an_epoch_and_a_drop_of_the_rate(photos, tmp_path):
    common = ["--arch", "mini", "--data", photos, "--batch-size", 4, "--epochs", 3]
    assert run(*common, "--out", tmp_path / "a")[0] == 0                    # 4 steps an epoch; the learning rate falls in each
    assert run(*common, "--out", tmp_path / "b", "--max-steps", 6)[0] == 0
    code, _, stderr = run("--resume", tmp_path / "b", "--epochs", 3)
    assert code == 0, stderr
    # --max-steps is not saved: the resumed run continues to its last epoch
    assert same(weights(tmp_path / "a")["model"], weights(tmp_path / "b")["model"])
    rates = [r["lr"] for r in records(tmp_path / "a") if r["kind"] == "train"]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > 10 * rates[-1]
    assert weights(tmp_path / "a")["classes"] == ["astronaut", "chelsea"]


def test_eval_writes_nothing_but_the_confusion_matrix(straight):
    out = straight[0]
    before = sorted((p.name, p.stat().st_mtime_ns) for p in out.iterdir())
    code, stdout, stderr = run("--resume", out, "--eval")
    assert code == 0, stderr
    assert f"top-1 {records(out)[-1]['top1']:.2f} %" in stdout
    (out / "confusion.png").unlink()
    assert sorted((p.name, p.stat().st_mtime_ns) for p in out.iterdir()) == before


def test_a_full_size_network_trains_on_a_folder(photos, tmp_path):
    code, _, stderr = run("--arch", "torchvision", "--data", photos, "--max-steps", 1, "--batch-size", 4, "--out", tmp_path / "run")
    assert code == 0, stderr
    assert weights(tmp_path / "run")["model"]["fc8.weight"].shape == (2, 4096)


def test_the_paper_from_folder_to_ten_crops(photos, tmp_path):
    """The network, init, learning rate, augmentation and test of the paper, on crops of 227 pixels."""
    out = tmp_path / "run"
    code, stdout, stderr = run("--arch", "paper", "--init", "paper", "--lr", 0.01, "--data", photos, "--max-steps", 2, "--batch-size", 4,
                               "--workers", 2, "--out", out)
    assert code == 0, stderr
    saved = weights(out)
    assert saved["model"]["fc6.weight"].shape == (4096, 9216)
    assert saved["pixels"]["covariance"].shape == (3, 3)
    code, stdout, stderr = run("--resume", out, "--eval", "--tta", 10)
    assert code == 0, stderr
    error = float(re.search(r"tta 10: top-1 error ([\d.]+) %, top-5 error 0.00 %", stdout)[1])
    assert error in (0, 16.67, 33.33, 50, 66.67, 83.33, 100)                # of six images
    with Image.open(out / "confusion.png") as picture:
        assert len(np.unique(np.asarray(picture.convert("L")))) > 30


def test_runs_are_numbered(tmp_path):
    for number in (1, 2):
        code, stdout, stderr = run("--max-steps", 1, *SMALL, cwd=tmp_path)
        assert code == 0, stderr
        assert f"runs/mini-{number}" in stdout
    assert sorted(os.listdir(tmp_path / "runs")) == ["mini-1", "mini-2"]


@pytest.mark.parametrize("args, message", [
    (["--data", "{tmp}/missing"], "missing: no such folder; supported data sets:"),
    (["--data", "{tmp}/one"], "There is train/, but no validation set"),
    (["--arch", "paper"], "--arch paper needs photographs of at least 227 pixels, but the images of fashion-mnist have 28; give"),
    (["--resume", "{tmp}/nothing"], "no checkpoint at"),
    (["--resume", "{tmp}/foreign.npz"], "not a checkpoint"),
    (["--resume", "{straight}", "--arch", "paper"], "a run with arch 'mini' cannot be resumed with 'paper'"),
    (["--resume", "{straight}", "--seed", "9"], "a run with seed 0 cannot be resumed with 9"),
    (["--eval"], "name it with --resume"),
    (["--out", "{straight}"], "already holds a run; resume it"),
    (["--lr", "nan"], "must be a positive number, got nan"),
    (["--lr", "-1"], "must be a positive number, got -1"),
    (["--max-steps", "0"], "must be a positive integer, got 0"),
    (["--pca-std", "-1"], "must be a number of at least 0, got -1"),
    (["--momentum", "1.5", "--out", "{tmp}/m"], "momentum must be at least 0 and less than 1, got 1.5"),
    (["--batch-size", "9000", "--out", "{tmp}/b"], "8000 images make no batch of 9000"),
    (["--resume", "{tmp}"], "no checkpoint of a run is here"),
    (["--resume", "auto"], "no run with a checkpoint in runs/"),
    (["--tta", "10", "--out", "{tmp}/v"], "--tta is for evaluation: add --eval --resume RUN"),
    (["--workers", "-2", "--out", "{tmp}/w"], "workers must be an int of at least 0 (processes), got -2"),
    (["--device", "tpu"], """device must be "cpu", "gpu" or "gpu:1", got 'tpu'"""),
    (["--device", "cpu", "--tf32"], "--tf32 is for a GPU; remove it to train on the CPU"),
])
def test_errors_are_one_clear_line_and_code_2(args, message, straight, tmp_path):
    (tmp_path / "one" / "train" / "a").mkdir(parents=True)
    (tmp_path / "foreign.npz").write_text("hello")
    before = (straight[0] / "log.jsonl").read_bytes()
    code, _, stderr = run(*[a.format(tmp=tmp_path, straight=straight[0]) for a in args], cwd=tmp_path)
    assert code == 2, stderr
    assert message in stderr
    assert "Traceback" not in stderr
    assert (straight[0] / "log.jsonl").read_bytes() == before


@pytest.mark.skipif(mc.has_gpu(), reason="this machine has a GPU")
def test_device_gpu_without_a_gpu(tmp_path):
    code, _, stderr = run("--device", "gpu", cwd=tmp_path)
    assert code == 2
    assert stderr.startswith("error: no GPU:")
    assert "CPU" in stderr
    assert len(stderr.splitlines()) == 1
    assert os.listdir(tmp_path) == []


def test_an_unreadable_photograph_is_named_and_no_checkpoint_is_lost(photos, tmp_path):
    import shutil
    shutil.copytree(photos, tmp_path / "data")
    common = ["--data", tmp_path / "data", "--batch-size", 4, "--epochs", 2, "--out", tmp_path / "run"]
    assert run(*common, "--max-steps", 4)[0] == 0
    before = weights(tmp_path / "run")
    bad = tmp_path / "data" / "train" / "chelsea" / "3.jpg"
    bad.write_bytes(b"x" * bad.stat().st_size)           # (another size would change the fingerprint)
    code, _, stderr = run("--resume", tmp_path / "run")
    assert code == 2
    assert "chelsea/3.jpg: this image cannot be read" in stderr.splitlines()[-1]
    assert same(weights(tmp_path / "run"), before)
    code, stdout, stderr = run("--resume", tmp_path / "run", "--on-error", "warn")
    assert code == 0
    for printed in (stderr, stdout):                # at once, and again at the end
        assert printed.count("skipped:") == 1
        assert "chelsea/3.jpg: this image cannot be read" in printed
    code, _, stderr = run("--resume", tmp_path / "run", "--on-error", "skip", "--max-errors", 0, "--epochs", 3)
    assert code == 2
    assert "1 image cannot be read, more than max_errors=0" in stderr


def test_a_diverging_run_stops_and_keeps_its_checkpoint(tmp_path):
    out = tmp_path / "run"
    assert run("--max-steps", 2, *SMALL, "--out", out)[0] == 0
    before = weights(out)
    code, _, stderr = run("--resume", out, "--lr", "1e30", "--max-steps", 20)
    assert code == 1
    assert "Try a smaller --lr" in stderr.splitlines()[-1]
    assert same(before, weights(out))


def test_numpy_global_random_state_is_untouched(tmp_path):
    from minicnn.examples.train_alexnet import main
    before = np.random.get_state()[1].copy()
    assert main(["--max-steps", "1", *SMALL, "--out", str(tmp_path / "run")]) == 0
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_resuming_a_finished_run_writes_nothing(straight):
    before = {p.name: p.read_bytes() for p in straight[0].iterdir()}
    code, stdout, stderr = run("--resume", straight[0], "--max-steps", 7)
    assert code == 0, stderr
    assert "7 of 7 steps are done already; give more --epochs or --max-steps" in stdout
    assert {p.name: p.read_bytes() for p in straight[0].iterdir()} == before


def test_resume_into_another_run_is_refused(straight, tmp_path):
    out = tmp_path / "other"
    assert run("--max-steps", 1, *SMALL, "--seed", 5, "--out", out)[0] == 0
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    code, _, stderr = run("--resume", straight[0], "--max-steps", 8, "--out", out)
    assert code == 2
    assert "already holds a run" in stderr
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before


def test_other_classes_are_refused(photos, tmp_path):
    import shutil
    assert run("--data", photos, "--batch-size", 4, "--max-steps", 1, "--out", tmp_path / "run")[0] == 0
    shutil.copytree(photos, tmp_path / "data")
    for split in ("train", "val"):
        (tmp_path / "data" / split / "chelsea").rename(tmp_path / "data" / split / "dog")
    for more in (["--eval"], ["--max-steps", 2]):
        code, _, stderr = run("--resume", tmp_path / "run", "--data", tmp_path / "data", *more)
        assert code == 2
        assert "the run to resume has the classes astronaut, chelsea" in stderr
        assert "has astronaut, dog" in stderr


def test_changed_files_of_the_data_set_are_refused(photos, tmp_path):
    import shutil
    shutil.copytree(photos, tmp_path / "data")
    assert run("--data", tmp_path / "data", "--batch-size", 4, "--max-steps", 1, "--out", tmp_path / "run")[0] == 0
    for i in range(4):
        (tmp_path / "data" / "train" / "chelsea" / f"{i}.jpg").unlink()
    code, _, stderr = run("--resume", tmp_path / "run", "--max-steps", 2)
    assert code == 2
    assert "were added, removed or changed since the run to resume began" in stderr
    assert run("--resume", tmp_path / "run", "--eval")[0] == 0             # evaluating it is still possible


def test_a_failed_start_leaves_no_folder(tmp_path):
    assert run("--data", "nope", cwd=tmp_path)[0] == 2
    assert run("--batch-size", 9000, cwd=tmp_path)[0] == 2
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_another_program_is_refused(tmp_path):
    mc.save_checkpoint(tmp_path / "a.npz", arguments={"foo": 1})
    code, _, stderr = run("--resume", tmp_path / "a.npz")
    assert code == 2
    assert "a checkpoint, but this program did not write it" in stderr
    assert "Traceback" not in stderr


def test_a_log_line_cut_off_by_a_crash_is_skipped(straight, tmp_path):
    import shutil
    out = tmp_path / "run"
    shutil.copytree(straight[0], out)
    with open(out / "log.jsonl", "a") as log:
        log.write('{"kind": "train", "step": 8, "lo')
    assert run("--resume", out, "--max-steps", 8)[0] == 0
    steps = [r["step"] for r in read_log(out / "log.jsonl") if r["kind"] == "train"]
    assert steps == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [r["kind"] for r in read_log(out / "log.jsonl")].count("resume") == 1


def test_lines_of_a_log_that_are_not_records_are_skipped(tmp_path):
    (tmp_path / "log.jsonl").write_bytes(b'{"kind": "train", "step": 1}\n{"jind": 1}\n[3]\n\xff\xfe\n{"kind": "val", "step": "x"}\n'
                                         b'{"kind": "val", "step": 1}\n{"kind": "tr')
    assert [r["kind"] for r in read_log(tmp_path / "log.jsonl")] == ["train", "val"]
