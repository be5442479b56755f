"""The experiments of examples/experiments: each runs and can be resumed, the statistics are correct, and the README has the measured
numbers."""

import ast
import json
import math
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import minicnn as mc
from minicnn.examples.experiments import (
    augmentation,
    dropout_on_and_off,
    error_bars,
    experiment,
    lrn_on_and_off,
    momentum_and_decay,
    overlapping_pooling,
    relu_against_tanh,
)
from minicnn.examples.experiments.draw import draw

FOLDER = pathlib.Path(experiment.__file__).parent
ALL = [relu_against_tanh, lrn_on_and_off, overlapping_pooling, dropout_on_and_off, augmentation, momentum_and_decay]
README = (FOLDER / "README.md").read_text(encoding="utf-8")
each = pytest.mark.parametrize("module", ALL, ids=[module.EXPERIMENT.name for module in ALL])


# The statistics, on numbers that can be checked by hand

def test_mean_and_standard_error():
    assert error_bars.mean_and_error([2, 4, 4, 4, 5, 5, 7, 9]) == (5, pytest.approx(math.sqrt(32 / 7 / 8)))
    mean, error = error_bars.mean_and_error([3])
    assert mean == 3
    assert math.isnan(error)


def test_the_confidence_interval_uses_student_t():
    assert error_bars.confidence_interval([1, 2, 3]) == (pytest.approx(2 - 4.30 / math.sqrt(3)), pytest.approx(2 + 4.30 / math.sqrt(3)))
    assert error_bars.confidence_interval([0, 1]) == (pytest.approx(0.5 - 12.71 / 2), pytest.approx(0.5 + 12.71 / 2))
    assert error_bars.confidence_interval([7]) == (-math.inf, math.inf)
    many = [0, 1] * 50
    low, high = error_bars.confidence_interval(many)        # beyond the table its last t is used: slightly too wide, never too narrow
    assert high - low == pytest.approx(2 * 2.23 * error_bars.mean_and_error(many)[1])


def test_the_confidence_interval_contains_the_mean_in_95_of_100_experiments():
    rng = np.random.default_rng(0)
    contained = [low <= 0 <= high for low, high in (error_bars.confidence_interval(rng.standard_normal(4).tolist()) for _ in range(2000))]
    assert 0.93 < np.mean(contained) < 0.97


def test_pairing_removes_the_variation_between_seeds():
    a, b = [10.0, 20.0, 30.0], [9.0, 18.5, 29.5]
    assert error_bars.effects(a, b) == [1, 1.5, 0.5]
    assert error_bars.mean_and_error(error_bars.effects(a, b)) == (1, pytest.approx(0.5 / math.sqrt(3)))
    assert error_bars.effects([6, None, 8], [3, 5, None], ratio=True) == [2]


@pytest.mark.parametrize("values, no_effect, expected, text", [
    ([1.0, 1.1, 0.9], 0, None, "significant"),
    ([-1.0, -1.1, -0.9], 0, None, "significant, in the opposite direction"),
    ([1.0, -1.0, 0.5], 0, None, "not significant"),
    ([1.0, 1.1, 0.9], 1, None, "not significant"),
    ([2.0, 2.1, 1.9], 1, 2, "significant; the paper's 2 is inside the interval"),
    ([2.0, 2.1, 1.9], 1, 6, "significant; the paper's 6 is above the interval"),
    ([2.0, 2.1, 1.9], 0, 1.4, "significant; the paper's 1.4 is below the interval"),
    ([5.0], 0, 5, "undecided: one seed has no error bar"),
    ([], 0, 5, "undecided: no seed has a value for both")])
def test_verdict(values, no_effect, expected, text):
    assert error_bars.verdict(values, no_effect, expected) == text


def test_iterations_to_an_error():
    steps, errors = [0, 10, 20, 30], [90, 50, 30, 40]
    assert error_bars.iterations_to(50, steps, errors) == 10
    assert error_bars.iterations_to(40, steps, errors) == 15        # half way; that the error rises again later does not matter
    assert error_bars.iterations_to(95, steps, errors) == 0
    assert error_bars.iterations_to(29.9, steps, errors) is None    # never reached


def test_format_mean():
    assert experiment.format_mean([1.0, 2.0, 3.0]) == "2.00 +- 0.58"
    assert experiment.format_mean([100.0, 200.0]) == "150 +- 50"
    assert experiment.format_mean([4.0]) == "4.00"
    assert experiment.format_mean([4.0, None, 6.0]) == "5.00 +- 1.00 (2 of 3 seeds)"
    assert experiment.format_mean([None, None]) == "never"


