"""`minicnn exercises`: an exercise fails as handed out and passes with the true backward; every known bug is rejected and named."""

import ast
import os
import pathlib
import re
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from minicnn import ops
from minicnn.cli import exercises as program
from minicnn.learn import exercises, grading, op_source
from minicnn.learn.cases import affects

OPS = list(ops.__all__)
MISTAKES = [(name, mistake.__name__) for name in OPS if name != "flatten"       # flatten has reshape's
            for mistake in op_source.op_test(op_source.find(name).cls).wrong]


def written(path, text):
    path.write_text(text, encoding="utf-8")
    return str(path)


def body_removed(name):
    """(the exercise, its stub, which is to be replaced)."""
    op = op_source.find(name)
    text = exercises.template(op)
    todo = textwrap.indent(exercises.stub(op), "    ")
    assert text.count(todo) == 1
    return text, todo


def with_backward(name, source):
    """The exercise with this text as its backward."""
    text, todo = body_removed(name)
    return text.replace(todo, textwrap.indent(textwrap.dedent(source).strip(), "    "))


def solved(name):
    """The exercise with the true backward, which needs a few more names of its module."""
    op = op_source.find(name)
    text = with_backward(name, op.source.cut(op.methods("backward")[0][1]))
    module = op.source.module
    return text.replace("import numpy as np\n", f"import numpy as np\nimport math\nfrom {module.__name__} import *\n", 1)


def cases_for(name, mistake=None, most=3):
    """Some cases that the mistake affects, and one that it does not affect."""
    test = op_source.op_test(op_source.find(name).cls)
    cases = list(test.cases)
    if mistake is None:
        return cases[:most]
    affected = [case for case in cases if affects(test.mistake(mistake), *test.cases[case])]
    return affected[:most] + [case for case in cases if case not in affected][:1]


def grade(name, text, tmp_path, cases=None):
    return grading.grade(op_source.find(name), written(tmp_path / "exercise.py", text), cases)


def command(*args):
    return program.main([str(a) for a in args])


# The exercise to write backward

@pytest.mark.parametrize("name", OPS)
def test_a_template_is_not_a_solution(name, tmp_path):
    text, _ = body_removed(name)
    message = rf"exercise.py, line \d+, `raise NotImplementedError\(.*`: NotImplementedError: write the backward of {name} here"
    with pytest.raises(grading.SubmissionError, match=message):
        grade(name, text, tmp_path)


@pytest.mark.parametrize("name", OPS)
def test_the_true_backward_passes(name, tmp_path):
    code, text = grade(name, solved(name), tmp_path, cases_for(name))
    assert (code, text.splitlines()[-1]) == (0, f"correct in all {len(cases_for(name))} cases: this is the derivative"), text


@pytest.mark.parametrize("name", OPS)
def test_a_template_does_not_give_the_solution_away(name):
    """Neither backward's body nor any dL/d... formula; forward is there to the letter."""
    op = op_source.find(name)
    text, _ = body_removed(name)
    _, backward = op.methods("backward")[0]
    for line in op.source.body(backward).splitlines():
        assert len(line.split()) < 3 or line.strip() not in text
    assert not re.search(r"dL/d\w+ *=", text)
    forward = next(n for n in op.source.definitions[op.cls.__name__].body if getattr(n, "name", "") == "forward")
    assert textwrap.indent(op.source.cut(forward), "    ") in text


@pytest.mark.parametrize("name", OPS)
def test_a_template_has_the_formula_of_forward_and_what_is_saved(name):
    op = op_source.find(name)
    text, _ = body_removed(name)
    docstring = ast.get_docstring(ast.parse(text), clean=False)
    if "dL/d" in op.formula:
        first = next(line.partition("dL/d")[0].rstrip() for line in op.formula.splitlines() if line.startswith("    "))
        assert first in docstring
    _, backward = op.methods("backward")[0]
    for saved in [a.arg for a in backward.args.args[2:]]:
        assert re.search(rf"# gy has the shape of y.*Saved by forward: .*\b{saved}\b", text)
    for input_name in op.inputs:
        assert re.search(rf"# Return .*dL/d{input_name}\b", text)


# The exercise to find a bug

