"""Summary: a table of a network's layers with output shape, parameters, multiply-adds, and the memory that each saves for backward."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from minicnn.backend import random
from minicnn.backend.arrays import is_array
from minicnn.hooks import Hook
from minicnn.inspect.memory import LiveBytes
from minicnn.nn.module import Module, train_mode
from minicnn.tensor import Tensor


@dataclasses.dataclass
class Row:
    """One layer, for a batch of one."""

    name: str               # dotted
    kind: str               # the module's class
    output_shape: tuple     # without the batch axis
    parameters: int
    multiply_adds: int
    saved_bytes: int        # memory newly saved for backward; an array that an earlier layer has saved already is counted there


class Summary(list[Row]):
    """A list of Rows in order of execution, which prints as a table."""

    @property
    def total(self) -> Row:
        """A Row with the sums."""
        return Row("total", "", (), *(sum(getattr(r, field) for r in self) for field in ("parameters", "multiply_adds", "saved_bytes")))

    def __str__(self) -> str:
        def numbers(r: Row) -> tuple[str, str, str]:
            return f"{r.parameters:,}", f"{r.multiply_adds:,}", f"{r.saved_bytes:,}"

        head = ("layer", "", "output", "parameters", "multiply-adds", "saved bytes")
        body = [(r.name, r.kind, str([-1, *r.output_shape]), *numbers(r)) for r in self]
        foot = ("total", "", "", *numbers(self.total))
        widths = [max(len(line[i]) for line in (head, *body, foot)) for i in range(6)]

        def line(cells: Sequence[str]) -> str:
            return "  ".join(c.ljust(w) if i < 3 else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))).rstrip()

        rule = "-" * (sum(widths) + 10)
        note = "(multiply-adds and bytes for one input, forward pass, training mode)"
        return "\n".join([line(head), rule, *map(line, body), rule, line(foot), note])


class SummaryHook(Hook):
    """Records a Row for each module that has parameters of its own, calls ops itself, or has no submodules."""

    def __init__(self, model: Module, x: np.ndarray) -> None:
        self.names = {id(module): name or "(model)" for name, module in model.named_modules()}
        self.rows = Summary()
        self.saved_memory = LiveBytes([x, *(p.data for p in model.parameters())])
        self.counted: set[int] = set()          # ids of parameters: a shared one is counted once
        self.running: list[list[int]] = []      # for each module that is running, the innermost last: [ops, multiply-adds, bytes]

    def before_module(self, module, inputs):
        self.running.append([0, 0, 0])

    def after_forward(self, function, arrays, y, saved):
        work = self.running[-1]
        work[0] += 1
        work[1] += function.multiply_adds(y, *arrays)
        work[2] += sum(self.saved_memory.add(a) for a in saved if is_array(a))

    def after_module(self, module, inputs, output):
        ops, multiply_adds, saved = self.running.pop()
        own = [p for p in vars(module).values() if isinstance(p, Tensor) and p.requires_grad and id(p) not in self.counted]
        self.counted |= set(map(id, own))
        if ops or own or not module.named_children():
            self.rows.append(Row(self.names.get(id(module), "?"), type(module).__name__, output.shape[1:], sum(p.size for p in own),
                                 multiply_adds, saved))


def summary(model: Module, input_shape: Sequence[int]) -> Summary:
    """Run one input of zeros through `model`, forward, in training mode, and count parameters, multiply-adds and saved bytes of each layer.

    Args:
        model: a Module on the CPU.
        input_shape: of one input without the batch axis: (C, H, W) for images, (features,) for a linear layer.

    Returns a Summary, a list of Rows that prints as a table; its `total` has the sums. The modes of the modules and the random
    numbers are left as they were. Raises what the model raises.
    """
    x = dummy_input(input_shape)
    with train_mode(model, True), random.fork_rng(), SummaryHook(model, x) as hook:
        y = model(Tensor(x))                # keeps the graph, and so the saved arrays, alive until all are counted
    del y
    return hook.rows


def dummy_input(input_shape: Sequence[int]) -> np.ndarray:
    """One input of zeros, float32, with a batch axis of 1; an image is in channels-last memory order, as the loader makes them."""
    x: Any = np.zeros((1, *input_shape), np.float32)
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2) if len(input_shape) == 3 else x