def test_of_several_conditions_the_best_is_compared():
    runs = {"slow": [{"n": 5}, {"n": 7}], "fast": [{"n": 3}, {"n": 4}], "not always": [{"n": 1}, {"n": None}]}
    claim = experiment.Claim("n", lambda run: run["n"], "slow", ("slow", "fast", "not always"), "half", expected=2, ratio=True)
    result = experiment.compare(claim, runs)
    assert (result["larger"], result["smaller"]) == ("slow", "fast")
    assert result["effects"] == [1.6667, 1.75]
    assert result["compared"] == "slow / fast"
    assert result["here"] == "1.71 +- 0.04 (1.18, 2.24)"
    assert result["verdict"] == "significant; the paper's 2 is inside the interval"


# The conditions

@each
def test_it_is_short_and_states_the_claim_of_the_paper(module):
    source = (FOLDER / f"{module.EXPERIMENT.name}.py").read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 60
    docstring = ast.get_docstring(ast.parse(source))
    assert f"python examples/experiments/{module.EXPERIMENT.name}.py" in docstring
    assert f"[--num-seeds {module.EXPERIMENT.num_seeds}]" in docstring
    assert "The paper, section" in docstring
    assert module.__name__ == f"minicnn.examples.experiments.{module.EXPERIMENT.name}"


@each
def test_one_seed_gives_all_conditions_the_same_initial_weights(module):
    def initial_weights(condition, seed):
        mc.seed(seed)
        network = condition.network(10, 1, 28)
        mc.nn.init.kaiming_(network)
        return network.state_dict()

    one, *others = (initial_weights(condition, 3) for condition in module.CONDITIONS.values())
    for other in others:
        assert list(one) == list(other)
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])
    another = initial_weights(next(iter(module.CONDITIONS.values())), 4)
    assert any((one[name] != another[name]).any() for name in one)


def test_the_networks_differ_only_in_the_tested_layers():
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


@pytest.mark.parametrize("name", ["fashion-mnist", "photos"])
def test_augmentation_is_for_training_only(name):
    data = experiment.Data(name, 64)
    none, crops, colours = (c.augment(data) for c in augmentation.CONDITIONS.values())
    batches = [data.loader(data.training, transforms, batch_size=8) for transforms in (none, crops, colours)]
    plain, cropped, coloured = (next(batch.epoch(0))[0] for batch in batches)
    assert plain.shape == cropped.shape == coloured.shape == (8, data.channels, data.side, data.side)
    np.testing.assert_array_equal(plain, next(batches[0].epoch(1))[0])
    assert (cropped != next(batches[1].epoch(1))[0]).any()
    shift = (coloured - cropped).std(axis=(2, 3)) < 1e-4        # the same for every pixel of a channel of an image
    assert shift.all()
    assert (abs(coloured - cropped).max(axis=(1, 2, 3)) > 1e-3).any()


def test_a_network_with_nan_outputs_misclassifies_everything():
    data = experiment.Data("fashion-mnist", 32)
    network = experiment.small(len(data.classes), data.channels, data.side)
    network.fc8.bias.data[3] = np.nan
    with np.errstate(invalid="ignore"):
        assert experiment.error_and_loss(network, data.loader(data.test, data.center, batch_size=32)) == (100, None)


# The command line

def command(module, out, *more):
    return experiment.main(module.EXPERIMENT, ["--max-images", "32", "--epochs", "1", "--out", str(out), *more])


