"""A graph as a list: which ops ran, and whose answers each of them took."""

import dataclasses

import numpy as np

from minicnn import autograd, random
from minicnn.autograd import Hook
from minicnn.backend import is_array, to_device
from minicnn.data.views import device_of_model
from minicnn.study.inside import in_mode
from minicnn.study.summary import blank
from minicnn.study.trace import Alive
from minicnn.tensor import Tensor


@dataclasses.dataclass
class Node:
    """An op, or a tensor that no op made."""

    kind: str               # "op"; or "input", "parameter", "leaf" (has a gradient), "constant" (has none)
    name: str               # op: dotted name of the layer that called it, "" outside of all; else the tensor's name
    op: str                 # the op; "" for tensors
    shape: tuple            # of its answer; in a network the batch is 1
    gradient: bool          # whether backward comes by
    saved: int | None = 0   # bytes newly kept for backward; what an earlier op keeps, inputs and weights are not counted; None: used up


@dataclasses.dataclass
class Edge:
    """The answer of one node is an input of another. Numbers are places in Graph.nodes."""

    source: int
    target: int
    place: int              # which input of the target, from 0
    gradient: bool          # whether a gradient comes back along it


@dataclasses.dataclass
class Graph:
    """Nodes, each after those that it depends on, and edges, in the order in which ops ran."""

    nodes: list = dataclasses.field(default_factory=list)
    edges: list = dataclasses.field(default_factory=list)
    batch: bool = False     # whether the first axis is the batch

    def add(self, node):
        """Its number."""
        self.nodes.append(node)
        return len(self.nodes) - 1

    def parameters(self, number):
        """How many numbers the parameters hold that go into this op."""
        sources = {e.source for e in self.edges if e.target == number}
        return sum(int(np.prod(self.nodes[s].shape)) for s in sources if self.nodes[s].kind == "parameter")


class Recorder(Hook):
    """Writes down every op as it runs. Inputs are known again by their arrays, which are held until it is done."""

    def __init__(self, model, x):
        self.graph = Graph(batch=True)
        self.layers = {id(module): name for name, module in model.named_modules()}
        self.inside: list = []                          # names of the layers that are running, the innermost last
        self.known = {id(p.data): Node("parameter", name, "", p.shape, True) for name, p in model.named_parameters()}
        self.number = {id(x): self.graph.add(Node("input", "input", "", x.shape, False))}       # of an array's node
        self.held: list = []
        self.kept = Alive([x, *(p.data for p in model.parameters())])

    def before_module(self, module, inputs):
        self.inside.append(self.layers.get(id(module), type(module).__name__))

    def after_module(self, module, inputs, output):
        self.inside.pop()

    def after_forward(self, function, arrays, y, saved):
        for a in arrays:
            if id(a) not in self.number:
                self.number[id(a)] = self.graph.add(self.known.get(id(a)) or constant(a))
        size = sum(self.kept.meet(a) for a in saved if is_array(a))
        node = Node("op", self.inside[-1] if self.inside else "", repr(function), y.shape, bool(function.inputs), size)
        number = self.graph.add(node)
        needs = function.needs or (False,) * len(arrays)
        self.graph.edges += [Edge(self.number[id(a)], number, i, needed) for i, (a, needed) in enumerate(zip(arrays, needs, strict=True))]
        self.number[id(y)] = number
        self.held += [*arrays, y]                       # a freed array's id would be given to another


def constant(array):
    """The node of a tensor that is neither input nor parameter; a single number is its own name."""
    return Node("constant", f"{array.item():g}" if array.ndim == 0 else "constant", "", array.shape, False)


def graph_of_network(model, input_shape):
    """The Graph of one forward in training mode, of one input of zeros of this shape (without the batch)."""
    x = to_device(blank(input_shape), device_of_model(model))
    with random.preserved(), in_mode(model, True), Recorder(model, x) as recorder:
        y = model(Tensor(x))                            # held until all is counted
    del y
    return recorder.graph


def graph_of_tensor(tensor, names=None):
    """The Graph behind a tensor; `names`: {name: tensor} of leaves. ValueError where there is none."""
    if not tensor.requires_grad:
        raise ValueError("graph: nothing that has a gradient lies behind this tensor, so no graph was kept; make the tensors that it is "
                         "computed from with requires_grad=True, and not under no_grad")
    called = {id(t): name for name, t in (names or {}).items()}
    order = autograd.topological_order(tensor.node or tensor)[::-1]
    shapes = {tensor.node: tensor.shape}
    for vertex in order:
        shapes.update(zip(getattr(vertex, "inputs", ()), getattr(vertex, "shapes", ()), strict=True))
    graph, number = Graph(), {}
    kept = Alive([v.data for v in order if isinstance(v, Tensor)])
    for vertex in order:
        if isinstance(vertex, Tensor):
            number[vertex] = graph.add(Node("leaf", called.get(id(vertex), "leaf"), "", vertex.shape, True))
            continue
        sources = [number[source] if source is not None else graph.add(Node("constant", "constant", "", shape, False))
                   for source, shape in zip(vertex.inputs, vertex.shapes, strict=True)]
        size = None if vertex.saved is None else sum(kept.meet(a) for a in vertex.saved if is_array(a))
        number[vertex] = graph.add(Node("op", "", repr(vertex), shapes[vertex], True, size))
        graph.edges += [Edge(s, number[vertex], i, needed) for i, (s, needed) in enumerate(zip(sources, vertex.needs, strict=True))]
    return graph
