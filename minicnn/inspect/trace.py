"""Trace: every op of one forward and one backward pass, in order of execution, with its time, its norm and the memory saved for backward.

    print(trace(model, x, labels))          # a table; it is a list of Rows
    print(trace_backward(loss))             # backward alone, for any graph

Forward numbers the ops; backward shows each under the same number. What an op saves for backward adds to the live bytes, and is freed
once backward has used it. The figures are measured: each saved array is followed by a weak reference, which reports when it is freed.
"""

import contextlib
import dataclasses
import math
import textwrap
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from minicnn import autograd, ops
from minicnn.backend import random
from minicnn.backend.arrays import device_scope, dot, is_array, xp_of
from minicnn.hooks import Hook
from minicnn.inspect.memory import LiveBytes, base_array
from minicnn.nn.module import Module
from minicnn.tensor import Tensor
from minicnn.text import format_bytes, format_shape

WIDTH = 120         # columns of a table, at most


@dataclasses.dataclass
class Row:
    """One op, forward or backward. Sizes are in bytes."""

    number: int             # of the op, from 1, in the order of forward
    direction: str          # "forward" or "backward"
    layer: str              # dotted name of the innermost layer that called it; "" outside of all layers
    op: str
    shapes_in: list         # forward: of every input; backward: of the output's gradient
    shapes_out: list        # forward: of the output; backward: of the gradient of each input that needs one
    flops: int              # 2 per multiply-add of the definition; 0 for ops that are bound by memory instead
    bytes_accessed: int     # read and written: forward inputs and output, backward gradients and saved arrays; 0 for a view
    saved: int = 0          # forward: memory newly saved for backward; arrays saved by an earlier op, inputs and weights are not counted
    freed: int = 0          # saved memory that was freed after this op and before the next
    live_bytes: int = 0     # saved memory that is allocated after this op
    added: list[str] = dataclasses.field(default_factory=list)      # backward: a line for each gradient that was added to an earlier one
    ms: float = 0.0
    norm: float = math.nan  # L2 norm; forward: of the output, backward: of the output's gradient; NaN for integers


class Trace(list[Row]):
    """A list of Rows, forward and then backward, which prints as a table.

    Attributes, in bytes: live_before, saved memory that was allocated before the first row (by a forward that was not traced); peak,
    the most that outputs, gradients and saved arrays took at once (not the model's input and weights, nor an op's internal buffers).
    """

    live_before = 0
    peak = 0

    @property
    def forward(self) -> list[Row]:
        """The rows of forward."""
        return [r for r in self if r.direction == "forward"]

    @property
    def backward(self) -> list[Row]:
        """The rows of backward."""
        return [r for r in self if r.direction == "backward"]

    def __str__(self) -> str:
        head = ("#", "layer", "op", "in -> out", "ms", "norm", "saved", "live")
        body = [(str(r.number), truncate_left(r.layer, 16), truncate_left(r.op, 17),
                 truncate_left(f"{format_shape(r.shapes_in[0])} -> {format_shape(r.shapes_out[0])}", 34), format_ms(r.ms), f"{r.norm:.4g}",
                 (f"+{format_bytes(r.saved)}" if r.saved else "") + (f"-{format_bytes(r.freed)}" if r.freed else ""),
                 format_bytes(r.live_bytes)) for r in self]
        widths = [max(len(line[i]) for line in (head, *body)) for i in range(8)]

        def line(cells: tuple[str, ...]) -> str:
            aligned = [c.ljust(w) if i in (1, 2, 3) else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))]
            return "  ".join(aligned).rstrip()

        rule = "-" * (sum(widths) + 14)
        lines = [line(head)]
        for direction, meaning in (("forward", "norm: of the output"), ("backward", "norm: of the output's gradient")):
            rows = [(r, cells) for r, cells in zip(self, body, strict=True) if r.direction == direction]
            if rows:
                lines += [rule, f"{direction} ({meaning})"]
            for row, cells in rows:
                lines.append(line(cells))
                for text in row.added:
                    margin = " " * (widths[0] + 4)
                    lines += textwrap.wrap("+ " + text, WIDTH, initial_indent=margin, subsequent_indent=margin + "  ")
        saved, freed = self.live_before + sum(r.saved for r in self), sum(r.freed for r in self)
        lines += [rule, f"{format_ms(sum(r.ms for r in self))} ms in ops; saved {format_bytes(saved)}, freed {format_bytes(freed)}"]
        left = self[-1].live_bytes if self else self.live_before
        if left and self.backward:
            lines.append(f"{format_bytes(left)} still allocated: held by a reference outside the graph, or backward did not reach their op")
        return "\n".join(lines)


