"""A network as a table: each layer's output shape, parameters, multiply-adds, and what it keeps for backward."""

import dataclasses

import numpy as np

from minicnn import random
from minicnn.autograd import Hook
from minicnn.study.inside import in_mode
from minicnn.tensor import Tensor


@dataclasses.dataclass
class Row:
    """One layer, for a batch of one."""

    name: str
    kind: str
    output_shape: tuple     # without the batch
    parameters: int
    multiply_adds: int
    saved_bytes: int        # new memory kept for backward; what an earlier layer already keeps is counted there


class Summary(list):
    """The rows, in order of execution; prints as a table. `total` adds them up."""

    @property
    def total(self):
        """A Row with the sums."""
        return Row("total", "", (), *(sum(getattr(r, field) for r in self) for field in ("parameters", "multiply_adds", "saved_bytes")))

    def __str__(self):
        head = ("layer", "", "output", "parameters", "multiply-adds", "saved bytes")
        def numbers(r):
            return f"{r.parameters:,}", f"{r.multiply_adds:,}", f"{r.saved_bytes:,}"

        body = [(r.name, r.kind, str([-1, *r.output_shape]), *numbers(r)) for r in self]
        foot = ("total", "", "", *numbers(self.total))
        widths = [max(len(line[i]) for line in (head, *body, foot)) for i in range(6)]

        def line(cells):
            return "  ".join(c.ljust(w) if i < 3 else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))).rstrip()

        rule = "-" * (sum(widths) + 10)
        note = "(multiply-adds and bytes for one input, forward pass, training mode)"
        return "\n".join([line(head), rule, *map(line, body), rule, line(foot), note])


class Watch(Hook):
    """Makes a row of each module that has parameters of its own, calls ops itself, or has no parts."""

    def __init__(self, model, x):
        self.names = {id(module): name or "(model)" for name, module in model.named_modules()}
        self.rows = Summary()
        self.kept = {owner(x).ctypes.data} | {owner(p.data).ctypes.data for p in model.parameters()}
        self.counted: set[int] = set()          # parameters: one that is used twice is there once
        self.inside: list[list] = []            # for each module that is running, the innermost last: [ops, multiply-adds, bytes]

    def before_module(self, module, inputs):
        self.inside.append([0, 0, 0])

    def after_forward(self, function, arrays, y, saved):
        work = self.inside[-1]
        work[0] += 1
        work[1] += function.multiply_adds(y, *arrays)
        for array in map(owner, saved):
            if array.ctypes.data not in self.kept:
                self.kept.add(array.ctypes.data)
                work[2] += array.nbytes

    def after_module(self, module, inputs, output):
        ops, multiply_adds, saved = self.inside.pop()
        own = [p for p in vars(module).values() if isinstance(p, Tensor) and p.requires_grad and id(p) not in self.counted]
        self.counted |= set(map(id, own))
        if ops or own or not module.children():
            self.rows.append(Row(self.names.get(id(module), "?"), type(module).__name__, output.shape[1:], sum(p.size for p in own),
                                 multiply_adds, saved))


def owner(array):
    """The array that owns the memory that `array` is a view of."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def summary(model, input_shape):
    """Run one input of zeros through `model` (on the CPU) and tell what happened, layer by layer.

    Args:
        model: a Module.
        input_shape: of one input without the batch: (C, H, W) for images, (features,) for a linear layer.

    Returns a list of rows that prints as a table. Modes and random numbers of the model are left as they were.
    """
    x = blank(input_shape)
    with in_mode(model, True), random.preserved(), Watch(model, x) as watch:
        y = model(Tensor(x))                # held until the rows are read: freed memory would be counted twice
    del y
    return watch.rows


def blank(input_shape):
    """One input of zeros, with the batch in front; images in channels-last memory, as the loader makes them."""
    x = np.zeros((1, *input_shape), np.float32)
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2) if len(input_shape) == 3 else x
