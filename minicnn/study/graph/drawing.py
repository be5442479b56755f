"""A graph as SVG: a box for each op, small ones beside it for its parameters, and lines from answers to inputs.

Letters are of one width, so a text's size is known before it is drawn. Colours follow the reader's light or dark mode.
"""

import html
import math
import re
import unicodedata

from minicnn.study.graph.layout import Box, layout
from minicnn.study.trace import cut, readable

LARGE, SMALL = 13, 11.5                 # units: of the letters of a box's first line, and of the others
WIDE = 0.615                            # of a letter's height is its width: a little more than any usual font of one width has
LINE, PAD = 16, 8                       # units: from line to line; from the text to the frame
SIDE = 20                               # from an op's box to the boxes of its parameters
MARGIN, HEAD = 18, 58                   # around all of it; above it, for the title and what the colours mean
LONGEST = 44                            # letters of a name; of a longer one the end is shown

MEANING = {"input": "input", "learns": "op with parameters", "op": "op", "parameter": "parameter", "leaf": "leaf", "constant": "constant"}
STYLE = """
.mc-graph { font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", "Liberation Mono", monospace }
.mc-graph .paper { fill: #ffffff } .mc-graph text { fill: #1d2127; font-size: 11.5px; white-space: pre }
.mc-graph text.name { font-size: 13px; font-weight: 600 } .mc-graph text.dim { fill: #59626e }
.mc-graph .line { fill: none; stroke: #7b8694; stroke-width: 1.4 } .mc-graph .tip { fill: #7b8694 }
.mc-graph .without { stroke-dasharray: 4 3 }
.mc-graph .box { fill: #f1f3f6; stroke: #a3adba } .mc-graph .learns .box { fill: #dfebfb; stroke: #4d82c4 }
.mc-graph .input .box { fill: #e0f3e4; stroke: #47995c } .mc-graph .constant .box { fill: #ffffff; stroke: #a3adba }
.mc-graph .parameter .box, .mc-graph .leaf .box { fill: #fdf1d8; stroke: #c4952f }
@media (prefers-color-scheme: dark) {
.mc-graph .paper { fill: #14171b } .mc-graph text { fill: #e7eaee } .mc-graph text.dim { fill: #a2abb6 }
.mc-graph .line { stroke: #8b95a3 } .mc-graph .tip { fill: #8b95a3 }
.mc-graph .box { fill: #23282f; stroke: #56606d } .mc-graph .learns .box { fill: #1b3352; stroke: #5e93d6 }
.mc-graph .input .box { fill: #17372090; stroke: #56ab6d } .mc-graph .constant .box { fill: #14171b; stroke: #56606d }
.mc-graph .parameter .box, .mc-graph .leaf .box { fill: #3d3115; stroke: #c99e3e }
}"""


def svg(graph, title):
    """The text of the SVG. Every box is a <g> that tells, for programs, its number, kind, shape, parameters and saved bytes (data-...)."""
    sides = beside(graph)
    aside = {s for some in sides.values() for s in some}
    main = [i for i in range(len(graph.nodes)) if i not in aside]
    texts = [words(graph, i) for i in range(len(graph.nodes))]
    sizes = [size(lines) for lines in texts]
    boxes = {}
    for i in main:
        width, height = sizes[i]
        stack = [sizes[s] for s in sides.get(i, ())]
        room = SIDE + max(w for w, _ in stack) if stack else 0
        tall = sum(h for _, h in stack) + 4 * (len(stack) - 1)
        boxes[i] = Box(width / 2, width / 2 + room, max(height, tall), width / 2 - PAD)
    edges = [e for e in graph.edges if e.source not in aside]
    order = {number: place for place, number in enumerate(main)}
    routes, width, height = layout([boxes[i] for i in main], [(order[e.source], order[e.target]) for e in edges])

    out = [f'<g transform="translate({MARGIN} {HEAD})">']
    out += [line(points, e.source, e.target, e.place, e.gradient) for points, e in zip(routes, edges, strict=True)]
    for i in main:
        box, (w, h) = boxes[i], sizes[i]
        out.append(drawn(graph, i, texts[i], box.x - w / 2, box.top + (box.height - h) / 2, w, h))
        y = box.top + (box.height - sum(sizes[s][1] for s in sides.get(i, ())) - 4 * (len(sides.get(i, ())) - 1)) / 2
        for s in sides.get(i, ()):
            (edge,) = (e for e in graph.edges if e.source == s)
            w_s, h_s = sizes[s]
            x, middle = box.x + w / 2, min(max(y + h_s / 2, box.top + (box.height - h) / 2 + 8), box.top + (box.height + h) / 2 - 8)
            out.append(line([(x + SIDE, y + h_s / 2), (x, middle)], s, i, edge.place, edge.gradient))
            out.append(drawn(graph, s, texts[s], x + SIDE, y, w_s, h_s))
            y += h_s + 4
    out.append("</g>")
    legend, legend_width = colours(graph)
    total = totals(graph)
    width = max(width, letters(title, LARGE), letters(total, SMALL), legend_width) + 2 * MARGIN
    return "\n".join([head(width, HEAD + height + MARGIN, title, total), *legend, *out, "</svg>", ""])