@each
def test_it_runs(module, tmp_path):
    seeds = 2 if module is dropout_on_and_off else 1
    done = subprocess.run([sys.executable, "-W", "error", FOLDER / f"{module.EXPERIMENT.name}.py", "--num-seeds", str(seeds),
                           "--max-images", "64", "--epochs", "1", "--out", tmp_path],
                          capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    record = json.loads((tmp_path / f"{module.EXPERIMENT.name}.json").read_text(encoding="utf-8"))
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
    assert (tmp_path / f"{module.EXPERIMENT.name}.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".png"]


@pytest.fixture
def no_figure(monkeypatch):
    """Draw no figures, which have tests of their own."""
    monkeypatch.setattr(experiment, "draw", lambda *_: None)


def numbers(path):
    record = json.loads(path.read_text(encoding="utf-8"))
    return record["results"], [{k: v for k, v in run.items() if k != "seconds"} for run in record["runs"]]


def test_a_resumed_experiment_has_the_same_numbers(tmp_path, monkeypatch, no_figure, capsys):
    name = "dropout_on_and_off.json"
    assert command(dropout_on_and_off, tmp_path / "whole", "--num-seeds", "2") == 0
    train, trained = experiment.train, []

    def interrupted(condition, *more):
        if len(trained) == 3:
            raise KeyboardInterrupt
        trained.append(condition)
        return train(condition, *more)

    monkeypatch.setattr(experiment, "train", interrupted)
    assert command(dropout_on_and_off, tmp_path / "cut", "--num-seeds", "2") == 3
    assert "the same command resumes from" in capsys.readouterr().err
    assert len(numbers(tmp_path / "cut" / name)[1]) == 3
    trained.clear()
    assert command(dropout_on_and_off, tmp_path / "cut", "--num-seeds", "2") == 0
    assert len(trained) == 1                        # only what was missing
    assert numbers(tmp_path / "cut" / name) == numbers(tmp_path / "whole" / name)
    trained.clear()
    assert command(dropout_on_and_off, tmp_path / "cut", "--num-seeds", "3") == 0
    assert len(trained) == 2                        # one more seed
    assert numbers(tmp_path / "cut" / name)[1][:4] == numbers(tmp_path / "whole" / name)[1]


def test_results_with_different_settings_are_not_mixed(tmp_path, no_figure, capsys):
    assert command(dropout_on_and_off, tmp_path, "--num-seeds", "1") == 0
    before = numbers(tmp_path / "dropout_on_and_off.json")
    assert command(dropout_on_and_off, tmp_path, "--num-seeds", "1", "--epochs", "2") == 2
    assert "has results for different epochs (this run: 2; the file: 1); choose another folder with --out" in capsys.readouterr().err
    assert command(dropout_on_and_off, tmp_path, "--num-seeds", "1", "--max-images", "64") == 2
    assert "has results for different images (this run: [64, 128]; the file: [32, 64])" in capsys.readouterr().err
    assert numbers(tmp_path / "dropout_on_and_off.json") == before
    (tmp_path / "dropout_on_and_off.json").write_text("{")
    assert command(dropout_on_and_off, tmp_path) == 2
    assert "is not the result of an experiment" in capsys.readouterr().err


@pytest.mark.parametrize("more, message", [(["--num-seeds", "0"], "must be a positive integer, got 0"),
                                        (["--data", "nowhere"], "nowhere: no such folder"),
                                        (["--max-images", "31"],
                                         "31 training images are fewer than a batch of 32; use a larger --max-images")])
def test_bad_input_gets_one_message(more, message, tmp_path, capsys):
    try:
        code = command(dropout_on_and_off, tmp_path, *more)
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert message in capsys.readouterr().err


# The figure

def test_the_figure_has_the_curves_and_the_pairs(tmp_path):
    def run(seed, level):
        errors = [90.0, level + seed, level - 10 + seed]
        return {"steps": [0, 5, 10], "train_error": errors, "test_error": [e + 5 for e in errors],
                "end": {"train_error": errors[-1], "test_error": errors[-1] + 5}}

    runs = {"without": [run(0, 30.0), run(1, 30.0), run(2, 30.0)], "dropout": [run(0, 40.0), run(1, 25.0), run(2, 40.0)]}
    tried = dropout_on_and_off.EXPERIMENT
    results = [experiment.compare(claim, runs) for claim in tried.claims]
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


# The README

@each
def test_the_readme_has_the_measured_numbers(module):
    path = FOLDER / "results" / f"{module.EXPERIMENT.name}.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    seeds = range(module.EXPERIMENT.num_seeds)
    done = {(run["condition"], run["seed"]): run for run in record["runs"]}
    runs = {name: [done[name, seed] for seed in seeds] for name in module.CONDITIONS}
    results = [experiment.compare(claim, runs) for claim in module.CLAIMS]
    assert results == record["results"]
    for line in experiment.tables(module.EXPERIMENT, runs, results):
        assert f"\n{line}\n" in README
    settings = record["settings"]
    assert (settings["epochs"], settings["data"]) == (module.EXPERIMENT.epochs, "fashion-mnist")
    assert settings["images"] == [module.EXPERIMENT.max_images, 2000]
    for text in (settings["machine"], *settings["versions"].values(), f"results/{module.EXPERIMENT.name}.png",
                 f"{module.EXPERIMENT.name}.py"):
        assert text in README
    assert (FOLDER / "results" / f"{module.EXPERIMENT.name}.png").stat().st_size < 60_000
