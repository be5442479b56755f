"""The computation graph of a network, or of any tensor, as an SVG drawing for a browser. No program or library besides minicnn is needed.

    save(network_svg(model, (3, 227, 227)), "alexnet.svg")
    save(graph_svg((x * x + y).sum(), {"x": x, "y": y}), "sum.svg")
    minicnn graph --arch paper --out alexnet.svg

    record.py       the graph as data: the ops that ran, and the edges from outputs to inputs
    layout.py       positions of boxes and edges (layered graph drawing)
    svg.py          both as SVG
"""

import os
import pathlib
from collections.abc import Mapping, Sequence

from minicnn.nn.module import Module
from minicnn.tensor import Tensor
from minicnn.visualize.graph.record import Edge, Graph, Node, graph_of_network, graph_of_tensor
from minicnn.visualize.graph.svg import svg

__all__ = ["Edge", "Graph", "Node", "graph_of_network", "graph_of_tensor", "graph_svg", "network_svg", "save"]


def network_svg(model: Module, input_shape: Sequence[int], title: str = "") -> str:
    """The SVG text of a network's graph: the ops of one forward pass in training mode, each with its layer, the shape of its output
    (N: the batch), its parameters, and the bytes that it newly saves for backward.

    Args:
        model: a Module, on either device; its mode and the random numbers are left as they were.
        input_shape: of one input without the batch axis: (C, H, W) for images.
        title: the first line of the drawing; "": the model's class.

    Raises what the model raises.
    """
    return svg(graph_of_network(model, input_shape), title or type(model).__name__)


def graph_svg(tensor: Tensor, names: Mapping[str, Tensor] | None = None, title: str = "") -> str:
    """The SVG text of a tensor's graph: the ops that `tensor.backward()` will run through.

    Args:
        tensor: an output, for instance a loss.
        names: {name: leaf tensor}, to label the leaves.
        title: the first line of the drawing; "": a default.

    Raises ValueError for a tensor that does not require a gradient, and so has no graph.
    """
    return svg(graph_of_tensor(tensor, names), title or "graph of a tensor")


def save(svg: str, path: str | os.PathLike[str]) -> None:
    """Write the text to a file, in UTF-8. Raises OSError."""
    pathlib.Path(path).write_text(svg, encoding="utf-8")