def beside(graph):
    """{op: [nodes]}: tensors that one op alone uses stand beside it, except the first of them where nothing else comes from above."""
    uses = [sum(e.source == i for e in graph.edges) for i in range(len(graph.nodes))]
    found: dict = {}
    for number in dict.fromkeys(e.target for e in graph.edges):
        sources = [e.source for e in graph.edges if e.target == number]
        small = [s for s in sources if graph.nodes[s].kind not in ("op", "input") and uses[s] == 1]
        if len(small) == len(sources):
            small.remove(next((s for s in small if graph.nodes[s].kind != "constant"), small[0]))
        if small:
            found[number] = small
    return found


def words(graph, number):
    """The lines of a box."""
    node = graph.nodes[number]
    if node.kind != "op":
        name = node.name.rpartition(".")[2] if node.kind == "parameter" else node.name
        return [f"{cut(clean(name), LONGEST)}  {dims(node, graph.batch and node.kind == 'input')}"]
    parameters = graph.parameters(number)
    saved = "what it saved is used up" if node.saved is None else f"saves {readable(node.saved) if node.saved else 'nothing new'}"
    return [f"{cut(clean(node.name), LONGEST)}  {node.op}".strip(), dims(node, graph.batch),
            f"{parameters:,} parameters, {saved}" if parameters else saved]


def dims(node, batch):
    """N × 96 × 55 × 55"""
    if not node.shape:
        return "one number"
    first = "N" if batch and node.shape[0] == 1 else str(node.shape[0])
    return " × ".join([first, *map(str, node.shape[1:])])


def totals(graph):
    """One line about all of it."""
    ops = [n for n in graph.nodes if n.kind == "op"]
    parameters = sum(math.prod(n.shape) for n in graph.nodes if n.kind == "parameter")
    saved = sum(n.saved or 0 for n in ops)
    return (f"{len(ops)} op{'s' * (len(ops) != 1)}" + f", {parameters:,} parameters" * bool(parameters)
            + f", {readable(saved)} saved for backward" + " of one input" * graph.batch)


def size(lines):
    """(width, height) of a box around these lines; one that is a single line is low."""
    width = max(letters(text, LARGE if i == 0 and len(lines) > 1 else SMALL) for i, text in enumerate(lines))
    return width + 2 * PAD, LINE * len(lines) + (10 if len(lines) > 1 else 6)


