"""The drawing of a graph has every op and every edge, the numbers of summary, and nothing that overlaps."""

import itertools
import pathlib
import re
import xml.etree.ElementTree as ElementTree

import matplotlib
import numpy as np
import pytest
from PIL import ImageFont

import minicnn as mc
from minicnn import nn, ops
from minicnn.autograd import topological_order
from minicnn.cli.graph import main
from minicnn.examples.alexnet import alexnet
from minicnn.visualize.graph import graph_of_network, graph_of_tensor, graph_svg, network_svg, save
from minicnn.visualize.graph.layout import Box, layout
from minicnn.visualize.graph.svg import HEAD, MARGIN

SVG = "{http://www.w3.org/2000/svg}"


class Block(nn.Module):
    """A residual block; where the number of channels changes, the shortcut is a convolution."""

    def __init__(self, C, O):
        self.conv1, self.conv2, self.relu = nn.Conv2d(C, O, 3, padding=1), nn.Conv2d(O, O, 3, padding=1), nn.ReLU()
        if C != O:
            self.shortcut = nn.Conv2d(C, O, 1)

    def forward(self, x):
        shortcut = self.shortcut(x) if hasattr(self, "shortcut") else x
        return ops.relu(self.conv2(self.relu(self.conv1(x))) + shortcut)


class Residual(nn.Module):
    def __init__(self):
        self.block1, self.block2, self.fc = Block(3, 4), Block(4, 4), nn.Linear(4, 5)

    def forward(self, x):
        return self.fc(self.block2(self.block1(x)).mean(axis=(2, 3)))


class Tangle(nn.Module):
    """Outputs that are used several ranks below and more than once, and a layer that runs twice."""

    def __init__(self):
        self.a, self.b, self.c = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x):
        a = self.a(x)
        b = self.b(a * 2.5 + x)
        c = self.c(a + b + x)
        return self.a(a + b * c + x) * np.ones(6, np.float32)


@pytest.fixture(autouse=True)
def quick_init(monkeypatch):
    """Sixty million random numbers take a second, and no test here depends on them."""
    monkeypatch.setattr(mc.nn.init, "kaiming_normal_", lambda w: w.data.fill(0.01))


NETWORKS = {"mini": (lambda: alexnet("mini", 10, 1), (1, 28, 28)), "paper": (alexnet, (3, 227, 227)),
            "residual": (Residual, (3, 8, 8)), "tangle": (Tangle, (6,))}


class Drawing:
    """An SVG, read back: boxes {node: (x, y, w, h)}, texts {node: [...]}, edges [(source, target, argument, path, tip, dashed)]."""

    def __init__(self, svg):
        self.root = ElementTree.fromstring(svg)
        self.width, self.height = (float(self.root.get(name)) for name in ("width", "height"))
        groups = list(self.root.iter(f"{SVG}g"))
        self.nodes = {int(g.get("data-node")): g for g in groups if g.get("data-node")}
        assert groups
        assert sum(g.get("transform") == f"translate({MARGIN} {HEAD})" for g in groups) == 1
        self.boxes = {i: tuple(float(g.find(f"{SVG}rect").get(name)) for name in ("x", "y", "width", "height"))
                      for i, g in self.nodes.items()}
        self.texts = {i: g.findall(f"{SVG}text") for i, g in self.nodes.items()}
        self.edges = []
        for g in groups:
            if g.get("data-edge"):
                line, tip = g.findall(f"{SVG}path")
                self.edges.append((*map(int, g.get("data-edge").split()), points(line.get("d")), numbers(tip.get("d"))[:2],
                                   "no-grad" in line.get("class")))


def numbers(text):
    return [float(n) for n in re.findall(r"-?\d+(?:\.\d+)?", text)]


def points(path):
    """Points along a path of M, L and C (cubic Bezier), close to each other."""
    found = []
    for letter, rest in re.findall(r"([MLC])([^MLC]*)", path):
        n = np.reshape(numbers(rest), (-1, 2))
        if letter == "M":
            found.append(n[0])
            continue
        begin, t = found[-1], np.linspace(0, 1, 30)[1:, None]
        found += list((1 - t) * begin + t * n[0] if letter == "L" else
                      (1 - t) ** 3 * begin + 3 * (1 - t) ** 2 * t * n[0] + 3 * (1 - t) * t ** 2 * n[1] + t ** 3 * n[2])
    return np.array(found)


