"""The graph of a network, or of any tensor, as a drawing (SVG) that a browser shows. It needs nothing but minicnn.

    save(network_svg(model, (3, 227, 227)), "alexnet.svg")
    save(graph_svg((x * x + y).sum(), {"x": x, "y": y}), "sum.svg")
    minicnn graph --arch paper --out alexnet.svg

    record.py       which ops ran, and whose answers they took
    layout.py       where boxes and lines go, so that none is on another
    drawing.py      both as SVG
    command.py      minicnn graph
"""

import pathlib

from minicnn.study.graph.drawing import svg
from minicnn.study.graph.record import Edge, Graph, Node, graph_of_network, graph_of_tensor

__all__ = ["Edge", "Graph", "Node", "graph_of_network", "graph_of_tensor", "graph_svg", "network_svg", "save"]


def network_svg(model, input_shape, title=""):
    """The ops that one input runs through, forward, in training mode: each with its layer, the shape of its answer (N: the batch), its
    parameters, and the bytes that it newly saves for backward. Returns the text of an SVG.

    Args:
        model: a Module, on either device; its mode and all random numbers are left as they were.
        input_shape: of one input without the batch: (C, H, W) for images.
        title: the line above; by default the model's class.

    Raises what the model raises.
    """
    return svg(graph_of_network(model, input_shape), title or type(model).__name__)


def graph_svg(tensor, names=None, title=""):
    """The graph behind a tensor, as backward will walk it. Returns the text of an SVG.

    Args:
        tensor: the answer, for instance a loss.
        names: {name: tensor} of leaves, for their boxes.
        title: the line above.

    Raises ValueError for a tensor that nothing with a gradient lies behind.
    """
    return svg(graph_of_tensor(tensor, names), title or "the graph behind a tensor")


def save(svg, path):
    """Write the text to a file."""
    pathlib.Path(path).write_text(svg, encoding="utf-8")
