"""From plain loops to the fast form, one optimisation at a time: the reason for each, and the speed it gained.

    python benchmarks/ladder.py conv2d | max_pool2d | local_response_norm   [--batch 16] [--out FILE]

Every rung computes the same op, forward, at its size in AlexNet; each is checked against the previous rung, and its error against
float64 is printed. Speeds are compared with this machine's measured peak: for convolution that of a large matrix product, in
GFLOP/s (2 per multiply-add of the definition, so Winograd may exceed the peak); for the other ops that of copying memory, in GB/s
(x read once, y written once).
"""

import argparse
import json
import pathlib
import statistics
import time

import numpy as np
import threadpoolctl
from alexnet_step import machine

from minicnn.backend import threads
from minicnn.ops.conv2d import winograd
from minicnn.ops.conv2d.im2col import im2col, sliding_windows
from minicnn.ops.conv2d.op import correlate
from minicnn.ops.layout import nchw, nhwc, padded
from minicnn.ops.local_response_norm import LocalResponseNorm, channel_window_sum
from minicnn.ops.max_pool2d import MaxPool2d

# conv2d: conv2 of AlexNet, 96 channels of 27 x 27, 256 filters of 5 x 5, padding 2. x (N, H, W, C), w (O, 5, 5, C)

def conv_loops(x, w):
    """The definition. Only the first output row of the first image: the rest would take hours."""
    W, C, O = *x.shape[2:], len(w)
    image = padded(x[:1], 2, 2)[0]
    y = np.zeros((1, 1, W, O), x.dtype)
    for j in range(W):
        for o in range(O):
            total = 0.0
            for p in range(5):
                for q in range(5):
                    for c in range(C):
                        total += w.item(o, p, q, c) * image.item(p, j + q, c)
            y[0, 0, j, o] = total
    return y


def conv_textbook(x, w):
    """im2col over the whole batch with channels first: (N*OH*OW, C*5*5), one matrix product. Copies runs of 5 floats."""
    N, H, W, C = x.shape
    planes = np.ascontiguousarray(padded(x, 2, 2).transpose(0, 3, 1, 2))
    n, c, h, v = planes.strides
    columns = np.lib.stride_tricks.as_strided(planes, (N, H, W, C, 5, 5), (n, h, v, c, h, v)).reshape(N * H * W, -1)
    return (columns @ w.transpose(3, 1, 2, 0).reshape(-1, len(w))).reshape(N, H, W, -1)


def conv_channels_last(x, w):
    """The same with channels last: copies runs of 5*96 floats. The columns of the batch still go through main memory."""
    return (im2col(x, (5, 5), (1, 1), (2, 2)) @ w.reshape(len(w), -1).T).reshape(*x.shape[:3], -1)


def conv_blocked(x, w):
    """One image at a time on each core, so that copies are parallel too and the columns stay in the cache."""
    return correlate(x, w, None, (1, 1), (2, 2), 1, "im2col")


def conv_winograd(x, w):
    """F(4, 5): 64 multiplications where the definition takes 400, and small matrix products before and after."""
    return winograd.correlate(x, w, None, (2, 2), 1)


# max_pool2d: pool1 of AlexNet, 96 channels of 55 x 55, window 3, stride 2. x (N, H, W, C)

def pool_loops(x):
    """The definition. Only the first image and the first 8 channels."""
    H, W = x.shape[1:3]
    OH, OW = (H - 3) // 2 + 1, (W - 3) // 2 + 1
    y = np.empty((1, OH, OW, 8), x.dtype)
    for i in range(OH):
        for j in range(OW):
            for c in range(8):
                y[0, i, j, c] = max(x.item(0, 2 * i + p, 2 * j + q, c) for p in range(3) for q in range(3))
    return y


def pool_vectorised(x):
    """All windows as a strided view, and the maximum over its two window axes."""
    return sliding_windows(x, (3, 3), (2, 2)).max(axis=(3, 4))


def pool_taps(x):
    """Element-wise maxima of nine whole arrays, one for each position in the window: long inner loops."""
    OH, OW = (x.shape[1] - 3) // 2 + 1, (x.shape[2] - 3) // 2 + 1
    y = None
    for p in range(3):
        for q in range(3):
            tap = x[:, p:p + 2 * OH - 1:2, q:q + 2 * OW - 1:2]
            y = tap.copy() if y is None else np.maximum(y, tap, out=y)
    return y


def pool_blocked(x):
    """Separable: maxima down the window, then across, a block of images at a time on each core; saves the argmax for backward too."""
    return nhwc(MaxPool2d((3, 3), (2, 2)).forward(nchw(x))[0])


# local_response_norm: norm1 of AlexNet, 96 channels of 55 x 55. x (N, H, W, C)

def lrn_loops(x):
    """The definition. Only the first two rows of the first image."""
    W, C = x.shape[2:]
    y = np.empty((1, 2, W, C), x.dtype)
    for i in range(2):
        for j in range(W):
            for c in range(C):
                s = 2.0 + 1e-4 * sum(x.item(0, i, j, d) ** 2 for d in range(max(0, c - 2), min(C, c + 3)))
                y[0, i, j, c] = x.item(0, i, j, c) * s ** -0.75
    return y


