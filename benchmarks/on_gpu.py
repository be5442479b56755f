"""Test and measure minicnn on a GPU, in one command and less than ten minutes: correctness, speed, and where the time goes.

    python benchmarks/on_gpu.py                             every part, into benchmarks/results/gpu-<card>.json
    python benchmarks/on_gpu.py --parts adjoint,step        a selection of tests, adjoint, train, kernels, step
    python benchmarks/on_gpu.py --predict                   predictions for an H100; needs no GPU
    python benchmarks/on_gpu.py --tiny --out FILE           every line of code, at sizes too small for useful timings

It needs CuPy; PyTorch is measured for comparison if it is installed. The file is written after every part: if a part fails, its error is
recorded and the next part runs; parts of a previous run that are not repeated stay in the file. Whatever could affect the next
measurement (the memory pool, TF32, a CUDA error) runs in a process of its own, with a time limit.

Predictions are computed from shapes alone (a roofline model), before anything is measured. A kernel must move its bytes (each array read
once and written once) and a matrix product must do its FLOP, so no call takes less than

    floor     = max(bytes / 3.0 TB/s, FLOP / ceiling)               ceiling: 50 TFLOP/s in float32, 350 in TF32, 700 in float16
    predicted = max(floor / efficiency, launches * 3 us, dependent reads of one thread * 0.15 us)

with the efficiencies of the tables EFFICIENCY and GEMM_EFFICIENCY, which are guesses, to be checked by the measurement. Kernels are timed
by CUDA events, each after flushing the L2 cache by reading other memory; that also keeps the GPU busy until Python has enqueued the kernel.
"""

import argparse
import contextlib
import dataclasses
import datetime
import functools
import importlib.util
import json
import math
import os
import pathlib
import re
import runpy
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(ROOT), str(ROOT / "tests" / "ops")]
import alexnet_step  # noqa: E402

import minicnn  # noqa: E402
from minicnn.backend.arrays import ceil_div  # noqa: E402

EMULATED = os.environ.get("CUDA_ON_CPU") == "1"
LAUNCHER = sys.orig_argv[:2] if EMULATED else [sys.executable]      # an emulator must run the child processes too

COPY = 3.0e12                           # bytes/s, read plus written
CEILING = {"float32": 50e12, "tf32": 350e12, "float16": 700e12}     # operations/s
LAUNCH, READ = 3e-6, 0.15e-6            # seconds: the shortest kernel; one dependent read of a thread that has four reads in flight
ENQUEUE = 15e-6                         # seconds of Python per launch
EFFICIENCY = {"im2col": 0.7, "im2col, odd": 0.5, "col2im": 0.6, "max_pool": 0.6, "max_pool_backward": 0.5, "lrn": 0.7, "lrn_backward": 0.6,
              "add_rows": 0.6, "keep_mask": 0.3, "flatten": 0.5}
GEMM_EFFICIENCY = {"float32": 0.9, "tf32": 0.65, "float16": 0.6}
STREAMING = 0.8                         # the efficiency of kernels that are not in the table: contiguous reads, each element once

PART_SECONDS = {"tests": 140, "adjoint": 60, "train": 60, "kernels": 80, "step": 240}       # time limits
IMAGES = 128
WORKSPACES = [16, 32, 64, 128, 256, 512]        # MB
DTYPES = ("float32", "tf32", "float64")
TF32_TOLERANCE, TF32_ROUNDING = 1e-6, 5e-3      # as in test_adjoint.py for the other dtypes: relative to |Ax| * |g|, and to the largest |y|
LRN_ROUNDING = {"float64": 1e-13, "float32": 1e-5}
RACES = [                               # in this order; if time runs out, the last ones are skipped
    ("one-tower", 128, "float32"), ("one-tower", 128, "tf32"), ("paper", 128, "tf32"), ("torchvision", 128, "tf32"),
    ("one-tower", 512, "tf32"), ("paper", 128, "float32"), ("torchvision", 128, "float32"), ("one-tower", 512, "float32"),
    ("paper", 512, "tf32"), ("torchvision", 512, "tf32"), ("paper", 512, "float32"), ("torchvision", 512, "float32")]


# The work of a training step, from shapes alone.

@dataclasses.dataclass
class Layer:
    """A layer with the shapes of its input x and output y: (N, H, W, C), or (N, features)."""

    name: str
    kind: str
    numbers: dict
    x: tuple
    y: tuple


@dataclasses.dataclass
class Work:
    """One kernel, or one matrix product, over a whole batch: its bytes, FLOP and launches, and how often a training step runs it."""

    layer: str
    what: str
    times: int
    bytes: int
    launches: int = 1
    flops: int = 0
    efficiency: float = STREAMING
    chain: int = 0                      # dependent reads of one thread
    shape: tuple = ()                   # of a matrix product: rows, inner, columns

    def floor(self, precision):
        """A lower bound in seconds."""
        return max(self.bytes / COPY, self.flops / CEILING[precision])

    def predicted(self, precision):
        """The predicted seconds."""
        efficiency = GEMM_EFFICIENCY[precision] if self.flops else self.efficiency
        return max(self.floor(precision) / efficiency, self.launches * LAUNCH, self.chain * READ)


@functools.cache
def network_of(arch):
    """The network as plain data; cached, since it takes a second."""
    return alexnet_step.describe(arch)


