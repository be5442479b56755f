"""The log of a run as a drawing (SVG): loss and accuracy over the steps. Colours come from the page's style."""

import math

import numpy as np

WIDTH, HEIGHT = 560, 250                            # units of the drawing
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 26, 34           # margins for the axes' numbers
POINTS = 150                                        # of a training curve: means over neighbouring steps


def curves(records):
    """[svg, svg]: of the loss and of the accuracy. `records` as read_log gives them; [] where there are no steps."""
    train = [r for r in records if r["kind"] == "train"]
    val = [r for r in records if r["kind"] == "val"]
    if not train:
        return []
    last = max([r["step"] for r in train + val])
    losses = [loss for _, loss in points(train + val, "loss") if math.isfinite(loss)]
    top = (float(np.quantile(losses, 0.995)) * 1.05 if losses else 0) or 1.0        # one spike does not flatten the rest
    loss = [("train", "training", means(train, "loss")), ("val", "test", points(val, "loss"))]
    accuracy = [("train", "training, top-1", means(train, "top1")), ("val", "test, top-1", points(val, "top1")),
                ("five", "test, top-5", points(val, "top5"))]
    return [drawing("cross-entropy loss", last, top, loss), drawing("accuracy, %", last, 100.0, accuracy)]


def points(records, name):
    """[(step, number), ...]"""
    return [(r["step"], r[name]) for r in records if r.get(name) is not None]


def means(records, name):
    """[(step, mean), ...] over neighbouring records, about POINTS of them."""
    found = points(records, name)
    width = max(1, len(found) // POINTS)
    return [tuple(np.mean(found[i:i + width], axis=0)) for i in range(0, len(found), width)]


def drawing(title, last, top, lines):
    """Axes from 0 to `last` steps and from 0 to `top`, and lines: [(class of the style, name, [(x, y), ...]), ...]."""
    def x(step):
        return LEFT + (WIDTH - LEFT - RIGHT) * step / max(last, 1)

    def y(number):
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(number, top) / top

    out = [f'<svg class="curves" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title} over the steps of the training" '
           f'data-left="{LEFT}" data-right="{WIDTH - RIGHT}" data-last="{last}">']
    for number in ticks(top):
        out.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(number):.1f}" y2="{y(number):.1f}"/>'
                   f'<text class="tick" x="{LEFT - 6}" y="{y(number) + 4:.1f}" text-anchor="end">{number:g}</text>')
    for number in ticks(last):
        if number == int(number):               # of steps there are no halves
            out.append(f'<text class="tick" x="{x(number):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{number:,.0f}</text>')
    out.append(f'<text class="tick" x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" text-anchor="end">steps</text>'
               f'<text class="name" x="{LEFT}" y="14">{title}</text>')
    place = LEFT + 150
    for style, name, line in lines:
        if not line:
            continue
        path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in line)
        out.append(f'<polyline class="{style}" points="{path}"/>')
        if style != "train":
            out += [f'<circle class="{style}" cx="{x(a):.1f}" cy="{y(b):.1f}" r="2.5"/>' for a, b in line]
        out.append(f'<line class="{style}" x1="{place}" x2="{place + 16}" y1="10" y2="10"/>'
                   f'<text class="tick" x="{place + 21}" y="14">{name}</text>')
        place += 30 + 7 * len(name)
    out.append(f'<line class="now" x1="{x(last):.1f}" x2="{x(last):.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/></svg>')
    return "".join(out)


def ticks(top):
    """About five round numbers from 0 to `top`."""
    step = 10.0 ** math.floor(math.log10(top / 4)) if top > 0 else 1.0
    step *= next(factor for factor in (1, 2, 5, 10) if top / (step * factor) <= 6)
    return [step * i for i in range(int(top / step + 1e-9) + 1)]
