"""`minicnn show`: whatever it shows of an op stands so in the source, and what its checks say is what they found."""

import ast
import inspect
import os
import pathlib
import re
import subprocess
import sys
import textwrap

import pytest

from minicnn import ops
from minicnn.study import anatomy, show

ROOT = pathlib.Path(show.__file__).parents[2]
TWO_BODIES = ["conv2d", "cross_entropy", "dropout", "linear", "local_response_norm", "log_softmax", "max_pool2d", "relu", "softmax"]


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    """A terminal of 80 columns, so that no line is folded."""
    monkeypatch.setenv("COLUMNS", "80")


def shown(capsys, *args, code=0):
    assert show.main(list(args)) == code
    return capsys.readouterr().out


def methods(op):
    return [vars(op.cls)[name] for name in ("forward", "backward")]


@pytest.mark.parametrize("name", ops.__all__)
def test_formula_forward_and_backward_are_those_of_the_source(name, capsys):
    text, op = shown(capsys, name), anatomy.find(name)
    assert inspect.getmodule(op.cls).__doc__.strip() in text
    for method in methods(op):
        assert textwrap.dedent(inspect.getsource(method)).strip() in text


@pytest.mark.parametrize("name", ops.__all__)
def test_every_block_stands_in_a_file(name, capsys):
    """Line by line; and nothing is shown twice."""
    blocks = shown(capsys, name).split("--- ")[1:]
    files = "".join(p.read_text() for folder in ("minicnn/ops", "tests/ops") for p in (ROOT / folder).glob("*.*u*"))
    files += "".join(p.read_text() for p in (ROOT / "minicnn/ops").glob("*.py"))
    lines = {line.strip() for line in files.splitlines()}
    heads = [line for block in blocks for line in block.splitlines()[1:] if line.startswith(("def ", '__device__', 'extern "C"'))]
    assert len(heads) >= 2
    assert len(set(heads)) == len(heads) - (name == "mean")         # whose backward calls its parent's
    for block in blocks:
        for line in re.split(r"\n(?:Elsewhere: |One body serves )", block)[0].splitlines()[1:]:
            known = line.strip() in lines or re.fullmatch(r"// minicnn/ops/\w+\.cu|# [A-Z]\w+", line.strip())
            assert known, f"{line!r} is in no file"


@pytest.mark.parametrize("name", ops.__all__)
def test_both_bodies_are_shown_where_there_are_two(name, capsys):
    text = shown(capsys, name)
    assert (name in TWO_BODIES) == ("GPU     " in text) == ("CPU     " in text) == ("One body serves both devices" not in text)


@pytest.mark.parametrize(("name", "kernels"), [
    ("conv2d", ["im2col", "col2im", "add_rows"]), ("linear", ["add_rows"]), ("max_pool2d", ["max_pool", "max_pool_backward"]),
    ("local_response_norm", ["lrn", "lrn_backward"]), ("log_softmax", ["log_softmax", "log_softmax_backward"]),
    ("softmax", ["log_softmax"]),
    ("cross_entropy", ["log_softmax", "mean_loss", "mean_loss_backward"]), ("dropout", ["keep_mask"]), ("relu", [])])
def test_the_kernels_that_an_op_starts_are_shown_and_no_others(name, kernels, capsys):
    assert re.findall(r"__global__ void (\w+)\(", shown(capsys, name)) == kernels


@pytest.mark.parametrize("file", sorted(p.name for p in (ROOT / "minicnn/ops").glob("*.cu")))
def test_a_kernel_file_is_cut_without_loss(file):
    functions, head = anatomy.kernels_in(f"ops/{file}")
    text = (ROOT / "minicnn/ops" / file).read_text()
    assert set(re.findall(r"__global__ void (\w+)\(", text)) <= set(functions)
    assert sorted("\n".join([head, *functions.values()]).split()) == sorted(text.split())
    assert all(f.count("{") == f.count("}") > 0 for f in functions.values())


def test_a_kernel_comes_after_what_it_calls(capsys):
    text = shown(capsys, "local_response_norm")
    assert text.index("__device__ T energy(") < text.index("void lrn(") < text.index("void lrn_backward(")


def test_what_super_does_is_shown_too(capsys):
    text = shown(capsys, "mean")
    assert "# Sum\ndef backward(self, gy):" in text
    assert "broadcast_to(gy.reshape(kept), shape)" in text


def test_where_the_rest_is(capsys):
    """What an op only calls is named, and is there."""
    for name in ops.__all__:
        for names, file in re.findall(r"([\w, ]+) in (minicnn/[\w/]+\.py)", shown(capsys, name).rpartition("Elsewhere: ")[2]):
            module = ast.parse((ROOT / file).read_text())
            known = {getattr(n, "name", None) for n in module.body} | {pathlib.Path(file).stem}
            known |= {t.id for n in module.body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)}
            assert {n.strip() for n in names.split(",")} <= known, f"{name}: {names} in {file}"


@pytest.mark.parametrize("name", ops.__all__)
def test_the_loops_are_those_of_the_test(name, capsys):
    text = shown(capsys, name, "--loops").rpartition("--- by loops")[2]
    file, code = text.strip().split("\n\n", 1)
    tests = (ROOT / file.strip()).read_text()
    assert file.strip().startswith("tests/ops/test_")
    assert "for " in code
    for part in re.split(r"\n(?=(?:@|def |naive = ))", code):
        assert part.strip().removeprefix("naive = ") in tests


