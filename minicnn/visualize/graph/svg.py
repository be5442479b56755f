"""A graph as SVG: a box for each op, small boxes beside it for its parameters, and edges from outputs to inputs.

The font is monospaced, so the width of a text is known before it is drawn. Colours follow the reader's light or dark mode.
"""

import html
import math
import re
import unicodedata
from collections.abc import Sequence

from minicnn.inspect.trace import truncate_left
from minicnn.text import format_bytes, pluralize
from minicnn.visualize.graph.layout import Box, layout
from minicnn.visualize.graph.record import Graph, Node

LARGE, SMALL = 13, 11.5                 # font sizes in units: of the first line of an op's box, and of all other text
ASPECT = 0.615                          # width of a character relative to the font size: a little more than usual monospaced fonts have
LINE, PAD = 16, 8                       # units: from line to line; between the text and the frame
SIDE_GAP = 20                           # units between an op's box and the boxes of its parameters
STACK_GAP = 4                           # units between the boxes of its parameters
MARGIN, HEAD = 18, 58                   # units around the drawing; above it, for title and legend
MAX_NAME = 44                           # characters of a name; a longer one is truncated on the left

LEGEND = {"input": "input", "trainable": "op with parameters", "op": "op", "parameter": "parameter", "leaf": "leaf", "constant": "constant"}
STYLE = """
.mc-graph { font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", "Liberation Mono", monospace }
.mc-graph .paper { fill: #ffffff } .mc-graph text { fill: #1d2127; font-size: 11.5px; white-space: pre }
.mc-graph text.name { font-size: 13px; font-weight: 600 } .mc-graph text.dim { fill: #59626e }
.mc-graph .line { fill: none; stroke: #7b8694; stroke-width: 1.4 } .mc-graph .tip { fill: #7b8694 }
.mc-graph .no-grad { stroke-dasharray: 4 3 }
.mc-graph .box { fill: #f1f3f6; stroke: #a3adba } .mc-graph .trainable .box { fill: #dfebfb; stroke: #4d82c4 }
.mc-graph .input .box { fill: #e0f3e4; stroke: #47995c } .mc-graph .constant .box { fill: #ffffff; stroke: #a3adba }
.mc-graph .parameter .box, .mc-graph .leaf .box { fill: #fdf1d8; stroke: #c4952f }
@media (prefers-color-scheme: dark) {
.mc-graph .paper { fill: #14171b } .mc-graph text { fill: #e7eaee } .mc-graph text.dim { fill: #a2abb6 }
.mc-graph .line { stroke: #8b95a3 } .mc-graph .tip { fill: #8b95a3 }
.mc-graph .box { fill: #23282f; stroke: #56606d } .mc-graph .trainable .box { fill: #1b3352; stroke: #5e93d6 }
.mc-graph .input .box { fill: #17372090; stroke: #56ab6d } .mc-graph .constant .box { fill: #14171b; stroke: #56606d }
.mc-graph .parameter .box, .mc-graph .leaf .box { fill: #3d3115; stroke: #c99e3e }
}"""


def svg(graph: Graph, title: str) -> str:
    """The text of the SVG. Every box is a <g> with its index, kind, shape, parameters and saved bytes for programs (data-...)."""
    stacks = side_nodes(graph)
    aside = {s for stack in stacks.values() for s in stack}
    main = [i for i in range(len(graph.nodes)) if i not in aside]
    labels = [label_lines(graph, i) for i in range(len(graph.nodes))]
    sizes = [box_size(lines) for lines in labels]
    heights = {i: sum(sizes[s][1] for s in stack) + STACK_GAP * (len(stack) - 1) for i, stack in stacks.items()}
    boxes = {}
    for i in main:
        width, height = sizes[i]
        side_width = SIDE_GAP + max(sizes[s][0] for s in stacks[i]) if i in stacks else 0
        boxes[i] = Box(width / 2, width / 2 + side_width, max(height, heights.get(i, 0)), width / 2 - PAD)
    edges = [e for e in graph.edges if e.source not in aside]
    position = {index: k for k, index in enumerate(main)}
    routes, width, height = layout([boxes[i] for i in main], [(position[e.source], position[e.target]) for e in edges])

    out = [f'<g transform="translate({MARGIN} {HEAD})">']
    out += [draw_edge(points, e.source, e.target, e.argument, e.requires_grad) for points, e in zip(routes, edges, strict=True)]
    for i in main:
        box, (w, h) = boxes[i], sizes[i]
        top = box.top + (box.height - h) / 2
        out.append(draw_box(graph, i, labels[i], box.x - w / 2, top, w, h))
        y = box.top + (box.height - heights.get(i, 0)) / 2
        for s in stacks.get(i, ()):
            (edge,) = (e for e in graph.edges if e.source == s)
            w_s, h_s = sizes[s]
            x, y_end = box.x + w / 2, min(max(y + h_s / 2, top + 8), top + h - 8)
            out.append(draw_edge([(x + SIDE_GAP, y + h_s / 2), (x, y_end)], s, i, edge.argument, edge.requires_grad))
            out.append(draw_box(graph, s, labels[s], x + SIDE_GAP, y, w_s, h_s))
            y += h_s + STACK_GAP
    out.append("</g>")
    entries, legend_width = legend(graph)
    total = totals(graph)
    width = max(width, text_width(title, LARGE), text_width(total, SMALL), legend_width) + 2 * MARGIN
    return "\n".join([header(width, HEAD + height + MARGIN, title, total), *entries, *out, "</svg>", ""])


