"""The GPU benchmark: predictions that add up, parts that fail without stopping the others, and every part once, tiny.

(No test here depends on time.)
"""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import minicnn as mc
from minicnn.backend.arrays import gpu_unavailable_reason
from minicnn.examples.alexnet import alexnet

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "benchmarks"))
import on_gpu

ONE_TOWER = list(on_gpu.work_of("one-tower", 128))


def test_the_work_of_a_step_adds_up():
    """845 GFLOP, and 2.2 GB of im2col matrices."""
    step = on_gpu.predictions()["step"]
    assert step["gflop"] == pytest.approx(845, rel=0.01)
    assert step["columns_gb"] == pytest.approx(2.26, rel=0.01)
    assert step["tf32"]["floor_ms"] < step["tf32"]["predicted_ms"] < step["float32"]["predicted_ms"]


@pytest.mark.parametrize("arch", ["one-tower", "paper", "mini"])
def test_flops_are_those_of_summary(arch):
    side = on_gpu.network_of(arch)["side"]
    expected = mc.summary(alexnet(arch), (3, side, side)).total.multiply_adds
    assert sum(w.flops for w in on_gpu.work_of(arch, 4) if w.what == "forward") == 2 * 4 * expected


@pytest.mark.parametrize("arch", ["one-tower", "paper", "torchvision", "mini"])
def test_shapes_and_parameters_are_those_of_the_network(arch):
    """The shapes that summary measures."""
    side = on_gpu.network_of(arch)["side"]
    rows = mc.summary(alexnet(arch), (3, side, side))
    shapes = [(*layer.y[3:], *layer.y[1:3]) if len(layer.y) == 4 else layer.y[1:] for layer in on_gpu.layers_of(arch, 1)]
    assert shapes == [row.output_shape for row in rows]
    assert on_gpu.parameters_of(arch)[0] == rows.total.parameters
    assert [r.name for r in rows if r.kind == "Conv2d"] == [layer.name for layer in on_gpu.layers_of(arch, 1) if layer.kind == "Conv2d"]


def test_a_prediction_by_hand():
    """relu1 reads and writes 128 x 55 x 55 x 96 floats; conv2's matrix product is compute-bound in float32."""
    relu1 = next(w for w in ONE_TOWER if (w.layer, w.what) == ("relu1", "relu"))
    assert relu1.bytes == 2 * 4 * 128 * 55 * 55 * 96
    assert relu1.predicted("float32") == pytest.approx(relu1.bytes / 3.0e12 / 0.8)
    conv2 = next(w for w in ONE_TOWER if (w.layer, w.what) == ("conv2", "forward"))
    assert conv2.shape == (128 * 27 * 27, 5 * 5 * 96, 256)
    assert conv2.floor("float32") == pytest.approx(2 * 128 * 27 * 27 * 2400 * 256 / 50e12)
    assert not any(w.times for w in ONE_TOWER if (w.layer, w.what) in (("conv1", "col2im"), ("conv1", "input gradient")))


def test_the_predictions_in_the_results_are_up_to_date():
    stored = json.loads((on_gpu.HERE / "results" / "gpu-predictions.json").read_text())
    now = json.loads(json.dumps(on_gpu.predictions()))
    assert stored["step"].pop("float32") == pytest.approx(now["step"].pop("float32"))
    assert stored["step"].pop("tf32") == pytest.approx(now["step"].pop("tf32"))
    assert stored["step"] == pytest.approx(now["step"])
    assert [(row["layer"], row["what"]) for row in stored["rows"]] == [(row["layer"], row["what"]) for row in now["rows"]]


def test_slug():
    assert on_gpu.slug("NVIDIA H100 80GB HBM3") == "nvidia-h100-80gb-hbm3"
    assert on_gpu.slug("CPU emulation (cudashim)") == "cpu-emulation-cudashim"


def test_parts_are_selected_by_name():
    assert on_gpu.selected("step,tests", on_gpu.PARTS) == ["tests", "step"]
    assert on_gpu.selected("", on_gpu.PEERS) == []
    with pytest.raises(SystemExit, match="unknown name 'speed'; choose from tests, adjoint"):
        on_gpu.selected("tests,speed", on_gpu.PARTS)


def test_a_part_that_fails_is_recorded_and_the_others_run(monkeypatch, tmp_path):
    def fails(session):
        "It fails."
        raise RuntimeError("the card is on fire")

    def wrong(session):
        "It finds a wrong result."
        return {"right": False}

    def reads(session):
        "It reads the file as written so far."
        return {"seen": json.loads(session.out.read_text())["parts"]["adjoint"]["error"]}

    monkeypatch.setattr(on_gpu, "PARTS", {"adjoint": fails, "train": wrong, "step": reads})
    session = on_gpu.Session(tiny=True)
    session.out = tmp_path / "new folder" / "gpu.json"
    assert on_gpu.run_parts(session, ["adjoint", "train", "step"]) == ["adjoint", "train"]
    parts = json.loads(session.out.read_text())["parts"]
    assert parts["adjoint"]["error"] == "RuntimeError: the card is on fire"
    assert parts["step"]["seen"] == parts["adjoint"]["error"]
    assert [path.name for path in session.out.parent.iterdir()] == ["gpu.json"]


