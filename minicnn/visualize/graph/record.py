"""A computation graph as data: nodes for ops and tensors, edges from outputs to inputs; recorded by a hook, or read from a tensor."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from minicnn.autograd import topological_order
from minicnn.backend import random
from minicnn.backend.arrays import is_array, to_device
from minicnn.hooks import Hook
from minicnn.inspect.memory import LiveBytes
from minicnn.inspect.summary import dummy_input
from minicnn.nn.module import Module, train_mode
from minicnn.tensor import Tensor


@dataclasses.dataclass
class Node:
    """An op, or a tensor that is not the output of an op."""

    kind: str                   # "op"; or "input", "parameter", "leaf" (requires a gradient), "constant" (does not)
    name: str                   # op: dotted name of the layer that called it, "" outside of all layers; else the tensor's name
    op: str                     # the op; "" for tensors
    shape: tuple[int, ...]      # of the output; the batch of a network is 1
    requires_grad: bool         # whether backward reaches it
    saved: int | None = 0       # bytes newly saved for backward, without inputs, weights and what an earlier op saved; None: freed


@dataclasses.dataclass
class Edge:
    """The output of one node is an input of another. Both are indices into Graph.nodes."""

    source: int
    target: int
    argument: int               # which input of the target, from 0
    requires_grad: bool         # whether backward passes a gradient along it


@dataclasses.dataclass
class Graph:
    """Nodes, each after its sources, and edges, in the order in which the ops ran."""

    nodes: list[Node] = dataclasses.field(default_factory=list)
    edges: list[Edge] = dataclasses.field(default_factory=list)
    batched: bool = False       # whether axis 0 is the batch

    def add(self, node: Node) -> int:
        """Append a node; returns its index."""
        self.nodes.append(node)
        return len(self.nodes) - 1

    def num_parameters(self, index: int) -> int:
        """The number of elements in the parameters that are inputs of this op."""
        sources = {e.source for e in self.edges if e.target == index}
        return sum(math.prod(self.nodes[s].shape) for s in sources if self.nodes[s].kind == "parameter")


class GraphHook(Hook):
    """Records every op as it runs. Arrays are identified by their ids, so all of them are held until the end."""

    def __init__(self, model: Module, x: Any) -> None:
        self.graph = Graph(batched=True)
        self.layers = {id(module): name for name, module in model.named_modules()}
        self.running: list[str] = []                    # names of the layers that are running, the innermost last
        self.parameters = {id(p.data): Node("parameter", name, "", p.shape, True) for name, p in model.named_parameters()}
        self.index = {id(x): self.graph.add(Node("input", "input", "", x.shape, False))}        # id of an array: index of its node
        self.held: list[Any] = []
        self.saved_memory = LiveBytes([x, *(p.data for p in model.parameters())])

    def before_module(self, module, inputs):
        self.running.append(self.layers.get(id(module), type(module).__name__))

    def after_module(self, module, inputs, output):
        self.running.pop()

    def after_forward(self, function, arrays, y, saved):
        for a in arrays:
            if id(a) not in self.index:
                self.index[id(a)] = self.graph.add(self.parameters.get(id(a)) or constant_node(a))
        size = sum(self.saved_memory.add(a) for a in saved if is_array(a))
        target = self.graph.add(Node("op", self.running[-1] if self.running else "", repr(function), y.shape, bool(function.inputs), size))
        needed = function.needs_input_grad or (False,) * len(arrays)
        self.graph.edges += [Edge(self.index[id(a)], target, i, needed[i]) for i, a in enumerate(arrays)]
        self.index[id(y)] = target
        self.held += [*arrays, y]                       # the id of a freed array could be reused


def constant_node(array: Any) -> Node:
    """The node of an array that is neither input nor parameter; a single number is its own name."""
    return Node("constant", f"{array.item():g}" if array.ndim == 0 else "constant", "", array.shape, False)


def graph_of_network(model: Module, input_shape: Sequence[int]) -> Graph:
    """The Graph of one forward pass in training mode, for one input of zeros of this shape (without the batch axis)."""
    x = to_device(dummy_input(input_shape), model.device)
    with random.fork_rng(), train_mode(model, True), GraphHook(model, x) as hook:
        y = model(Tensor(x))                            # keeps the saved arrays alive until all are counted
    del y
    return hook.graph


def graph_of_tensor(tensor: Tensor, names: Mapping[str, Tensor] | None = None) -> Graph:
    """The Graph below a tensor. `names`: {name: leaf tensor}. Raises ValueError for a tensor that has no graph."""
    if not tensor.requires_grad:
        raise ValueError("graph: this tensor has no graph, because nothing that it was computed from requires a gradient; create the "
                         "leaves with requires_grad=True, and compute it outside of no_grad")
    name_of = {id(t): name for name, t in (names or {}).items()}
    order = topological_order(tensor.node or tensor)[::-1]
    shapes = {tensor.node: tensor.shape}
    for vertex in order:
        shapes.update(zip(getattr(vertex, "inputs", ()), getattr(vertex, "shapes", ()), strict=True))
    graph = Graph()
    index: dict[Any, int] = {}
    saved_memory = LiveBytes([v.data for v in order if isinstance(v, Tensor)])
    for vertex in order:
        if isinstance(vertex, Tensor):
            index[vertex] = graph.add(Node("leaf", name_of.get(id(vertex), "leaf"), "", vertex.shape, True))
            continue
        sources = [index[source] if source is not None else graph.add(Node("constant", "constant", "", shape, False))
                   for source, shape in zip(vertex.inputs, vertex.shapes, strict=True)]
        size = None if vertex.saved is None else sum(saved_memory.add(a) for a in vertex.saved if is_array(a))
        index[vertex] = graph.add(Node("op", "", repr(vertex), shapes[vertex], True, size))
        needed = vertex.needs_input_grad
        graph.edges += [Edge(s, index[vertex], i, needed[i]) for i, s in enumerate(sources)]
    return graph
