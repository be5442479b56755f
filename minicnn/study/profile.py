"""How fast is each layer, forward and backward, beside what this machine can do?

    print(profile(model, x, labels))
    minicnn profile --arch one-tower --batch 16

Convolutions and linear layers are held against a product of matrices, in GFLOP/s: 2 for each multiply-add of the definition, and in
backward 2 for each of the two products (one where the input wants no gradient). The others are held against copying, in GB/s: the
arrays that they read and write. Both peaks are measured on this machine, by the same means that the ops use.
"""

import argparse
import contextlib
import copy
import dataclasses
import functools
import json
import math
import pathlib
import statistics
import sys

import numpy as np

import minicnn as mc
from minicnn import gpu, parallel
from minicnn.backend import device_number, device_scope, gpu_problem, to_device, xp_of
from minicnn.study.networks import known_networks
from minicnn.study.trace import Tracer, cut, decimals, dims, leaf, loss_of, mark, milliseconds, readable, unchanged


@dataclasses.dataclass
class Part:
    """A layer's forward or its backward, or the optimiser's step."""

    ms: float               # median
    work: int               # operations or bytes, as `unit` says; 0 for a view, which moves nothing
    unit: str               # "GFLOP/s" or "GB/s"
    speed: float            # in that unit
    percent: float          # of this machine's peak


@dataclasses.dataclass
class Row:
    """One op: most layers call one; what no layer called (the loss) has the layer ""."""

    layer: str
    op: str
    output_shape: tuple
    saved_bytes: int        # new memory kept for backward
    forward: Part
    backward: Part | None   # None where no gradient passed


@dataclasses.dataclass
class Profile:
    """What was measured; prints as a table. Times are medians, in milliseconds."""

    device: str
    threads: int
    dtype: str
    input_shape: tuple
    repeats: int
    peak_gflops: float      # measured: a product of matrices
    peak_gbs: float         # measured: a copy, read and written
    rows: list
    optimizer: Part | None
    step_ms: float          # of whole steps that nobody watched
    parameter_bytes: int
    peak_bytes: int         # the most that was there at once, counted before and after each op: answers, saved arrays and gradients;
                            # not parameters, velocities and the input, nor what an op uses inside

    @property
    def forward_ms(self):
        """The sum over the ops, forward."""
        return math.fsum(r.forward.ms for r in self.rows)

    @property
    def backward_ms(self):
        """The sum over the ops, backward."""
        return math.fsum(r.backward.ms for r in self.rows if r.backward)

    @property
    def other_ms(self):
        """What the whole step took beyond ops and optimiser: adding up gradients, keeping the graph, and the noise of two measurements."""
        return self.step_ms - self.forward_ms - self.backward_ms - (self.optimizer.ms if self.optimizer else 0.0)

    def json(self):
        """All of it as JSON text."""
        sums = {name: getattr(self, name) for name in ("forward_ms", "backward_ms", "other_ms")}
        return json.dumps({**dataclasses.asdict(self), **sums}, indent=1) + "\n"

    def __str__(self):
        def cells(part):
            if part is None:
                return "", "", ""
            speed = f"{part.speed:,.0f}" if part.speed >= 100 else f"{part.speed:.3g}"
            return decimals(part.ms), f"{speed} {part.unit}" if part.work else "view", f"{part.percent:.0f} %" if part.work else ""

        def share(ms):
            return f"{100 * ms / self.step_ms:.1f} %"

        head = ("layer", "op", "forward", "speed", "peak", "backward", "speed", "peak", "of step", "saved")
        body = [(cut(r.layer, 14), cut(r.op, 17), *cells(r.forward), *cells(r.backward),
                 share(r.forward.ms + (r.backward.ms if r.backward else 0)), readable(r.saved_bytes) * bool(r.saved_bytes))
                for r in self.rows]
        both = self.forward_ms + self.backward_ms
        foot = [("all ops", "", decimals(self.forward_ms), "", "", decimals(self.backward_ms), "", "", share(both),
                 readable(sum(r.saved_bytes for r in self.rows)))]
        if self.optimizer:
            foot.append(("optimizer", "step", *cells(self.optimizer), "", "", "", share(self.optimizer.ms), ""))
        foot.append(("between", "", decimals(self.other_ms), "", "", "", "", "", share(self.other_ms), ""))
        foot.append(("whole step", "", decimals(self.step_ms), "", "", "", "", "", "", ""))
        widths = [max(len(line[i]) for line in (head, *body, *foot)) for i in range(10)]

        def line(cells):
            return "  ".join(c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))).rstrip()

        rule = "-" * (sum(widths) + 18)
        where = f"{self.threads} thread{'s' * (self.threads != 1)}" if self.device == "cpu" else self.device
        lines = [f"input {dims([self.input_shape])}, {self.dtype}, {where}; times in ms, medians of {self.repeats}",
                 f"peak of this machine: {self.peak_gflops:,.0f} GFLOP/s in products, {self.peak_gbs:,.1f} GB/s in copies", "",
                 line(head), rule, *map(line, body), rule, *map(line, foot), "",
                 f"at most {readable(self.peak_bytes)} of answers, saved arrays and gradients at once, counted between ops; "
                 f"parameters: {readable(self.parameter_bytes)}"]
        parts = [p for r in self.rows for p in (r.forward, r.backward) if p]
        if any(p.percent > 100 and p.unit == "GFLOP/s" for p in parts):
            lines.append("more than 100 % in products: Winograd takes fewer operations than the definition, which is what is counted")
        if any(p.percent > 100 and p.unit == "GB/s" for p in parts):
            lines.append("more than 100 % in copies: the arrays fit into a cache, which is faster than the memory")
        return "\n".join(lines)


