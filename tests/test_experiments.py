"""The experiments of examples/experiments: each runs, its statistics are right, it goes on where it was interrupted, and what its README
says is what was measured."""

import ast
import json
import math
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import minicnn as mc

sys.path.append(str(pathlib.Path(__file__).parents[1] / "examples" / "experiments"))
import augmentation
import dropout_on_and_off
import error_bars
import experiment
import lrn_on_and_off
import momentum_and_decay
import overlapping_pooling
import relu_against_tanh
from draw import draw

FOLDER = pathlib.Path(experiment.__file__).parent
ALL = [relu_against_tanh, lrn_on_and_off, overlapping_pooling, dropout_on_and_off, augmentation, momentum_and_decay]
README = (FOLDER / "README.md").read_text(encoding="utf-8")
each = pytest.mark.parametrize("module", ALL, ids=[module.__name__ for module in ALL])


# The statistics, on numbers that can be checked by hand.

def test_mean_and_standard_error():
    assert error_bars.mean_and_error([2, 4, 4, 4, 5, 5, 7, 9]) == (5, pytest.approx(math.sqrt(32 / 7 / 8)))
    mean, error = error_bars.mean_and_error([3])
    assert mean == 3
    assert math.isnan(error)


def test_interval_is_as_wide_as_t_says():
    assert error_bars.interval([1, 2, 3]) == (pytest.approx(2 - 4.30 / math.sqrt(3)), pytest.approx(2 + 4.30 / math.sqrt(3)))
    assert error_bars.interval([0, 1]) == (pytest.approx(0.5 - 12.71 / 2), pytest.approx(0.5 + 12.71 / 2))
    assert error_bars.interval([7]) == (-math.inf, math.inf)
    many = [0, 1] * 50
    low, high = error_bars.interval(many)                   # beyond the table its last t stands: a little too wide, never too narrow
    assert high - low == pytest.approx(2 * 2.23 * error_bars.mean_and_error(many)[1])


def test_the_interval_holds_the_mean_in_95_of_100_experiments():
    rng = np.random.default_rng(0)
    held = [low <= 0 <= high for low, high in (error_bars.interval(rng.standard_normal(4).tolist()) for _ in range(2000))]
    assert 0.93 < np.mean(held) < 0.97


def test_pairs_remove_what_a_seed_brings():
    a, b = [10.0, 20.0, 30.0], [9.0, 18.5, 29.5]
    assert error_bars.effects(a, b) == [1, 1.5, 0.5]
    assert error_bars.mean_and_error(error_bars.effects(a, b)) == (1, pytest.approx(0.5 / math.sqrt(3)))
    assert error_bars.effects([6, None, 8], [3, 5, None], ratio=True) == [2]


@pytest.mark.parametrize("values, nothing, paper, says", [
    ([1.0, 1.1, 0.9], 0, None, "seen"),
    ([-1.0, -1.1, -0.9], 0, None, "the opposite is seen"),
    ([1.0, -1.0, 0.5], 0, None, "not seen beyond the error bars"),
    ([1.0, 1.1, 0.9], 1, None, "not seen beyond the error bars"),
    ([2.0, 2.1, 1.9], 1, 2, "seen; the paper's 2 is inside them"),
    ([2.0, 2.1, 1.9], 1, 6, "seen; the paper's 6 is above them"),
    ([2.0, 2.1, 1.9], 0, 1.4, "seen; the paper's 1.4 is below them"),
    ([5.0], 0, 5, "undecided: one seed has no error bar"),
    ([], 0, 5, "undecided: no seed has a number for both")])
def test_verdict(values, nothing, paper, says):
    assert error_bars.verdict(values, nothing, paper) == says


def test_iterations_to_an_error():
    steps, errors = [0, 10, 20, 30], [90, 50, 30, 40]
    assert error_bars.iterations_to(50, steps, errors) == 10
    assert error_bars.iterations_to(40, steps, errors) == 15        # half way; that it comes back later does not matter
    assert error_bars.iterations_to(95, steps, errors) == 0
    assert error_bars.iterations_to(29.9, steps, errors) is None    # never reached


