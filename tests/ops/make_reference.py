"""Writes reference.npz: the outputs and gradients of PyTorch in one small case for each op.

    python tests/ops/make_reference.py          (needs torch; the tests that read the file do not)

Each case has one call of minicnn and one of PyTorch; test_against_pytorch.py compares them.
"""

import pathlib

import numpy as np

from minicnn import ops

FILE = pathlib.Path(__file__).with_name("reference.npz")
LABELS = [2, 0, 4, 1]

CASES = {   # name: (shapes of the inputs, the call of minicnn, the call of PyTorch; F is torch.nn.functional)
    "conv2d": (
        [(2, 3, 7, 6), (4, 3, 3, 2), (4,)],
        lambda x, w, b: ops.conv2d(x, w, b, stride=(2, 1), padding=(1, 0)),
        lambda F, x, w, b: F.conv2d(x, w, b, stride=(2, 1), padding=(1, 0))),
    "conv2d, two groups": (
        [(2, 4, 6, 6), (6, 2, 3, 3), (6,)],
        lambda x, w, b: ops.conv2d(x, w, b, padding=1, groups=2),
        lambda F, x, w, b: F.conv2d(x, w, b, padding=1, groups=2)),
    "conv2d, no bias": (
        [(1, 3, 9, 9), (2, 3, 5, 5)],
        lambda x, w: ops.conv2d(x, w, stride=4),
        lambda F, x, w: F.conv2d(x, w, stride=4)),
    "max_pool2d": (
        [(2, 3, 7, 7)],
        lambda x: ops.max_pool2d(x, 3, 2),
        lambda F, x: F.max_pool2d(x, 3, 2)),
    "max_pool2d, padded and rounded up": (
        [(2, 2, 6, 5)],
        lambda x: ops.max_pool2d(x, (3, 2), 2, (1, 0), ceil_mode=True),
        lambda F, x: F.max_pool2d(x, (3, 2), 2, (1, 0), ceil_mode=True)),
    "adaptive_avg_pool2d": (
        [(2, 3, 7, 5)],
        lambda x: ops.adaptive_avg_pool2d(x, (3, 2)),
        lambda F, x: F.adaptive_avg_pool2d(x, (3, 2))),
    "local_response_norm, the paper's rule": (
        [(2, 7, 2, 3)],
        lambda x: ops.local_response_norm(x, 5, alpha=0.4, beta=0.75, k=2.0),
        lambda F, x: F.local_response_norm(x, 5, alpha=5 * 0.4, beta=0.75, k=2.0)),
    "local_response_norm, alpha over size": (
        [(2, 4, 3, 2)],
        lambda x: ops.local_response_norm(x, 3, alpha=0.9, beta=0.6, k=1.0, alpha_over_size=True),
        lambda F, x: F.local_response_norm(x, 3, alpha=0.9, beta=0.6, k=1.0)),
    "relu": ([(3, 4, 2)], ops.relu, lambda F, x: F.relu(x)),
    "tanh": ([(3, 8)], ops.tanh, lambda F, x: F.tanh(x)),
    "sigmoid": ([(3, 8)], ops.sigmoid, lambda F, x: F.sigmoid(x)),
    "linear": ([(4, 5), (3, 5), (3,)], ops.linear, lambda F, x, w, b: F.linear(x, w, b)),
    "softmax": ([(4, 5)], ops.softmax, lambda F, x: F.softmax(x, dim=-1)),
    "log_softmax": ([(2, 5, 3)], lambda x: ops.log_softmax(x, axis=1), lambda F, x: F.log_softmax(x, dim=1)),
    "cross_entropy": (
        [(4, 5)],
        lambda x: ops.cross_entropy(x, LABELS),
        lambda F, x: F.cross_entropy(x, x.new_tensor(LABELS).long())),
    "arithmetic": (
        [(3, 1, 4), (2, 4), (4, 2)],
        lambda a, b, c: ((a * b - b / (a * a + 1.0)) @ c + (-a).mean()) ** 2,
        lambda F, a, b, c: ((a * b - b / (a * a + 1.0)) @ c + (-a).mean()) ** 2),
    "exp and log": ([(3, 4)], lambda x: ops.log(1.0 + ops.exp(x)), lambda F, x: (1.0 + x.exp()).log()),
    "indexing and reduction": (
        [(4, 3, 5)],
        lambda x: x[[2, 0, 2]].transpose(2, 0, 1)[1:, ..., ::2].sum(axis=(0, 2)) + x.mean(axis=1)[0, 0],
        lambda F, x: x[[2, 0, 2]].permute(2, 0, 1)[1:][..., [0, 2]].sum(dim=(0, 2)) + x.mean(dim=1)[0, 0]),
}


def reference(name):
    """{key in the file: float64 array} of one case: inputs, cotangent, PyTorch's output and gradients."""
    import torch
    shapes, _, torch_call = CASES[name]
    rng = np.random.default_rng(list(CASES).index(name))
    inputs = [torch.tensor(rng.standard_normal(shape), requires_grad=True) for shape in shapes]
    y = torch_call(torch.nn.functional, *inputs)
    g = torch.tensor(rng.standard_normal(tuple(y.shape)))
    y.backward(g)
    arrays = {f"{name}/output": y, f"{name}/cotangent": g}
    for i, x in enumerate(inputs):
        arrays |= {f"{name}/input {i}": x, f"{name}/gradient {i}": x.grad}
    return {key: t.detach().numpy() for key, t in arrays.items()}


if __name__ == "__main__":
    arrays = {}
    for name in CASES:
        arrays |= reference(name)
    np.savez_compressed(FILE, **arrays)
    print(f"{FILE}: {len(arrays)} arrays of {len(CASES)} cases, {FILE.stat().st_size / 1000:.0f} kB")