def check(svg, graph):
    """Assert what every drawing must fulfil; returns it."""
    drawing = Drawing(svg)
    assert set(drawing.nodes) == set(range(len(graph.nodes)))
    for i, node in enumerate(graph.nodes):
        g = drawing.nodes[i]
        assert (g.get("data-kind"), g.get("data-shape")) == (node.kind, "x".join(map(str, node.shape)))
        assert g.get("data-saved") == ("" if node.saved is None else str(node.saved))
    for (i, a), (j, b) in itertools.combinations(drawing.boxes.items(), 2):
        separate = a[0] + a[2] < b[0] or b[0] + b[2] < a[0] or a[1] + a[3] < b[1] or b[1] + b[3] < a[1]
        assert separate, f"box {i} overlaps box {j}"
    fonts = pathlib.Path(matplotlib.get_data_path(), "fonts", "ttf")
    large, small = (ImageFont.truetype(fonts / f"DejaVuSansMono{bold}.ttf", 100) for bold in ("-Bold", ""))
    for i, (x, y, w, h) in drawing.boxes.items():
        assert 0 <= x + MARGIN
        assert x + w + MARGIN <= drawing.width
        assert y >= 0
        assert y + h + HEAD <= drawing.height
        for text in drawing.texts[i]:
            left, base, name = float(text.get("x")), float(text.get("y")), text.get("class") == "name"
            wide = large.getlength(text.text) * 0.13 if name else small.getlength(text.text) * 0.115
            assert x + 4 < left < left + wide < x + w - 4, text.text                # nothing is clipped
            assert y + 9 < base < y + h - 3
    assert sorted(e[:3] for e in drawing.edges) == sorted((e.source, e.target, e.argument) for e in graph.edges)
    requires_grad = {(e.source, e.target, e.argument): e.requires_grad for e in graph.edges}
    for source, target, argument, path, tip, dashed in drawing.edges:
        assert dashed is not requires_grad[source, target, argument]
        sx, sy, sw, sh = drawing.boxes[source]
        tx, ty, tw, th = drawing.boxes[target]
        (x0, y0), (x1, y1) = path[0], tip
        if abs(y0 - sy - sh) > 0.2:                                      # a parameter: from its left side to the op's right side
            assert abs(x0 - sx) < 0.2
            assert sy < y0 < sy + sh
            assert abs(x1 - tx - tw) < 0.2
            assert ty < y1 < ty + th
        else:                                           # from the lower side to the upper side, downwards
            assert sx < x0 < sx + sw
            assert abs(y1 - ty) < 0.2
            assert tx < x1 < tx + tw
            assert (np.diff(path[:, 1]) >= -0.01).all()
        assert np.abs(path[-1] - tip).max() < 7         # the line ends at its arrowhead
        for i, (x, y, w, h) in drawing.boxes.items():
            inside = (x + 0.2 < path[:, 0]) & (path[:, 0] < x + w - 0.2) & (y + 0.2 < path[:, 1]) & (path[:, 1] < y + h - 0.2)
            assert not inside.any(), f"the line from {source} to {target} goes through box {i}"
    starts = [tuple(path[0]) for *_, path, _, _ in drawing.edges]
    assert len(set(starts)) == len(starts)              # no line covers another
    return drawing


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_drawn_with_the_numbers_of_summary(name):
    build, shape = NETWORKS[name]
    model = build()
    graph = graph_of_network(model, shape)
    drawing = check(network_svg(model, shape, "a <title> & more"), graph)
    table = mc.summary(model, shape)
    ops_drawn = [drawing.nodes[i] for i, node in enumerate(graph.nodes) if node.kind == "op"]
    assert sum(int(g.get("data-saved")) for g in ops_drawn) == table.total.saved_bytes
    parameters = [g for g in drawing.nodes.values() if g.get("data-kind") == "parameter"]
    assert sum(int(g.get("data-parameters")) for g in parameters) == table.total.parameters == sum(p.size for p in model.parameters())
    text = "".join(drawing.root.itertext())
    assert f"{len(ops_drawn)} ops, {table.total.parameters:,} parameters" in text
    by_layer = {}
    for node, g in zip((n for n in graph.nodes if n.kind == "op"), ops_drawn, strict=True):
        by_layer.setdefault(node.name, []).append((node, g))
    for row in table:
        if row.name not in by_layer or len([r for r in table if r.name == row.name]) > 1:
            continue                                    # the model's own ops; a layer that runs twice
        nodes = by_layer[row.name]
        assert sum(node.saved for node, _ in nodes) == row.saved_bytes, row.name
        if len(nodes) == 1:
            assert nodes[0][0].shape == (1, *row.output_shape)
            assert int(nodes[0][1].get("data-parameters")) == row.parameters