@pytest.mark.parametrize(("name", "mistake"), MISTAKES)
def test_every_bug_is_rejected_and_named(name, mistake, tmp_path):
    """In every case that it affects, and in no other; and its name is one of the hints."""
    op = op_source.find(name)
    test = op_source.op_test(op.cls)
    cases = cases_for(name, mistake)
    code, text = grade(name, exercises.inject_bug(op, test.mistake(mistake)), tmp_path, cases)
    assert code == 1
    for case in cases:
        verdict = "wrong" if affects(test.mistake(mistake), *test.cases[case]) else "correct"
        assert re.search(rf"^{re.escape(case)} +{verdict}  ", text, re.M), text
    assert re.search(rf"^hint: dL/d\w+( and dL/d\w+)* match(es)? the mistake {mistake}: ", text, re.M), text
    assert re.search(r"wrong    dL/d\w+ at \[.*: expected \S+, got \S+ \(ratio \S+\)", text), text


@pytest.mark.parametrize(("name", "mistake"), MISTAKES)
def test_an_exercise_does_not_name_its_bug(name, mistake):
    op = op_source.find(name)
    wrong = op_source.op_test(op.cls).mistake(mistake)
    text = exercises.inject_bug(op, wrong)
    assert mistake not in text
    assert wrong.__doc__.strip() not in text
    assert not re.search(r"\bwrong(_|\b)", text.partition("class Remembers")[0] + text.rpartition(f"class {op.cls.__name__}")[2])


@pytest.mark.parametrize("name", OPS)
def test_the_seed_chooses_among_all_bugs(name, capsys):
    """And the same seed chooses the same one."""
    handed_out = {}
    for seed in [*range(60), 3, 7]:
        assert command(name, "--bug", "--seed", seed) == 0
        text = capsys.readouterr().out
        assert handed_out.setdefault(seed, text) == text
    assert len(set(handed_out.values())) == len(op_source.op_test(op_source.find(name).cls).wrong)


# Grading

def test_the_text_of_a_verdict(tmp_path):
    """The weight gradient of linear, averaged: where it is wrong, expected and actual value, and their ratio."""
    code, text = grade("linear", with_backward("linear", """
        def backward(self, gy, x, w):
            return (gy @ w, gy.T @ x / len(x), gy.sum(axis=0))[:len(self.inputs)]
        """), tmp_path)
    assert code == 1
    assert text.splitlines()[-1] == "wrong in 5 of 6 cases"
    assert re.search(r"^with bias +wrong    dL/dw at \[\d, \d\]: expected -?\d\.\d+, got -?\d\.\d+ \(ratio 0.3333\)\n"
                     r" +correct  dL/dx, dL/db$", text, re.M)
    assert re.search(r"^one row +correct  \(\d+ comparisons\)$", text, re.M)
    assert ("hint: dL/dw matches the mistake WeightGradientAveraged: The weight gradient is averaged over the batch instead of summed; "
            "the loss has averaged already.") in text.splitlines()
    assert text.count("hint") == 1


def test_two_mistakes_at_once_are_both_named(tmp_path):
    code, text = grade("linear", with_backward("linear", """
        def backward(self, gy, x, w):
            return (gy @ w, gy.T @ x / len(x), gy.mean(axis=0))[:len(self.inputs)]
        """), tmp_path)
    assert code == 1
    hints = re.findall(r"hint: (\S+) matches the mistake (\w+)", text)
    assert hints == [("dL/dw", "WeightGradientAveraged"), ("dL/db", "BiasGradientAveraged")]


def test_an_unknown_mistake_gets_no_hint(tmp_path):
    code, text = grade("relu", with_backward("relu", "def backward(self, gy, y):\n    return 3 * gy * (y > 0)"), tmp_path)
    assert code == 1
    assert "ratio 3)" in text
    assert "hint" not in text


def test_a_mistake_that_matches_a_known_one_in_some_cases_only_gets_no_hint(tmp_path):
    """Divided by 3, which is the size of the batch in most cases, not in all."""
    code, text = grade("linear", with_backward("linear", """
        def backward(self, gy, x, w):
            return (gy @ w, gy.T @ x / 3, gy.sum(axis=0))[:len(self.inputs)]
        """), tmp_path)
    assert code == 1
    assert "hint" not in text


