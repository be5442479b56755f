"""What happens in one forward and one backward: every op, in the order in which it happens.

    print(trace(model, x, labels))          # a table; it is a list of Rows
    loss.backward(trace=True)               # the backward half, for any graph

Forward numbers the ops, and backward comes back to each under the same number. What an op saves for backward adds to what is kept;
when backward has used it, it is freed. That it is really freed is seen, not assumed: each saved array is watched by a weak reference.
"""

import contextlib
import dataclasses
import functools
import math
import textwrap
import time
import weakref

import numpy as np

from minicnn import autograd, ops, random
from minicnn.autograd import Hook
from minicnn.backend import device_scope, is_array, xp_of
from minicnn.study.health import dot
from minicnn.tensor import Tensor

WIDTH = 120         # columns of a table, at most


@dataclasses.dataclass
class Row:
    """One op, on its way forward or back. Sizes are in bytes."""

    number: int             # of the op, from 1, as forward ran them
    direction: str          # "forward" or "backward"
    layer: str              # dotted name of the innermost layer that called it; "" outside of all
    op: str
    shapes_in: list         # forward: of every input; backward: of the gradient of the answer
    shapes_out: list        # forward: of the answer; backward: of the gradient of each input that wants one
    operations: int         # 2 for each multiply-add of the definition; 0 for ops where these are not the work
    moved: int              # what it reads and writes: forward inputs and answer, backward gradients and what was saved; 0 for a view
    saved: int = 0          # forward: memory newly kept for backward; what an earlier op keeps already, inputs and weights are not counted
    freed: int = 0          # of what was saved, what went after this op and before the next
    kept: int = 0           # of what was saved, what is there when this is done
    added: list = dataclasses.field(default_factory=list)       # backward: a line for each gradient that met an earlier one
    ms: float = 0.0
    norm: float = math.nan  # root of the sum of squares; forward: of the answer, backward: of the gradient of the answer, as it arrived


class Trace(list):
    """The Rows, forward and then backward; prints as a table.

    Attributes, in bytes: kept_before, saved before the first row (by a forward that was not watched); peak, the most that was
    there at once of answers, gradients and saved arrays (not the model's input and weights, nor what an op uses inside).
    """

    kept_before = 0
    peak = 0

    @property
    def forward(self):
        """The rows of forward."""
        return [r for r in self if r.direction == "forward"]

    @property
    def backward(self):
        """The rows of backward."""
        return [r for r in self if r.direction == "backward"]

    def __str__(self):
        head = ("#", "layer", "op", "in -> out", "ms", "norm", "saved", "kept")
        body = [(str(r.number), cut(r.layer, 16), cut(r.op, 17), cut(f"{dims(r.shapes_in)} -> {dims(r.shapes_out)}", 34), decimals(r.ms),
                 f"{r.norm:.4g}", f"+{readable(r.saved)}" * bool(r.saved) + f"-{readable(r.freed)}" * bool(r.freed), readable(r.kept))
                for r in self]
        widths = [max(len(line[i]) for line in (head, *body)) for i in range(8)]

        def line(cells):
            aligned = [c.ljust(w) if i in (1, 2, 3) else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))]
            return "  ".join(aligned).rstrip()

        rule = "-" * (sum(widths) + 14)
        lines = [line(head)]
        for direction, what in (("forward", "norm: of the answer"), ("backward", "norm: of the gradient of the answer, as it arrives")):
            rows = [(r, cells) for r, cells in zip(self, body, strict=True) if r.direction == direction]
            if rows:
                lines += [rule, f"{direction} ({what})"]
            for row, cells in rows:
                lines.append(line(cells))
                for text in row.added:
                    margin = " " * (widths[0] + 4)
                    lines += textwrap.wrap("+ " + text, WIDTH, initial_indent=margin, subsequent_indent=margin + "  ")
        total, spent = sum(r.saved for r in self) + self.kept_before, sum(r.ms for r in self)
        lines += [rule, f"{decimals(spent)} ms in ops; saved {readable(total)}, freed {readable(sum(r.freed for r in self))}"]
        left = self[-1].kept if self else self.kept_before
        if left and self.backward:
            lines.append(f"{readable(left)} are still there: a tensor outside of the graph holds them, or backward did not come by")
        return "\n".join(lines)