def test_numbers_as_they_are_shown():
    assert experiment.shown([1.0, 2.0, 3.0]) == "2.00 +- 0.58"
    assert experiment.shown([100.0, 200.0]) == "150 +- 50"
    assert experiment.shown([4.0]) == "4.00"
    assert experiment.shown([4.0, None, 6.0]) == "5.00 +- 1.00 (2 of 3 seeds)"
    assert experiment.shown([None, None]) == "never"


def test_the_fastest_of_several_conditions_stands_for_them():
    runs = {"slow": [{"n": 5}, {"n": 7}], "fast": [{"n": 3}, {"n": 4}], "not always": [{"n": 1}, {"n": None}]}
    claim = experiment.Claim("n", lambda run: run["n"], "slow", ("slow", "fast", "not always"), "half", expect=2, ratio=True)
    result = experiment.compared(claim, runs)
    assert (result["larger"], result["smaller"]) == ("slow", "fast")
    assert result["effects"] == [1.6667, 1.75]
    assert result["compared"] == "slow / fast"
    assert result["here"] == "1.71 +- 0.04 (1.18, 2.24)"
    assert result["verdict"] == "seen; the paper's 2 is inside them"


# The conditions.

@each
def test_it_is_short_and_says_what_the_paper_claims(module):
    source = (FOLDER / f"{module.__name__}.py").read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 60
    about = ast.get_docstring(ast.parse(source))
    assert f"python examples/experiments/{module.__name__}.py" in about
    assert f"[--seeds {module.EXPERIMENT.seeds}]" in about
    assert "The paper, section" in about
    assert module.EXPERIMENT.name == module.__name__


@each
def test_one_seed_gives_all_conditions_the_same_first_weights(module):
    def first(condition, seed):
        mc.seed(seed)
        network = condition.network(10, 1, 28)
        mc.init.he(network)
        return network.state_dict()

    one, *others = (first(condition, 3) for condition in module.CONDITIONS.values())
    for other in others:
        assert list(one) == list(other)
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])
    another = first(next(iter(module.CONDITIONS.values())), 4)
    assert any((one[name] != another[name]).any() for name in one)


def test_the_networks_differ_in_what_they_should():
    def layers(module, name):
        return [repr(layer) for layer in module.CONDITIONS[name].network(10, 1, 28)]

    without, lrn = layers(lrn_on_and_off, "without"), layers(lrn_on_and_off, "LRN")
    assert [layer for layer in lrn if not layer.startswith("LocalResponseNorm")] == without
    assert len(lrn) == len(without) + 2
    without, dropout = layers(dropout_on_and_off, "without"), layers(dropout_on_and_off, "dropout")
    assert [layer for layer in dropout if not layer.startswith("Dropout")] == without
    assert len(dropout) == len(without) + 2
    two, three = layers(overlapping_pooling, "2 x 2"), layers(overlapping_pooling, "3 x 3")
    assert [a.split("(")[0] for a, b in zip(two, three, strict=True) if a != b] == ["MaxPool2d"] * 3
    tanh, relu = layers(relu_against_tanh, "tanh, rate 0.01"), layers(relu_against_tanh, "ReLU, rate 0.01")
    assert [layer.replace("Tanh", "ReLU") for layer in tanh] == relu
    assert relu != tanh


@pytest.mark.parametrize("where", ["fashion-mnist", "photos"])
def test_augmentation_is_for_training_only(where):
    data = experiment.Data(where, 64)
    none, crops, colours = (c.augment(data) for c in augmentation.CONDITIONS.values())
    batches = [data.loader(data.training, steps, batch_size=8) for steps in (none, crops, colours)]
    plain, cropped, coloured = (next(batch.epoch(0))[0] for batch in batches)
    assert plain.shape == cropped.shape == coloured.shape == (8, data.channels, data.side, data.side)
    np.testing.assert_array_equal(plain, next(batches[0].epoch(1))[0])
    assert (cropped != next(batches[1].epoch(1))[0]).any()
    shift = (coloured - cropped).std(axis=(2, 3)) < 1e-4        # the same for every pixel of an image's channel
    assert shift.all()
    assert (abs(coloured - cropped).max(axis=(1, 2, 3)) > 1e-3).any()