class ForwardCall(NamedTuple):
    """What Tracer stores about a node until its backward."""

    number: int = 0
    layer: str = ""
    flops: int = 0
    saved_bytes: int = 0


class Tracer(Hook):
    """Records the rows. It holds no arrays, and reads them only for their norms, outside of the measured time.

    Args:
        model: its layers and parameters are named.   ignored: arrays that are allocated anyway and not counted.
        norms: whether to compute norms.
    """

    def __init__(self, model: Module | None = None, ignored: Iterable[Any] = (), norms: bool = True) -> None:
        self.layers = {} if model is None else {id(module): name or "(model)" for name, module in model.named_modules()}
        self.parameters = {} if model is None else {id(p): name for name, p in model.named_parameters()}
        self.norms = norms
        self.rows = Trace()
        self.times: list = []                   # of each row: (begin, end), as returned by `timestamp`
        self.squares: list = []                 # of each row: the sum of squares, on the array's device
        self.running: list[str] = []            # names of the layers that are running, the innermost last
        self.forwards: weakref.WeakKeyDictionary[Any, ForwardCall] = weakref.WeakKeyDictionary()    # of each node
        self.contributors: weakref.WeakKeyDictionary[Any, list[str]] = weakref.WeakKeyDictionary()  # of each node or leaf: the ops whose
        self.count = 0                                                                              # gradients it has received
        self.began: Any = None
        ignored = list(ignored)
        self.saved_memory = LiveBytes(ignored, self.on_free)
        self.all_memory = LiveBytes(ignored)

    def number_graph(self, root: Tensor) -> None:
        """Number the nodes below `root`, whose forward was not traced, and count the memory that they hold."""
        order = autograd.topological_order(root.node or root)
        for vertex in order:
            if isinstance(vertex, Tensor):
                self.saved_memory.ignore(vertex.data)
                self.all_memory.ignore(vertex.data)
        for node in reversed(order):
            if not isinstance(node, Tensor):
                self.count += 1
                saved = [a for a in node.saved or () if is_array(a)]
                self.forwards[node] = ForwardCall(self.count, saved_bytes=sum(a.nbytes for a in saved))
                self.rows.live_before += sum(map(self.saved_memory.add, saved))
                for a in saved:
                    self.all_memory.add(a)

    def before_module(self, module, inputs):
        self.running.append(self.layers.get(id(module), type(module).__name__))

    def after_module(self, module, inputs, output):
        self.running.pop()

    def before_forward(self, function, arrays):
        self.began = timestamp(arrays[0])

    def after_forward(self, function, arrays, y, saved):
        ended = timestamp(arrays[0])
        y = np.asarray(y) if isinstance(y, np.generic) else y           # a sum over all axes is a NumPy scalar
        saved = [a for a in saved if is_array(a)]
        view = any(base_array(y) is base_array(a) for a in arrays)
        self.count += 1
        row = Row(self.count, "forward", self.running[-1] if self.running else "", repr(function), [a.shape for a in arrays], [y.shape],
                  2 * function.multiply_adds(y, *arrays), 0 if view else y.nbytes + sum(a.nbytes for a in arrays))
        row.saved = sum(map(self.saved_memory.add, saved))
        if function.inputs:                     # a node of the graph: backward may reach it
            self.forwards[function] = ForwardCall(row.number, row.layer, row.flops, sum(a.nbytes for a in saved))
        self.append(row, ended, y, [y, *saved])

    def before_backward(self, function, gy):
        self.all_memory.add(gy)
        self.began = timestamp(gy)

    def after_backward(self, function, gy, gxs):
        ended = timestamp(gy)
        call = self.forwards.get(function, ForwardCall())
        gxs = [gx if needed else None for gx, needed in zip(gxs, function.needs_input_grad, strict=True)]
        computed = [gx for gx in gxs if gx is not None]
        view = all(base_array(gx) is base_array(gy) for gx in computed)
        products = sum(function.needs_input_grad[:2])       # one matrix product for each factor that needs a gradient
        row = Row(call.number, "backward", call.layer, repr(function), [gy.shape], [gx.shape for gx in computed], call.flops * products,
                  0 if view else gy.nbytes + call.saved_bytes + sum(gx.nbytes for gx in computed))
        for source, gx in zip(function.inputs, gxs, strict=True):
            if gx is not None:
                earlier = self.contributors.setdefault(source, [])
                if earlier:
                    row.added.append(f"its gradient of {self.name(source)} is added to that from {' and '.join(earlier)}")
                elif isinstance(source, Tensor) and source.grad is not None:
                    row.added.append(f"its gradient of {self.name(source)} is added to the existing .grad")
                earlier.append(self.name(function))
        self.append(row, ended, gy, computed)

    def append(self, row: Row, ended: Any, array: Any, arrays: Iterable[Any]) -> None:
        """Store a row, the time and the sum of squares of `array`, and count the memory of `arrays`."""
        self.rows.append(row)
        self.times.append((self.began, ended))
        self.squares.append(dot(array, array) if self.norms and array.dtype.kind == "f" else math.nan)
        for a in arrays:
            self.all_memory.add(a)

    def name(self, source: Any) -> str:
        """The name of a node or a leaf in the table."""
        if isinstance(source, Tensor):
            return self.parameters.get(id(source)) or f"a leaf of shape {source.shape}"
        call = self.forwards.get(source, ForwardCall())
        return " ".join(filter(None, [f"#{call.number}", call.layer, str(source)]))

    def on_free(self, size: int) -> None:
        """A saved array of this size was freed."""
        if self.rows:
            self.rows[-1].freed += size

    def result(self) -> Trace:
        """The finished rows. On a GPU this waits for all ops."""
        self.saved_memory.stop()
        self.all_memory.stop()
        live = self.rows.live_before
        for row, times, square in zip(self.rows, self.times, self.squares, strict=True):
            live += row.saved - row.freed
            row.live_bytes, row.ms, row.norm = live, elapsed_ms(*times), math.sqrt(float(square))
        self.rows.peak = self.all_memory.peak
        return self.rows