class Tracer(Hook):
    """Makes the rows. It holds no arrays, and reads them only for their norms, outside of the time that is measured.

    Args:
        model: whose layers and parameters are named.   held: arrays that are there anyway, and are not counted.
        norms: whether arrays are read for their norms.
    """

    def __init__(self, model=None, held=(), norms=True):
        self.layers = {} if model is None else {id(module): name or "(model)" for name, module in model.named_modules()}
        self.parameters = {} if model is None else {id(p): name for name, p in model.named_parameters()}
        self.norms = norms
        self.rows = Trace()
        self.times: list = []                   # of each row: (begin, end), as `mark` gives them
        self.squares: list = []                 # of each row: the sum of squares, where the array is
        self.inside: list[str] = []             # the layers that are running, the innermost last
        self.forwards: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()  # node -> number, layer, operations, bytes saved
        self.givers: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()    # node or leaf -> the ops whose gradients it has got
        self.count = 0
        self.began: object = None
        self.kept = Alive(held, self.left)
        self.alive = Alive(held)

    def know(self, root):
        """Number the nodes below `root`, whose forward was not watched, and count what they keep."""
        order = autograd.topological_order(root.node or root)
        for leaf in order:
            if isinstance(leaf, Tensor):
                self.kept.ignore(leaf.data)
                self.alive.ignore(leaf.data)
        for node in reversed(order):
            if not isinstance(node, Tensor):
                self.count += 1
                saved = [a for a in node.saved or () if is_array(a)]
                self.forwards[node] = self.count, "", 0, sum(a.nbytes for a in saved)
                self.rows.kept_before += sum(map(self.kept.meet, saved))
                for a in saved:
                    self.alive.meet(a)

    def before_module(self, module, inputs):
        self.inside.append(self.layers.get(id(module), type(module).__name__))

    def after_module(self, module, inputs, output):
        self.inside.pop()

    def before_forward(self, function, arrays):
        self.began = mark(arrays[0])

    def after_forward(self, function, arrays, y, saved):
        ended = mark(arrays[0])
        y = np.asarray(y) if isinstance(y, np.generic) else y           # a sum down to one number
        saved = [a for a in saved if is_array(a)]
        view = any(owner(y) is owner(a) for a in arrays)
        self.count += 1
        row = Row(self.count, "forward", self.inside[-1] if self.inside else "", repr(function), [a.shape for a in arrays], [y.shape],
                  2 * function.multiply_adds(y, *arrays), 0 if view else y.nbytes + sum(a.nbytes for a in arrays))
        row.saved = sum(map(self.kept.meet, saved))
        if function.inputs:                     # it is a node: its backward will come
            self.forwards[function] = row.number, row.layer, row.operations, sum(a.nbytes for a in saved)
        self.note(row, ended, y, [y, *saved])

    def before_backward(self, function, gy):
        self.alive.meet(gy)
        self.began = mark(gy)

    def after_backward(self, function, gy, gxs):
        ended = mark(gy)
        number, layer, operations, saved = self.forwards.get(function, (0, "", 0, 0))
        gxs = [gx if needed else None for gx, needed in zip(gxs, function.needs, strict=True)]
        there = [gx for gx in gxs if gx is not None]
        view = all(owner(gx) is owner(gy) for gx in there)
        products = sum(function.needs[:2])      # one for each factor whose gradient is wanted
        row = Row(number, "backward", layer, repr(function), [gy.shape], [gx.shape for gx in there], operations * products,
                  0 if view else gy.nbytes + saved + sum(gx.nbytes for gx in there))
        for source, gx in zip(function.inputs, gxs, strict=True):
            if gx is not None:
                earlier = self.givers.setdefault(source, [])
                if earlier:
                    row.added.append(f"its gradient of {self.name(source)} is added to that from {' and '.join(earlier)}")
                elif isinstance(source, Tensor) and source.grad is not None:
                    row.added.append(f"its gradient of {self.name(source)} is added to the .grad that was there")
                earlier.append(self.name(function))
        self.note(row, ended, gy, there)

    def note(self, row, ended, array, arrays):
        """Keep the row, and of these arrays what is to be told of them."""
        self.rows.append(row)
        self.times.append((self.began, ended))
        self.squares.append(dot(array, array) if self.norms and array.dtype.kind == "f" else math.nan)
        for a in arrays:
            self.alive.meet(a)

    def name(self, source):
        """How the table calls a node or a leaf."""
        if isinstance(source, Tensor):
            return self.parameters.get(id(source)) or f"a leaf of shape {source.shape}"
        number, layer, *_ = self.forwards.get(source, (0, ""))
        return f"#{number} {layer}{' ' * bool(layer)}{source}"

    def left(self, size):
        """A saved array is gone."""
        if self.rows:
            self.rows[-1].freed += size

    def result(self):
        """The rows, complete. On a GPU this waits until all is done."""
        self.kept.stop()
        self.alive.stop()
        kept = self.rows.kept_before
        for row, times, square in zip(self.rows, self.times, self.squares, strict=True):
            kept += row.saved - row.freed
            row.kept, row.ms, row.norm = kept, milliseconds(*times), math.sqrt(float(square))
        self.rows.peak = self.alive.peak
        return self.rows


