"""What the README says is so: its snippets run, its commands exist, its numbers are the measured ones."""

import json
import pathlib
import re

import minicnn as mc

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_tour_runs_from_top_to_bottom(tmp_path, monkeypatch, capsys):
    """All Python snippets in one namespace, in order; a line `# -> text` must be what was printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT / "examples")
    snippets = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(snippets) >= 5
    names: dict = {}
    for snippet in snippets:
        exec(compile(snippet, "README.md", "exec"), names)
        printed = capsys.readouterr().out
        for expected in re.findall(r"# -> (.*)", snippet):
            assert expected.strip() in printed, f"{expected!r} was promised, but this was printed:\n{printed}"


def test_the_two_commands_are_those_of_ci():
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for command in ('python -m pip install -e ".[examples]"', 'python -m pip install -e ".[test]" && python -m pytest'):
        assert command in README
        assert command in ci
    assert "python examples/train_alexnet.py" in README


def test_files_that_are_named_exist():
    links = re.findall(r"\]\(((?!http)[^)#]+)\)", README)
    paths = re.findall(r"`((?:minicnn|examples|benchmarks|tests)/[\w./-]+)`", README)
    for name in {*links, *paths}:
        assert (ROOT / name).exists(), name


def test_the_public_names_are_there():
    for name in mc.__all__:
        assert getattr(mc, name) is not None
    for name in mc.ops.__all__:
        assert callable(getattr(mc.ops, name))
        assert getattr(mc.ops, name).__doc__


def test_the_default_run_is_the_recorded_one():
    record = json.loads((ROOT / "benchmarks" / "results" / "default-run.json").read_text(encoding="utf-8"))
    assert f"**{record['top1']:.1f} %**" in README
    assert record["top1"] >= 88


def test_the_speeds_are_the_measured_ones():
    """Each row of the table is a record of benchmarks/results/cpu-step.json, and each rung one of ladder.json."""
    records = json.loads((ROOT / "benchmarks" / "results" / "cpu-step.json").read_text(encoding="utf-8")).values()
    measured = set()
    for record in records:
        ours, torch = record["results"]["minicnn"], record["results"].get("torch")
        if torch:
            measured.add((f"{ours['median_ms']:,.0f}", str(ours["images_per_s"]), f"{torch['median_ms']:,.0f}", str(torch["images_per_s"]),
                          f"**{ours['ratio']:.2f}**", f"{ours['peak_memory'] / 1e9:.1f} / {torch['peak_memory'] / 1e9:.1f}"))
    table = README.split("times as fast | peak memory")[1].split("\n\n")[0]
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|"))[1:] for line in table.splitlines()[2:]]
    assert len(rows) == 6
    assert set(rows) <= measured

    ladder = json.loads((ROOT / "benchmarks" / "results" / "ladder.json").read_text(encoding="utf-8"))["conv2d"]["steps"]
    for step in ladder[1:]:
        assert f"| {step['ms']:,.1f} |" in README


def test_the_loader_is_as_fast_as_measured_and_the_gpu_as_predicted():
    results = json.loads((ROOT / "benchmarks" / "results" / "loader.json").read_text(encoding="utf-8"))["results"]
    for name, r in results.items():
        assert f"| {name} | {r['median']:,.0f} | {r['ratio']:.2f} |" in README
    assert results["minicnn"]["ratio"] >= 1.5
    assert results["minicnn, packed raw"]["median"] >= 3000
    step = json.loads((ROOT / "benchmarks" / "results" / "gpu-predictions.json").read_text(encoding="utf-8"))["step"]
    for precision in ("float32", "tf32"):
        assert f"{step[precision]['predicted_ms']:.1f} ms" in README
        assert f"{128e3 / step[precision]['predicted_ms']:,.0f}" in README