def trace(model: Module, x: Any, labels: Any = None) -> Trace:
    """Run one batch through `model`, forward and backward, and record every op.

    Args:
        model: a Module; it runs in its current mode (training, unless `eval()` was called).
        x: its input, (N, ...), a Tensor or an array on the model's device.
        labels: (N,) integers, for a cross-entropy loss; None: backward starts at the model's output, with a gradient of ones.

    Returns a Trace, a list of Rows that prints as a table. Gradients and random numbers are left as they were. Times are of this one
    run, without a warm-up; `minicnn.inspect.profile` repeats and takes medians.
    Raises RuntimeError if nothing here requires a gradient, and what the model raises.
    """
    x = as_leaf(x)
    with preserve_grads_and_rng(model), Tracer(model, [x.data, *(p.data for p in model.parameters())]) as tracer:
        run_forward(model, x, labels)()
        return tracer.result()


def trace_backward(tensor: Tensor, grad: Any = None) -> Trace:
    """Run `tensor.backward(grad)` and return a Trace of it. Forward was not traced, so ops have numbers but no layers.

    Args and errors are those of `Tensor.backward`: `grad` has the tensor's shape; None for a single number.
    """
    tracer = Tracer()
    tracer.number_graph(tensor)
    with tracer:
        autograd.backward(tensor, grad)
        return tracer.result()


def run_forward(model: Module, x: Tensor, labels: Any) -> Callable[[], None]:
    """Run forward, with the loss; returns the function that runs backward. It has the only reference to the graph."""
    loss = model(x) if labels is None else ops.cross_entropy(model(x), labels)

    def run_backward() -> None:
        with device_scope(loss.data):
            loss.backward(xp_of(loss.data).ones_like(loss.data))

    return run_backward


def as_leaf(x: Any) -> Tensor:
    """A tensor of these values outside any graph."""
    return Tensor(x.data, x.requires_grad) if isinstance(x, Tensor) else Tensor(x)


@contextlib.contextmanager
def preserve_grads_and_rng(model: Module) -> Iterator[None]:
    """Inside, parameters start without gradients; afterwards each has its previous `.grad` and the random state is restored."""
    before = [(p, p.grad) for p in model.parameters()]
    try:
        with random.fork_rng():
            for p, _ in before:
                p.grad = None
            yield
    finally:
        for p, grad in before:
            p.grad = grad


def timestamp(array: Any) -> Any:
    """The current time on the device of `array`: seconds of the CPU's clock, or a recorded CUDA event."""
    if isinstance(array, np.ndarray):
        return time.perf_counter()
    import cupy
    with array.device:
        event = cupy.cuda.Event()
        event.record()
    return event


def elapsed_ms(begin: Any, end: Any) -> float:
    """Milliseconds between two timestamps; on a GPU it waits for the second."""
    if isinstance(begin, float):
        return 1e3 * (end - begin)
    import cupy
    end.synchronize()
    return cupy.cuda.get_elapsed_time(begin, end)


def format_ms(ms: float) -> str:
    """Milliseconds with two decimals; without from a second on: 0.25, 1,234."""
    return f"{ms:.2f}" if ms < 1000 else f"{ms:,.0f}"


def truncate_left(text: str, width: int) -> str:
    """The last `width` characters at most, since the end of a dotted name says the most: …block1.conv2."""
    return text if len(text) <= width else "…" + text[1 - width:]
