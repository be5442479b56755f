"""Fuzzing: random graphs of all ops agree with plain NumPy, and so do their gradients, for every order, memory layout and thread count.

The tests of each op check that op alone, with inputs made for it. Here the ops are combined: a gradient arrives as a view, a broadcast
scalar or a sum of several; what one op saved is another's input; a tensor is used three times and a leaf not at all.
"""

import collections
import contextlib
import os

import numpy as np
import pytest
from check import LAYOUTS, small_blocks, use_threads
from hypothesis import HealthCheck, Phase, given, settings
from plain_numpy import STEP, evaluate
from random_graphs import OPERATORS, graphs

from minicnn import Tensor, ops
from minicnn.autograd import no_grad
from minicnn.hooks import Hook
from minicnn.ops.conv2d import winograd

EXAMPLES = 700
RTOL_FLOAT64 = 1e-10        # float64, the same sums in another order; a fraction of the largest value
PHASES = (Phase.generate, Phase.shrink) if "MINICNN_SHRINK" in os.environ else (Phase.generate,)     # shrinking takes minutes
RTOL_FLOAT32 = 2e-4         # float32 against float64, after a dozen ops
UNDECIDED = 1e-9, 1e-4      # a branch with a smaller relative margin may differ in float64, in float32
LAYOUTS = {**LAYOUTS, "reversed": lambda a: a[..., ::-1].copy()[..., ::-1] if a.ndim else a}

seen: collections.Counter = collections.Counter()


def run(graph, dtype="float64", layouts=True, order=None, backward=True):
    """Run the graph in minicnn: its tensors by index, and the largest magnitude of any gradient. Leaves are read-only."""
    tensors: dict[int, Tensor] = {}
    for number in order or range(len(graph.nodes)):
        node = graph.nodes[number]
        if node.op is None:
            array = LAYOUTS[node.layout if layouts else "contiguous"](node.value.astype(dtype))
            array.flags.writeable = False
            tensors[number] = Tensor(array, requires_grad=node.requires_grad)
        else:
            tensors[number] = call(node, [operand(i[0], dtype) if isinstance(i, tuple) else tensors[i] for i in node.inputs])
    root = tensors[len(graph.nodes) - 1]
    with Largest() as largest:
        if root.requires_grad and backward:
            root.backward(graph.cotangent)
    return tensors, largest.seen


def call(node, inputs):
    arguments = dict(node.arguments)
    if node.op == "dropout":
        arguments["rng"] = np.random.Generator(np.random.Philox(key=arguments.pop("key")))
    if node.by_operator:
        name = {**OPERATORS, "matmul": "__matmul__"}[node.op]
        if not isinstance(inputs[0], Tensor):
            inputs, name = inputs[::-1], "__r" + name[2:]
        return getattr(inputs[0], name)(inputs[1])
    if node.op in ("reshape", "transpose"):
        return getattr(ops, node.op)(*inputs, *(arguments.get("shape") or arguments.get("axes") or ()))
    return getattr(ops, node.op)(*inputs, **arguments)


def operand(value, dtype):
    return value.astype(dtype) if isinstance(value, np.ndarray) else value


class Largest(Hook):
    """The largest magnitude of any gradient in backward: rounding errors are measured relative to it."""

    def __init__(self):
        self.seen = 1e-300

    def after_backward(self, function, gy, gxs):
        self.seen = max([self.seen, np.abs(gy).max(initial=0), *(np.abs(gx).max(initial=0) for gx in gxs if gx is not None)])


def leaves(graph):
    return [number for number, node in enumerate(graph.nodes) if node.op is None]


def leaves_with_grad(graph):
    """The leaves that must get a gradient."""
    return [number for number in leaves(graph) if graph.nodes[number].requires_grad and number in graph.reached()]