def profile(model, x, labels=None, repeats=5, optimizer=None):
    """Time each op of a training step: forward, loss, backward, and the optimiser's step if there is one.

    Args:
        model: a Module; it runs in the mode it is in (training, unless `eval()` was called).
        x: its input, (N, ...), a Tensor or an array on the device of the model.
        labels: (N,) integers for a cross-entropy loss; without them backward starts at the model's own answer, with ones.
        repeats: how many steps are watched, and as many not, in turn, after one to warm up.
        optimizer: the SGD of this model.

    Returns a Profile. Parameters, velocities, gradients and random numbers are left as they were. A GPU is timed by its own events.
    Raises ValueError for repeats below 1, and for a model that runs other ops from step to step.
    """
    if repeats < 1:
        raise ValueError(f"profile: repeats is at least 1, not {repeats!r}")
    x = leaf(x)
    held = [x.data, *(p.data for p in model.parameters())]
    peak_gflops, peak_gbs = peaks(x.device, str(x.dtype), parallel.threads(), gpu.tf32())
    whole, updates, traces = [], [], []
    with unchanged(model), restored(optimizer), device_scope(x.data):
        train_step(model, x, labels, optimizer)
        for _ in range(repeats):
            begin = mark(x.data)
            train_step(model, x, labels, optimizer)
            whole.append(milliseconds(begin, mark(x.data)))
            with Tracer(model, held, norms=False) as tracer:
                updates.append(milliseconds(*train_step(model, x, labels, optimizer)))
                traces.append(tracer.result())

    def part(ms, operations, moved):
        work, unit, peak = (operations, "GFLOP/s", peak_gflops) if operations else (moved, "GB/s", peak_gbs)
        speed = 1e-6 * work / max(ms, 1e-6)             # (an event may come by in less time than can be told)
        return Part(ms, work, unit, speed, 100 * speed / peak)

    def measured(i):
        """The i-th row of a trace, as a Part."""
        row = traces[0][i]
        return part(statistics.median(t[i].ms for t in traces), row.operations, row.moved)

    ways = [[(r.number, r.direction, r.layer, r.op) for r in t] for t in traces]
    if any(way != ways[0] for way in ways):
        raise ValueError("profile: this model runs other ops from step to step, so there is no median of each; look at one with trace")
    back = {r.number: i for i, r in enumerate(traces[0]) if r.direction == "backward"}
    rows = [Row(r.layer, r.op, r.shapes_out[0], r.saved, measured(i), measured(back[r.number]) if r.number in back else None)
            for i, r in enumerate(traces[0]) if r.direction == "forward"]
    update = None
    if optimizer:           # it reads weights, velocities and gradients, and writes weights and velocities
        update = part(statistics.median(updates), 0, 5 * sum(p.data.nbytes for p in optimizer.params))
    return Profile(x.device, parallel.threads(), str(x.dtype), x.shape, repeats, peak_gflops, peak_gbs, rows, update,
                   statistics.median(whole), sum(p.data.nbytes for p in model.parameters()), max(t.peak for t in traces))


