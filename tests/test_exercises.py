"""`minicnn exercises`: what is handed out is not right yet, the truth put in is, every mistake is refused and called by its name."""

import ast
import pathlib
import re
import textwrap

import numpy as np
import pytest

from minicnn import ops
from minicnn.study import anatomy, exercises
from minicnn.study.anatomy import shows

OPS = list(ops.__all__)
MISTAKES = [(name, mistake.__name__) for name in OPS if name != "flatten"       # flatten has reshape's
            for mistake in anatomy.definition_of(anatomy.find(name).cls).wrong]


def written(path, text):
    path.write_text(text, encoding="utf-8")
    return str(path)


def body_removed(name):
    """The exercise's text, and the part of it that is to be replaced."""
    op = anatomy.find(name)
    text = exercises.blank(op)
    todo = textwrap.indent(exercises.stub(op), "    ")
    assert text.count(todo) == 1
    return text, todo


def with_backward(name, source):
    """The exercise with this text as its backward."""
    text, todo = body_removed(name)
    return text.replace(todo, textwrap.indent(textwrap.dedent(source).strip(), "    "))


def solved(name):
    """The exercise with the true backward in it, which needs a few more names of its module."""
    op = anatomy.find(name)
    text = with_backward(name, op.source.cut(op.methods("backward")[0][1]))
    module = op.source.module
    return text.replace("import numpy as np\n", f"import numpy as np\nimport math\nfrom {module.__name__} import *\n", 1)


def cases_for(name, mistake=None, most=3):
    """Some cases, those first in which the mistake shows, and one in which it does not."""
    definition = anatomy.definition_of(anatomy.find(name).cls)
    cases = list(definition.cases)
    if mistake is None:
        return cases[:most]
    shown = [case for case in cases if shows(definition.mistake(mistake), *definition.cases[case])]
    return shown[:most] + [case for case in cases if case not in shown][:1]


def grade(name, text, tmp_path, cases=None):
    return exercises.grade(anatomy.find(name), written(tmp_path / "exercise.py", text), cases)


def command(*args):
    return exercises.main([str(a) for a in args])


# What is handed out

@pytest.mark.parametrize("name", OPS)
def test_what_is_handed_out_does_not_pass(name, tmp_path):
    text, _ = body_removed(name)
    said = rf"exercise.py, line \d+, `raise NotImplementedError\(.*`: NotImplementedError: backward of {name} is still to be written"
    with pytest.raises(exercises.Unusable, match=said):
        grade(name, text, tmp_path)


@pytest.mark.parametrize("name", OPS)
def test_with_the_true_backward_in_it_it_passes(name, tmp_path):
    code, text = grade(name, solved(name), tmp_path, cases_for(name))
    assert (code, text.splitlines()[-1]) == (0, f"right in all {len(cases_for(name))} cases: this is the derivative"), text


@pytest.mark.parametrize("name", OPS)
def test_the_answer_is_not_in_it(name):
    """Neither backward's body nor any dL/d... formula; forward is there to the letter."""
    op = anatomy.find(name)
    text, _ = body_removed(name)
    _, backward = op.methods("backward")[0]
    for line in op.source.body(backward).splitlines():
        assert len(line.split()) < 3 or line.strip() not in text
    assert not re.search(r"dL/d\w+ *=", text)
    forward = next(n for n in op.source.definitions[op.cls.__name__].body if getattr(n, "name", "") == "forward")
    assert textwrap.indent(op.source.cut(forward), "    ") in text


@pytest.mark.parametrize("name", OPS)
def test_the_formula_of_forward_and_what_is_saved_are_in_it(name):
    op = anatomy.find(name)
    text, _ = body_removed(name)
    docstring = ast.get_docstring(ast.parse(text), clean=False)
    if "dL/d" in op.formula:
        first = next(line.partition("dL/d")[0].rstrip() for line in op.formula.splitlines() if line.startswith("    "))
        assert first in docstring
    _, backward = op.methods("backward")[0]
    for saved in [a.arg for a in backward.args.args[2:]]:
        assert re.search(rf"# gy is shaped like y.*Saved by forward: .*\b{saved}\b", text)
    for wanted in op.inputs:
        assert re.search(rf"# Return .*dL/d{wanted}\b", text)