def slope(graph, directions):
    """The derivative of cotangent * root along a direction for each leaf (by index), by plain NumPy."""
    values: list = []
    for number, node in enumerate(graph.nodes):
        if node.op is None:
            values.append(node.value + 1j * STEP * directions[number] if number in directions else node.value)
        else:
            arrays = [i[0] if isinstance(i, tuple) else values[i] for i in node.inputs]
            values.append(evaluate(node.op, graph.branches, number, arrays, node.arguments))
    root = values[-1] if graph.cotangent is None else values[-1] * graph.cotangent
    return float(np.imag(root).sum()) / STEP


def other_order(graph, rng):
    """A random topological order of the nodes; the root is last."""
    order, waiting = [], list(range(len(graph.nodes) - 1))
    while waiting:
        ready = [number for number in waiting if not set(graph.sources(number)) & set(waiting)]
        order.append(ready[rng.integers(len(ready))])
        waiting.remove(order[-1])
    return [*order, len(graph.nodes) - 1]


def close(what, got, want, tolerance, floor=0.0):
    """Equal in shape, and in value up to `tolerance` times the largest value, or up to `floor`."""
    assert got.shape == want.shape, what
    error = np.abs(got - want).max(initial=0)
    assert error <= tolerance * np.abs(want).max(initial=0) + floor, f"{what}: off by {error:.3g} of {np.abs(want).max(initial=0):.3g}"


def near(got, want, tolerance, floor):
    """Whether they are equal within `tolerance` times the largest value, plus `floor`."""
    return got.shape == want.shape and np.abs(got - want).max(initial=0) <= tolerance * np.abs(want).max(initial=0) + floor


def same_bits(graph, one, other):
    assert all(one[number].data.tobytes() == other[number].data.tobytes() for number in one)
    assert all(one[number].grad.tobytes() == other[number].grad.tobytes() for number in leaves_with_grad(graph))


@contextlib.contextmanager
def small_chunks():
    """A context manager: every image is a block of its own for all ops, and a chunk of its own for Winograd."""
    before, winograd.WORKSPACE = winograd.WORKSPACE, 1
    try:
        with small_blocks():
            yield
    finally:
        winograd.WORKSPACE = before


def check_graph(graph):
    """Check everything about one graph."""
    rng = np.random.default_rng(0)
    tensors, largest = run(graph)
    outputs = {number: tensor.data for number, tensor in tensors.items()}

    # Every output follows the formula, and no op, in forward or backward, modified the output of another.
    for number, node in enumerate(graph.nodes):
        assert outputs[number].dtype == np.float64
        close(f"node {number}, {node.op}", outputs[number], node.value, RTOL_FLOAT64, 1e-12)
    expected = set(leaves_with_grad(graph))
    for number, tensor in tensors.items():
        assert (tensor.grad is not None) == (number in expected), f"node {number}"
        assert tensor.grad is None or (tensor.grad.shape, tensor.grad.dtype) == (tensor.shape, tensor.dtype)
    owned = [tensor.grad for tensor in tensors.values() if tensor.grad is not None]
    assert not any(np.may_share_memory(gradient, other) for gradient in owned for other in outputs.values())
    assert not any(np.may_share_memory(a, b) for i, a in enumerate(owned) for b in owned[:i])

    # Backward is the derivative.
    decided = graph.branches.margin > UNDECIDED[0]
    for chosen in ([[number] for number in expected] + [sorted(expected)]) if decided and expected else []:
        directions = {number: rng.uniform(0.5, 1.5, tensors[number].shape) * rng.choice([-1, 1], tensors[number].shape)
                      for number in chosen}
        terms = [(tensors[number].grad * d) for number, d in directions.items()]
        claimed, size = sum(term.sum() for term in terms), sum(np.abs(term).sum() for term in terms)
        found = slope(graph, directions)
        assert abs(claimed - found) <= 1e-9 * size + 1e-13 * largest, f"along {chosen}: must be {found:.12g}, got {claimed:.12g}"
    seen["leaves"] += len(expected)
    seen["leaves that matter"] += sum(np.abs(tensors[number].grad).max() > 1e-6 for number in expected)
    seen["unused leaves"] += len(set(leaves(graph)) - graph.reached())
    seen["undecided"] += not decided

    # A second run, another order, another layout, another number of threads.
    same_bits(graph, tensors, run(graph)[0])
    variants = [("in another order", run(graph, order=other_order(graph, rng))[0]),
                ("with contiguous leaves", run(graph, layouts=False)[0])]
    with small_chunks():
        with use_threads(1):
            one_thread = run(graph)[0]
        with use_threads(2):
            same_bits(graph, one_thread, run(graph)[0])
    for what, others in [*variants, ("in blocks of one image", one_thread)]:
        for number, other in others.items():
            close(f"node {number} {what}", other.data, outputs[number], RTOL_FLOAT64, 1e-12)
        for number in expected if decided else ():
            close(f"gradient of leaf {number} {what}", others[number].grad, tensors[number].grad, RTOL_FLOAT64, 1e-13 * largest)

    # Under no_grad the same bits; in float32 the same values, except where digits cancel: these are counted.
    with no_grad():
        no_grad_run = run(graph, backward=False)[0]
    assert all(no_grad_run[number].data.tobytes() == outputs[number].tobytes() for number in no_grad_run)
    assert not any(tensor.node for tensor in no_grad_run.values())
    singles, _ = run(graph, "float32")
    for number, single in singles.items():
        assert single.dtype == np.float32, f"node {number}, {graph.nodes[number].op}"
        seen["float32 values"] += 1
        seen["float32 values that are off"] += not near(single.data, outputs[number], RTOL_FLOAT32, 1e-5)
    decided = graph.branches.margin > UNDECIDED[1]
    seen["undecided in float32"] += not decided
    for number in expected if decided else ():
        assert singles[number].grad.dtype == np.float32
        seen["float32 gradients"] += 1
        seen["float32 gradients that are off"] += not near(singles[number].grad, tensors[number].grad, 5 * RTOL_FLOAT32, 1e-5 * largest)