def train_step(model, x, labels, optimizer):
    """One step, as in training; returns the marks before and after the optimiser."""
    backward = loss_of(model, x, labels)
    for p in model.parameters():
        p.grad = None
    backward()
    begin = mark(x.data)
    if optimizer:
        optimizer.step()
    return begin, mark(x.data)


@contextlib.contextmanager
def restored(optimizer):
    """Afterwards the parameters of this optimiser, and its velocities, are what they were."""
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
def peaks(device, dtype, threads, tf32):
    """GFLOP/s of a product of matrices, on every core or by the whole GPU, and GB/s of a copy; measured once, in about a second.

    `threads` and `tf32` say how it is measured, so that a change of them measures anew.
    """
    with device_scope(to_device(np.zeros(1, dtype), device)):
        return products_peak(device, dtype, threads if device == "cpu" else 1), copies_peak(device, dtype)


def products_peak(device, dtype, count):
    """Larger and larger matrices, until a product takes long enough to be told; on the CPU each core has one of its own."""
    best = 0.0
    for side in (256, 512, 1024, 2048, 4096, 8192):
        a = to_device(np.random.default_rng(0).standard_normal((side, side)).astype(dtype), device)
        outs = [xp_of(a).empty_like(a) for _ in range(count)]
        ms = shortest(lambda a=a, outs=outs: parallel.run([functools.partial(parallel.product, a, a, out) for out in outs]), a)
        best = max(best, 2e-6 * side ** 3 * count / ms)
        if ms > 4:
            break
    return best


def copies_peak(device, dtype):
    """Larger and larger arrays, until no cache holds them."""
    for size in (1 << 22, 1 << 24, 1 << 26, 1 << 27, 1 << 28):          # bytes
        source = to_device(np.ones((64, size // 64 // np.dtype(dtype).itemsize), dtype), device)
        target = xp_of(source).empty_like(source)

        def body(n, source=source, target=target):
            target[n] = source[n]

        ms = shortest(lambda body=body, source=source: parallel.over_batch(body, source, 1 << 20), source)
        if ms > 20:
            break
    return 2e-6 * size / ms


def shortest(run, array, times=5):
    """Of several times that `run()` takes, in ms, the shortest, after one to warm up; what else the machine does only adds."""
    run()
    taken = []
    for _ in range(times):
        begin = mark(array)
        run()
        taken.append(milliseconds(begin, mark(array)))
    return max(min(taken), 1e-6)


# ---- the command

def main(argv=None):
    networks = known_networks()
    parser = argparse.ArgumentParser(
        prog="minicnn profile", description=__doc__.partition("\n")[0],
        epilog=("" if len(networks) > 1 else "AlexNet is in the folder examples/ of the repository, which is not beside this package: "
                "run this in a checkout to profile it. ")
        + "exit code 0: done; 2: a wrong command line, no such device, or no place for FILE")
    parser.add_argument("--arch", choices=list(networks), default="one-tower" if "one-tower" in networks else "lenet",
                        help="the network (default: %(default)s)")
    parser.add_argument("--batch", type=positive, default=16, metavar="N", help="images in a batch (default: 16)")
    parser.add_argument("--repeats", type=positive, default=5, metavar="N", help="steps that are timed (default: 5)")
    parser.add_argument("--device", type=device, default="cpu", help="cpu (the default), gpu, or gpu:1 for the second")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write the numbers there, too")
    args = parser.parse_args(argv)
    if args.device != "cpu" and gpu_problem():
        print(f"error: {gpu_problem()}", file=sys.stderr)
        return 2

    make, (C, side, classes) = networks[args.arch]
    model = make().to(args.device)
    rng = np.random.default_rng(0)
    images = rng.standard_normal((args.batch, side, side, C), dtype=np.float32).transpose(0, 3, 1, 2)      # channels last in memory
    optimizer = mc.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4)
    result = profile(model, mc.Tensor(images, device=args.device), rng.integers(0, classes, args.batch), args.repeats, optimizer)
    print(f"{args.arch}: {result}")
    if args.json:
        try:
            args.json.write_text(result.json(), encoding="utf-8")
        except OSError as error:
            print(f"error: --json: {error}", file=sys.stderr)
            return 2
    return 0


def device(text):
    try:
        device_number(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def positive(text):
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive whole number")
    return int(text)