def letters(text, height):
    """The width of a text; signs of East Asia take the room of two letters."""
    return WIDE * height * sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def drawn(graph, number, lines, x, y, width, height):
    """A box with its text, and all that is known of it for whoever points at it."""
    node = graph.nodes[number]
    parameters = graph.parameters(number) if node.kind == "op" else math.prod(node.shape) if node.kind == "parameter" else 0
    style = "learns" if node.kind == "op" and parameters else node.kind
    tell = ", ".join(filter(None, [
        node.name, node.op, f"shape {'x'.join(map(str, node.shape)) or '()'}", f"{parameters:,} parameters" * bool(parameters),
        f"{node.saved:,} bytes newly saved for backward" if node.kind == "op" and node.saved is not None else "",
        "no gradient comes by" if node.kind == "op" and not node.gradient else ""]))
    out = [f'<g class="{style}" data-node="{number}" data-kind="{node.kind}" data-shape="{"x".join(map(str, node.shape))}" '
           f'data-parameters="{parameters}" data-saved="{"" if node.saved is None else node.saved}"><title>{escaped(tell)}</title>'
           f'<rect class="box{" without" if node.kind == "op" and not node.gradient else ""}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" '
           f'height="{height:.1f}" rx="5"/>']
    for i, text in enumerate(lines):
        style = ' class="name"' if i == 0 and len(lines) > 1 else ' class="dim"' if i == 2 else ""
        out.append(f'<text{style} x="{x + PAD:.1f}" y="{y + LINE * (i + 1) + (1 if len(lines) > 1 else -1):.1f}">{escaped(text)}</text>')
    return "".join([*out, "</g>"])


def line(points, source, target, place, gradient):
    """A line with a tip at its end; dashed where no gradient comes back."""
    (x0, y0), (x1, y1) = points[-2:]
    if len(points) == 2:                                # from a parameter, to the left
        path, tip = f"M{x0:.1f} {y0:.1f}L{x1 + 6:.1f} {y1:.1f}", f"M{x1:.1f} {y1:.1f}l7 -3.5v7z"
    else:
        path = f"M{points[0][0]:.1f} {points[0][1]:.1f}L{points[1][0]:.1f} {points[1][1]:.1f}"
        for (a, b), (c, d), (e, f) in zip(points[1:-1:2], points[2::2], points[3::2], strict=True):
            middle = (b + d) / 2
            f -= 6 if (e, f) == points[-1] else 0
            path += f"C{a:.1f} {middle:.1f} {c:.1f} {middle:.1f} {c:.1f} {min(d, f):.1f}L{e:.1f} {f:.1f}"
        tip = f"M{x1:.1f} {y1:.1f}l-3.5 -7h7z"
    return (f'<g data-edge="{source} {target} {place}"><path class="line{"" if gradient else " without"}" d="{path}"/>'
            f'<path class="tip" d="{tip}"/></g>')


def colours(graph):
    """What the colours of the boxes mean, of those that are there; and how wide that is."""
    there = {n.kind for n in graph.nodes} | ({"learns"} if any(n.kind == "parameter" for n in graph.nodes) else set())
    out, x = [], float(MARGIN)
    for kind, what in MEANING.items():
        if kind in there:
            out.append(f'<g class="{kind}"><rect class="box" x="{x:.1f}" y="40.5" width="10" height="10" rx="2"/>'
                       f'<text class="dim" x="{x + 15:.1f}" y="50">{what}</text></g>')
            x += 15 + letters(what, SMALL) + 14
    if not all(e.gradient for e in graph.edges):
        out.append(f'<text class="dim" x="{x:.1f}" y="50">{(dashed := "dashed: no gradient")}</text>')
        x += letters(dashed, SMALL)
    return out, x - MARGIN


def head(width, height, title, total):
    """The beginning: size, style, paper, and the title, for eyes and for screen readers."""
    return (f'<svg xmlns="http://www.w3.org/2000/svg" class="mc-graph" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
            f'height="{height:.0f}" role="img">\n<title>{escaped(title)}</title>\n<desc>{escaped(total)}. From top to bottom: the input, '
            f'each op with the shape of its answer, its parameters beside it, and lines from answers to inputs.</desc>\n'
            f'<style>{STYLE}\n</style>\n<rect class="paper" width="100%" height="100%"/>\n'
            f'<text class="name" x="{MARGIN}" y="18">{escaped(title)}</text><text class="dim" x="{MARGIN}" y="34">{escaped(total)}</text>')


def escaped(text):
    """As XML has it."""
    return html.escape(clean(text))


def clean(text):
    """Without signs that XML cannot hold."""
    return re.sub("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)