# Mistakes

@pytest.mark.parametrize(("name", "mistake"), MISTAKES)
def test_every_mistake_is_refused_and_called_by_its_name(name, mistake, tmp_path):
    """In each case where it shows, and in no other; and the listed name is among those that are offered."""
    op = anatomy.find(name)
    definition = anatomy.definition_of(op.cls)
    cases = cases_for(name, mistake)
    code, text = grade(name, exercises.planted(op, definition.mistake(mistake)), tmp_path, cases)
    assert code == 1
    for case in cases:
        verdict = "wrong" if shows(definition.mistake(mistake), *definition.cases[case]) else "right"
        assert re.search(rf"^{re.escape(case)} +{verdict}  ", text, re.M), text
    assert re.search(rf"^hint: dL/d\w+( and dL/d\w+)* (is|are) what one gets by {mistake}: ", text, re.M), text
    assert re.search(r"wrong  dL/d\w+ at \[.*: expected \S+, got \S+ \(ratio \S+\)", text), text


@pytest.mark.parametrize(("name", "mistake"), MISTAKES)
def test_a_planted_mistake_does_not_tell_its_name(name, mistake):
    op = anatomy.find(name)
    wrong = anatomy.definition_of(op.cls).mistake(mistake)
    text = exercises.planted(op, wrong)
    assert mistake not in text
    assert wrong.__doc__.strip() not in text
    assert not re.search(r"\bwrong(_|\b)", text.partition("class Remembers")[0] + text.rpartition(f"class {op.cls.__name__}")[2])


@pytest.mark.parametrize("name", OPS)
def test_the_seed_chooses_among_all_mistakes(name, capsys):
    """The same seed the same one."""
    handed_out = {}
    for seed in [*range(60), 3, 7]:
        assert command(name, "--mistake", "--seed", seed) == 0
        text = capsys.readouterr().out
        assert handed_out.setdefault(seed, text) == text
    assert len(set(handed_out.values())) == len(anatomy.definition_of(anatomy.find(name).cls).wrong)


# Grading

def test_what_a_verdict_says(tmp_path):
    """The weight gradient of linear, averaged: where, what was expected, what came, by which factor it is off."""
    code, text = grade("linear", with_backward("linear", """
        def backward(self, gy, x, w):
            return (gy @ w, gy.T @ x / len(x), gy.sum(axis=0))[:len(self.inputs)]
        """), tmp_path)
    assert code == 1
    assert text.splitlines()[-1] == "wrong in 5 of 6 cases"
    assert re.search(r"^with bias +wrong  dL/dw at \[\d, \d\]: expected -?\d\.\d+, got -?\d\.\d+ \(ratio 0.3333\)\n"
                     r" +right  dL/dx, dL/db$", text, re.M)
    assert re.search(r"^one row +right  \(\d+ comparisons\)$", text, re.M)
    assert ("hint: dL/dw is what one gets by WeightGradientAveraged: The weight gradient is the mean over the batch; but the loss has "
            "averaged already.") in text.splitlines()
    assert text.count("hint") == 1


def test_two_mistakes_at_once_are_both_named(tmp_path):
    code, text = grade("linear", with_backward("linear", """
        def backward(self, gy, x, w):
            return (gy @ w, gy.T @ x / len(x), gy.mean(axis=0))[:len(self.inputs)]
        """), tmp_path)
    assert code == 1
    hints = re.findall(r"hint: (\S+) is what one gets by (\w+)", text)
    assert hints == [("dL/dw", "WeightGradientAveraged"), ("dL/db", "BiasGradientAveraged")]


def test_a_mistake_of_ones_own_gets_no_name(tmp_path):
    code, text = grade("relu", with_backward("relu", "def backward(self, gy, y):\n    return 3 * gy * (y > 0)"), tmp_path)
    assert code == 1
    assert "ratio 3)" in text
    assert "hint" not in text