def side_nodes(graph: Graph) -> dict[int, list[int]]:
    """{op: [tensors]} drawn beside the op: those that only this op uses; if it has no other source, one of them stays above it."""
    uses = [sum(e.source == i for e in graph.edges) for i in range(len(graph.nodes))]
    found: dict[int, list[int]] = {}
    for index in dict.fromkeys(e.target for e in graph.edges):
        sources = [e.source for e in graph.edges if e.target == index]
        small = [s for s in sources if graph.nodes[s].kind not in ("op", "input") and uses[s] == 1]
        if len(small) == len(sources):
            small.remove(next((s for s in small if graph.nodes[s].kind != "constant"), small[0]))
        if small:
            found[index] = small
    return found


def label_lines(graph: Graph, index: int) -> list[str]:
    """The text lines in a node's box."""
    node = graph.nodes[index]
    if node.kind != "op":
        name = node.name.rpartition(".")[2] if node.kind == "parameter" else node.name
        return [f"{truncate_left(clean(name), MAX_NAME)}  {shape_label(node, graph.batched and node.kind == 'input')}"]
    parameters = graph.num_parameters(index)
    saved = "saved arrays freed" if node.saved is None else f"saves {format_bytes(node.saved)}" if node.saved else "saves nothing new"
    return [f"{truncate_left(clean(node.name), MAX_NAME)}  {node.op}".strip(), shape_label(node, graph.batched),
            f"{parameters:,} parameters, {saved}" if parameters else saved]


def shape_label(node: Node, batched: bool) -> str:
    """N × 96 × 55 × 55"""
    if not node.shape:
        return "scalar"
    first = "N" if batched and node.shape[0] == 1 else str(node.shape[0])
    return " × ".join([first, *map(str, node.shape[1:])])


def totals(graph: Graph) -> str:
    """One line with the sums over the graph."""
    ops = [n for n in graph.nodes if n.kind == "op"]
    parameters = sum(math.prod(n.shape) for n in graph.nodes if n.kind == "parameter")
    return ", ".join([pluralize(len(ops), "op"), *([f"{parameters:,} parameters"] if parameters else []),
                      f"{format_bytes(sum(n.saved or 0 for n in ops))} saved for backward" + (" of one input" if graph.batched else "")])


def box_size(lines: Sequence[str]) -> tuple[float, float]:
    """(width, height) of a box around these lines."""
    several = len(lines) > 1
    width = max(text_width(text, LARGE if i == 0 and several else SMALL) for i, text in enumerate(lines))
    return width + 2 * PAD, LINE * len(lines) + (10 if several else 6)