def lrn_vectorised(x):
    """Sums of shifted whole arrays, and the power function."""
    s = x * x
    total = s.copy()
    for d in (1, 2):
        total[..., d:] += s[..., :-d]
        total[..., :-d] += s[..., d:]
    return x * (2.0 + 1e-4 * total) ** -0.75


def lrn_roots(x):
    """The window sum as a matrix product with a band matrix, and s^(-3/4) by two square roots instead of the power function."""
    s = 2.0 + 1e-4 * channel_window_sum((x * x).reshape(-1, x.shape[3]), 2).reshape(x.shape)
    root = np.sqrt(s)
    return x / (root * np.sqrt(root))


def lrn_blocked(x):
    """The same, a block of images at a time on each core: intermediate results stay in the cache."""
    return nhwc(LocalResponseNorm().forward(nchw(x))[0])


LADDERS = {
    "conv2d": ([conv_loops, conv_textbook, conv_channels_last, conv_blocked, conv_winograd], (27, 27, 96)),
    "max_pool2d": ([pool_loops, pool_vectorised, pool_taps, pool_blocked], (55, 55, 96)),
    "local_response_norm": ([lrn_loops, lrn_vectorised, lrn_roots, lrn_blocked], (55, 55, 96)),
}


def climb(op, batch, rounds=5):
    """Time and check every rung; returns a list of dicts, one for each rung."""
    rungs, shape = LADDERS[op]
    rng = np.random.default_rng(0)
    x = np.maximum(rng.standard_normal((batch, *shape), dtype=np.float32), 0 if op == "max_pool2d" else -9)
    inputs = [x, rng.standard_normal((256, 5, 5, 96), dtype=np.float32) * 0.02] if op == "conv2d" else [x]
    exact = rungs[1](*(a[:2].astype(np.float64) for a in inputs[:1]), *(a.astype(np.float64) for a in inputs[1:]))
    steps, before = [], None
    for rung in rungs:
        y = rung(*inputs)
        common = tuple(slice(0, min(a, b)) for a, b in zip(y.shape, exact.shape, strict=True))
        error = float(np.abs(y[common] - exact[common]).max() / np.abs(exact).max())
        if before is not None:          # the loops computed only a part
            part = tuple(slice(0, s) for s in before.shape)
            np.testing.assert_allclose(y[part], before, rtol=0, atol=1e-4 * np.abs(exact).max())
        before = y
        seconds = statistics.median(timed(rung, inputs) for _ in range(1 if rung is rungs[0] else rounds))
        whole = seconds * (batch * exact[0].size / y.size)          # extrapolated where the loops computed only a part
        work = 2e-9 * batch * exact[0].size * 2400 if op == "conv2d" else 1e-9 * (x.nbytes + batch * exact[0].size * 4)
        steps.append({"rung": rung.__name__, "why": rung.__doc__, "ms": 1e3 * whole, "speed": work / whole, "error": error,
                      "scaled_up": rung is rungs[0]})
    return steps


def timed(f, inputs):
    began = time.perf_counter()
    f(*inputs)
    return time.perf_counter() - began


def peaks():
    """GFLOP/s of a large matrix product on all cores, GB/s of copying a large array."""
    a = np.random.default_rng(0).standard_normal((1536, 1536), dtype=np.float32)
    source, target = np.ones(1 << 26, np.float32), np.empty(1 << 26, np.float32)
    gemm = min(timed(threads.matmul, [a, a]) for _ in range(7))

    def copy():
        threads.over_batch(lambda n: np.copyto(target.reshape(64, -1)[n], source.reshape(64, -1)[n]), source.reshape(64, -1), 1 << 20)

    return 2e-9 * 1536 ** 3 / gemm, 1e-9 * 2 * source.nbytes / min(timed(copy, []) for _ in range(5))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("op", choices=list(LADDERS))
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--out", type=pathlib.Path, help="add the result to this JSON file")
    args = parser.parse_args()
    gemm, copy = peaks()
    unit, peak = ("GFLOP/s", gemm) if args.op == "conv2d" else ("GB/s", copy)
    steps = climb(args.op, args.batch)
    print(f"{args.op}, batch {args.batch}, float32, {threads.num_threads()} threads; peak of this machine: {peak:.0f} {unit}\n")
    print(f"| | ms | times the previous rung | {unit} | error |\n|---|---|---|---|---|")
    for i, s in enumerate(steps):
        gain = f"{steps[i - 1]['ms'] / s['ms']:,.1f}" if i else ""
        rung = s["rung"] + (" (extrapolated)" if s["scaled_up"] else "")
        print(f"| {rung} | {s['ms']:,.1f} | {gain} | {s['speed']:.3g} | {s['error']:.0e} |")
    print()
    for s in steps:
        print(f"{s['rung']}: {s['why']}")
    if args.out:
        everything = json.loads(args.out.read_text()) if args.out.exists() else {}
        everything[args.op] = {"machine": machine(), "batch": args.batch, "threads": threads.num_threads(), "peak": {unit: peak},
                               "steps": steps}
        args.out.write_text(json.dumps(everything, indent=1) + "\n")


if __name__ == "__main__":
    with threadpoolctl.threadpool_limits(threads.num_threads(), user_api="blas"):
        main()
