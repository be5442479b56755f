"""Anomaly detection reports the user's line, also where the user's program is one of the examples. (The rest of it: test_monitor.py.)"""

import os

import pytest

import minicnn as mc
from minicnn import nn, ops
from minicnn.inspect import anomaly
from minicnn.inspect.anomaly import AnomalyError, detect_anomaly

PROGRAM = "def program(model, x):\n    y = model(x)\n    return ops.log(y)\n"


def program_in(folder):
    """The function `program`, as if it were in a file of this folder; the file's name."""
    file, names = os.path.join(folder, "program.py"), {"ops": ops}
    exec(compile(PROGRAM, file, "exec"), names)
    return names["program"], file


@pytest.mark.parametrize("layout", ["checkout", "wheel", "experiment in a wheel"])
def test_a_line_in_the_examples_is_the_users_line(layout, tmp_path):
    folder = {"checkout": tmp_path / "examples", "wheel": anomaly.PACKAGE + "examples",
              "experiment in a wheel": os.path.join(anomaly.PACKAGE + "examples", "experiments")}[layout]
    program, file = program_in(folder)
    model = nn.Sequential(relu=nn.ReLU())
    with pytest.raises(AnomalyError) as caught, detect_anomaly(model):
        program(model, mc.Tensor([0.0]))
    assert (caught.value.file, caught.value.line) == (file, 3)
    with pytest.raises(AnomalyError) as caught, detect_anomaly(model):
        program(nn.Sequential(exp=nn.Sequential(overflow=Overflow())), mc.Tensor([1000.0]))
    assert caught.value.file == __file__                        # the user's module called the op, not the example


def test_the_rest_of_the_package_is_not_the_users(tmp_path):
    program, _ = program_in(anomaly.PACKAGE + "train")
    with pytest.raises(AnomalyError) as caught, detect_anomaly():
        program(nn.ReLU(), mc.Tensor([0.0]))
    assert caught.value.file == __file__


class Overflow(nn.Module):
    def forward(self, x):
        return ops.exp(x)
