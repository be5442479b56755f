"""Profile: the speed of each op of a training step, forward and backward, as a percentage of this machine's measured peak.

    print(profile(model, x, labels))
    minicnn profile --arch one-tower --batch-size 16

Convolutions and linear layers are compared with a matrix product, in GFLOP/s: 2 FLOP per multiply-add of the definition, and in backward
2 for each of the two products (one where the input needs no gradient). All other ops are bound by memory and compared with a copy, in
GB/s: the arrays that they read and write. Both peaks are measured on this machine, with the routines that the ops themselves use.
"""

import contextlib
import copy
import dataclasses
import functools
import json
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from minicnn.backend import cuda, threads
from minicnn.backend.arrays import device_scope, to_device, xp_of
from minicnn.inspect.trace import (
    Trace,
    Tracer,
    as_leaf,
    elapsed_ms,
    format_ms,
    preserve_grads_and_rng,
    run_forward,
    timestamp,
    truncate_left,
)
from minicnn.nn.module import Module
from minicnn.optim import Optimizer
from minicnn.tensor import Tensor
from minicnn.text import format_bytes, format_shape, pluralize


@dataclasses.dataclass
class Timing:
    """Time and speed of one op's forward or backward, or of the optimiser's step."""

    ms: float               # median
    work: int               # FLOP or bytes, as `unit` says; 0 for a view, which moves no data
    unit: str               # "GFLOP/s" or "GB/s"
    speed: float            # in that unit
    percent: float          # of this machine's peak


@dataclasses.dataclass
class Row:
    """One op. Most layers call one; an op outside all layers, such as the loss, has layer ""."""

    layer: str
    op: str
    output_shape: tuple
    saved_bytes: int            # memory newly saved for backward
    forward: Timing
    backward: Timing | None     # None if no gradient reached it


@dataclasses.dataclass
class Profile:
    """The measurements of `profile`; prints as a table. Times are medians, in milliseconds."""

    device: str
    threads: int
    dtype: str
    input_shape: tuple
    repeats: int
    peak_gflops: float      # measured: a matrix product
    peak_gbs: float         # measured: a copy, bytes read plus bytes written
    rows: list[Row]
    optimizer: Timing | None
    step_ms: float          # of uninstrumented steps
    parameter_bytes: int
    peak_bytes: int         # the most allocated at once, counted before and after each op: outputs, saved arrays and gradients;
                            # without parameters, velocities, the input, and the ops' internal buffers

    @property
    def forward_ms(self) -> float:
        """The sum over the ops, forward."""
        return math.fsum(r.forward.ms for r in self.rows)

    @property
    def backward_ms(self) -> float:
        """The sum over the ops, backward."""
        return math.fsum(r.backward.ms for r in self.rows if r.backward)

    @property
    def overhead_ms(self) -> float:
        """A whole step minus its ops and the optimiser: gradient accumulation, building the graph, and the noise of two measurements."""
        return self.step_ms - self.forward_ms - self.backward_ms - (self.optimizer.ms if self.optimizer else 0.0)

    def json(self) -> str:
        """All fields, and the three sums, as JSON text."""
        sums = {name: getattr(self, name) for name in ("forward_ms", "backward_ms", "overhead_ms")}
        return json.dumps({**dataclasses.asdict(self), **sums}, indent=1) + "\n"

    def __str__(self) -> str:
        def cells(timing: Timing | None) -> tuple[str, str, str]:
            if timing is None:
                return "", "", ""
            speed = f"{timing.speed:,.0f}" if timing.speed >= 100 else f"{timing.speed:.3g}"
            return (format_ms(timing.ms), f"{speed} {timing.unit}", f"{timing.percent:.0f} %") if timing.work else (
                format_ms(timing.ms), "view", "")

        def of_step(ms: float) -> str:
            return f"{100 * ms / self.step_ms:.1f} %"

        head = ("layer", "op", "forward", "speed", "peak", "backward", "speed", "peak", "of step", "saved")
        body = [(truncate_left(r.layer, 14), truncate_left(r.op, 17), *cells(r.forward), *cells(r.backward),
                 of_step(r.forward.ms + (r.backward.ms if r.backward else 0)), format_bytes(r.saved_bytes) if r.saved_bytes else "")
                for r in self.rows]
        foot = [("all ops", "", format_ms(self.forward_ms), "", "", format_ms(self.backward_ms), "", "",
                 of_step(self.forward_ms + self.backward_ms), format_bytes(sum(r.saved_bytes for r in self.rows)))]
        if self.optimizer:
            foot.append(("optimizer", "step", *cells(self.optimizer), "", "", "", of_step(self.optimizer.ms), ""))
        foot.append(("overhead", "", format_ms(self.overhead_ms), "", "", "", "", "", of_step(self.overhead_ms), ""))
        foot.append(("whole step", "", format_ms(self.step_ms), "", "", "", "", "", "", ""))
        widths = [max(len(line[i]) for line in (head, *body, *foot)) for i in range(10)]

        def line(cells: Sequence[str]) -> str:
            return "  ".join(c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))).rstrip()

        rule = "-" * (sum(widths) + 18)
        where = pluralize(self.threads, "thread") if self.device == "cpu" else self.device
        lines = [f"input {format_shape(self.input_shape)}, {self.dtype}, {where}; times in ms, medians of {self.repeats}",
                 f"peak of this machine: {self.peak_gflops:,.0f} GFLOP/s (matrix product), {self.peak_gbs:,.1f} GB/s (copy)", "",
                 line(head), rule, *map(line, body), rule, *map(line, foot), "",
                 f"peak memory between ops: {format_bytes(self.peak_bytes)} of outputs, saved arrays and gradients; "
                 f"parameters: {format_bytes(self.parameter_bytes)}"]
        timings = [t for r in self.rows for t in (r.forward, r.backward) if t]
        if any(t.percent > 100 and t.unit == "GFLOP/s" for t in timings):
            lines.append("over 100 % of the matrix product: the operations of the definition are counted, and Winograd needs fewer")
        if any(t.percent > 100 and t.unit == "GB/s" for t in timings):
            lines.append("over 100 % of the copy: the arrays fit into a cache, which is faster than main memory")
        return "\n".join(lines)