def test_the_ops_of_a_sequential_network_are_a_chain():
    model = alexnet("mini", 10, 1)
    graph = graph_of_network(model, (1, 28, 28))
    chain = [i for i, node in enumerate(graph.nodes) if node.kind in ("input", "op")]
    assert [graph.nodes[i].name for i in chain] == ["input", *(name for name, _ in model.named_children())]
    assert [(e.source, e.target) for e in graph.edges if e.argument == 0] == list(itertools.pairwise(chain))
    assert [(graph.nodes[e.source].name, graph.nodes[e.target].name) for e in graph.edges if e.argument][:3] == [
        ("conv1.weight", "conv1"), ("conv1.bias", "conv1"), ("conv2.weight", "conv2")]
    drawing = Drawing(network_svg(model, (1, 28, 28)))
    middles = [drawing.boxes[i][0] + drawing.boxes[i][2] / 2 for i in chain]
    assert np.ptp(middles) < 0.2                        # straight down


def test_edges_of_a_residual_network():
    graph = graph_of_network(Residual(), (3, 8, 8))
    joins = [i for i, node in enumerate(graph.nodes) if node.op == "Add"]
    sources = [[(graph.nodes[e.source].name, graph.nodes[e.source].op) for e in graph.edges if e.target == i] for i in joins]
    assert sources == [[("block1.conv2", "Conv2d"), ("block1.shortcut", "Conv2d")], [("block2.conv2", "Conv2d"), ("block1", "ReLU")]]
    assert [e.requires_grad for e in graph.edges if graph.nodes[e.source].kind == "input"] == [False, False]


def test_a_layer_that_runs_twice_shares_its_weights():
    graph = graph_of_network(Tangle(), (6,))
    (weight,) = (i for i, node in enumerate(graph.nodes) if node.name == "a.weight")
    assert len([e for e in graph.edges if e.source == weight]) == 2
    assert [node.name for node in graph.nodes if node.kind == "constant"] == ["2.5", "constant"]


def test_the_model_is_left_unchanged(device):
    model = nn.Sequential(conv=nn.Conv2d(2, 3, 3), drop=nn.Dropout(0.5), flatten=nn.Flatten(), fc=nn.Linear(12, 2)).to(device)
    model.eval()
    state = mc.random.state()
    check(network_svg(model, (2, 4, 4)), graph_of_network(model, (2, 4, 4)))
    assert mc.random.state() == state
    assert not model.training
    assert not model.drop.training
    assert all(p.grad is None for p in model.parameters())


def tensors(*shapes):
    return [mc.Tensor(np.full(shape, 1.5, np.float32), requires_grad=True) for shape in shapes]


def expression(name):
    """(output, {name: leaf})"""
    x, y = tensors(3, 3)
    z = ops.exp(x) * y - 3 * x
    return {"square and sum": lambda: (x * x + y).sum(), "one op": lambda: x.sum(), "two leaves": lambda: x * y,
            "constants": lambda: 2 / (x + 1) - np.ones(3, np.float32),
            "used several times": lambda: ((z / (x + 1) + z * z) * ops.log(y * y)).mean(),
            "a leaf": lambda: x}[name](), {"x": x, "y": y}


@pytest.mark.parametrize("name", ["square and sum", "one op", "two leaves", "constants", "used several times", "a leaf"])
def test_the_graph_behind_a_tensor(name):
    output, names = expression(name)
    graph = graph_of_tensor(output, names)
    drawing = check(graph_svg(output, names), graph)
    vertices = topological_order(output.node or output)
    nodes = [v for v in vertices if not isinstance(v, mc.Tensor)]
    assert sorted(g.find(f"{SVG}text").text for g in drawing.nodes.values() if g.get("data-kind") == "op") == sorted(map(repr, nodes))
    assert {node.name for node in graph.nodes if node.kind == "leaf"} == {n for n, t in names.items() if t in vertices}
    assert len(graph.edges) == sum(len(v.inputs) for v in nodes)
    assert graph.nodes[-1].shape == output.shape


def test_a_tensor_used_twice_has_two_lines():
    x, y = tensors(3, (2, 3))
    graph = graph_of_tensor((x * x + y).sum(), {"x": x})
    assert [(n.kind, n.name or n.op, n.shape) for n in graph.nodes] == [
        ("leaf", "x", (3,)), ("op", "Mul", (3,)), ("leaf", "leaf", (2, 3)), ("op", "Add", (2, 3)), ("op", "Sum", ())]
    assert [(e.source, e.target, e.argument) for e in graph.edges] == [(0, 1, 0), (0, 1, 1), (1, 3, 0), (2, 3, 1), (3, 4, 0)]