@pytest.mark.parametrize(("backward", "message"), [              # "line +1": one below the `def` of backward
    ("def backward(self, gy, x, w):\n    return gy @ w, gy.T @ x",
     r"line +1, `return gy @ w, gy.T @ x`: backward returned 2 gradients for 3 inputs; return one for each of x, w, b, in this order"),
    ("def backward(self, gy, x, w):\n    return gy @ w", "line +1, `return gy @ w`: backward returned 1 gradient for 3 inputs"),
    ("def backward(self, gy, x, w):\n    return gy @ w, x.T @ gy, gy.sum(axis=0)",
     r"line +1, .*: dL/dw must have the shape of w, \(5, 4\), got \(4, 5\)"),
    ("def backward(self, gy, x, w):\n    return gy @ w, None, gy.sum(axis=0)",
     r"line +1, .*: dL/dw must be an array of shape \(5, 4\), got NoneType"),
    ("def backward(self, gy, x, w):\n    gx = gy @ w", "line +0, `def backward.*`: backward returned 1 gradient for 3 inputs"),
    ("def backward(self, gy, x, w):\n    gw = gy.T @ x\n    return gy @ w, gw.astype('f'), gy.sum(axis=0)",
     "line +2, .*: dL/dw must have the dtype of w, float64, got float32"),
    ("def backward(self, gy, x, w):\n    gx = gy @ x\n    return gx, gy.T @ x, gy.sum(axis=0)", "line +1, `gx = gy @ x`: ValueError: mat"),
    ("def backward(self, gy, x, w):\n    gy *= 2\n    return gy @ w, gy.T @ x, gy.sum(axis=0)",
     "line +2, .*: backward changed gy in place, which"),
    ("def backward(self, gy, x, w):\n    x *= 2\n    return gy @ w, gy.T @ x, gy.sum(axis=0)",
     "line +2, .*: backward changed an input in place"),
    ("def backward(self, gy, x, w, b):\n    return gy @ w, gy.T @ x, gy.sum(axis=0)", "line +1, .*: TypeError: .*missing 1 required"),
    ("def backward(self, gy, x, w)\n    return gy @ w", r"line +0, `def backward\(self, gy, x, w\)`: SyntaxError: expected ':'"),
    ("def backward(self, gy, x, w):\n    return gy @ W", "line +1, `return gy @ W`: NameError: name 'W' is not defined"),
    ("def backward(self, gy, x, w):\n    raise SystemExit", "line +1, `raise SystemExit`: SystemExit: "),
    ("def derive(self, gy, x, w):\n    return gy @ w", r"exercise.py: its class Linear does not define backward"),
])
def test_a_file_that_cannot_be_graded_gets_the_reason_and_the_line(backward, message, tmp_path):
    text = with_backward("linear", backward)
    first = next(i for i, line in enumerate(text.splitlines(), 1) if "def backward" in line or "def derive" in line)
    message = re.sub(r"line \+(\d)", lambda offset: f"line {first + int(offset[1])}", message)
    with pytest.raises(grading.SubmissionError, match=message):
        grade("linear", text, tmp_path)


def test_a_changed_forward_is_noticed(tmp_path):
    text = solved("tanh").replace("y = xp_of(x).tanh(x)", "y = xp_of(x).tanh(2 * x)")
    with pytest.raises(grading.SubmissionError, match="forward no longer computes tanh; change only backward"):
        grade("tanh", text, tmp_path)


def test_an_exercise_for_another_op_is_noticed(tmp_path):
    with pytest.raises(grading.SubmissionError, match=r"it has no class Sigmoid\(Function\); is it an exercise for another op\?"):
        grade("sigmoid", solved("tanh"), tmp_path)


# The command