def test_a_mistake_that_only_looks_like_a_listed_one_in_some_cases_gets_no_name(tmp_path):
    """Divided by 3, which is the size of the batch in most cases, not in all."""
    code, text = grade("linear", with_backward("linear", """
        def backward(self, gy, x, w):
            return (gy @ w, gy.T @ x / 3, gy.sum(axis=0))[:len(self.inputs)]
        """), tmp_path)
    assert code == 1
    assert "hint" not in text


@pytest.mark.parametrize(("backward", "message"), [
    ("def backward(self, gy, x, w):\n    return gy @ w, gy.T @ x",
     r"line 26, `return gy @ w, gy.T @ x`: backward returned 2 gradients for 3 inputs, x, w, b; one is wanted for each, in this order"),
    ("def backward(self, gy, x, w):\n    return gy @ w", "line 26, `return gy @ w`: backward returned 1 gradient for 3 inputs"),
    ("def backward(self, gy, x, w):\n    return gy @ w, x.T @ gy, gy.sum(axis=0)",
     r"line 26, .*: dL/dw has shape \(4, 5\), but w has shape \(5, 4\); a gradient is shaped like its input"),
    ("def backward(self, gy, x, w):\n    return gy @ w, None, gy.sum(axis=0)", "line 26, .*: dL/dw is NoneType, where an array of shape"),
    ("def backward(self, gy, x, w):\n    gx = gy @ w", "line 25, `def backward.*`: backward returned 1 gradient for 3 inputs"),
    ("def backward(self, gy, x, w):\n    gw = gy.T @ x\n    return gy @ w, gw.astype('f'), gy.sum(axis=0)",
     "line 27, .*: dL/dw is float32, but w is float64; a gradient has the dtype of its input"),
    ("def backward(self, gy, x, w):\n    gx = gy @ x\n    return gx, gy.T @ x, gy.sum(axis=0)", "line 26, `gx = gy @ x`: ValueError: mat"),
    ("def backward(self, gy, x, w):\n    gy *= 2\n    return gy @ w, gy.T @ x, gy.sum(axis=0)", "line 27, .*: backward changed gy, which"),
    ("def backward(self, gy, x, w):\n    x *= 2\n    return gy @ w, gy.T @ x, gy.sum(axis=0)", "line 27, .*: backward changed an input"),
    ("def backward(self, gy, x, w, b):\n    return gy @ w, gy.T @ x, gy.sum(axis=0)", "line 26, .*: TypeError: .*missing 1 required"),
    ("def backward(self, gy, x, w)\n    return gy @ w", r"line 25, `def backward\(self, gy, x, w\)`: SyntaxError: expected ':'"),
    ("def backward(self, gy, x, w):\n    return gy @ W", "line 26, `return gy @ W`: NameError: name 'W' is not defined"),
    ("def backward(self, gy, x, w):\n    raise SystemExit", "line 26, `raise SystemExit`: SystemExit: "),
    ("def derive(self, gy, x, w):\n    return gy @ w", r"exercise.py: its class Linear has no backward of its own"),
])
def test_a_file_that_cannot_be_graded_says_in_which_line(backward, message, tmp_path):
    text = with_backward("linear", backward)
    with pytest.raises(exercises.Unusable, match=message):
        grade("linear", text, tmp_path)


def test_a_changed_forward_is_noticed(tmp_path):
    text = solved("tanh").replace("y = xp_of(x).tanh(x)", "y = xp_of(x).tanh(2 * x)")
    with pytest.raises(exercises.Unusable, match="forward no longer gives the answer of tanh; only backward is to be changed"):
        grade("tanh", text, tmp_path)


def test_an_exercise_for_another_op_is_noticed(tmp_path):
    with pytest.raises(exercises.Unusable, match=r"there is no class Sigmoid\(Function\) in it; is it an exercise for another op\?"):
        grade("sigmoid", solved("tanh"), tmp_path)


# The command