def layers_of(arch, batch):
    """The layers, in order, named as in minicnn.examples.alexnet: with the number of the convolution or linear layer that they follow."""
    network, number, layers = network_of(arch), 0, []
    names = {"Conv2d": "conv", "ReLU": "relu", "LocalResponseNorm": "norm", "MaxPool2d": "pool", "Dropout": "drop", "Linear": "fc",
             "Flatten": "flatten", "AdaptiveAvgPool2d": "avgpool"}
    shape: tuple = (batch, network["side"], network["side"], 3)
    for kind, numbers in network["layers"]:
        x, number = shape, number + (kind in ("Conv2d", "Linear"))
        if kind in ("Conv2d", "MaxPool2d"):
            sides = ((side + 2 * numbers.get("padding", 0) - numbers["kernel"]) // numbers["stride"] + 1 for side in x[1:3])
            shape = (batch, *sides, numbers.get("outputs", x[3]))
        elif kind == "AdaptiveAvgPool2d":
            shape = (batch, numbers["size"], numbers["size"], x[3])
        elif kind == "Flatten":
            shape = (batch, math.prod(x[1:]))
        elif kind == "Linear":
            shape = (batch, numbers["outputs"])
        layers.append(Layer(f"{names[kind]}{number}", kind, numbers, x, shape))
    return layers


def chunks_of(layer, itemsize=4):
    """The slices of the batch that a convolution processes in sequence, and the columns of its im2col matrix (of one group)."""
    from minicnn.backend import threads
    n, columns = layer.numbers, layer.numbers["kernel"] ** 2 * layer.x[3] // layer.numbers["groups"]
    N, OH, OW, _ = layer.y
    return threads.chunks(N, OH * OW * (columns + n["outputs"]) * itemsize), columns


def work_of(arch, batch):
    """All kernels and matrix products of a training step that take a relevant time, float32."""
    for layer in layers_of(arch, batch):
        x, y, name = math.prod(layer.x), math.prod(layer.y), layer.name
        if layer.kind == "Conv2d":
            yield from convolution(layer, x, y)
        elif layer.kind == "Linear":
            I, O = layer.x[1], layer.y[1]
            yield from products(name, (batch, I, O), 1, 1, I * O, first=False)
            yield Work(name, "add bias", 1, 8 * y)
            yield sum_of_rows(name, batch, O)
        elif layer.kind == "ReLU":
            yield Work(name, "relu", 1, 8 * y)
            yield Work(name, "relu_backward", 1, 12 * y)
        elif layer.kind == "LocalResponseNorm":
            yield Work(name, "lrn", 1, 8 * y, efficiency=EFFICIENCY["lrn"])
            yield Work(name, "lrn_backward", 1, 12 * y, efficiency=EFFICIENCY["lrn_backward"])
        elif layer.kind == "MaxPool2d":
            yield Work(name, "max_pool", 1, 4 * x + 5 * y, efficiency=EFFICIENCY["max_pool"])
            yield Work(name, "max_pool_backward", 1, 4 * x + 5 * y, efficiency=EFFICIENCY["max_pool_backward"])
        elif layer.kind == "Dropout":
            yield Work(name, "keep_mask", 1, y, efficiency=EFFICIENCY["keep_mask"])
            yield Work(name, "dropout", 2, 9 * y)
        elif layer.kind == "Flatten":
            yield Work(name, "flatten", 2, 8 * y, efficiency=EFFICIENCY["flatten"])
    K = layer.y[1]
    yield Work("loss", "log_softmax", 1, 8 * batch * K)
    yield Work("loss", "mean_loss", 1, 16 * batch)
    yield Work("loss", "mean_loss_backward", 1, 8 * batch * K)
    weights, tensors = parameters_of(arch)
    yield Work("SGD", "momentum_sgd", 1, 20 * weights, launches=tensors)
    side = network_of(arch)["side"]
    yield Work("input", "normalize_batch", 0, 5 * 3 * batch * side * side)      # 0 times: the measured step has its images already


def convolution(layer, x, y):
    """The kernels and matrix products of one convolution."""
    n, (chunks, columns) = layer.numbers, chunks_of(layer)
    M, G, launches = math.prod(layer.y[:3]), n["groups"], len(chunks) * n["groups"]
    first, wide = layer.name == "conv1", layer.x[3] // G % 4 == 0
    matrix = 4 * M * columns * G
    yield Work(layer.name, "im2col", 2, 4 * x + matrix, launches, efficiency=EFFICIENCY["im2col" if wide else "im2col, odd"])
    yield Work(layer.name, "col2im", 0 if first else 1, 4 * x + matrix, launches, efficiency=EFFICIENCY["col2im"])
    yield from products(layer.name, (M, columns, n["outputs"] // G), G, launches, columns * n["outputs"], first)
    yield Work(layer.name, "add bias", 1, 8 * y, len(chunks))
    yield sum_of_rows(layer.name, M, n["outputs"])


def products(name, shape, groups, launches, weights, first):
    """The three matrix products of a layer whose forward is (rows, inner) @ (inner, columns), for each group."""
    M, K, O = shape
    work = {"flops": 2 * M * K * O * groups, "launches": launches, "bytes": 4 * (M * K * groups + weights + M * O * groups)}
    yield Work(name, "forward", 1, shape=(M, K, O), **work)
    yield Work(name, "filter gradient", 1, shape=(O, M, K), **work)
    yield Work(name, "input gradient", 0 if first else 1, shape=(M, O, K), **work)


def sum_of_rows(name, rows, columns):
    """The bias gradient: each pass reduces every 32 rows to one; one thread adds up those of one column."""
    launches = chain = 0
    total = 4 * rows * columns
    while rows > 1:
        launches, chain = launches + 1, chain + min(rows, 32)
        rows = ceil_div(rows, 32)
    return Work(name, "add_rows", 1, total, launches, efficiency=EFFICIENCY["add_rows"], chain=chain)


def parameters_of(arch):
    """The number of weights and biases, and of their tensors."""
    sizes = []
    for kind, n in network_of(arch)["layers"]:
        if kind in ("Conv2d", "Linear"):
            sizes += [n["inputs"] // n.get("groups", 1) * n["outputs"] * n.get("kernel", 1) ** 2, n["outputs"]]
    return sum(sizes), len(sizes)


def predictions(arch="one-tower", batch=IMAGES):
    """Predictions for an H100, as a dict: a row for each kernel and matrix product, and the sums over a training step."""
    rows, step = [], {p: {"floor_ms": 0.0, "predicted_ms": 0.0} for p in ("float32", "tf32")}
    work = list(work_of(arch, batch))
    for w in work:
        row = {"layer": w.layer, "what": w.what, "times": w.times, "launches": w.launches, "mb": w.bytes / 1e6, "gflop": w.flops / 1e9}
        for precision, total in step.items():
            row[f"{precision}_ms"] = 1e3 * w.predicted(precision)
            total["floor_ms"] += 1e3 * w.times * w.floor(precision)
            total["predicted_ms"] += 1e3 * w.times * w.predicted(precision)
        rows.append(row)
    launches = sum(w.times * w.launches for w in work)
    return {
        "network": arch, "batch": batch, "card": "an NVIDIA H100, not measured",
        "assumed": {"copy_tb_per_s": COPY / 1e12, **{f"{p}_tflops": CEILING[p] / 1e12 for p in ("float32", "tf32")},
                    "launch_us": LAUNCH * 1e6, "wait_us": READ * 1e6, "enqueue_us": ENQUEUE * 1e6, "streaming": STREAMING,
                    "efficiency": EFFICIENCY, "product": GEMM_EFFICIENCY},
        "step": {**step, "gflop": sum(w.times * w.flops for w in work) / 1e9, "gb": sum(w.times * w.bytes for w in work) / 1e9,
                 "columns_gb": sum(4 * w.shape[0] * w.shape[1] for w in work if w.layer.startswith("conv") and w.what == "forward") / 1e9,
                 "launches": launches, "enqueue_ms": 1e3 * launches * ENQUEUE},
        "rows": rows}


# Child processes.

def environment():
    """The environment of child processes, which find minicnn even if it is not installed."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}


def stop(process):
    """Kill a child process and all that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def output_file():
    """A temporary file for the output of a child process: a full pipe that is not read would block it."""
    return tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")


def run_process(command, seconds):
    """Run a program with a time limit: exit code (None if it was killed), standard output, standard error."""
    with output_file() as out, output_file() as err:
        process = subprocess.Popen([*LAUNCHER, *command], stdin=subprocess.DEVNULL, stdout=out, stderr=err, text=True, cwd=ROOT,
                                   env=environment(), start_new_session=True)
        code = None
        try:
            code = process.wait(max(1, seconds))
        except subprocess.TimeoutExpired:
            pass
        finally:
            stop(process)
        for file in (out, err):
            file.seek(0)
        return code, out.read(), err.read()


def tail(text, lines=12):
    """The last lines of a program's output."""
    return "\n".join(text.strip().splitlines()[-lines:])


def json_stdout():
    """A function that writes one line of JSON to standard output; everything else that is printed goes to standard error."""
    stdout = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return lambda value: stdout.write(json.dumps(value) + "\n")


def run_module(name, *arguments):
    """Run a module as the main program, in this process, where minicnn.examples can be imported."""
    sys.argv[1:] = arguments
    runpy.run_module(name, run_name="__main__", alter_sys=True)


class Session:
    """The settings that all parts share, the time left, and the result so far."""

    def __init__(self, tiny=False, minutes=9.5, peers=(), out=None, parts=()):
        self.tiny, self.peers, self.out = tiny, peers, out
        self.ends = time.monotonic() + 60 * minutes
        self.part_ends = self.ends
        self.result: dict = {"parts": {}}

    def left(self):
        """Seconds left for this part."""
        return min(self.part_ends, self.ends) - time.monotonic()

    def job(self, name, seconds, **arguments):
        """Run one of JOBS in its own process: its rows, and an error or None."""
        if self.left() < 3:
            return [], "skipped: out of time"
        limit = min(seconds, self.left())
        code, out, err = run_process([__file__, "--job", json.dumps([name, {**arguments, "tiny": self.tiny}])], limit)
        rows = [json.loads(line) for line in out.splitlines() if line.endswith("}")]
        return rows, None if code == 0 else f"killed after {limit:.0f} s" if code is None else tail(err) or f"exit code {code}"

    def write(self):
        """Write the result so far, atomically."""
        if self.out:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            temporary = self.out.with_name(self.out.name + ".partly")
            temporary.write_text(json.dumps(self.result, indent=1) + "\n", encoding="utf-8")
            os.replace(temporary, self.out)


def table(rows, columns):
    """Print rows, dicts, as a Markdown table; columns are (title, key, format[, True for a speed]). Under emulation speeds are omitted."""
    print("| " + " | ".join(title for title, *_ in columns) + " |\n" + "|---" * len(columns) + "|")
    for row in rows:
        cells = []
        for _, key, form, *speed in columns:
            value = row.get(key)
            value = {True: "yes", False: "NO"}[value] if isinstance(value, bool) else value
            cells.append("-" if value is None or (speed and EMULATED) else value if isinstance(value, str) else format(value, form))
        print("| " + " | ".join(cells) + " |")


def without_none(**entries):
    """The entries that are not None."""
    return {key: value for key, value in entries.items() if value is not None}


# Part 1: the tests.

def part_tests(session):
    """The tests that are marked gpu, except those of this program."""
    which = ["tests/ops/test_relu.py"] if session.tiny else ["--ignore=tests/test_on_gpu.py"]
    pytest = ["pytest", "-m", "gpu", "--maxfail=20", "--tb=short", "-p", "no:cacheprovider", "-rfE", *which]
    code, out, err = run_process([__file__, "--module", *pytest], session.left())
    last = ([line for line in out.splitlines() if re.search(r"\d+ (passed|failed|skipped|error)", line)] or [""])[-1]
    counts = {word.rstrip("s"): int(n) for n, word in re.findall(r"(\d+) (passed|failed|skipped|errors?)\b", last)}
    result: dict = {"passed": counts.get("passed", 0), "failed": counts.get("failed", 0), "skipped": counts.get("skipped", 0),
                    "broken": counts.get("error", 0)}         # (broken: an error in setup or teardown)
    result["right"] = code == 0 and result["passed"] > 0
    if code is None:
        result["errors"] = ["killed: out of time"]
    if not result["right"]:
        result["tail"] = tail(out + err, 60)
    table([result], [(name, name, "d") for name in ("passed", "failed", "skipped", "broken")])
    if "tail" in result:
        print(result["tail"])
    return result


# Part 2: <A x, g> = <x, A^T g>.

def part_adjoint(session):
    """The adjoint test of linear ops and their backwards, at the full size of AlexNet, each dtype in its own process."""
    rows, errors = [], {}
    for dtype in DTYPES:
        done, error = session.job("adjoint", 60, dtype=dtype, batch=1 if session.tiny else IMAGES)
        rows += done
        errors.update(without_none(**{dtype: error}))
    seen: dict = {}
    for row in rows:
        found = f"{row['off']:.1e} (max {row['allowed']:.0e})" if "off" in row else row["error"]
        seen.setdefault(row["what"], {"what": row["what"]})[row["dtype"]] = found if row["right"] else f"WRONG: {found}"
    table(list(seen.values()), [("relative error", "what", ""), *((dtype, dtype, "") for dtype in DTYPES)])
    return {"rows": rows, "right": not errors and all(row["right"] for row in rows), **without_none(errors=errors or None)}


def shrink(layer):
    """A layer of test_adjoint.py for --tiny: few channels, few pixels."""
    C, H, _, O, CG, KH, KW, S, P, G = layer
    few, side = (lambda c: c if c < 16 else c // 16), 27 if H > 100 else 7
    return few(C), side, side, few(O), few(CG), KH, KW, S, P, G


def adjoint(dtype, batch, tiny):
    """Rows {"what", "dtype", "off", "allowed", "right"}: `off` is the error relative to the scale of rounding errors."""
    import cupy
    import test_adjoint as reference

    from minicnn import Tensor
    from minicnn.backend import cuda
    from minicnn.ops.conv2d.im2col import col2im, im2col
    from minicnn.ops.conv2d.op import Conv2d
    from minicnn.ops.local_response_norm import LocalResponseNorm
    from minicnn.ops.max_pool2d import MaxPool2d
    cuda.allow_tf32(dtype == "tf32")
    tolerance = {**reference.TOLERANCE, "tf32": TF32_TOLERANCE}[dtype]
    rounding = {**reference.ROUNDING, "tf32": TF32_ROUNDING}[dtype]
    number = "float64" if dtype == "float64" else "float32"
    rng = cupy.random.default_rng(0)
    layers = {name: shrink(layer) if tiny else layer for name, layer in reference.LAYERS.items()}
    ends = [0, batch - 1] if batch > 1 else [0]         # the first image and the last, whose memory offsets are large

    def normal(*shape):
        return rng.standard_normal(shape, dtype=number)

    def images(C, H, W):
        return normal(batch, H, W, C).transpose(0, 3, 1, 2)

    def on_cpu(a):
        """The first and the last image, on the CPU."""
        return np.ascontiguousarray(a[ends].transpose(0, 2, 3, 1).get()).transpose(0, 3, 1, 2)

    def relative_error(a, expected):
        return float(np.abs(a - expected).max() / np.abs(expected).max())

    def difference(y, y_cpu, x, x_cpu):
        """The larger relative error of output and gradient."""
        return max(relative_error(on_cpu(y.data), y_cpu.data), relative_error(on_cpu(x.grad), x_cpu.grad))

    def convolution(name):
        C, H, W, O, CG, KH, KW, S, P, G = layers[name]
        OH, OW = ((side + 2 * P - k) // S + 1 for side, k in ((H, KH), (W, KW)))
        x, w, b, g = images(C, H, W), normal(O, KH, KW, CG).transpose(0, 3, 1, 2), normal(O), images(O, OH, OW)
        y_g, x_gx, w_gw, size = reference.both_ways(Conv2d((S, S), (P, P), G), x, w, b, g)
        yield f"{name}: adjoint in x", abs(y_g - x_gx) / float(size), tolerance
        yield f"{name}: adjoint in w and b", abs(y_g - w_gw) / float(size), tolerance
        y = on_cpu(Conv2d((S, S), (P, P), G)(Tensor(x), Tensor(w), Tensor(b)).data)
        indices = np.random.default_rng(1).integers(0, y.shape, (200, 4))
        expected = reference.formula(on_cpu(x).astype(np.float64), w.get(), b.get(), S, P, G, indices)
        yield f"{name}: 200 outputs", relative_error(y[tuple(indices.T)], expected), rounding

    def pool(name):
        C, H, W, K, S, P, ceil_mode = reference.POOLS[name]
        C, H, W = (min(C, 4), min(H, 9), min(W, 9)) if tiny else (C, H, W)
        x = Tensor(cupy.rint(100 * images(C, H, W)), requires_grad=True)
        y = MaxPool2d((K, K), (S, S), (P, P), ceil_mode)(x)
        g = cupy.rint(10 * images(*y.shape[1:]))
        y.backward(g)
        yield f"{name}: adjoint with fixed argmax", abs(reference.inner(y.data, g) - reference.inner(x.data, x.grad)), 0
        cpu = Tensor(on_cpu(x.data), requires_grad=True)
        y_cpu = MaxPool2d((K, K), (S, S), (P, P), ceil_mode)(cpu)
        y_cpu.backward(on_cpu(g))
        yield f"{name}: same as on the CPU", difference(y, y_cpu, x, cpu), 0

    def windows(name):
        C, H, W, _, _, KH, KW, S, P, _ = layers[name]
        x = cupy.rint(10 * normal(batch, H + 2 * P, W + 2 * P, C))
        columns = im2col(x, (KH, KW), (S, S), (0, 0))
        g = cupy.rint(10 * normal(*columns.shape))
        back = cupy.empty_like(x)
        col2im(g, back, (KH, KW), (S, S), (0, 0))
        yield f"{name}: adjoint of im2col", abs(reference.inner(columns, g) - reference.inner(x, back)), 0

    def norm(name):
        C, H, W, *_ = reference.POOLS[name]
        C, H, W = (min(C, 7), min(H, 5), min(W, 5)) if tiny else (C, H, W)
        x, g = Tensor(images(C, H, W), requires_grad=True), images(C, H, W)
        y = LocalResponseNorm(5, 1.0, 0.75, 2.0)(x)     # alpha near 1, so that the neighbours matter
        y.backward(g)
        cpu = Tensor(on_cpu(x.data), requires_grad=True)
        y_cpu = LocalResponseNorm(5, 1.0, 0.75, 2.0)(cpu)
        y_cpu.backward(on_cpu(g))
        yield f"norm{name[-1]}: same as on the CPU", difference(y, y_cpu, x, cpu), LRN_ROUNDING[number]

    checks = [(convolution, name) for name in layers]
    if dtype != "tf32":                                 # (TF32 affects matrix products only)
        checks += [(pool, name) for name in reference.POOLS] + [(norm, name) for name in ("pool1", "pool2")]
        checks += [(windows, name) for name in ("conv1", "conv2, one tower", "conv5, two groups")]
    for check, name in checks:
        try:
            for what, error, allowed in check(name):
                yield {"what": what, "dtype": dtype, "off": error, "allowed": allowed, "right": error <= allowed}
        except Exception as error:
            yield {"what": f"{check.__name__} {name}", "dtype": dtype, "right": False, "error": f"{type(error).__name__}: {error}"[:300]}
        cupy.get_default_memory_pool().free_all_blocks()


# Part 3: training, from the command line.

def part_train(session):
    """500 steps on the images that come with minicnn, and the first ten losses compared with the CPU."""
    many, few = (2, 1) if session.tiny else (500, 10)            # steps
    with tempfile.TemporaryDirectory() as folder:
        batch = 2 if session.tiny else 32
        data = ["--batch-size", str(batch), *(["--data", write_random_images(pathlib.Path(folder) / "photos")] if session.tiny else [])]
        runs = {"gpu": (["--device", "gpu"], many), "gpu, again": (["--device", "gpu"], few), "cpu": (["--device", "cpu"], few),
                "gpu, TF32": (["--device", "gpu", "--tf32"], many)}
        rows = []
        for number, (name, (options, steps)) in enumerate(runs.items()):
            out = pathlib.Path(folder) / str(number)
            command = ["minicnn.examples.train_alexnet", "--no-report", *options, *data, "--max-steps", str(steps), "--out", str(out)]
            code, _, err = run_process([__file__, "--module", *command], session.left())
            rows.append({"run": name, "steps": steps, **(read_log(out, batch) if code == 0 else {
                "error": "killed: out of time" if code is None else tail(err, 3)})})
    by_name = {row["run"]: row for row in rows}
    result: dict = {"rows": rows, "right": not any("error" in row for row in rows)}
    if result["right"]:
        first, again, cpu = (by_name[name]["first_losses"][:few] for name in ("gpu", "gpu, again", "cpu"))
        result["largest_difference_from_cpu"] = max(abs(a - b) for a, b in zip(first, cpu, strict=True))
        result["same_bits_again"] = first == again
        result["right"] = result["same_bits_again"] and result["largest_difference_from_cpu"] < 0.01
        print(f"the first {few} losses: at most {result['largest_difference_from_cpu']:.1e} from the CPU's; a second run is "
              f"{'bitwise equal' if first == again else 'NOT BITWISE EQUAL'}")
    table(rows, [("run", "run", ""), ("steps", "steps", "d"), ("last loss", "last_loss", ".4f"), ("top-1, %", "top1", ".2f"),
                 ("seconds", "seconds", ".1f", True), ("images/s", "images_per_s", ".0f", True),
                 ("after warm-up", "images_per_s_once_warm", ".0f", True), ("error", "error", "")])
    return result


def read_log(folder, batch):
    """Losses, accuracy and speed from the log of a training run with this batch size."""
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    train, val = [row for row in log if row["kind"] == "train"], [row for row in log if row["kind"] == "val"][-1]
    losses = [row["loss"] for row in train]
    warm = train[min(len(train) // 5, 100)]
    return {"first_losses": losses[:10], "last_loss": statistics.mean(losses[-20:]), "top1": val["top1"], "seconds": train[-1]["seconds"],
            "images_per_s": batch * len(train) / train[-1]["seconds"],
            "images_per_s_once_warm": batch * (train[-1]["step"] - warm["step"]) / max(train[-1]["seconds"] - warm["seconds"], 1e-3)}


def write_random_images(folder):
    """Write a small data set of random images, for a short training; returns its path."""
    from PIL import Image
    rng = np.random.default_rng(0)
    for number in range(8):
        file = folder / ("train" if number < 6 else "val") / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (73, 73, 3), dtype=np.uint8)).save(file)
    return str(folder)


# Part 4: each kernel and matrix product alone.

def part_kernels(session):
    """The peak of this card; every kernel and matrix product compared with its prediction; the workspace size."""
    arch, batch = ("mini", 2) if session.tiny else ("one-tower", IMAGES)
    errors = {}

    def rows_of(name, label=None, **arguments):
        rows, error = session.job(name, 40, **arguments)
        errors.update(without_none(**{label or name: error}))
        return rows

    ceilings = {row["what"]: row["reached"] for row in rows_of("ceilings") if "reached" in row}
    table([{"what": what, "reached": reached} for what, reached in ceilings.items()],
          [("peak", "what", ""), ("GB/s, TFLOP/s", "reached", ".0f", True)])
    kernels = rows_of("kernels", arch=arch, batch=batch)
    for row in kernels:
        row["of_copy"] = row["gb_per_s"] / ceilings["copy"] if "copy" in ceilings and "gb_per_s" in row else None
    head = [("layer", "layer", ""), ("what", "what", ""), ("times", "times", "d")]
    foot = [("ms", "ms", ".4f", True), ("predicted", "predicted_ms", ".4f"), ("measured/predicted", "ratio", ".2f", True)]
    table(kernels, [*head, ("MB", "mb", ".1f"), ("GB/s", "gb_per_s", ".0f", True), ("of a copy", "of_copy", ".0%", True), *foot,
                    ("error", "error", "")])
    result = {"ceilings": ceilings, "kernels": kernels, "products": {}, "step_ms": {}}
    for precision in CEILING:
        rows = result["products"][precision] = rows_of("products", f"products, {precision}", arch=arch, batch=batch, precision=precision)
        for row in rows:
            row["of_ceiling"] = row["tflops"] / ceilings[precision] if precision in ceilings and "tflops" in row else None
        print(f"\nmatrix products, {precision}")
        table(rows, [*head, ("rows x inner x columns", "shape", ""), ("GFLOP", "gflop", ".2f"), ("TFLOP/s", "tflops", ".1f", True),
                     ("of the ceiling", "of_ceiling", ".0%", True), *foot, ("error", "error", "")])
        if precision != "float16":
            both = [row for row in [*kernels, *rows] if "ms" in row]
            result["step_ms"][precision] = {"measured": sum(row["times"] * row["ms"] for row in both),
                                            "predicted": sum(row["times"] * row["predicted_ms"] for row in both)}
    print()
    table([{"precision": precision, **sums} for precision, sums in result["step_ms"].items()],
          [("a step, kernels timed one by one", "precision", ""), ("ms", "measured", ".2f", True), ("predicted", "predicted", ".2f")])
    result["workspace"] = [row for precision in ("float32", "tf32") for row in
                           rows_of("workspace", f"workspace, {precision}", arch=arch, batch=batch, precision=precision)]
    print()
    table(result["workspace"], [("workspace, MB", "workspace_mb", "d"), ("precision", "precision", ""), ("step, ms", "ms", ".2f", True),
                                ("memory, GB", "gb", ".2f")])
    return {**result, **without_none(errors=errors or None)}


class Clock:
    """Times calls on the GPU: the median of many, each after the L2 cache was flushed."""

    def __init__(self, tiny):
        import cupy
        self.cupy, self.repeats = cupy, 2 if tiny else 30
        self.other_memory = cupy.ones((1 << 10) if tiny else (1 << 27), np.float32)        # 512 MB
        self.sum = cupy.empty((), np.float32)

    def seconds(self, call):
        """The median time of `call()`."""
        for _ in range(3):                              # compile, allocate, warm up
            call()
        events = []
        for _ in range(self.repeats):
            self.other_memory.sum(out=self.sum)
            begin, end = self.cupy.cuda.Event(), self.cupy.cuda.Event()
            begin.record()
            call()
            end.record()
            events.append((begin, end))
        self.cupy.cuda.Device().synchronize()
        return statistics.median(self.cupy.cuda.get_elapsed_time(*pair) for pair in events) / 1e3


def ceilings(tiny):
    """A large copy and a large square matrix product: rows {"what", "reached"}, in GB/s and TFLOP/s; and the clocks under load."""
    import cupy
    clock, rng = Clock(tiny), cupy.random.default_rng(0)
    numbers, side = (1 << 10, 32) if tiny else (1 << 28, 8192)
    a, b = rng.standard_normal(numbers, dtype="float32"), cupy.empty(numbers, np.float32)
    yield {"what": "copy", "reached": 2 * a.nbytes / clock.seconds(functools.partial(cupy.copyto, b, a)) / 1e9}
    m, n = (rng.standard_normal((side, side), dtype="float32") for _ in range(2))
    for precision in CEILING:
        multiply = functools.partial(*ready_to_multiply(precision, m, n))
        yield {"what": precision, "reached": 2 * side ** 3 / clock.seconds(multiply) / 1e12}
    for _ in range(2 if tiny else 400):                 # some tenths of a second of work, so that the clocks are read under load
        multiply()
    yield {"what": "clocks", "clocks": nvidia_smi("clocks.sm,clocks.mem,power.draw,temperature.gpu")}
    cupy.cuda.Device().synchronize()


def ready_to_multiply(precision, a, b):
    """A function that multiplies in this precision, and its three matrices; the output is float32."""
    import cupy

    from minicnn.backend import cuda
    cuda.allow_tf32(precision == "tf32")
    out = cupy.empty((a.shape[0], b.shape[1]), np.float32)
    return (gemm_float16, a.astype("float16"), b.astype("float16"), out) if precision == "float16" else (cuda.gemm, a, b, out)


def gemm_float16(a, b, out):
    """cuda.gemm for float16 matrices with float32 accumulation and output, to see what half-precision inputs would gain."""
    from cupy.cuda import cublas, device, runtime

    from minicnn.backend import cuda
    (a, a_transposed, lda), (b, b_transposed, ldb) = cuda.leading_dimension(a), cuda.leading_dimension(b)
    scalars = np.array([1, 0], np.float32)              # alpha and beta
    (rows, columns), half = out.shape, runtime.CUDA_R_16F
    cublas.gemmEx(device.get_cublas_handle(), int(b_transposed), int(a_transposed), columns, rows, a.shape[1], scalars.ctypes.data,
                  b.data.ptr, half, ldb, a.data.ptr, half, lda, scalars.ctypes.data + 4, out.data.ptr, runtime.CUDA_R_32F,
                  out.strides[0] // 4, cublas.CUBLAS_COMPUTE_32F, cublas.CUBLAS_GEMM_DEFAULT)


def kernels(arch, batch, tiny):
    """A row for every kernel."""
    clock = Clock(tiny)
    calls = kernel_calls(arch, batch)
    yield from measured((w for w in work_of(arch, batch) if not w.flops), lambda w: clock.seconds(calls(w)), "float32")


def products_alone(arch, batch, precision, tiny):
    """A row for every matrix product."""
    clock = Clock(tiny)
    calls = product_calls(arch, batch, precision)
    yield from measured((w for w in work_of(arch, batch) if w.flops), lambda w: clock.seconds(calls(w)), precision)


def measured(work, seconds_of, precision):
    """Rows with the prediction and the measurement of each Work."""
    import cupy
    for w in work:
        row = {"layer": w.layer, "what": w.what, "times": w.times, "mb": w.bytes / 1e6, "predicted_ms": 1e3 * w.predicted(precision)}
        if w.flops:
            row.update(shape=" x ".join(map(str, w.shape)), gflop=w.flops / 1e9)
        try:
            seconds = seconds_of(w)
            row.update(ms=1e3 * seconds, gb_per_s=w.bytes / seconds / 1e9, ratio=seconds / w.predicted(precision))
            if w.flops:
                row["tflops"] = w.flops / seconds / 1e12
        except Exception as error:
            row["error"] = f"{type(error).__name__}: {error}"[:300]
        yield row
        cupy.get_default_memory_pool().free_all_blocks()


def kernel_calls(arch, batch):
    """A function that maps a Work to a callable that runs it, on arrays of random numbers."""
    import cupy

    from minicnn.backend import cuda, random
    from minicnn.ops.layout import group_slices
    layers = {layer.name: layer for layer in layers_of(arch, batch)}
    rng = cupy.random.default_rng(0)

    def normal(shape):
        return rng.standard_normal(shape, dtype="float32")

    def windows(layer, name):
        from minicnn.ops.conv2d.im2col import col2im, im2col
        n, (chunks, width) = layer.numbers, chunks_of(layer)
        x, pixels = normal(layer.x), math.prod(layer.y[1:3])
        window = (n["kernel"],) * 2, (n["stride"],) * 2, (n["padding"],) * 2
        groups = [channels for channels, _ in group_slices(n["groups"], layer.x[3], n["outputs"])]
        if name == "im2col":
            return lambda: [im2col(x[chunk][..., channels], *window) for chunk in chunks for channels in groups]
        matrix = normal((max(chunk.stop - chunk.start for chunk in chunks) * pixels, width))
        return lambda: [col2im(matrix[:(chunk.stop - chunk.start) * pixels], x[chunk][..., channels], *window)
                        for chunk in chunks for channels in groups]

    def call(w):
        layer: Any = layers.get(w.layer)
        if w.what in ("im2col", "col2im"):
            return windows(layer, w.what)
        if w.what == "add bias":
            y, b = normal(layer.y), normal(layer.y[-1])
            rows = [y] if layer.kind == "Linear" else [y[chunk] for chunk in chunks_of(layer)[0]]
            return lambda: [cupy.add(row, b, out=row) for row in rows]
        if w.what == "add_rows":
            from minicnn.ops.bias import bias_gradient
            g = normal(layer.y)
            return lambda: bias_gradient(g)
        if w.what in ("relu", "relu_backward"):
            from minicnn.ops.relu import relu_backward, relu_forward
            x, y, g = normal(layer.x), normal(layer.x), normal(layer.x)
            return (lambda: relu_forward(x, y)) if w.what == "relu" else lambda: relu_backward(g, y, x)
        if w.what in ("lrn", "lrn_backward"):
            from minicnn.ops.local_response_norm import LocalResponseNorm, lrn_backward, lrn_forward, pixels
            x, y, g = (pixels(normal(layer.x)) for _ in range(3))
            op = LocalResponseNorm()
            return (lambda: lrn_forward(x, y, op)) if w.what == "lrn" else lambda: lrn_backward(x, g, y, op)
        if w.what in ("max_pool", "max_pool_backward"):
            from minicnn.ops.max_pool2d import MaxPool2d, max_pool_backward, max_pool_forward
            x, y = normal(layer.x), normal(layer.y)
            pool, argmax = MaxPool2d((layer.numbers["kernel"],) * 2, (layer.numbers["stride"],) * 2), cupy.empty(y.shape, "uint8")
            pool.H, pool.W = layer.x[1:3]
            max_pool_forward(x, y, argmax, pool)
            return (lambda: max_pool_forward(x, y, argmax, pool)) if w.what == "max_pool" else lambda: max_pool_backward(y, argmax, x, pool)
        if w.what in ("keep_mask", "dropout"):
            from minicnn.ops.dropout import apply_mask, draw_mask
            x = normal(layer.x)
            if w.what == "keep_mask":
                return lambda: draw_mask(x, random.next_generator("dropout"), 0.5)
            mask = draw_mask(x, random.next_generator("dropout"), 0.5)
            return lambda: apply_mask(x, mask, 2.0)
        if w.what == "flatten":
            x = normal(layer.x).transpose(0, 3, 1, 2)
            return lambda: x.reshape(layer.y)
        if w.layer == "loss":
            from minicnn.ops.cross_entropy import mean_loss, mean_loss_gradient
            from minicnn.ops.softmax import log_softmax_of
            x = normal(layers_of(arch, batch)[-1].y)
            labels, one = cupy.asarray(np.random.default_rng(0).integers(0, x.shape[1], batch)), cupy.ones((), np.float32)
            log_p = log_softmax_of(x, axis=1)
            return {"log_softmax": lambda: log_softmax_of(x, axis=1), "mean_loss": lambda: mean_loss(log_p, labels),
                    "mean_loss_backward": lambda: mean_loss_gradient(log_p, labels, one)}[w.what]
        if w.what == "momentum_sgd":
            from minicnn.optim import update
            each = [[normal(shape) for _ in range(3)] for shape in parameter_shapes(arch)]
            return lambda: [update(p, v, g, 1e-3, 0.9, 5e-4) for p, v, g in each]
        if w.what == "normalize_batch":
            N, H, W, C = layers_of(arch, batch)[0].x
            images = cupy.asarray(np.random.default_rng(0).integers(0, 256, (N, H, W, C), dtype=np.uint8))
            affine_params, floats = cupy.ones((N, 1 + 2 * C), np.float32), cupy.empty(images.shape, np.float32)
            return lambda: cuda.launch_rows("data/images.cu", "normalize_batch", N * H, W * C, images, affine_params, floats, H, C,
                                            dtype=np.float32)
        raise KeyError(w.what)

    return call


def parameter_shapes(arch):
    """The shape of each weight and bias, as a matrix or vector in memory order."""
    for kind, n in network_of(arch)["layers"]:
        if kind in ("Conv2d", "Linear"):
            yield (n["outputs"], n.get("kernel", 1) ** 2 * n["inputs"] // n.get("groups", 1))
            yield (n["outputs"],)


def product_calls(arch, batch, precision):
    """A function that maps a Work to a callable that multiplies the matrices of a layer, in chunks as the layer does."""
    import cupy

    from minicnn.backend import cuda
    layers = {layer.name: layer for layer in layers_of(arch, batch)}
    rng = cupy.random.default_rng(0)

    def call(w):
        layer, (rows, inner, columns) = layers[w.layer], w.shape
        chunks, groups = [slice(0, batch)], 1
        if layer.kind == "Conv2d":
            chunks, groups = chunks_of(layer)[0], layer.numbers["groups"]
        longest = max(chunk.stop - chunk.start for chunk in chunks)
        if w.what == "filter gradient":                     # gy^T @ columns: the batch is in the inner dimension
            inner = inner // batch * longest
            a = rng.standard_normal((inner, rows), dtype="float32").T
        else:
            rows = rows // batch * longest
            a = rng.standard_normal((rows, inner), dtype="float32")
        if w.what == "forward":                             # columns @ w^T
            b = rng.standard_normal((columns, inner), dtype="float32").T
        else:
            b = rng.standard_normal((inner, columns), dtype="float32")
        if w.layer.startswith("conv") and w.what != "input gradient":       # the rows of im2col's matrix are aligned
            matrix = cuda.aligned(*(a if w.what == "forward" else b).shape, np.float32)
            matrix[...] = a if w.what == "forward" else b
            a, b = (matrix, b) if w.what == "forward" else (a, matrix)
        multiply, a, b, out = ready_to_multiply(precision, a, b)
        return lambda: [multiply(a, b, out) for _ in range(len(chunks) * groups)]

    return call


def workspace(arch, batch, precision, tiny):
    """Time and memory of a training step for several sizes of the im2col workspace."""
    import cupy

    from minicnn.backend import cuda
    cuda.allow_tf32(precision == "tf32")
    step, _ = alexnet_step.minicnn_step(network_of(arch), batch, False, device="gpu")
    for megabytes in WORKSPACES[:2] if tiny else WORKSPACES:
        cuda.WORKSPACE_BYTES = megabytes << 20
        step()
        cupy.get_default_memory_pool().free_all_blocks()
        yield {"workspace_mb": megabytes, "precision": precision, "ms": 1e3 * seconds_each(step, 1 if tiny else 20),
               "gb": cupy.get_default_memory_pool().total_bytes() / 1e9}


def seconds_each(step, times, wait=None):
    """Seconds per step: all are enqueued, then one synchronization; after two steps of warm-up."""
    if wait is None:
        import cupy
        wait = cupy.cuda.Device().synchronize
    for _ in range(2):
        step()
    wait()
    began = time.perf_counter()
    for _ in range(times):
        step()
    wait()
    return (time.perf_counter() - began) / times


# Part 5: the training step, against PyTorch.

def part_step(session):
    """Comparison with PyTorch; the time that the GPU idles in a step; the step with its input pipeline."""
    races = [("mini", 2, "float32"), ("mini", 2, "tf32")] if session.tiny else RACES
    arch, batch, _ = races[0]
    result: dict = {"races": {}, "gaps": [], "pipeline": []}
    errors: dict = {}
    for number, (a, n, precision) in enumerate(races):
        name = f"{a}, batch {n}, {precision}"
        print(f"\n{name}")
        result["races"][name] = race = compare(session, a, n, precision)
        lines = alexnet_step.table(race["results"], a, n, False, decimals=2) if race["results"] else []
        print("\n".join(lines) if not EMULATED else f"measured: {', '.join(race['results'])}")
        for contender, error in race["errors"].items():
            print(f"{contender}: {error}")
        if number != 1:
            continue
        for p in ("float32", "tf32"):
            rows, error = session.job("gaps", 30, arch=arch, batch=batch, precision=p)
            result["gaps"] += rows
            errors.update(without_none(**{f"gaps, {p}": error}))
        print("\nGPU idle time (ms)")
        table(result["gaps"], [("precision", "precision", ""), ("a step", "wall_ms", ".2f", True),
                               ("GPU busy", "device_ms", ".2f", True), ("Python enqueues", "host_ms", ".2f", True),
                               ("synchronized after each step", "waited_ms", ".2f", True), ("GPU idle", "idle", ".1%", True),
                               ("invalid repeats", "starved", "d")])
        result["pipeline"], error = session.job("pipeline", 40, arch=arch, batch=batch, precision="tf32")
        errors.update(without_none(pipeline=error))
        print("\nThe step with its input: uint8 images of 256 x 256, cropped, flipped, copied, normalized (ms per batch)")
        table(result["pipeline"], [("what", "what", ""), ("ms", "ms", ".2f", True), ("images/s", "images_per_s", ".0f", True)])
    if all("minicnn" not in race["results"] for race in result["races"].values()):
        errors["minicnn"] = "no measurement of minicnn succeeded"
    return {**result, **without_none(errors=errors or None)}


def compare(session, arch, batch, precision):
    """Contenders in their own processes, alternating: {"results": as from alexnet_step.compare, "errors": {name: message}}."""
    rounds, steps = (2, 1) if session.tiny else (5, 20 if batch <= 128 else 8)
    running: dict = {}
    race: dict = {"results": {}, "errors": {}}
    if session.left() < 20 and not session.tiny:
        return {**race, "errors": {"all": "skipped: out of time"}}
    network = json.dumps(network_of(arch))

    def request(name, line, seconds):
        """Send a line to a contender and return its reply; one that does not reply in time is killed and dropped."""
        process, err = running[name]
        timer = threading.Timer(max(1, min(seconds, session.left())), stop, [process])
        timer.start()
        try:
            with contextlib.suppress(BrokenPipeError):          # it may have exited already; then the reason is in `err`
                process.stdin.write(line + "\n")
                process.stdin.flush()
            reply = process.stdout.readline()
        finally:
            timer.cancel()
        if reply.endswith("\n"):
            return json.loads(reply)
        err.seek(0)
        race["errors"][name] = tail(err.read(), 3) or "no reply in time"
        if not race["results"].get(name, {}).get("seconds"):       # its measurements so far stay
            race["results"].pop(name, None)
        stop(process)
        del running[name]
        return None

    with contextlib.ExitStack() as cleaning:
        for name in ["minicnn", *session.peers]:
            err = cleaning.enter_context(output_file())
            process = subprocess.Popen([*LAUNCHER, __file__, "--contender", json.dumps([name, batch, precision])], stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE, stderr=err, text=True, cwd=ROOT, env=environment(), start_new_session=True)
            cleaning.callback(lambda process=process: (stop(process), process.stdin.close(), process.stdout.close()))
            running[name] = process, err
        for name in list(running):
            versions = request(name, network, 60)
            if versions:
                race["results"][name] = {"seconds": [], "versions": versions}
        for name in list(running):                      # one after the other: some benchmark their algorithms now
            request(name, "3", 75)
        for _ in range(rounds):
            for name in list(running):
                measured = request(name, str(steps), 30)
                if measured:
                    race["results"][name]["seconds"].append(measured.pop("seconds"))
                    race["results"][name].update(measured)
    return race


def contend(name, batch, precision):
    """In its own process: read the network, warm up, then for each number on standard input time that many steps."""
    send = json_stdout()
    network = json.loads(sys.stdin.readline())
    if name == "minicnn":
        import cupy

        from minicnn.backend import cuda
        cuda.allow_tf32(precision == "tf32")
        step, versions = alexnet_step.minicnn_step(network, batch, False, device="gpu")
        pool, wait = cupy.get_default_memory_pool(), cupy.cuda.Device().synchronize
        versions["cupy"], release = cupy.__version__, pool.free_all_blocks

        def memory():
            return {"peak_memory": pool.total_bytes()}
    else:
        import torch
        if not torch.cuda.is_available() and not EMULATED:
            raise SystemExit("this PyTorch sees no GPU")
        cuda = torch.cuda.is_available()
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
        torch.backends.cudnn.benchmark = True
        step, versions = alexnet_step.torch_step(network, batch, False, name == "torch-channels-last", name == "torch-compile",
                                                 device="cuda" if cuda else "cpu")
        versions["cuda"], versions["cudnn"] = torch.version.cuda, torch.backends.cudnn.version()
        wait = torch.cuda.synchronize if cuda else lambda: None

        def release():
            """Release cached memory, also that of benchmarking algorithms."""
            if cuda:
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()

        def memory():
            return {"peak_memory": torch.cuda.max_memory_reserved() if cuda else 0,
                    "peak_allocated": torch.cuda.max_memory_allocated() if cuda else 0}
    send(versions)
    for number, line in enumerate(sys.stdin):
        wait()
        began = time.perf_counter()
        for _ in range(int(line)):
            step()
        wait()
        send({"seconds": (time.perf_counter() - began) / int(line), **memory()})
        if number == 0:
            release()


def gaps(arch, batch, precision, tiny):
    """The time that the GPU is busy in a step, and the time that Python needs to enqueue it.

    A long copy is enqueued first. While it runs, Python enqueues a whole step, which the GPU then executes without gaps; and Python's
    time is measured without waiting for the GPU.
    """
    import cupy

    from minicnn.backend import cuda
    cuda.allow_tf32(precision == "tf32")
    step, _ = alexnet_step.minicnn_step(network_of(arch), batch, False, device="gpu")
    wait = cupy.cuda.Device().synchronize
    wall = seconds_each(step, 1 if tiny else 40)
    waited = seconds_each(lambda: (step(), wait()), 1 if tiny else 20)
    a = cupy.zeros((1 << 10) if tiny else (1 << 28), np.float32)
    b = cupy.empty_like(a)
    copies = 1 if tiny else 20 + math.ceil(3 * waited / 0.7e-3)         # 0.7 ms each on an H100; at least as long as three steps
    host, device, starved = [], [], 0
    for _ in range(1 if tiny else 10):
        begin, end = cupy.cuda.Event(), cupy.cuda.Event()
        for _ in range(copies):
            cupy.copyto(b, a)
        begin.record()
        began = time.perf_counter()
        step()
        host.append(time.perf_counter() - began)
        end.record()
        starved += begin.done                           # the copy ended before the step was enqueued: this repeat is invalid
        wait()
        device.append(cupy.cuda.get_elapsed_time(begin, end) / 1e3)
    device_s = statistics.median(device)
    yield {"arch": arch, "batch": batch, "precision": precision, "wall_ms": 1e3 * wall, "device_ms": 1e3 * device_s,
           "host_ms": 1e3 * statistics.median(host), "waited_ms": 1e3 * waited, "idle": max(0.0, 1 - device_s / wall), "starved": starved}


class RandomImages:
    """A data set of random uint8 images (side, side, 3), in memory."""

    def __init__(self, count, side):
        self.images = np.random.default_rng(0).integers(0, 256, (64, side, side, 3), dtype=np.uint8)
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        return self.images[i % 64], i % 10


def pipeline(arch, batch, precision, tiny):
    """Rows: the input pipeline alone, the step alone, and both."""
    from minicnn.backend import cuda
    from minicnn.data import DataLoader
    from minicnn.data.transforms import Compose, Normalize, RandomCrop, RandomHorizontalFlip
    cuda.allow_tf32(precision == "tf32")
    network, batches = network_of(arch), 3 if tiny else 60
    step, _ = alexnet_step.minicnn_step(network, batch, False, device="gpu")
    transform = Compose(RandomCrop(network["side"]), RandomHorizontalFlip(), Normalize(128, 64))
    loader = DataLoader(RandomImages(batches * batch, 40 if tiny else 256), batch, transform, shuffle=True, drop_last=True, device="gpu")

    def seconds_per_batch(consume):
        """Over an epoch, without its first quarter."""
        import cupy
        began = time.perf_counter()
        for number, (images, labels) in enumerate(loader.epoch(0)):
            if number == batches // 4:
                cupy.cuda.Device().synchronize()
                began = time.perf_counter()
            consume(images, labels)
        cupy.cuda.Device().synchronize()
        return (time.perf_counter() - began) / (batches - batches // 4)

    both = seconds_per_batch(step)                      # (the first is also the warm-up)
    alone = seconds_per_batch(lambda images, labels: None)
    for what, seconds in (("the input alone", alone), ("the step alone", seconds_each(step, 1 if tiny else 40)),
                          ("both", min(both, seconds_per_batch(step)))):
        yield {"what": what, "precision": precision, "ms": 1e3 * seconds, "images_per_s": batch / seconds}


# The command.

def nvidia_smi(what):
    """{property: value} of the first card, or {} without nvidia-smi."""
    with contextlib.suppress(OSError, subprocess.SubprocessError, IndexError):
        process = subprocess.run(["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader"], capture_output=True, text=True, timeout=20)
        if process.returncode == 0:
            return dict(zip(what.split(","), process.stdout.splitlines()[0].split(", "), strict=False))
    return {}


def machine(tiny):
    """The card, its driver, and the versions of everything: one row."""
    from minicnn.backend.arrays import gpu_unavailable_reason
    if gpu_unavailable_reason():
        raise SystemExit(gpu_unavailable_reason())
    import cupy
    runtime, properties = cupy.cuda.runtime, cupy.cuda.runtime.getDeviceProperties(0)
    facts = {**alexnet_step.machine(), "card": properties["name"].decode(), "memory_gb": round(properties["totalGlobalMem"] / 1e9, 1),
             "multiprocessors": properties["multiProcessorCount"], "cuda_driver": runtime.driverGetVersion(),
             "cuda_runtime": runtime.runtimeGetVersion(), "cupy": cupy.__version__, "numpy": np.__version__, "minicnn": minicnn.__version__}
    if importlib.util.find_spec("torch"):
        import torch
        facts["torch"] = torch.__version__
    yield {**facts, **nvidia_smi("driver_version,clocks.max.sm,clocks.max.mem,power.limit,clocks.sm,temperature.gpu")}


def slug(card):
    """A card's name, for use in a file name."""
    return re.sub(r"[^a-z0-9]+", "-", card.lower()).strip("-")


JOBS: dict[str, Any] = {"machine": machine, "adjoint": adjoint, "ceilings": ceilings, "kernels": kernels, "products": products_alone,
                        "workspace": workspace, "gaps": gaps, "pipeline": pipeline}
PARTS = {"tests": part_tests, "adjoint": part_adjoint, "train": part_train, "kernels": part_kernels, "step": part_step}
PEERS = ("torch", "torch-channels-last", "torch-compile")


def run_parts(session, names):
    """Run the parts in order and write the result after each. Returns the names of those that failed."""
    failed = []
    for name in names:
        print(f"\n== {name}: {PARTS[name].__doc__.splitlines()[0]}", flush=True)
        began = time.monotonic()
        session.part_ends = began + PART_SECONDS[name]
        try:
            part = PARTS[name](session) if session.left() > 3 else {"error": "skipped: out of time"}
        except Exception as error:
            part = {"error": f"{type(error).__name__}: {error}"}
        part.update(seconds_taken=round(time.monotonic() - began, 1), when=datetime.datetime.now().isoformat(timespec="seconds"))
        for message in filter(None, [part.get("error"), part.get("errors")]):
            print(f"{name}: {message}")
        if part.get("error") or part.get("errors") or part.get("right") is False:
            failed.append(name)
        session.result["parts"][name] = part
        session.write()
        print(f"({part['seconds_taken']:.0f} s)", flush=True)
    return failed


def selected(text, known):
    """The names in a comma-separated list, in the order of `known`; SystemExit for an unknown one."""
    asked = [name for name in text.split(",") if name]
    unknown = sorted(set(asked) - set(known))
    if unknown:
        raise SystemExit(f"unknown name {unknown[0]!r}; choose from {', '.join(known)}")
    return [name for name in known if name in asked]


def print_predictions(expected):
    """Print what `predictions` returns."""
    table(expected["rows"], [("layer", "layer", ""), ("what", "what", ""), ("times", "times", "d"), ("MB", "mb", ".1f"),
                             ("GFLOP", "gflop", ".1f"), ("ms, float32", "float32_ms", ".4f"), ("ms, TF32", "tf32_ms", ".4f")])
    step = expected["step"]
    print(f"\n{expected['network']}, batch {expected['batch']}, a training step: {step['gflop']:.0f} GFLOP, {step['gb']:.1f} GB moved, "
          f"im2col matrices of {step['columns_gb']:.2f} GB")
    for precision in ("float32", "tf32"):
        ms, floor = step[precision]["predicted_ms"], step[precision]["floor_ms"]
        print(f"{precision}: {ms:.1f} ms on the GPU ({1e3 * expected['batch'] / ms:,.0f} images/s); floor {floor:.1f} ms")
    bound = "GPU" if step["enqueue_ms"] < step["tf32"]["predicted_ms"] else "CPU"
    print(f"{step['launches']} kernel launches, which Python enqueues in {step['enqueue_ms']:.1f} ms: {bound}-bound with TF32")


def main(argv=None):
    """Exit code 0: all parts passed. 1: a part failed. 2: there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default=",".join(PARTS), help=f"comma-separated, of {', '.join(PARTS)}")
    parser.add_argument("--peers", default=",".join(PEERS), help=f"configurations of PyTorch, of {', '.join(PEERS)}; '' for none")
    parser.add_argument("--predict", action="store_true", help="print predictions for an H100, and write them to gpu-predictions.json")
    parser.add_argument("--tiny", action="store_true", help="every part at a size too small for useful timings")
    parser.add_argument("--minutes", type=float, default=9.5, help="time limit; parts beyond it are skipped (default: %(default)s)")
    parser.add_argument("--out", type=pathlib.Path, help="the file to write (default: benchmarks/results/gpu-<card>.json; "
                        "none with --tiny or under emulation)")
    parser.add_argument("--job", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--contender", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--module", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.contender:
        return contend(*args.contender)
    if args.module:
        return run_module(*args.module)
    if args.job:
        send, (name, arguments) = json_stdout(), args.job
        for row in JOBS[name](**arguments):
            send(row)
        return 0
    if args.predict:
        expected = predictions()
        print_predictions(expected)
        out = args.out or HERE / "results" / "gpu-predictions.json"
        out.write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8")
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))     # so that child processes end too
    peers = selected(args.peers, PEERS) if importlib.util.find_spec("torch") else []
    session = Session(args.tiny, args.minutes, peers)
    names = selected(args.parts, PARTS)
    facts, error = session.job("machine", 120)
    if not facts:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(", ".join(f"{name} {fact}" for name, fact in facts[0].items()))
    session.out = args.out or (None if args.tiny or EMULATED else HERE / "results" / f"gpu-{slug(facts[0]['card'])}.json")
    if session.out and session.out.exists():
        session.result = json.loads(session.out.read_text(encoding="utf-8"))
    session.result.update(note="CPU emulation: timings are meaningless" if EMULATED else "tiny: timings are meaningless"
                          if args.tiny else "", machine=facts[0])
    failed = run_parts(session, names)
    print(f"\nfailed: {', '.join(failed)}" if failed else "\nall parts passed")
    if session.out:
        print(f"written to {session.out}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
