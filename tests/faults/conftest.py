"""The program to interrupt, and an uninterrupted run to compare with."""

import os
import pathlib
import subprocess
import sys

import pytest
from program import ROOT, SHORT, STEPS, Program

from minicnn.train.checkpoint_manager import load_latest
from minicnn.train.log import read_log

posix = pytest.mark.skipif(os.name != "posix", reason="needs fork and POSIX signals")


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
    """An uninterrupted run, started as a user starts it: (contents of its newest checkpoint, records of its log)."""
    out = tmp_path_factory.mktemp("straight") / "run"
    command = [sys.executable, "-W", "error", ROOT / "examples" / "train_alexnet.py", *SHORT, "--max-steps", str(STEPS), "--out", out]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    return load_latest(out)[1], read_log(out / "log.jsonl")
