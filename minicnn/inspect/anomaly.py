"""Anomaly detection: a hook that stops at the op that produced the first NaN or infinity, and shows its inputs, its output, and the line
that called it.

    with detect_anomaly(model):
        ...                             # the usual training loop, somewhat slower

A NaN spreads: one op later it is everywhere, and after one update in every weight. So every output, and every gradient in backward, is
checked as soon as it has been computed.
"""

import linecache
import os
import pathlib
import sys
import weakref
from typing import Any, NoReturn

import numpy as np

from minicnn.autograd import Function
from minicnn.backend.arrays import to_device, xp_of
from minicnn.hooks import Hook
from minicnn.nn.module import Module
from minicnn.text import pluralize

PACKAGE = str(pathlib.Path(__file__).parents[1]) + os.sep
EXAMPLES = PACKAGE + "examples" + os.sep            # programs of the user's, though they are inside the package


class AnomalyError(FloatingPointError):
    """A value is NaN or infinite.

    Attributes: op, for instance "Log"; direction, "forward" or "backward"; layer, its dotted name ("" outside of all layers);
    file and line, of the user's source that called the op in forward ("" and 0 if that was before the detection began).
    """

    def __init__(self, message: str, op: str, direction: str, layer: str, file: str, line: int) -> None:
        super().__init__(message)
        self.op, self.direction, self.layer, self.file, self.line = op, direction, layer, file, line


def detect_anomaly(model: Module | None = None) -> "AnomalyDetector":
    """A context manager inside which the first NaN or infinity, in forward or backward, raises AnomalyError.

    Args:
        model: a Module, so that the error names its layers; None: it names their types.

    It reads every array once more, and on a GPU waits for each op: for finding a fault, not for long runs. NumPy's own warnings
    (division by zero, overflow) are silenced inside.
    """
    return AnomalyDetector(model)


class AnomalyDetector(Hook):
    """Checks every output and every gradient; for each node it remembers where it was called and the statistics of its inputs."""

    def __init__(self, model: Module | None = None) -> None:
        self.model = model
        self.names = {} if model is None else {id(module): name or "(model)" for name, module in model.named_modules()}
        self.running: list[str] = []                # names of the layers that are running, the innermost last
        self.calls: weakref.WeakKeyDictionary[Function, Call] = weakref.WeakKeyDictionary()     # by node

    def __enter__(self):
        self.errstate = np.errstate(divide="ignore", over="ignore", invalid="ignore")       # the error says more than the warning
        self.errstate.__enter__()
        return super().__enter__()

    def __exit__(self, *exc):
        super().__exit__(*exc)
        self.errstate.__exit__(*exc)
        self.running.clear()
        self.calls.clear()

    def before_module(self, module, inputs):
        if module is self.model:                    # the previous forward, if it raised an error, left its layers here
            self.running.clear()
        self.running.append(self.names.get(id(module), type(module).__name__))

    def after_module(self, module, inputs, output):
        self.running.pop()

    def after_forward(self, function, arrays, y, saved):
        inputs = [ArrayStats(f"input {i}", a) for i, a in enumerate(arrays)]
        call = Call(self.running[-1] if self.running else "", caller_location(), inputs)
        output = ArrayStats("output", y)
        if not output.finite:
            call.fail(function, "forward", f"its output has {output.non_finite()}", [*call.inputs, output])
        if function.inputs:                         # a node of the graph: backward may reach it
            self.calls[function] = call

    def before_backward(self, function, gy):
        incoming = ArrayStats("gradient of the output", gy)
        if not incoming.finite:                     # its terms were checked, so their sum overflowed; or the user passed it to backward
            call = self.call_of(function)
            call.fail(function, "backward", f"the incoming gradient has {incoming.non_finite()}", [*call.inputs, incoming])

    def after_backward(self, function, gy, gxs):
        for i, gx in enumerate(gxs):
            if gx is None or not function.needs_input_grad[i]:
                continue
            stats = ArrayStats(f"gradient of input {i}", gx)
            if not stats.finite:
                call = self.call_of(function)
                call.fail(function, "backward", f"its gradient of input {i} has {stats.non_finite()}",
                          [*call.inputs, ArrayStats("gradient of the output", gy), stats])

    def call_of(self, function: Function) -> "Call":
        """The call of this node; an empty one if it ran before the detection began."""
        return self.calls.get(function) or Call("", ("", 0), [])


class ArrayStats:
    """Statistics of an array: shape, dtype, minimum and maximum of its finite elements, and the number of NaN and infinities.

    Args:
        name: the role of the array in the op.   array: on either device; it is read, and no reference is kept.
    """

    def __init__(self, name: str, array: Any) -> None:
        xp = xp_of(array := np.asarray(array) if isinstance(array, np.generic) else array)
        self.name, self.shape, self.dtype, self.size = name, array.shape, array.dtype, array.size
        self.nan = self.inf = 0
        self.min = self.max = None
        if not array.size:
            return
        extremes = to_device(xp.stack([array.min(), array.max()]), "cpu")       # NaN propagates to both
        if not np.isfinite(extremes).all():
            finite = xp.isfinite(array)
            self.nan = int(xp.isnan(array).sum())
            self.inf = array.size - int(finite.sum()) - self.nan
            extremes = to_device(xp.stack([xp.where(finite, array, xp.inf).min(), xp.where(finite, array, -xp.inf).max()]), "cpu")
        self.min, self.max = extremes.tolist()

    @property
    def finite(self) -> bool:
        """Whether there is neither NaN nor infinity."""
        return not (self.nan or self.inf)

    def non_finite(self) -> str:
        """"2 NaN and 1 inf among 3,136 numbers"."""
        counts = [f"{count:,} {name}" for count, name in ((self.nan, "NaN"), (self.inf, "inf")) if count]
        return " and ".join(counts) + " among " + pluralize(self.size, "number")

    def __str__(self) -> str:
        extremes = "no finite number" if self.min is None or self.min > self.max else f"from {self.min:.4g} to {self.max:.4g}"
        return f"{self.name}: {self.shape} {self.dtype}, {extremes}" + ("" if self.finite else f"; {self.non_finite()}")


class Call:
    """One call of an op: the layer, the user's line, and the statistics of the inputs. It holds no arrays."""

    def __init__(self, layer: str, location: tuple[str, int], inputs: list[ArrayStats]) -> None:
        self.layer, (self.file, self.line), self.inputs = layer, location, inputs

    def fail(self, function: Function, direction: str, finding: str, stats: list[ArrayStats]) -> NoReturn:
        """Raise the AnomalyError."""
        location = "an unknown line, before the detection began"
        if self.file:
            source = linecache.getline(self.file, self.line).strip()
            location = f"{self.file}:{self.line}" + (f": {source}" if source else "")
        head = f"{direction} of {function}" + (f" in layer {self.layer}" if self.layer else "") + f": {finding}"
        if not all(s.finite for s in self.inputs):
            head += "; an input was not finite already, and no op before produced it: check the data and the weights"
        raise AnomalyError("\n".join([head, *(f"  {s}" for s in stats), f"  called at {location}"]),
                           repr(function), direction, self.layer, self.file, self.line)


def caller_location() -> tuple[str, int]:
    """(file, line) of the innermost caller outside of minicnn; the examples count as outside."""
    frame = sys._getframe(1)
    while frame.f_back and frame.f_code.co_filename.startswith(PACKAGE) and not frame.f_code.co_filename.startswith(EXAMPLES):
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno
