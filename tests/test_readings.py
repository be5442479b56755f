"""The three short programs in examples/ to read first run as they are, and print what they promise."""

import ast
import functools
import pathlib
import re
import subprocess
import sys

import pytest

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"
READINGS = ["by_hand", "lenet_fashion", "why_topological_order"]


@functools.cache
def printed(name):
    """The lines that a program prints; run once, with warnings as errors."""
    done = subprocess.run([sys.executable, "-W", "error", EXAMPLES / f"{name}.py"], capture_output=True, text=True, timeout=300,
                          stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.parametrize("name", READINGS)
def test_it_is_short_and_has_a_docstring(name):
    source = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    assert len(source.splitlines()) < 60
    first = ast.get_docstring(ast.parse(source)).splitlines()[0]
    assert first.endswith(".")
    assert len(first) > 40


def test_gradients_by_hand_are_those_of_autograd():
    row = r"dL/d(\w\d): largest (\S+), by hand and by autograd differ by at most (\S+)"
    rows = [re.fullmatch(row, line).groups() for line in printed("by_hand")[:4]]
    assert [name for name, _, _ in rows] == ["w1", "b1", "w2", "b2"]
    for _, largest, difference in rows:
        assert float(largest) > 1e-3            # otherwise the comparison is empty
        assert float(difference) < 1e-5 * float(largest)


def test_gradients_by_hand_learn():
    steps = {int(n): (float(loss), float(percent)) for n, loss, percent in
             re.findall(r"step +(\d+) +loss (\S+) +test accuracy (\S+)%", "\n".join(printed("by_hand")))}
    assert list(steps) == [0, 100, 200, 300, 400, 500]
    assert steps[0][0] > 2
    assert steps[0][1] < 30                     # chance: 10 %
    assert steps[500][0] < 1
    assert steps[500][1] > 78


def test_lenet_learns():
    epochs = [(float(loss), float(percent)) for loss, percent in
              re.findall(r"epoch \d +loss (\S+) +test accuracy (\S+)%", "\n".join(printed("lenet_fashion")))]
    assert printed("lenet_fashion")[0] == "61,706 parameters, 8,000 training images"
    assert len(epochs) == 5
    assert [loss for loss, _ in epochs] == sorted((loss for loss, _ in epochs), reverse=True)
    assert epochs[-1][1] >= 85


def test_only_the_topological_order_is_right_and_quick():
    table = [[int(cell) for cell in line.split()] for line in printed("why_topological_order") if re.match(r" *\d", line)]
    assert [row[0] for row in table] == [1, 2, 3, 4, 8, 16]
    for n, true, early, early_visits, every, every_visits, ordered, ordered_visits, minicnn in table:
        assert true == every == ordered == minicnn == 5 ** n
        assert early == 5 * 2 ** (n - 1)        # every x but x0 has passed back only the first of its two gradients
        assert (early == true) == (n == 1)
        assert early_visits == ordered_visits == 3 * n + 1
        assert every_visits == 4 * 2 ** n - 3