def text_width(text: str, font_size: float) -> float:
    """In units; wide East Asian characters count as two."""
    return ASPECT * font_size * sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def draw_box(graph: Graph, index: int, lines: Sequence[str], x: float, y: float, width: float, height: float) -> str:
    """A box with its text, a tooltip, and data attributes."""
    node, several = graph.nodes[index], len(lines) > 1
    op = node.kind == "op"
    parameters = graph.num_parameters(index) if op else math.prod(node.shape) if node.kind == "parameter" else 0
    shape = "x".join(map(str, node.shape))
    tooltip = [node.name, node.op, f"shape {shape or '()'}"]
    if parameters:
        tooltip.append(f"{parameters:,} parameters")
    if op and node.saved is not None:
        tooltip.append(f"{node.saved:,} bytes newly saved for backward")
    if op and not node.requires_grad:
        tooltip.append("backward does not reach it")
    out = [f'<g class="{"trainable" if op and parameters else node.kind}" data-node="{index}" data-kind="{node.kind}" data-shape="{shape}" '
           f'data-parameters="{parameters}" data-saved="{"" if node.saved is None else node.saved}">'
           f'<title>{escape(", ".join(filter(None, tooltip)))}</title>'
           f'<rect class="box{" no-grad" if op and not node.requires_grad else ""}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" '
           f'height="{height:.1f}" rx="5"/>']
    for i, text in enumerate(lines):
        style = ' class="name"' if i == 0 and several else ' class="dim"' if i == 2 else ""
        out.append(f'<text{style} x="{x + PAD:.1f}" y="{y + LINE * (i + 1) + (1 if several else -1):.1f}">{escape(text)}</text>')
    return "".join([*out, "</g>"])


def draw_edge(points: Sequence[tuple[float, float]], source: int, target: int, argument: int, requires_grad: bool) -> str:
    """An edge with an arrowhead; dashed if backward passes no gradient along it."""
    (x0, y0), (x1, y1) = points[-2:]
    if len(points) == 2:                                # from a parameter, to the left
        path, tip = f"M{x0:.1f} {y0:.1f}L{x1 + 6:.1f} {y1:.1f}", f"M{x1:.1f} {y1:.1f}l7 -3.5v7z"
    else:
        path = f"M{points[0][0]:.1f} {points[0][1]:.1f}L{points[1][0]:.1f} {points[1][1]:.1f}"
        for (a, b), (c, d), (e, f) in zip(points[1:-1:2], points[2::2], points[3::2], strict=True):
            middle = (b + d) / 2                        # of a cubic Bezier curve that leaves and arrives vertically
            f -= 6 if (e, f) == points[-1] else 0
            path += f"C{a:.1f} {middle:.1f} {c:.1f} {middle:.1f} {c:.1f} {min(d, f):.1f}L{e:.1f} {f:.1f}"
        tip = f"M{x1:.1f} {y1:.1f}l-3.5 -7h7z"
    return (f'<g data-edge="{source} {target} {argument}"><path class="line{"" if requires_grad else " no-grad"}" d="{path}"/>'
            f'<path class="tip" d="{tip}"/></g>')


def legend(graph: Graph) -> tuple[list[str], float]:
    """The colours of the kinds of boxes in this graph, and dashes, explained; and the width of it."""
    kinds = {n.kind for n in graph.nodes}
    if "parameter" in kinds:
        kinds.add("trainable")
    out, x = [], float(MARGIN)
    for kind, meaning in LEGEND.items():
        if kind in kinds:
            out.append(f'<g class="{kind}"><rect class="box" x="{x:.1f}" y="40.5" width="10" height="10" rx="2"/>'
                       f'<text class="dim" x="{x + 15:.1f}" y="50">{meaning}</text></g>')
            x += 15 + text_width(meaning, SMALL) + 14
    if not all(e.requires_grad for e in graph.edges):
        dashed = "dashed: no gradient"
        out.append(f'<text class="dim" x="{x:.1f}" y="50">{dashed}</text>')
        x += text_width(dashed, SMALL)
    return out, x - MARGIN


def header(width: float, height: float, title: str, total: str) -> str:
    """The beginning of the SVG: size, style, background, and the title, also for screen readers."""
    return (f'<svg xmlns="http://www.w3.org/2000/svg" class="mc-graph" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
            f'height="{height:.0f}" role="img">\n<title>{escape(title)}</title>\n<desc>{escape(total)}. From top to bottom: the input, '
            f'each op with the shape of its output, its parameters beside it, and edges from outputs to inputs.</desc>\n'
            f'<style>{STYLE}\n</style>\n<rect class="paper" width="100%" height="100%"/>\n'
            f'<text class="name" x="{MARGIN}" y="18">{escape(title)}</text><text class="dim" x="{MARGIN}" y="34">{escape(total)}</text>')


def escape(text: str) -> str:
    """Text for XML."""
    return html.escape(clean(text))


def clean(text: str) -> str:
    """Without the characters that XML does not allow."""
    return re.sub("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)