def profile(model: Module, x: Any, labels: Any = None, repeats: int = 5, optimizer: Optimizer | None = None) -> Profile:
    """Time each op of a training step: forward, loss, backward, and the optimiser's step if there is one.

    Args:
        model: a Module; it runs in its current mode (training, unless `eval()` was called).
        x: its input, (N, ...), a Tensor or an array on the model's device.
        labels: (N,) integers, for a cross-entropy loss; None: backward starts at the model's output, with a gradient of ones.
        repeats: the number of instrumented steps, alternating with as many uninstrumented ones, after one step of warm-up.
        optimizer: the optimiser of this model, for instance SGD; None: no update.

    Returns a Profile. Parameters, velocities, gradients and random numbers are left as they were. A GPU is timed by CUDA events.
    Raises ValueError for repeats below 1, and for a model that runs different ops from step to step.
    """
    if repeats < 1:
        raise ValueError(f"profile: repeats must be at least 1, got {repeats!r}")
    x = as_leaf(x)
    ignored = [x.data, *(p.data for p in model.parameters())]
    peak_gflops, peak_gbs = peaks(x.device, str(x.dtype), threads.num_threads(), cuda.allow_tf32())
    steps: list[float] = []
    updates: list[float] = []
    traces: list[Trace] = []
    with preserve_grads_and_rng(model), preserve_optimizer(optimizer), device_scope(x.data):
        train_step(model, x, labels, optimizer)
        for _ in range(repeats):
            begin = timestamp(x.data)
            train_step(model, x, labels, optimizer)
            steps.append(elapsed_ms(begin, timestamp(x.data)))
            with Tracer(model, ignored, norms=False) as tracer:
                updates.append(elapsed_ms(*train_step(model, x, labels, optimizer)))
                traces.append(tracer.result())

    def timing(ms: float, flops: int, bytes_accessed: int) -> Timing:
        work, unit, peak = (flops, "GFLOP/s", peak_gflops) if flops else (bytes_accessed, "GB/s", peak_gbs)
        speed = 1e-6 * work / max(ms, 1e-6)             # two CUDA events may be closer than their resolution
        return Timing(ms, work, unit, speed, 100 * speed / peak)

    def median(i: int) -> Timing:
        """The Timing of row i of the traces."""
        return timing(statistics.median(t[i].ms for t in traces), traces[0][i].flops, traces[0][i].bytes_accessed)

    sequences = [[(r.number, r.direction, r.layer, r.op) for r in t] for t in traces]
    if any(sequence != sequences[0] for sequence in sequences):
        raise ValueError("profile: this model runs different ops from step to step, so there is no median for each; inspect one step with "
                         "trace")
    backward = {r.number: i for i, r in enumerate(traces[0]) if r.direction == "backward"}
    rows = [Row(r.layer, r.op, r.shapes_out[0], r.saved, median(i), median(backward[r.number]) if r.number in backward else None)
            for i, r in enumerate(traces[0]) if r.direction == "forward"]
    update = None
    if optimizer:           # it reads weights, velocities and gradients, and writes weights and velocities
        update = timing(statistics.median(updates), 0, 5 * sum(p.data.nbytes for p in optimizer.params))
    return Profile(x.device, threads.num_threads(), str(x.dtype), x.shape, repeats, peak_gflops, peak_gbs, rows, update,
                   statistics.median(steps), sum(p.data.nbytes for p in model.parameters()), max(t.peak for t in traces))


