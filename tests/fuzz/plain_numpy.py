"""Reference implementations of all ops: the formulas in plain NumPy, for real and for complex numbers.

Complex numbers give the derivative (the complex-step method), with no error from the step size and no interference from kinks:

    f(x + i*h*d) = f(x) + i*h * (df/dx . d) - ...         so, with h = 1e-20,   df/dx . d = imag(f(x + i*h*d)) / h

to about the last digit. A branch (the sign in relu, the argmax of a pool) is decided once, with real numbers, and reused for the
complex ones. The margin of the decision is recorded too: if it is within rounding errors, both outcomes are right.
"""

import itertools

import numpy as np

STEP = 1e-20


class Branches:
    """The decisions of one evaluation, by node, and `margin`: the smallest distance to another decision, relative to the values."""

    def __init__(self):
        self.taken, self.margin = {}, np.inf

    def take(self, node, decide):
        """The decision at this node; `decide()` -> (decision, margins) is called the first time."""
        if node not in self.taken:
            self.taken[node], margins = decide()
            self.margin = min(self.margin, np.min(margins, initial=np.inf))
        return self.taken[node]


def relu(branches, node, x):
    def decide():
        size = np.abs(x)
        return x > 0, size[size > 0] / size.max()           # an exact 0 is one in any arithmetic

    return x * branches.take(node, decide)


def max_pool2d(branches, node, x, kernel_size, stride=None, padding=0, ceil_mode=False):
    (KH, KW), (PH, PW) = both(kernel_size), both(padding)
    SH, SW = both(kernel_size if stride is None else stride)
    OH, OW = (pooled(*along, ceil_mode) for along in zip(x.shape[2:], (KH, KW), (SH, SW), (PH, PW), strict=True))
    N, C, H, W = x.shape
    image = np.full((N, C, H + 2 * PH + KH + SH, W + 2 * PW + KW + SW), -np.inf, x.dtype)
    image[:, :, PH:PH + H, PW:PW + W] = x
    taps = np.stack([image[:, :, p:p + SH * OH:SH, q:q + SW * OW:SW][:, :, :OH, :OW] for p, q in itertools.product(range(KH), range(KW))])

    def decide():
        best = taps.max(axis=0)
        gap = np.where((taps == best) & (best == 0), np.inf, best - taps)           # zeros of a relu tie in any arithmetic
        gap[taps.argmax(axis=0)[None] == np.arange(len(taps)).reshape(-1, 1, 1, 1, 1)] = np.inf
        return taps.argmax(axis=0)[None], gap / max(np.abs(x).max(), 1e-300)

    return np.take_along_axis(taps, branches.take(node, decide), axis=0)[0]


def pooled(size, K, S, P, ceil_mode):
    """The number of windows, every S pixels from -P on, that lie inside the padded image; with ceil_mode also one that starts inside."""
    inside = [start for start in range(-P, size + P, S) if start + K <= size + P]
    if not ceil_mode or inside[-1] + K == size + P or inside[-1] + S >= size:
        return len(inside)
    return len(inside) + 1


def conv2d(x, w, b=None, stride=1, padding=0, groups=1, algorithm="auto"):
    (SH, SW), (PH, PW) = both(stride), both(padding)
    O, CG, KH, KW = w.shape
    image = np.pad(x, [(0, 0), (0, 0), (PH, PH), (PW, PW)])
    OH, OW = (image.shape[2] - KH) // SH + 1, (image.shape[3] - KW) // SW + 1
    y = np.zeros((len(x), O, OH, OW), np.result_type(x, w))
    for o, c, p, q in itertools.product(range(O), range(CG), range(KH), range(KW)):
        channel = o // (O // groups) * CG + c
        y[:, o] += w[o, c, p, q] * image[:, channel, p:p + SH * OH:SH, q:q + SW * OW:SW][:, :OH, :OW]
    return y if b is None else y + b[:, None, None]


def local_response_norm(x, size=5, alpha=1e-4, beta=0.75, k=2.0, alpha_over_size=False):
    r, C = size // 2, x.shape[1]
    s = np.stack([(x[:, max(0, c - r):min(C, c + r + 1)] ** 2).sum(axis=1) for c in range(C)], axis=1)
    return x / (k + (alpha / size if alpha_over_size else alpha) * s) ** beta


def adaptive_avg_pool2d(x, output_size):
    (OH, OW), (H, W) = both(output_size), x.shape[2:]
    return np.stack([np.stack([x[:, :, i * H // OH:-(-(i + 1) * H // OH), j * W // OW:-(-(j + 1) * W // OW)].mean(axis=(2, 3))
                               for j in range(OW)], axis=-1) for i in range(OH)], axis=-2)


def dropout(x, p, key):
    bits = np.random.Philox(key=key).random_raw(-(-x.size // 4)).view("<u2")[:x.size].reshape(x.shape)
    return x * (bits >= round(p * 65536)) / (1 - p)


def softmax(x, axis=-1):
    e = np.exp(x)
    return e / e.sum(axis=axis, keepdims=True)


def cross_entropy(x, labels):
    return -np.log(softmax(x)[np.arange(len(x)), labels]).sum() / len(x)


def both(size):
    return size if isinstance(size, tuple) else (size, size)


# The ops with branches take (branches, node) first.
BRANCHING = {"relu": relu, "max_pool2d": max_pool2d}
SMOOTH = {
    "adaptive_avg_pool2d": adaptive_avg_pool2d, "conv2d": conv2d, "cross_entropy": cross_entropy, "dropout": dropout,
    "local_response_norm": local_response_norm, "softmax": softmax,
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b, "div": lambda a, b: a / b,
    "power": lambda a, exponent: a ** exponent, "matmul": lambda a, b: np.einsum("...nk,...km->...nm", a, b),
    "exp": np.exp, "log": np.log, "tanh": np.tanh, "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "linear": lambda x, w, b=0: np.einsum("ni,oi->no", x, w) + b,
    "log_softmax": lambda x, axis=-1: np.log(softmax(x, axis)),
    "reshape": lambda x, shape: x.reshape(shape), "flatten": lambda x, start_dim=1: x.reshape(*x.shape[:start_dim % x.ndim], -1),
    "transpose": lambda x, axes=None: np.transpose(x, axes), "getitem": lambda x, index: np.asarray(x[index]),
    "sum": lambda x, axis=None, keepdims=False: np.asarray(x.sum(axis=axis, keepdims=keepdims)),
    "mean": lambda x, axis=None, keepdims=False: np.asarray(x.sum(axis=axis, keepdims=keepdims) / (x.size / x.sum(axis=axis).size)),
}


def evaluate(name, branches, node, arrays, arguments):
    """The output of one op. `arrays` may be complex."""
    if name in BRANCHING:
        return BRANCHING[name](branches, node, *arrays, **arguments)
    return np.asarray(SMOOTH[name](*arrays, **arguments))