def test_from_beginning_to_end(tmp_path, capfd):
    """Handed out, graded as it is, solved, graded again: each verdict by its exit code, the file never touched."""
    file = tmp_path / "mine.py"
    assert command("linear", "--out", file) == 0
    assert f"minicnn exercises linear --grade {file}" in capfd.readouterr().out
    assert f"minicnn exercises linear --grade {file}" in file.read_text()
    for text, code, said in [(file.read_text(), 2, "line 28, `raise NotImplementedError"), (solved("linear"), 0, "right in all 6 cases"),
                             (solved("linear").replace("gy, w)", "gy, 2 * w)"), 1, "(ratio 2)"),
                             ("print('by the way')\n" + solved("linear"), 0, "by the way"),
                             ("import os; os._exit(0)", 2, "does it leave Python?"),
                             ("", 2, "there is no class Linear"), ("input()", 2, "line 1, `input()`: EOFError"), ("\0", 2, "null bytes")]:
        file.write_text(text)
        assert command("linear", "--grade", file) == code
        out, err = capfd.readouterr()
        assert said in out + err
        assert out + err == out or code == 2
        assert "Traceback" not in out + err
        assert file.read_text() == text
    assert [p.name for p in tmp_path.iterdir()] == ["mine.py"]


@pytest.mark.parametrize("loop", ["while True: pass", "try:\n    while True: pass\nexcept BaseException: pass",
                                  "import time; time.sleep(1000)"])
def test_an_endless_loop_is_ended_and_its_line_named(loop, tmp_path, capfd):
    body = textwrap.indent(loop, "    ")
    file = written(tmp_path / "loop.py", with_backward("tanh", f"def backward(self, gy, y):\n{body}"))
    line = next(i for i, text in enumerate(pathlib.Path(file).read_text().splitlines(), 1) if "while" in text or "sleep" in text)
    assert command("tanh", "--grade", file, "--seconds", 3) == 2
    out, err = capfd.readouterr()
    assert re.search(rf"loop.py, line {line}, `.*`: still there after 3 seconds; an endless loop\?", out + err)


def test_what_is_there_already_is_not_overwritten(tmp_path, capsys):
    file = tmp_path / "mine.py"
    file.write_text("my work")
    assert command("linear", "--out", file) == 2
    assert "is there already, and stays as it is" in capsys.readouterr().err
    assert file.read_text() == "my work"


def test_without_a_name_every_op_has_one_line(capsys):
    assert command() == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[:len(OPS)]] == OPS


@pytest.mark.parametrize(("args", "message"), [
    (["lineer"], "there is no op 'lineer'; did you mean linear?"),
    (["linear", "--mistake", "TransposeForgoten"], "there is no mistake 'TransposeForgoten'; did you mean TransposeForgotten?"),
    (["linear", "--grade", "nowhere.py"], "there is no file nowhere.py"),
    (["linear", "--out", "/no/such/folder/mine.py"], "No such file or directory"),
])
def test_what_does_not_exist_is_said(args, message, capsys):
    assert command(*args) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert message in err


@pytest.mark.parametrize(("args", "message"), [
    (["linear", "--grade", "a.py", "--mistake"], "--grade goes with neither --out nor --mistake"), (["--out", "a.py"], "an OP is wanted"),
    (["linear", "--seconds", "0"], "--seconds is more than 0")])
def test_what_does_not_go_together_is_refused(args, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        command(*args)
    assert message in capsys.readouterr().err


def test_without_the_tests_an_op_can_be_handed_out_but_not_graded(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(anatomy, "TESTS", tmp_path)
    anatomy.definition_of.cache_clear()
    assert command("tanh", "--out", tmp_path / "mine.py") == 0
    for args in (["tanh", "--grade", tmp_path / "mine.py"], ["tanh", "--mistake"], []):
        assert command(*args) == 2
        assert "are in minicnn's tests, which are not installed with it; get its source" in capsys.readouterr().err


def test_a_nan_is_wrong(tmp_path):
    """It compares as false with everything, so a check the wrong way round would let it pass."""
    code, text = grade("tanh", with_backward("tanh", "def backward(self, gy, y):\n    return gy * np.nan"), tmp_path)
    assert code == 1
    assert "got nan" in text
    assert not exercises.alike(np.array([np.nan]), np.array([1.0]))
