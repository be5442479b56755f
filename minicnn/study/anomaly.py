"""Where did the first NaN come from? A hook that stops at the op which made it, and shows what went in, what came out, and who asked.

    with detect_anomaly(model):
        ...                             # the same loop as ever, a little slower

A NaN spreads: one op later it is everywhere, and after one update in every weight. So each answer, and each gradient on the way back,
is looked at as soon as it is there.
"""

import linecache
import os
import pathlib
import sys
import weakref

import numpy as np

import minicnn
from minicnn.autograd import Hook
from minicnn.backend import to_device, xp_of

PACKAGE = str(pathlib.Path(minicnn.__file__).parent) + os.sep


class AnomalyError(FloatingPointError):
    """A value is no longer finite.

    Attributes: op, for instance "Log"; direction, "forward" or "backward"; layer, its dotted name ("" outside of every layer);
    file and line, of the user's source that called the op in forward.
    """

    def __init__(self, message, op, direction, layer, file, line):
        super().__init__(message)
        self.op, self.direction, self.layer, self.file, self.line = op, direction, layer, file, line


def detect_anomaly(model=None):
    """For `with`: inside, the first value that is not finite, in forward or backward, raises AnomalyError.

    Args:
        model: a Module, whose parts are then named in the error as in the model; without it, by their types.

    It reads every array once more, and on a GPU waits for each op: for finding a fault, not for long runs. NumPy's own
    warnings (division by zero, overflow) are silent inside. Nothing is watched any more after the `with`.
    """
    return Detector(model)


class Detector(Hook):
    """Looks at each answer and each gradient; of a node it remembers where it was called and the ranges of its inputs."""

    def __init__(self, model=None):
        self.model = model
        self.names = {} if model is None else {id(module): name or "(model)" for name, module in model.named_modules()}
        self.inside: list[str] = []                 # the layers that are running, the innermost last
        self.calls: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()     # node -> Call; forgotten with the node

    def __enter__(self):
        self.quiet = np.errstate(divide="ignore", over="ignore", invalid="ignore")      # the error says it better than the warning
        self.quiet.__enter__()
        return super().__enter__()

    def __exit__(self, *exc):
        super().__exit__(*exc)
        self.quiet.__exit__(*exc)
        self.inside.clear()
        self.calls.clear()

    def before_module(self, module, inputs):
        if module is self.model:                    # an error in the last forward, if it was caught, left its layers here
            self.inside.clear()
        self.inside.append(self.names.get(id(module), type(module).__name__))

    def after_module(self, module, inputs, output):
        self.inside.pop()

    def after_forward(self, function, arrays, y, saved):
        call = Call(self.inside[-1] if self.inside else "", users_line(), [Range(f"input {i}", a) for i, a in enumerate(arrays)])
        answer = Range("answer", y)
        if not answer.finite:
            call.fail(function, "forward", f"its answer holds {answer.wrong()}", [*call.inputs, answer])
        if function.inputs:                         # it is a node: its backward will come
            self.calls[function] = call

    def before_backward(self, function, gy):
        arrived = Range("gradient of the answer", gy)
        if not arrived.finite:                      # each part of it was finite: their sum is not, or the user's own gradient
            self.call(function).fail(function, "backward", f"the gradient that arrives holds {arrived.wrong()}",
                                     [*self.call(function).inputs, arrived])

    def after_backward(self, function, gy, gxs):
        for i, gx in enumerate(gxs):
            if gx is None or not function.needs[i]:
                continue
            answer = Range(f"gradient of input {i}", gx)
            if not answer.finite:
                call = self.call(function)
                call.fail(function, "backward", f"its gradient of input {i} holds {answer.wrong()}",
                          [*call.inputs, Range("gradient of the answer", gy), answer])

    def call(self, function):
        """Where this node was called; unknown if that was before the `with`."""
        return self.calls.get(function) or Call("", ("", 0), [])


class Call:
    """One call of an op: the layer, the user's line, and the ranges of the inputs. It holds no arrays."""

    def __init__(self, layer, place, inputs):
        self.layer, (self.file, self.line), self.inputs = layer, place, inputs

    def fail(self, function, direction, what, ranges):
        text = linecache.getline(self.file, self.line).strip()
        place = f"{self.file}:{self.line}" + (f": {text}" if text else "") if self.file else "before the detection began"
        head = f"{direction} of {function}" + (f" in layer {self.layer}" if self.layer else "") + f": {what}"
        if not all(r.finite for r in self.inputs):
            head += "; an input was not finite already, and no op before made it so: look at the data, or at the weights"
        raise AnomalyError("\n".join([head, *(f"  {r}" for r in ranges), f"  called at {place}"]),
                           repr(function), direction, self.layer, self.file, self.line)


class Range:
    """What is in an array: its shape, the least and the largest of its finite numbers, and how many are not finite.

    Args:
        name: what the array is to the op.   array: of either device; it is read, not kept.
    """

    def __init__(self, name, array):
        xp = xp_of(array := np.asarray(array) if isinstance(array, np.generic) else array)
        self.name, self.shape, self.dtype, self.size = name, array.shape, array.dtype, array.size
        self.nan = self.inf = 0
        self.least = self.most = None
        if not array.size:
            return
        ends = to_device(xp.stack([array.min(), array.max()]), "cpu")      # a NaN anywhere shows at both ends
        if not np.isfinite(ends).all():
            finite = xp.isfinite(array)
            self.nan = int(xp.isnan(array).sum())
            self.inf = array.size - int(finite.sum()) - self.nan
            ends = to_device(xp.stack([xp.where(finite, array, xp.inf).min(), xp.where(finite, array, -xp.inf).max()]), "cpu")
        self.least, self.most = ends.tolist()

    @property
    def finite(self):
        return not (self.nan or self.inf)

    def wrong(self):
        """How many NaN and infinities, in words."""
        kinds = [f"{count:,} {name}" for count, name in ((self.nan, "NaN"), (self.inf, "inf")) if count]
        return " and ".join(kinds) + f" among {self.size:,} number{'s' * (self.size != 1)}"

    def __str__(self):
        inside = "no finite number" if self.least is None or self.least > self.most else f"from {self.least:.4g} to {self.most:.4g}"
        return f"{self.name}: {self.shape} {self.dtype}, {inside}" + ("" if self.finite else f"; {self.wrong()}")


def users_line():
    """(file, line) of the innermost caller outside of minicnn."""
    frame = sys._getframe(1)
    while frame.f_back and frame.f_code.co_filename.startswith(PACKAGE):
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno
