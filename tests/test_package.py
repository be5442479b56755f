"""The distribution: every folder with code is a package of it, every file that code reads is in it, and its name is its own."""

import pathlib
import re

import client

ROOT = pathlib.Path(__file__).parent.parent
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def packages_of(folder, prefix=()):
    """The folder and those in it that hold files, as names of packages; minicnn/examples, a link, is counted as examples/."""
    return {".".join((*prefix, *path.parent.relative_to(ROOT).parts)) for path in (ROOT / folder).rglob("*")
            if path.is_file() and not {"__pycache__", "examples"} & set(path.relative_to(ROOT).parts[1:])}


def test_every_folder_is_listed():
    listed = set(re.findall(r'"(minicnn[\w.]*)"', PROJECT.split("packages = [")[1].split("]")[0]))
    assert listed == packages_of("minicnn") | packages_of("examples", ("minicnn",))


def test_every_file_that_code_reads_is_listed():
    patterns = {name: re.findall(r'"([^"]+)"', line) for name, line in
                re.findall(r'"(minicnn[\w.]*)" = \[(.*)\]', PROJECT.split("[tool.setuptools.package-data]")[1].split("\n[")[0])}
    for path in (ROOT / "minicnn").rglob("*"):
        if path.is_file() and not {"__pycache__", "examples"} & set(path.relative_to(ROOT).parts) and path.suffix != ".py":
            package = ".".join(path.parent.relative_to(ROOT).parts)
            assert any(path.match(pattern) for pattern in patterns.get(package, [])), path


def test_the_name_on_the_package_index_is_not_that_of_another_project():
    assert 'name = "minicnn-alexnet"' in PROJECT
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "minicnn").rglob("*.py")]:
        assert not re.search(r"pip install [\"']?minicnn(?!-alexnet)\b", page.read_text(encoding="utf-8")), page


def test_a_users_file_runs(capsys):
    """CI also checks it with mypy --strict, against the installed wheel."""
    client.main()
    assert "comparisons" in capsys.readouterr().out
