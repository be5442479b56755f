"""`minicnn show`: everything that it prints about an op is in the source, and its checks report what they find."""

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
from minicnn.cli import show as command
from minicnn.learn import op_source, show

ROOT = op_source.PACKAGE.parent
TWO_BODIES = ["conv2d", "cross_entropy", "dropout", "linear", "local_response_norm", "log_softmax", "max_pool2d", "relu", "softmax"]


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    """A terminal of 80 columns, so that no line is wrapped."""
    monkeypatch.setenv("COLUMNS", "80")


def output(capsys, *args, code=0):
    assert command.main(list(args)) == code
    return capsys.readouterr().out


def methods(op):
    return [vars(op.cls)[name] for name in ("forward", "backward")]


@pytest.mark.parametrize("name", ops.__all__)
def test_formula_forward_and_backward_are_those_of_the_source(name, capsys):
    text, op = output(capsys, name), op_source.find(name)
    assert inspect.getmodule(op.cls).__doc__.strip() in text
    for method in methods(op):
        assert textwrap.dedent(inspect.getsource(method)).strip() in text


@pytest.mark.parametrize("name", ops.__all__)
def test_every_line_of_a_block_is_in_a_source_file(name, capsys):
    """And no function is shown twice."""
    blocks = output(capsys, name).split("--- ")[1:]
    files = [p for suffix in ("py", "cu") for p in (ROOT / "minicnn/ops").rglob(f"*.{suffix}")]
    lines = {line.strip() for file in files for line in file.read_text().splitlines()}
    heads = [line for block in blocks for line in block.splitlines()[1:] if line.startswith(("def ", '__device__', 'extern "C"'))]
    assert len(heads) >= 2
    assert len(set(heads)) == len(heads) - (name == "mean")         # whose backward calls its parent's
    for block in blocks:
        for line in re.split(r"\n(?:Imported: |One body serves )", block)[0].splitlines()[1:]:
            known = line.strip() in lines or re.fullmatch(r"// minicnn/ops/[\w/]+\.cu|# [A-Z]\w+", line.strip())
            assert known, f"{line!r} is in no file"


@pytest.mark.parametrize("name", ops.__all__)
def test_both_bodies_are_shown_where_there_are_two(name, capsys):
    text = output(capsys, name)
    assert (name in TWO_BODIES) == ("GPU     " in text) == ("CPU     " in text) == ("One body serves both devices" not in text)


@pytest.mark.parametrize(("name", "kernels"), [
    ("conv2d", ["im2col", "col2im", "add_rows"]), ("linear", ["add_rows"]), ("max_pool2d", ["max_pool", "max_pool_backward"]),
    ("local_response_norm", ["lrn", "lrn_backward"]), ("log_softmax", ["log_softmax", "log_softmax_backward"]),
    ("softmax", ["log_softmax"]),
    ("cross_entropy", ["log_softmax", "mean_loss", "mean_loss_backward"]), ("dropout", ["keep_mask"]), ("relu", [])])
def test_exactly_the_kernels_that_an_op_launches_are_shown(name, kernels, capsys):
    assert re.findall(r"__global__ void (\w+)\(", output(capsys, name)) == kernels


@pytest.mark.parametrize("file", sorted(p.relative_to(ROOT / "minicnn").as_posix() for p in (ROOT / "minicnn/ops").rglob("*.cu")))
def test_a_kernel_file_is_split_without_loss(file):
    functions, head = op_source.kernels_in(file)
    text = (ROOT / "minicnn" / file).read_text()
    assert set(re.findall(r"__global__ void (\w+)\(", text)) <= set(functions)
    assert sorted("\n".join([head, *functions.values()]).split()) == sorted(text.split())
    assert all(f.count("{") == f.count("}") > 0 for f in functions.values())


def test_a_kernel_comes_after_the_functions_that_it_calls(capsys):
    text = output(capsys, "local_response_norm")
    helper = re.search(r"__device__ T (\w+)\(", text)
    assert helper.start() < text.index("void lrn(") < text.index("void lrn_backward(")


def test_the_parent_method_that_super_calls_is_shown_too(capsys):
    text = output(capsys, "mean")
    assert "# Sum\ndef backward(self, gy):" in text
    assert re.search(r"broadcast_to\(gy\.reshape\(\w+\), shape\)", text)


def test_imported_names_are_defined_in_the_files_that_are_listed(capsys):
    for name in ops.__all__:
        for names, file in re.findall(r"([\w, ]+) from (minicnn/[\w/]+\.py)", output(capsys, name).rpartition("Imported: ")[2]):
            module = ast.parse((ROOT / file).read_text())
            known = {getattr(n, "name", None) for n in module.body} | {pathlib.Path(file).stem}
            known |= {t.id for n in module.body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)}
            assert {n.strip() for n in names.split(",")} <= known, f"{name}: {names} from {file}"


def test_helpers_that_are_not_shown_are_listed_as_imported(capsys):
    listed = output(capsys, "conv2d").rpartition("Imported: ")[2]
    for module in ("minicnn.ops.layout", "minicnn.ops.conv2d.winograd"):
        assert module in op_source.NOT_FOLLOWED
        assert module.replace(".", "/") + ".py" in listed