def test_without_a_name_every_op_has_one_line(capsys):
    lines = shown(capsys).splitlines()
    for name in ops.__all__:
        first = getattr(ops, name).__doc__.strip().splitlines()[0]
        assert [line for line in lines if line.split()[:1] == [name]] == [f"{name:19}  {first}"]


@pytest.mark.parametrize(("name", "message"), [
    ("conv", "there is no op 'conv'; did you mean conv2d?"), ("Conv2D", "did you mean conv2d?"), ("maxpool", "did you mean max_pool2d?"),
    ("LocalResponseNorm", "did you mean local_response_norm?"), ("xyz", "there is no op 'xyz'; there are adaptive_avg_pool2d, add")])
def test_an_unknown_name_gets_those_spelt_alike(name, message, capsys):
    assert show.main([name]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert message in err


def test_options_without_an_op_are_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        show.main(["--check"])
    assert "--loops and --check want an OP" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["linear", "relu", "dropout", "cross_entropy", "flatten", "mul"])
def test_the_checks_are_run_and_all_wrong_backwards_refused(name, capsys):
    text, definition = shown(capsys, name, "--check"), anatomy.definition_of(anatomy.find(name).cls)
    right, wrong = text.split("--- check: ")[1:]
    assert right.count("  yes  input ") == len(definition.cases)
    for mistake in definition.wrong:
        assert f"{mistake.__name__}: {mistake.__doc__.strip()}" in wrong
    assert wrong.count("  refused  input ") == sum(map(int, re.findall(r"shows in (\d+) of", wrong))) >= len(definition.wrong)
    assert "ratio" in wrong


def test_a_wrong_backward_of_the_op_itself_is_noticed(capsys, monkeypatch):
    cls = anatomy.find("relu").cls
    monkeypatch.setattr(cls, "backward", lambda self, gy, y: 2 * gy * (y > 0))
    assert "  no  " in shown(capsys, "relu", "--check", code=1)


def test_a_check_that_refuses_nothing_is_noticed(capsys, monkeypatch):
    class Right(anatomy.find("tanh").cls):
        "No mistake at all."

    monkeypatch.setattr(anatomy.definition_of(anatomy.find("tanh").cls), "wrong", [Right])
    assert shown(capsys, "tanh", "--check", code=1).count("NOT REFUSED") == 3


def test_without_the_tests_it_says_where_they_are(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(anatomy, "TESTS", tmp_path)
    anatomy.definition_of.cache_clear()
    assert "def backward" in shown(capsys, "tanh")
    assert show.main(["tanh", "--loops"]) == 2
    assert "are in minicnn's tests, which are not installed with it; get its source" in capsys.readouterr().err


def columns(monkeypatch, capsys, width, *args):
    monkeypatch.setenv("COLUMNS", str(width))
    return shown(capsys, *args).splitlines()


@pytest.mark.parametrize("name", ["local_response_norm", "conv2d", "tanh"])
def test_a_wide_terminal_has_two_columns_and_loses_nothing(name, capsys, monkeypatch):
    """Put back together, folded lines and all, the columns say what the narrow page says."""
    wide = columns(monkeypatch, capsys, 170, name)
    left, right = [], []
    for line in wide:
        a, gap, b = line.partition("  |  ") if len(line.rstrip()) > 80 else (line.removesuffix("  |"), "", "")
        left.append(a)
        right += [b] * bool(gap)
    assert all(len(line) <= 170 for line in wide if "  |  " in line)
    assert any(b.startswith("--- backward") for b in right)
    narrow = " ".join(columns(monkeypatch, capsys, 80, name)).split()
    assert sorted(" ".join(left + right).replace("|", "").split()) == sorted(" ".join(narrow).replace("|", "").split())


def test_a_narrow_terminal_has_one_column(capsys, monkeypatch):
    lines = columns(monkeypatch, capsys, show.TWO_COLUMNS - 1, "tanh")
    assert lines.index("--- forward") < lines.index("--- backward")
    assert "--- forward" not in columns(monkeypatch, capsys, show.TWO_COLUMNS, "tanh")


@pytest.mark.parametrize("line", ["", "a" * 50, "    x = 1  # " + "words and " * 20, " " * 8 + "b" * 30 + " c", " " * 40 + "deep indeed"])
def test_folding_keeps_every_word_and_the_width(line):
    parts = list(show.folded(line, 20))
    assert all(len(part) <= 20 for part in parts)
    assert "".join("".join(parts).split()) == "".join(line.split())


def test_colours_are_for_terminals_only(capsys, monkeypatch):
    assert "\033" not in shown(capsys, "tanh", "--check")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    painted = shown(capsys, "dropout", "--check")
    assert f"{show.BOLD}--- forward{show.PLAIN}" in painted
    assert f"{show.GREEN}refused{show.PLAIN}" in painted
    monkeypatch.setenv("COLUMNS", "200")
    wide = re.sub(r"\033\[\d+m", "", shown(capsys, "dropout"))
    monkeypatch.setenv("NO_COLOR", "1")
    assert shown(capsys, "dropout") == wide


def test_it_runs_as_a_program():
    code = "import sys; from minicnn.study.show import main; sys.exit(main(['linear', '--loops']))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, env={**os.environ, "COLUMNS": "80"})
    assert done.returncode == 0, done.stderr
    assert "y[n, o] += x[n, i] * w[o, i]" in done.stdout