def test_hand_out_and_grade(tmp_path, capfd):
    """Handed out, graded as it is, solved, graded again: each verdict has its exit code, and the file is never changed."""
    file = tmp_path / "mine.py"
    assert command("linear", "--out", file) == 0
    assert f"minicnn exercises linear --grade {file}" in capfd.readouterr().out
    assert f"minicnn exercises linear --grade {file}" in file.read_text()
    for text, code, message in [(file.read_text(), 2, "`raise NotImplementedError"), (solved("linear"), 0, "correct in all 6 cases"),
                             (solved("linear").replace("gy, w)", "gy, 2 * w)"), 1, "(ratio 2)"),
                             ("print('by the way')\n" + solved("linear"), 0, "by the way"),
                             ("import os; os._exit(0)", 2, "does it call os._exit?"),
                             ("", 2, "it has no class Linear"), ("input()", 2, "line 1, `input()`: EOFError"), ("\0", 2, "null bytes")]:
        file.write_text(text)
        assert command("linear", "--grade", file) == code
        out, err = capfd.readouterr()
        assert message in out + err
        assert out + err == out or code == 2
        assert "Traceback" not in out + err
        assert file.read_text() == text
    assert [p.name for p in tmp_path.iterdir()] == ["mine.py"]


@pytest.mark.parametrize("loop", ["while True: pass", "try:\n    while True: pass\nexcept BaseException: pass",
                                  "import time; time.sleep(1000)"])
def test_an_endless_loop_is_ended_and_its_line_reported(loop, tmp_path, capfd):
    body = textwrap.indent(loop, "    ")
    file = written(tmp_path / "loop.py", with_backward("tanh", f"def backward(self, gy, y):\n{body}"))
    line = next(i for i, text in enumerate(pathlib.Path(file).read_text().splitlines(), 1) if "while" in text or "sleep" in text)
    assert command("tanh", "--grade", file, "--timeout", 3) == 2
    out, err = capfd.readouterr()
    assert re.search(rf"loop.py, line {line}, `.*`: still running after 3 seconds; an endless loop\?", out + err)


def test_an_existing_file_is_not_overwritten(tmp_path, capsys):
    file = tmp_path / "mine.py"
    file.write_text("my work")
    assert command("linear", "--out", file) == 2
    assert "exists already and is not overwritten" in capsys.readouterr().err
    assert file.read_text() == "my work"


def test_without_a_name_every_op_has_one_line(capsys):
    assert command() == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[:len(OPS)]] == OPS


@pytest.mark.parametrize(("args", "message"), [
    (["lineer"], "there is no op 'lineer'; did you mean linear?"),
    (["linear", "--bug", "TransposeForgoten"], "there is no bug 'TransposeForgoten'; did you mean TransposeForgotten?"),
    (["linear", "--grade", "nowhere.py"], "there is no file nowhere.py"),
    (["linear", "--out", "/no/such/folder/mine.py"], "No such file or directory"),
])
def test_a_name_or_file_that_does_not_exist_is_an_error(args, message, capsys):
    assert command(*args) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert message in err


@pytest.mark.parametrize(("args", "message"), [
    (["linear", "--grade", "a.py", "--bug"], "--grade cannot be combined with --out or --bug"),
    (["--out", "a.py"], "give an OP, for instance linear"),
    (["linear", "--timeout", "0"], "--timeout must be greater than 0, got 0")])
def test_a_wrong_combination_of_options_is_an_error(args, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        command(*args)
    assert message in capsys.readouterr().err


def test_it_runs_as_a_program_in_any_folder(tmp_path):
    """In a process without pytest, in a folder with a module that must not hide Python's."""
    (tmp_path / "random.py").write_text("raise RuntimeError('imported by mistake')")

    def run(*args):
        path = os.pathsep.join([str(op_source.PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
        code = "import sys; sys.path.remove(''); from minicnn.cli.exercises import main; sys.exit(main())"      # as the script does
        return subprocess.run([sys.executable, "-W", "error", "-c", code, *args], capture_output=True, text=True, cwd=tmp_path,
                              env={**os.environ, "PYTHONPATH": path})

    for args, code, message in [(["--bug", "--out", "mine.py"], 0, "wrote mine.py"), (["--grade", "mine.py"], 1, "wrong in ")]:
        done = run("linear", *args)
        assert (done.returncode, done.stderr) == (code, "")
        assert message in done.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine.py", "random.py"]


def test_a_nan_is_wrong(tmp_path):
    """Every comparison with NaN is false, so a check for `error > tolerance` would let it pass."""
    code, text = grade("tanh", with_backward("tanh", "def backward(self, gy, y):\n    return gy * np.nan"), tmp_path)
    assert code == 1
    assert "got nan" in text
    assert not grading.allclose(np.array([np.nan]), np.array([1.0]))
