"""The figure of an experiment: the learning curves of each condition, and beside them the pairs of values that are compared."""

import io
import os
from typing import Any

import numpy as np
from PIL import Image

from minicnn.examples.experiments.error_bars import mean_and_error
from minicnn.text import pluralize
from minicnn.visualize.figures import figure_class

NAMES = {"train_error": "training error, %", "test_error": "test error, %"}
LINES = {"train_error": "--", "test_error": "-"}


def draw(experiment: Any, runs: dict[str, list[Any]], results: list[dict[str, Any]], path: str | os.PathLike[str]) -> Any:
    """Write the figure as a PNG file; returns the matplotlib figure.

    Args:
        experiment: the Experiment.
        runs: {condition: [run of each seed]}.
        results: of each claim, as `experiment.compare` returns them.
        path: the file.
    """
    figure = figure_class()(figsize=(4.6 + 2.9 * len(results), 3.9), layout="constrained")
    curves, *panels = figure.subplots(1, 1 + len(results), squeeze=False, width_ratios=[1.7, *[1] * len(results)])[0]
    colours = {name: f"C{i}" for i, name in enumerate(runs)}
    draw_curves(curves, experiment, runs, colours)
    for axes, claim, result in zip(panels, experiment.claims, results, strict=True):
        draw_pairs(axes, claim, result, colours)
    seeds = pluralize(len(next(iter(runs.values()))), "seed")
    figure.suptitle(f"{experiment.title} ({seeds}; bars and bands: one standard error)", fontsize=10)
    png = io.BytesIO()
    figure.savefig(png, dpi=90, format="png")
    Image.open(png).convert("RGB").quantize(256).save(path, optimize=True)      # 256 colours: half the bytes
    return figure


def draw_curves(axes: Any, experiment: Any, runs: dict[str, list[Any]], colours: dict[str, str]) -> None:
    """The mean over the seeds, with a band of one standard error to each side."""
    several = len(experiment.curves) > 1
    for which in experiment.curves:
        for name, of_seeds in runs.items():
            steps = of_seeds[0]["steps"]
            mean, error = np.array([mean_and_error(values) for values in zip(*(run[which] for run in of_seeds), strict=True)]).T
            label = f"{name}, {NAMES[which].partition(' ')[0]}" if several else name
            axes.plot(steps, mean, LINES[which] if several else "-", color=colours[name], linewidth=1.3, label=label)
            if len(of_seeds) > 1:
                axes.fill_between(steps, mean - error, mean + error, color=colours[name], alpha=0.15, linewidth=0)
    for level in experiment.levels:
        axes.axhline(level, color="0.5", linestyle=":", linewidth=1)
    axes.set_ylim(*experiment.y_range)
    axes.set_xlabel("iterations")
    axes.set_ylabel("error, %" if several else NAMES[experiment.curves[0]])
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def draw_pairs(axes: Any, claim: Any, result: dict[str, Any], colours: dict[str, str]) -> None:
    """Two columns, one for each condition; a thin line joins the values of the same seed."""
    names = [result["larger"], result["smaller"]]
    pairs = [(a, b) for a, b in zip(*(result["values"][name] for name in names), strict=True) if a is not None and b is not None]
    for pair in pairs:
        axes.plot([0, 1], pair, "o-", color="0.65", markersize=3, linewidth=0.8)
    for x, name in enumerate(names):
        values = [v for v in result["values"][name] if v is not None]
        if values:
            mean, error = mean_and_error(values)
            axes.errorbar(x + (0.15 if x else -0.15), mean, None if np.isnan(error) else error, fmt="s", color=colours[name], capsize=4)
    axes.set_xlim(-0.5, 1.5)
    axes.set_xticks([0, 1], [name.replace(", ", ",\n") for name in names], fontsize=8)
    low, high = axes.get_ylim()
    margin = max(4 - (high - low), 0) / 2                           # at least 4 units high, so that a small difference looks small
    axes.set_ylim(*(0, 1.1 * high) if claim.ratio else (low - margin, high + margin))
    axes.set_title(f"{claim.what}\npaper: {claim.paper}\nhere, left {'/' if claim.ratio else '-'} right: {result['here']}", fontsize=8)
    axes.grid(alpha=0.3, axis="y")
