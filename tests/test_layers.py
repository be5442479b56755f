"""The layers of the package: imports point down only, and the check that says so notices an import that points up."""

import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent


def lint_imports(folder):
    """(exit code, output) of import-linter for the package in this folder, with this checkout's contracts."""
    code = "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"
    done = subprocess.run([sys.executable, "-c", code, "--no-cache"], cwd=folder, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def copy(tmp_path):
    """A copy of the package, with the files of examples/ in the place of the link to it, as in an installed minicnn."""
    shutil.copytree(ROOT / "minicnn", tmp_path / "minicnn", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_imports_point_down(copy):
    code, output = lint_imports(copy)
    assert code == 0, output
    assert "4 kept, 0 broken" in output


@pytest.mark.parametrize(("file", "line", "complaint"), [
    ("tensor.py", "from minicnn.autograd import Function", "minicnn.tensor is not allowed to import minicnn.autograd"),
    ("optim.py", "from minicnn.train.log import read_log", "minicnn.optim is not allowed to import minicnn.train"),
    ("data/loader.py", "from minicnn.examples.alexnet import alexnet", "minicnn.data is not allowed to import minicnn.examples"),
    ("backend/arrays.py", "from minicnn.backend.threads import num_threads", "minicnn.backend.arrays is not allowed to import"),
    ("data/datasets/files.py", "from minicnn.data.datasets.folder import ImageFolder", "No cycles are allowed in minicnn.data.datasets"),
    ("train/log.py", "import minicnn", "minicnn.train.log is not allowed to import minicnn")])
def test_an_import_that_points_up_is_noticed(copy, file, line, complaint):
    with open(copy / "minicnn" / file, "a", encoding="utf-8") as source:
        source.write(f"\n{line}  # noqa\n")
    code, output = lint_imports(copy)
    assert code == 1
    assert complaint in output
