"""What the README and docs/ say is so: snippets run, commands and files exist, numbers are the measured ones."""

import json
import pathlib
import re
import sys
import types

from check import check_each_affects, check_op

import minicnn as mc
from minicnn.cli import COMMANDS

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")}
CORE = ["tensor.py", "autograd.py", "hooks.py", "text.py", "optim.py", "gradcheck.py", "checkpoint.py", "backend", "ops", "nn"]


def test_the_tour_runs_from_top_to_bottom(tmp_path, monkeypatch, capsys):
    """All Python snippets in one namespace, in order; a line `# -> text` must be what was printed."""
    monkeypatch.chdir(tmp_path)
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


def test_the_readme_can_be_finished():
    assert len(README.split()) <= 1500


def test_the_core_has_as_many_lines_as_the_readme_says():
    paths = [ROOT / "minicnn" / name for name in CORE]
    files = [file for path in paths for file in ([path] if path.is_file() else path.rglob("*.*")) if file.suffix in (".py", ".cu")]
    lines = sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)
    stated = {int(number.replace(",", "")) for number in re.findall(r"([\d,]+) lines\)? is small enough|the core, ([\d,]+) lines", README)
              for number in number if number}
    assert len(stated) == 1
    assert abs(lines - stated.pop()) <= 50, lines
    assert lines <= 4500


def test_the_op_that_contributing_adds(monkeypatch):
    """Its modules are made of CONTRIBUTING's code blocks, and pass `check_op`; its test file is Python."""
    op, cases, test = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.DOTALL)
    for name, source in (("minicnn.ops.leaky_relu", op), ("minicnn.learn.cases.leaky_relu", cases)):
        module = types.ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        exec(compile(source, name, "exec"), vars(module))
    for function, (as_run, named, naive, wrong) in module.OPS.items():
        for case in named.values():
            check_op(as_run, *case, naive, wrong)
        check_each_affects(wrong, named)
        assert function.__name__ == "LeakyReLU"
    compile(test, "test_leaky_relu.py", "exec")


def test_files_that_are_named_exist():
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for folder, text in [(ROOT, README), (ROOT, contributing), *((ROOT / "docs", page) for page in DOCS.values())]:
        for name in set(re.findall(r"\]\(((?!http)[^)#]+)(?:#[^)]*)?\)", text)):
            assert (folder / name).exists(), name
        for name in set(re.findall(r"`((?:minicnn|examples|benchmarks|tests|docs)/[\w./-]+)`", text)):
            if "leaky_relu" not in name:            # the op that CONTRIBUTING adds
                assert (ROOT / name).exists(), name


def test_commands_that_are_named_exist():
    for text in (README, *DOCS.values()):
        for command in set(re.findall(r"minicnn ([a-z]+) ", text)):
            if f"minicnn {command} " in re.sub(r"(?m)^(?!    )[^|`\n]*$", "", text):        # in code or tables, not in prose
                assert command in COMMANDS, command


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
    table = DOCS["benchmarks"].split("times as fast | peak memory")[1].split("\n\n")[0]
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|"))[1:] for line in table.splitlines()[2:]]
    assert len(rows) == 6
    assert set(rows) <= measured

    ladder = json.loads((ROOT / "benchmarks" / "results" / "ladder.json").read_text(encoding="utf-8"))["conv2d"]["steps"]
    for step in ladder[1:]:
        assert f"| {step['ms']:,.1f} |" in DOCS["benchmarks"]


def test_the_loader_is_as_fast_as_measured_and_the_gpu_as_predicted():
    results = json.loads((ROOT / "benchmarks" / "results" / "loader.json").read_text(encoding="utf-8"))["results"]
    for name, r in results.items():
        assert f"| {name} | {r['median']:,.0f} | {r['ratio']:.2f} |" in DOCS["benchmarks"]
    assert results["minicnn"]["ratio"] >= 1.5
    assert results["minicnn, packed raw"]["median"] >= 3000
    step = json.loads((ROOT / "benchmarks" / "results" / "gpu-predictions.json").read_text(encoding="utf-8"))["step"]
    for precision in ("float32", "tf32"):
        assert f"{step[precision]['predicted_ms']:.1f} ms" in DOCS["gpu"]
        assert f"{128e3 / step[precision]['predicted_ms']:,.0f}" in DOCS["gpu"]