def train_step(model: Module, x: Tensor, labels: Any, optimizer: Optimizer | None) -> tuple[Any, Any]:
    """One training step; returns the timestamps before and after the optimiser."""
    run_backward = run_forward(model, x, labels)
    for p in model.parameters():
        p.grad = None
    run_backward()
    begin = timestamp(x.data)
    if optimizer:
        optimizer.step()
    return begin, timestamp(x.data)


@contextlib.contextmanager
def preserve_optimizer(optimizer: Optimizer | None) -> Iterator[None]:
    """Afterwards the parameters of this optimiser, and its state, are what they were before."""
    if optimizer is None:
        yield
        return
    weights, state = [p.data.copy() for p in optimizer.params], copy.deepcopy(optimizer.state_dict())
    try:
        yield
    finally:
        for p, w in zip(optimizer.params, weights, strict=True):
            p.data[...] = w
        optimizer.load_state_dict(state)


@functools.cache
def peaks(device: str, dtype: str, num_threads: int, tf32: bool) -> tuple[float, float]:
    """GFLOP/s of a matrix product on all cores or the whole GPU, and GB/s of a copy; measured once, in about a second.

    `num_threads` and `tf32` are settings under which it is measured: the cache has an entry for each.
    """
    with device_scope(to_device(np.zeros(1, dtype), device)):
        return gemm_peak(device, dtype, num_threads if device == "cpu" else 1), copy_peak(device, dtype)


def gemm_peak(device: str, dtype: str, count: int) -> float:
    """GFLOP/s of ever larger matrices, until a product takes long enough to be timed; on the CPU each core multiplies its own pair."""
    best = 0.0
    for side in (256, 512, 1024, 2048, 4096, 8192):
        a = to_device(np.random.default_rng(0).standard_normal((side, side)).astype(dtype), device)
        products = [functools.partial(threads.gemm, a, a, xp_of(a).empty_like(a)) for _ in range(count)]
        ms = best_of(functools.partial(threads.run_tasks, products), a)
        best = max(best, 2e-6 * side ** 3 * count / ms)
        if ms > 4:
            break
    return best


def copy_peak(device: str, dtype: str) -> float:
    """GB/s of ever larger arrays, until no cache holds them."""
    for size in (1 << 22, 1 << 24, 1 << 26, 1 << 27, 1 << 28):          # bytes
        source = to_device(np.ones((64, size // 64 // np.dtype(dtype).itemsize), dtype), device)
        target = xp_of(source).empty_like(source)

        def body(rows: slice, source: Any = source, target: Any = target) -> None:
            target[rows] = source[rows]

        ms = best_of(functools.partial(threads.over_batch, body, source, 1 << 20), source)
        if ms > 20:
            break
    return 2e-6 * size / ms


def best_of(run: Callable[[], Any], array: Any, times: int = 5) -> float:
    """The shortest time of `run()` in ms, after one run of warm-up: other load on the machine only ever adds time."""
    run()
    taken = []
    for _ in range(times):
        begin = timestamp(array)
        run()
        taken.append(elapsed_ms(begin, timestamp(array)))
    return max(min(taken), 1e-6)
