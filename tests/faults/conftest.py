"""The program to strike, and the run that nobody struck."""

import os
import pathlib
import subprocess
import sys

import pytest
from program import ROOT, SHORT, STEPS, Program

from minicnn.keeper import load_newest
from minicnn.study.log import read_log

posix = pytest.mark.skipif(os.name != "posix", reason="the program is forked, and POSIX signals strike it")


def pytest_collection_modifyitems(items):
    here = pathlib.Path(__file__).parent
    for item in items:
        if here in item.path.parents and "program" in item.fixturenames:
            item.add_marker(posix)


@pytest.fixture(scope="session")
def program(tmp_path_factory):
    program = Program(tmp_path_factory.mktemp("program") / "user")
    yield program
    program.close()


@pytest.fixture(scope="session")
def straight(tmp_path_factory):
    """A run that nothing happened to, by the program as a user starts it: (newest checkpoint's contents, records of its log)."""
    out = tmp_path_factory.mktemp("straight") / "run"
    command = [sys.executable, "-W", "error", ROOT / "examples" / "train_alexnet.py", *SHORT, "--steps", str(STEPS), "--out", out]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    return load_newest(out)[1], read_log(out / "log.jsonl")


@pytest.fixture
def parts(tmp_path, program):
    """A run that was begun: four of the steps."""
    result = program(*SHORT, "--steps", 4, "--out", "run", cwd=tmp_path)
    assert result.code == 0, result.err
    return tmp_path / "run"