def test_saved_arrays_are_freed_after_backward():
    (x,) = tensors(4)
    y = ops.exp(x).sum()
    assert "saves 16 B" in graph_svg(y)
    y.backward()
    assert "saved arrays freed" in graph_svg(y)


def test_a_tensor_without_a_graph_is_refused():
    with pytest.raises(ValueError, match="create the leaves with requires_grad=True"):
        graph_svg(mc.Tensor([1.0]))


def test_any_name_can_be_drawn():
    """XML's special characters, characters that XML does not allow, wide characters, and a name of three hundred letters."""
    names = ["<script>&\"'", "层一二三四五六七八九十", "bell\x07\ud800", "x" * 300]
    model = nn.Sequential(**{name: nn.Linear(2, 2) for name in names})
    svg = network_svg(model, (2,), "]]> & <b>")
    drawing = Drawing(svg)
    assert drawing.root.find(f"{SVG}title").text == "]]> & <b>"
    labels = [drawing.texts[i][0].text for i in drawing.nodes if drawing.nodes[i].get("data-kind") == "op"]
    assert labels[0] == "<script>&\"'  Linear"
    assert labels[2] == "bell\ufffd\ufffd  Linear"
    assert labels[3].startswith("…xxx")
    assert len(labels[3]) < 60
    (wide,) = (i for i in drawing.nodes if drawing.texts[i][0].text.startswith("层"))
    assert drawing.boxes[wide][2] > 22 * 13 * 0.6


def test_title_description_and_dark_mode(tmp_path):
    svg = network_svg(Residual(), (3, 8, 8))
    root = Drawing(svg).root
    assert root.get("role") == "img"
    assert root.find(f"{SVG}title").text == "Residual"
    assert root.find(f"{SVG}desc").text.startswith("13 ops, ")
    assert "prefers-color-scheme: dark" in root.find(f"{SVG}style").text
    save(svg, tmp_path / "a.svg")
    assert (tmp_path / "a.svg").read_text(encoding="utf-8") == svg
    assert network_svg(Residual(), (3, 8, 8)) == svg                                # deterministic


@pytest.mark.parametrize("seed", range(40))
def test_layout_of_any_graph(seed):
    """Boxes of random sizes, random edges: no box overlaps another, no edge crosses a box, and every edge leads down."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 22))
    boxes = [Box(*rng.uniform(10, 90, 2), rng.uniform(10, 80), 10) for _ in range(n)]
    edges = [(int(a), b) for b in range(1, n) for a in rng.choice(b, min(b, int(rng.integers(0, 4))))]
    routes, width, height = layout(boxes, edges)
    rectangles = [(b.x - b.left, b.top, b.x + b.right, b.top + b.height) for b in boxes]
    assert all(x0 >= -1e-6 and y0 >= 0 and x1 <= width + 1e-6 and y1 <= height + 1e-6 for x0, y0, x1, y1 in rectangles)
    for a, b in itertools.combinations(rectangles, 2):
        assert a[2] < b[0] or b[2] < a[0] or a[3] < b[1] or b[3] < a[1]
    for (source, target), route in zip(edges, routes, strict=True):
        assert route[0][1] == rectangles[source][3]
        assert route[-1][1] == rectangles[target][1]
        for (xa, ya), (xb, yb) in itertools.pairwise(route):
            assert ya <= yb
            t = np.linspace(0, 1, 20)                   # a bend stays within the rectangle of its ends
            x, y = xa + t * (xb - xa), ya + t * (yb - ya)
            assert not any(((x0 + 1e-6 < x) & (x < x1 - 1e-6) & (y0 + 1e-6 < y) & (y < y1 - 1e-6)).any() for x0, y0, x1, y1 in rectangles)


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["--arch", "mini"]) == 0
    assert capsys.readouterr().out == "mini.svg: open it in a browser\n"
    model = alexnet("mini", 10, 1)
    drawing = check((tmp_path / "mini.svg").read_text(encoding="utf-8"), graph_of_network(model, (1, 28, 28)))
    assert drawing.root.find(f"{SVG}title").text == "mini"
    assert main(["--arch", "lenet", "--out", str(tmp_path / "none" / "a.svg")]) == 2
    assert "error: --out" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--arch", "nothing"])