@pytest.mark.parametrize("name", ops.__all__)
def test_the_reference_is_the_one_of_the_cases(name, capsys):
    text = output(capsys, name, "--reference").rpartition("--- reference")[2]
    file, code = text.strip().split("\n\n", 1)
    source = (ROOT / file.strip()).read_text()
    assert file.strip().startswith("minicnn/learn/cases/")
    assert "for " in code
    for part in re.split(r"\n(?=(?:@|def |naive = ))", code):
        assert part.strip().removeprefix("naive = ") in source


@pytest.mark.parametrize("name", ops.__all__)
def test_every_op_has_cases_and_wrong_backwards(name):
    test = op_source.op_test(op_source.find(name).cls)
    assert test.cases
    assert test.wrong
    assert all(issubclass(wrong, op_source.find(name).cls) for wrong in test.wrong)


def test_a_function_without_cases_is_named():
    class Unknown(op_source.Function):
        pass

    with pytest.raises(op_source.NotFoundError, match=r"minicnn\.learn\.cases has no cases for Unknown"):
        op_source.op_test(Unknown)


def test_without_a_name_every_op_has_one_line(capsys):
    lines = output(capsys).splitlines()
    for name in ops.__all__:
        first = getattr(ops, name).__doc__.strip().splitlines()[0]
        assert [line for line in lines if line.split()[:1] == [name]] == [f"{name:19}  {first}"]


@pytest.mark.parametrize(("name", "message"), [
    ("conv", "there is no op 'conv'; did you mean conv2d?"), ("Conv2D", "did you mean conv2d?"), ("maxpool", "did you mean max_pool2d?"),
    ("LocalResponseNorm", "did you mean local_response_norm?"), ("xyz", "there is no op 'xyz'; the ops are adaptive_avg_pool2d, add")])
def test_an_unknown_name_suggests_similar_ones(name, message, capsys):
    assert command.main([name]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert message in err


def test_options_without_an_op_are_an_error(capsys):
    with pytest.raises(SystemExit, match="2"):
        command.main(["--check"])
    assert "--reference and --check need an OP" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["linear", "relu", "dropout", "cross_entropy", "flatten", "mul"])
def test_check_accepts_the_op_and_rejects_every_wrong_backward(name, capsys):
    text, test = output(capsys, name, "--check"), op_source.op_test(op_source.find(name).cls)
    right, wrong = text.split("--- check: ")[1:]
    assert right.count("  yes  input ") == len(test.cases)
    for mistake in test.wrong:
        assert f"{mistake.__name__}: {mistake.__doc__.strip()}" in wrong
    assert wrong.count("  rejected  input ") == sum(map(int, re.findall(r"affects (\d+) of", wrong))) >= len(test.wrong)
    assert "ratio" in wrong


def test_a_wrong_backward_of_the_op_itself_is_noticed(capsys, monkeypatch):
    cls = op_source.find("relu").cls
    monkeypatch.setattr(cls, "backward", lambda self, gy, y: 2 * gy * (y > 0))
    assert "  no  " in output(capsys, "relu", "--check", code=1)


def test_a_check_that_rejects_nothing_is_noticed(capsys, monkeypatch):
    class Right(op_source.find("tanh").cls):
        "No mistake at all."

    monkeypatch.setattr(op_source.op_test(op_source.find("tanh").cls), "wrong", [Right])
    assert output(capsys, "tanh", "--check", code=1).count("NOT REJECTED") == 3


def columns(monkeypatch, capsys, width, *args):
    monkeypatch.setenv("COLUMNS", str(width))
    return output(capsys, *args).splitlines()


@pytest.mark.parametrize("name", ["local_response_norm", "conv2d", "tanh"])
def test_a_wide_terminal_has_two_columns_and_loses_nothing(name, capsys, monkeypatch):
    """Joined again, wrapped lines included, the columns have the words of the narrow page."""
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
def test_wrapping_keeps_every_word_and_the_width(line):
    parts = list(show.wrap(line, 20))
    assert all(len(part) <= 20 for part in parts)
    assert "".join("".join(parts).split()) == "".join(line.split())


def test_colours_are_for_terminals_only(capsys, monkeypatch):
    assert "\033" not in output(capsys, "tanh", "--check")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    painted = output(capsys, "dropout", "--check")
    assert f"{show.BOLD}--- forward{show.PLAIN}" in painted
    assert f"{show.GREEN}rejected{show.PLAIN}" in painted
    monkeypatch.setenv("COLUMNS", "200")
    wide = re.sub(r"\033\[\d+m", "", output(capsys, "dropout"))
    monkeypatch.setenv("NO_COLOR", "1")
    assert output(capsys, "dropout") == wide


def test_it_runs_as_a_program_in_any_folder(tmp_path):
    """In a process without pytest."""
    done = subprocess.run([sys.executable, "-W", "error", "-m", "minicnn", "show", "linear", "--reference", "--check"], capture_output=True,
                          text=True, cwd=tmp_path, env={**os.environ, "COLUMNS": "80", "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    assert "y[n, o] += x[n, i] * w[o, i]" in done.stdout