def test_parts_beyond_the_time_limit_are_skipped(tmp_path):
    session = on_gpu.Session(tiny=True, minutes=0)
    assert on_gpu.run_parts(session, ["step"]) == ["step"]
    assert session.result["parts"]["step"]["error"] == "skipped: out of time"
    assert session.job("machine", 10) == ([], "skipped: out of time")


def test_a_program_that_hangs_is_killed_with_its_children(monkeypatch):
    """Its output so far is returned."""
    monkeypatch.setattr(on_gpu, "LAUNCHER", [sys.executable])
    child = "import time; print('on', flush=True); time.sleep(3); print('never', flush=True)"
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    code, out, _ = on_gpu.run_process(["-c", program], 2)
    assert (code, out) == (None, "on\n")


def test_a_job_that_fails_returns_its_error(monkeypatch):
    monkeypatch.setattr(on_gpu, "LAUNCHER", [sys.executable])
    rows, error = on_gpu.Session(tiny=True).job("no such job", 60)
    assert rows == []
    assert "no such job" in error


def test_without_a_gpu_it_exits_with_2():
    if not gpu_unavailable_reason():
        pytest.skip("there is a GPU")
    process = subprocess.run([sys.executable, on_gpu.__file__, "--tiny"], capture_output=True, text=True)
    assert process.returncode == 2
    assert "no GPU" in process.stderr


@pytest.mark.parametrize("program, code", [("import minicnn.examples.alexnet", 0), ("import minicnn.examples.no_such_module", 1)])
def test_modules_run_where_the_examples_can_be_imported(program, code, tmp_path):
    """Without site-packages' entry for an installed minicnn: -S, and the path of the libraries."""
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    libraries = os.path.dirname(os.path.dirname(np.__file__))
    path = os.pathsep.join([str(tmp_path), str(on_gpu.ROOT), libraries])
    process = subprocess.run([sys.executable, "-S", on_gpu.__file__, "--module", "program"], capture_output=True, text=True,
                             env={**os.environ, "PYTHONPATH": path})
    assert process.returncode == code, process.stderr


@pytest.mark.gpu
@pytest.mark.parametrize("part", on_gpu.PARTS)
def test_every_part_tiny(part, tmp_path, capsys):
    if gpu_unavailable_reason():
        pytest.skip(gpu_unavailable_reason())
    session = on_gpu.Session(tiny=True)
    session.out = tmp_path / "gpu.json"
    failed = on_gpu.run_parts(session, [part])
    result = json.loads(session.out.read_text())["parts"][part]
    assert failed == [], result
    {"tests": check_tests, "adjoint": check_adjoint, "train": check_train, "kernels": check_kernels, "step": check_step}[part](result)
    assert "| " in capsys.readouterr().out


def check_tests(result):
    assert result["passed"] > 0
    assert result["failed"] == result["broken"] == 0


def check_adjoint(result):
    assert {row["dtype"] for row in result["rows"]} == {*on_gpu.DTYPES}
    assert len(result["rows"]) > 80
    assert all(row["off"] <= row["allowed"] for row in result["rows"])


def check_train(result):
    assert result["same_bits_again"]
    assert result["largest_difference_from_cpu"] < 0.01
    assert all(row["images_per_s"] > 0 for row in result["rows"])


def check_kernels(result):
    assert {"copy", "float32", "tf32", "float16"} <= {*result["ceilings"]}
    work = list(on_gpu.work_of("mini", 2))
    assert [(row["layer"], row["what"]) for row in result["kernels"]] == [(w.layer, w.what) for w in work if not w.flops]
    for rows in [result["kernels"], *result["products"].values()]:
        assert all(row["ms"] > 0 and row["gb_per_s"] > 0 and row["ratio"] > 0 for row in rows)
    assert all(len(rows) == sum(w.flops > 0 for w in work) for rows in result["products"].values())
    assert {row["precision"] for row in result["workspace"]} == {"float32", "tf32"} == {*result["step_ms"]}


def check_step(result):
    for race in result["races"].values():
        assert race["errors"] == {}
        assert len(race["results"]["minicnn"]["seconds"]) == 2
        assert race["results"]["minicnn"]["peak_memory"] > 0
    assert [row["precision"] for row in result["gaps"]] == ["float32", "tf32"]
    assert all(row["device_ms"] > 0 and 0 <= row["idle"] < 1 for row in result["gaps"])
    assert [row["what"] for row in result["pipeline"]] == ["the input alone", "the step alone", "both"]


@pytest.mark.gpu
def test_half_precision_is_a_matrix_product():
    if gpu_unavailable_reason():
        pytest.skip(gpu_unavailable_reason())
    import cupy
    rng = cupy.random.default_rng(0)
    a, b = rng.standard_normal((5, 8), dtype="float32"), rng.standard_normal((7, 8), dtype="float32").T
    multiply, a16, b16, out = on_gpu.ready_to_multiply("float16", a, b)
    multiply(a16, b16, out)
    assert float(abs(out - a @ b).max()) < 0.02