@pytest.fixture(scope="module")
def run_of_graphs():
    """All the random graphs, run once; `seen` counts what they contain."""
    seen.clear()

    @settings(derandomize=True, database=None, max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), phases=PHASES)
    @given(graphs())
    def check(graph):
        seen.update(f"op {node.op}" for node in graph.nodes if node.op)
        seen.update(f"layout {node.layout}" for node in graph.nodes if node.op is None)
        seen.update({"graphs": 1, "roots that are not scalars": graph.cotangent is not None, "nodes": len(graph.nodes)})
        uses = collections.Counter(i for number in range(len(graph.nodes)) for i in graph.sources(number))
        seen["tensors used three times"] += sum(count > 2 for count in uses.values())
        seen["winograd"] += sum(node.arguments.get("algorithm") == "winograd" for node in graph.nodes)
        check_graph(graph)

    check()
    return seen


def test_random_graphs_agree_with_plain_numpy(run_of_graphs):
    assert run_of_graphs["graphs"] >= EXAMPLES


def test_every_op_occurs_in_many_graphs(run_of_graphs):
    few = {op: run_of_graphs[f"op {op}"] for op in ops.__all__ if run_of_graphs[f"op {op}"] < EXAMPLES // 7}
    assert not few
    assert run_of_graphs["winograd"] > EXAMPLES // 50
    assert all(run_of_graphs[f"layout {layout}"] > EXAMPLES // 3 for layout in LAYOUTS)


def test_the_graphs_are_not_trivial(run_of_graphs):
    assert run_of_graphs["leaves"] > 1.5 * EXAMPLES
    assert run_of_graphs["leaves that matter"] > 0.8 * run_of_graphs["leaves"]
    assert run_of_graphs["unused leaves"] > EXAMPLES // 10
    assert run_of_graphs["tensors used three times"] > EXAMPLES // 10
    assert run_of_graphs["roots that are not scalars"] > EXAMPLES // 10
    assert run_of_graphs["undecided"] < 0.05 * run_of_graphs["graphs"]
    for what in ("values", "gradients"):            # sums of numbers of either sign lose digits
        assert run_of_graphs[f"float32 {what} that are off"] < 0.01 * run_of_graphs[f"float32 {what}"]
    assert run_of_graphs["undecided in float32"] < 0.15 * run_of_graphs["graphs"]
