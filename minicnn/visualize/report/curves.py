"""Loss and accuracy over the steps of a run, as SVG. Colours come from the page's style sheet."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

WIDTH, HEIGHT = 560, 250                            # units of the drawing
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 26, 34           # margins for the axes' numbers
POINTS = 150                                        # of a training curve: means over neighbouring steps

Line = list[tuple[float, float]]                    # (step, value), ...


def curves(records: Sequence[dict[str, Any]]) -> list[str]:
    """Two SVG texts, of the loss and of the accuracy; [] if no step is in the log. `records` as `read_log` returns them."""
    train = [r for r in records if r["kind"] == "train"]
    val = [r for r in records if r["kind"] == "val"]
    if not train:
        return []
    last = max([r["step"] for r in train + val])
    losses = [loss for _, loss in points(train + val, "loss") if math.isfinite(loss)]
    top = (float(np.quantile(losses, 0.995)) * 1.05 if losses else 0) or 1.0        # one spike does not flatten the rest
    loss = [("train", "training", means(train, "loss")), ("val", "test", points(val, "loss"))]
    accuracy = [("train", "training, top-1", means(train, "top1")), ("val", "test, top-1", points(val, "top1")),
                ("top5", "test, top-5", points(val, "top5"))]
    return [chart("cross-entropy loss", last, top, loss), chart("accuracy, %", last, 100.0, accuracy)]


def points(records: Sequence[dict[str, Any]], name: str) -> Line:
    """[(step, value), ...] of the records that have this value."""
    return [(r["step"], r[name]) for r in records if r.get(name) is not None]


def means(records: Sequence[dict[str, Any]], name: str) -> Line:
    """[(step, mean), ...] over neighbouring records, about POINTS of them."""
    found = points(records, name)
    width = max(1, len(found) // POINTS)
    return [tuple(np.mean(found[i:i + width], axis=0)) for i in range(0, len(found), width)]


def chart(title: str, last: int, top: float, lines: Sequence[tuple[str, str, Line]]) -> str:
    """SVG axes from 0 to `last` steps and from 0 to `top`, and lines: (CSS class, name in the legend, points)."""
    def x(step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * step / max(last, 1)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(value, top) / top

    out = [f'<svg class="curves" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title} over the steps of the training" '
           f'data-left="{LEFT}" data-right="{WIDTH - RIGHT}" data-last="{last}">']
    for tick in ticks(top):
        out.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
                   f'<text class="tick" x="{LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in ticks(last):
        if tick == int(tick):                   # steps are whole numbers
            out.append(f'<text class="tick" x="{x(tick):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{tick:,.0f}</text>')
    out.append(f'<text class="tick" x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" text-anchor="end">steps</text>'
               f'<text class="name" x="{LEFT}" y="14">{title}</text>')
    legend_x = LEFT + 150
    for css_class, name, line in lines:
        if not line:
            continue
        path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in line)
        out.append(f'<polyline class="{css_class}" points="{path}"/>')
        if css_class != "train":
            out += [f'<circle class="{css_class}" cx="{x(a):.1f}" cy="{y(b):.1f}" r="2.5"/>' for a, b in line]
        out.append(f'<line class="{css_class}" x1="{legend_x}" x2="{legend_x + 16}" y1="10" y2="10"/>'
                   f'<text class="tick" x="{legend_x + 21}" y="14">{name}</text>')
        legend_x += 30 + 7 * len(name)
    out.append(f'<line class="cursor" x1="{x(last):.1f}" x2="{x(last):.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/></svg>')
    return "".join(out)


def ticks(top: float) -> list[float]:
    """About five round numbers from 0 to `top`."""
    step = 10.0 ** math.floor(math.log10(top / 4)) if top > 0 else 1.0
    step *= next(factor for factor in (1, 2, 5, 10) if top / (step * factor) <= 6)
    return [step * i for i in range(int(top / step + 1e-9) + 1)]