class Alive:
    """Counts the bytes of the arrays it has met that are still there, without holding any of them.

    Args:
        held: arrays that are not to be counted.   gone: called with the size of each that is freed.
    """

    def __init__(self, held=(), gone=lambda size: None):
        self.gone, self.held = gone, []
        self.there: dict = {}                   # id of the array that owns the memory -> a weak reference to it
        self.bytes = self.peak = 0
        for array in held:
            self.ignore(array)

    def ignore(self, array):
        """Do not count this one. (It is held, so that no other gets its id.)"""
        self.held.append(owner(array))
        self.there[id(owner(array))] = None

    def meet(self, array):
        """The bytes that this array adds: 0 if its memory is counted already."""
        array = owner(array)
        if id(array) in self.there:
            return 0
        self.there[id(array)] = weakref.ref(array, functools.partial(self.leave, id(array), array.nbytes))
        self.bytes += array.nbytes
        self.peak = max(self.peak, self.bytes)
        return array.nbytes

    def leave(self, key, size, reference):
        del self.there[key]
        self.bytes -= size
        self.gone(size)

    def stop(self):
        """What is freed from now on is not noticed."""
        self.there.clear()
        self.held.clear()


def trace(model, x, labels=None):
    """Run one batch through `model`, forward and backward, and tell what happened, op by op.

    Args:
        model: a Module; it runs in the mode it is in (training, unless `eval()` was called).
        x: its input, (N, ...), a Tensor or an array on the device of the model.
        labels: (N,) integers for a cross-entropy loss; without them backward starts at the model's own answer, with ones.

    Returns a Trace, a list of Rows that prints as a table. Gradients and random numbers of the model are left as they were. Times are
    of this one run, and the first is slow; `minicnn.study.profile` repeats and compares.
    Raises RuntimeError if nothing here has a gradient, and what the model raises.
    """
    x = leaf(x)
    with unchanged(model), Tracer(model, [x.data, *(p.data for p in model.parameters())]) as tracer:
        loss_of(model, x, labels)()
        return tracer.result()


def trace_backward(tensor, grad=None):
    """`tensor.backward(grad)`, watched: returns a Trace of the backward half. Layers are not known, only ops."""
    tracer = Tracer()
    tracer.know(tensor)
    with tracer:
        autograd.backward(tensor, grad)
        return tracer.result()


def loss_of(model, x, labels):
    """Run forward; returns the function that runs backward, which holds the graph, and nothing else does."""
    loss = model(x) if labels is None else ops.cross_entropy(model(x), labels)

    def backward():
        with device_scope(loss.data):
            loss.backward(xp_of(loss.data).ones_like(loss.data))

    return backward


def leaf(x):
    """A tensor of these numbers that no graph lies behind."""
    return Tensor(x.data, x.requires_grad) if isinstance(x, Tensor) else Tensor(x)


@contextlib.contextmanager
def unchanged(model):
    """Inside, parameters begin without gradients; afterwards they have those they had, and the random numbers go on as before."""
    before = [(p, p.grad) for p in model.parameters()]
    try:
        with random.preserved():
            for p, _ in before:
                p.grad = None
            yield
    finally:
        for p, grad in before:
            p.grad = grad


def owner(array):
    """The array that owns the memory that `array` is a view of, on either device."""
    while is_array(array.base):
        array = array.base
    return array


def mark(array):
    """Now, on the device of `array`: seconds of a clock, or an event that the GPU will come by."""
    if isinstance(array, np.ndarray):
        return time.perf_counter()
    import cupy
    with array.device:
        event = cupy.cuda.Event()
        event.record()
    return event


def milliseconds(begin, end):
    """The time between two marks; waits for the GPU to come by."""
    if isinstance(begin, float):
        return 1e3 * (end - begin)
    import cupy
    end.synchronize()
    return cupy.cuda.get_elapsed_time(begin, end)


def dims(shapes):
    """The first shape, short: 16x96x55x55."""
    return "x".join(map(str, shapes[0])) or "1"


def readable(size):
    """Bytes, with three digits or four: 512 B, 34.1 kB, 4.6 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"


def decimals(ms):
    return f"{ms:.2f}" if ms < 1000 else f"{ms:,.0f}"


def cut(text, width):
    """At most `width` characters of it, the last: of a dotted name the end tells more."""
    return text if len(text) <= width else "…" + text[1 - width:]