# The command.

def command(module, out, *more):
    return experiment.main(module.EXPERIMENT, ["--limit", "32", "--epochs", "1", "--out", str(out), *more])


@each
def test_it_runs(module, tmp_path):
    seeds = 2 if module is dropout_on_and_off else 1
    done = subprocess.run([sys.executable, "-W", "error", FOLDER / f"{module.__name__}.py", "--seeds", str(seeds), "--limit", "64",
                           "--epochs", "1", "--out", tmp_path], capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    record = json.loads((tmp_path / f"{module.__name__}.json").read_text(encoding="utf-8"))
    assert [(run["condition"], run["seed"]) for run in record["runs"]] == [(c, s) for s in range(seeds) for c in module.CONDITIONS]
    assert record["settings"]["images"] == [64, 128]
    for run in record["runs"]:
        assert run["steps"] == [0, 1, 2]
        assert all(0 <= error <= 100 for which in ("train_error", "test_error") for error in [*run[which], run["end"][which]])
    first = {run["condition"]: run["train_error"][0] for run in record["runs"] if run["seed"] == 0}
    assert len(set(first.values())) <= (2 if module is relu_against_tanh else 3)
    for claim, result in zip(module.CLAIMS, record["results"], strict=True):
        row = next(line for line in done.stdout.splitlines() if line.startswith(f"| {claim.what}: {result['compared']}"))
        assert claim.paper in row
        assert result["here"] in row
        assert result["verdict"] in row
        if seeds == 1:
            assert result["verdict"].startswith("undecided")
    assert (tmp_path / f"{module.__name__}.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".png"]


@pytest.fixture
def no_figure(monkeypatch):
    """Figures have tests of their own."""
    monkeypatch.setattr(experiment, "draw", lambda *_: None)


def numbers(path):
    record = json.loads(path.read_text(encoding="utf-8"))
    return record["results"], [{k: v for k, v in run.items() if k != "seconds"} for run in record["runs"]]


def test_an_interrupted_experiment_goes_on_with_the_same_numbers(tmp_path, monkeypatch, no_figure, capsys):
    name = "dropout_on_and_off.json"
    assert command(dropout_on_and_off, tmp_path / "whole", "--seeds", "2") == 0
    train, trained = experiment.train, []

    def interrupted(condition, *more):
        if len(trained) == 3:
            raise KeyboardInterrupt
        trained.append(condition)
        return train(condition, *more)

    monkeypatch.setattr(experiment, "train", interrupted)
    assert command(dropout_on_and_off, tmp_path / "cut", "--seeds", "2") == 3
    assert "the same command goes on" in capsys.readouterr().err
    assert len(numbers(tmp_path / "cut" / name)[1]) == 3
    trained.clear()
    assert command(dropout_on_and_off, tmp_path / "cut", "--seeds", "2") == 0
    assert len(trained) == 1                        # only what was missing
    assert numbers(tmp_path / "cut" / name) == numbers(tmp_path / "whole" / name)
    trained.clear()
    assert command(dropout_on_and_off, tmp_path / "cut", "--seeds", "3") == 0
    assert len(trained) == 2                        # one more seed
    assert numbers(tmp_path / "cut" / name)[1][:4] == numbers(tmp_path / "whole" / name)[1]


def test_results_of_other_settings_are_not_mixed(tmp_path, no_figure, capsys):
    assert command(dropout_on_and_off, tmp_path, "--seeds", "1") == 0
    before = numbers(tmp_path / "dropout_on_and_off.json")
    assert command(dropout_on_and_off, tmp_path, "--seeds", "1", "--epochs", "2") == 2
    assert "has results of other epochs (1, not 2); name another folder with --out" in capsys.readouterr().err
    assert command(dropout_on_and_off, tmp_path, "--seeds", "1", "--limit", "64") == 2
    assert "has results of other images ([32, 64], not [64, 128])" in capsys.readouterr().err
    assert numbers(tmp_path / "dropout_on_and_off.json") == before
    (tmp_path / "dropout_on_and_off.json").write_text("{")
    assert command(dropout_on_and_off, tmp_path) == 2
    assert "is not the result of an experiment" in capsys.readouterr().err


@pytest.mark.parametrize("more, says", [(["--seeds", "0"], "0 is not a positive whole number"),
                                        (["--data", "nowhere"], "nowhere: no such folder"),
                                        (["--limit", "31"], "31 training images make no batch of 32; give a larger --limit")])
def test_bad_input_gets_one_message(more, says, tmp_path, capsys):
    try:
        code = command(dropout_on_and_off, tmp_path, *more)
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert says in capsys.readouterr().err


# The figure.

def test_the_figure_has_the_curves_and_the_pairs(tmp_path):
    def run(seed, level):
        errors = [90.0, level + seed, level - 10 + seed]
        return {"steps": [0, 5, 10], "train_error": errors, "test_error": [e + 5 for e in errors],
                "end": {"train_error": errors[-1], "test_error": errors[-1] + 5}}

    runs = {"without": [run(0, 30.0), run(1, 30.0), run(2, 30.0)], "dropout": [run(0, 40.0), run(1, 25.0), run(2, 40.0)]}
    tried = dropout_on_and_off.EXPERIMENT
    results = [experiment.compared(claim, runs) for claim in tried.claims]
    curves, *panels = draw(tried, runs, results, tmp_path / "figure.png").axes
    lines = {line.get_label(): line for line in curves.lines}
    np.testing.assert_allclose(lines["without, training"].get_ydata(), [90, 31, 21])
    np.testing.assert_allclose(lines["without, test"].get_ydata(), [95, 36, 26])
    np.testing.assert_allclose(lines["dropout, training"].get_ydata(), [90, 36, 26])
    np.testing.assert_allclose(lines["dropout, training"].get_xdata(), [0, 5, 10])
    band = curves.collections[0].get_paths()[0].vertices[:, 1]          # without, test: 36 +- 1 / sqrt(3) in the middle
    assert any(np.isclose(band, 36 + 1 / math.sqrt(3)))
    assert len(panels) == len(results) == 3
    assert "paper: roughly 2 times" in panels[2].get_title()
    assert results[2]["here"] in panels[2].get_title()
    reached = results[2]["values"]                                      # of dropout and without, in the order of the claim
    assert reached["without"] == [10, None, None]
    assert reached["dropout"] == [None, pytest.approx(5 + 5 * 6 / 10), None]
    joined = [line.get_ydata().tolist() for line in panels[1].lines if line.get_linestyle() == "-" and len(line.get_ydata()) == 2]
    assert joined == [[25, 35], [26, 21], [27, 37]]                     # test error, %: without, dropout; a line for each seed


# The README.

@each
def test_the_readme_says_what_was_measured(module):
    path = FOLDER / "results" / f"{module.__name__}.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    seeds = range(module.EXPERIMENT.seeds)
    done = {(run["condition"], run["seed"]): run for run in record["runs"]}
    runs = {name: [done[name, seed] for seed in seeds] for name in module.CONDITIONS}
    results = [experiment.compared(claim, runs) for claim in module.CLAIMS]
    assert results == record["results"]
    for line in experiment.tables(module.EXPERIMENT, runs, results):
        assert f"\n{line}\n" in README
    settings = record["settings"]
    assert (settings["epochs"], settings["data"]) == (module.EXPERIMENT.epochs, "fashion-mnist")
    assert settings["images"] == [module.EXPERIMENT.limit, 2000]
    for what in (settings["machine"], *settings["versions"].values(), f"results/{module.__name__}.png", f"{module.__name__}.py"):
        assert what in README
    assert (FOLDER / "results" / f"{module.__name__}.png").stat().st_size < 60_000
