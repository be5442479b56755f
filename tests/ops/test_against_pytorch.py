"""PyTorch has the same outputs and gradients: in stored cases, and in random cases if torch is installed."""

import numpy as np
import pytest
from check import assert_close
from make_reference import CASES, FILE, reference

from minicnn import Tensor, ops

DTYPES = {"float64": 1e-11, "float32": 2e-5}        # tolerances, as a fraction of the largest value
DRAWS = 8                                           # random cases for each op and dtype


@pytest.fixture(scope="module")
def stored():
    """The file's arrays by name."""
    with np.load(FILE) as file:
        return dict(file)


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


# Stored cases

@pytest.mark.parametrize("name", CASES)
def test_stored_case(name, stored):
    shapes, ours, _ = CASES[name]
    inputs = [Tensor(stored[f"{name}/input {i}"], requires_grad=True) for i in range(len(shapes))]
    y = ours(*inputs)
    assert_close("forward", y.data, stored[f"{name}/output"], DTYPES["float64"])
    y.backward(stored[f"{name}/cotangent"])
    for i, x in enumerate(inputs):
        assert_close(f"gradient of input {i}", x.grad, stored[f"{name}/gradient {i}"], DTYPES["float64"])


def test_the_file_has_all_cases_and_is_small(stored):
    assert {key.partition("/")[0] for key in stored} == set(CASES)
    assert FILE.stat().st_size < 200_000


def test_the_file_equals_pytorch(torch, stored):
    """If this fails, the cases were changed since the file was written: run make_reference.py."""
    for name in CASES:
        for key, array in reference(name).items():
            assert_close(key, stored[key], array, DTYPES["float64"])


# Random cases

@pytest.fixture(params=range(DRAWS))
def rng(request):
    """One generator for each draw of each test: the same numbers in every run."""
    return np.random.default_rng([*request.function.__name__.encode(), request.param])


@pytest.fixture(params=DTYPES)
def dtype(request):
    return request.param


def compare(torch, dtype, arrays, ours, theirs):
    """Compare both on the same arrays: forward, and backward from the same random cotangent."""
    arrays = [a.astype(dtype) for a in arrays]
    mine = [Tensor(a, requires_grad=True) for a in arrays]
    other = [torch.tensor(a, requires_grad=True) for a in arrays]
    y, expected = ours(*mine), theirs(*other)
    assert_close("forward", y.data, expected.detach().numpy(), DTYPES[dtype])
    g = np.random.default_rng(9).standard_normal(y.shape).astype(dtype)
    y.backward(g)
    expected.backward(torch.tensor(g))
    for i, (a, b) in enumerate(zip(mine, other, strict=True)):
        assert_close(f"gradient of input {i}", a.grad, b.grad.numpy(), DTYPES[dtype])


def ints(rng, low, high, n=2):
    """`n` random ints from `low` to `high`, as a tuple."""
    return tuple(int(i) for i in rng.integers(low, high + 1, n))


def normal(rng, *shape):
    return rng.standard_normal(shape)


def sizes(rng, kernel, padding):
    """The height and width of an image that is at least as large as the window."""
    return tuple(int(rng.integers(max(1, K - 2 * P), 12)) for K, P in zip(kernel, padding, strict=True))


def test_conv2d(torch, rng, dtype):
    (N, groups), (CG, OG) = ints(rng, 1, 4), ints(rng, 1, 4)
    kernel, stride, padding = ints(rng, 1, 5), ints(rng, 1, 4), ints(rng, 0, 3)
    arrays = [normal(rng, N, CG * groups, *sizes(rng, kernel, padding)), normal(rng, OG * groups, CG, *kernel), normal(rng, OG * groups)]
    compare(torch, dtype, arrays[:int(rng.integers(2, 4))],                 # with bias or without
            lambda x, w, b=None: ops.conv2d(x, w, b, stride, padding, groups),
            lambda x, w, b=None: torch.conv2d(x, w, b, stride, padding, 1, groups))


def test_max_pool2d(torch, rng, dtype):
    """Every other image has small integers, so that there are ties."""
    kernel, stride = ints(rng, 1, 5), ints(rng, 1, 4)
    padding = tuple(int(rng.integers(0, K // 2 + 1)) for K in kernel)
    ceil_mode = bool(rng.integers(2))
    x = normal(rng, 4, 3, *sizes(rng, kernel, padding))
    x[::2] = np.round(x[::2])
    compare(torch, dtype, [x],
            lambda x: ops.max_pool2d(x, kernel, stride, padding, ceil_mode),
            lambda x: torch.nn.functional.max_pool2d(x, kernel, stride, padding, ceil_mode=ceil_mode))


def test_adaptive_avg_pool2d(torch, rng, dtype):
    out = ints(rng, 1, 7)
    compare(torch, dtype, [normal(rng, *ints(rng, 1, 9, 4))],
            lambda x: ops.adaptive_avg_pool2d(x, out),
            lambda x: torch.nn.functional.adaptive_avg_pool2d(x, out))


def test_local_response_norm(torch, rng, dtype):
    """PyTorch divides alpha by the size; the paper does not."""
    size = 2 * int(rng.integers(0, 4)) + 1
    alpha, beta, k = (float(v) for v in rng.uniform(0.5, 1.5, 3))
    beta = float(rng.choice([beta, 0.75]))
    x = normal(rng, *ints(rng, 1, 8, 4))
    compare(torch, dtype, [x],
            lambda x: ops.local_response_norm(x, size, alpha, beta, k, alpha_over_size=True),
            torch.nn.LocalResponseNorm(size, alpha, beta, k))
    compare(torch, dtype, [x],
            lambda x: ops.local_response_norm(x, size, alpha, beta, k),
            torch.nn.LocalResponseNorm(size, alpha * size, beta, k))


@pytest.mark.parametrize("op", ["relu", "tanh", "sigmoid"])
def test_elementwise(torch, rng, dtype, op):
    x = 3 * normal(rng, *ints(rng, 1, 6, int(rng.integers(1, 5))))
    compare(torch, dtype, [x], getattr(ops, op), getattr(torch, op))


def test_linear(torch, rng, dtype):
    N, I, O = ints(rng, 1, 40, 3)
    arrays = [normal(rng, N, I), normal(rng, O, I), normal(rng, O)][:int(rng.integers(2, 4))]
    compare(torch, dtype, arrays, ops.linear, torch.nn.functional.linear)


def test_softmax_and_its_logarithm(torch, rng, dtype):
    shape = ints(rng, 1, 6, int(rng.integers(1, 5)))
    axis = int(rng.integers(-len(shape), len(shape)))
    x = normal(rng, *shape[:axis], shape[axis] + 1, *shape[axis:][1:])      # on an axis of size 1 the gradient is 0
    compare(torch, dtype, [x], lambda x: ops.softmax(x, axis), lambda x: torch.softmax(x, axis))
    compare(torch, dtype, [x], lambda x: ops.log_softmax(x, axis), lambda x: torch.log_softmax(x, axis))


def test_cross_entropy(torch, rng, dtype):
    N, K = ints(rng, 2, 30)
    labels = rng.integers(0, K, N)
    compare(torch, dtype, [3 * normal(rng, N, K)],
            lambda x: ops.cross_entropy(x, labels),
            lambda x: torch.nn.functional.cross_entropy(x, torch.tensor(labels)))


@pytest.mark.parametrize("op", ["add", "sub", "mul", "div"])
def test_arithmetic(torch, rng, dtype, op):
    """Shapes that broadcast: some axes have size 1 or are missing."""
    shape = ints(rng, 1, 4, 4)
    a, b = ([1 if rng.random() < 0.3 else n for n in shape][int(rng.integers(0, 4)):] for _ in range(2))
    denominator = rng.choice([-1, 1], b) * rng.uniform(0.5, 2, b)
    compare(torch, dtype, [normal(rng, *a), denominator], getattr(ops, op), getattr(torch, op))


def test_matmul(torch, rng, dtype):
    n, k, m = ints(rng, 1, 6, 3)
    stack = ints(rng, 1, 3)
    a, b = ([1 if rng.random() < 0.3 else s for s in stack][int(rng.integers(0, 3)):] for _ in range(2))
    compare(torch, dtype, [normal(rng, *a, n, k), normal(rng, *b, k, m)], ops.matmul, torch.matmul)


def test_powers_and_exponentials(torch, rng, dtype):
    exponent = [2, 3, -1, 0.5, 1.7][int(rng.integers(5))]
    x = rng.uniform(0.5, 2, ints(rng, 1, 5, 3))
    compare(torch, dtype, [x], lambda x: x ** exponent, lambda x: x ** exponent)
    compare(torch, dtype, [x], lambda x: ops.exp(x) * ops.log(x), lambda x: x.exp() * x.log())


def test_sums_and_means(torch, rng, dtype):
    x = normal(rng, *ints(rng, 1, 5, 4))
    axes = tuple(int(a) for a in rng.choice(4, int(rng.integers(1, 5)), replace=False))
    keepdims = bool(rng.integers(2))
    compare(torch, dtype, [x], lambda x: x.sum(axes, keepdims), lambda x: x.sum(axes, keepdims))
    compare(torch, dtype, [x], lambda x: x.mean(axes, keepdims), lambda x: x.mean(axes, keepdims))


def test_transpose_getitem_reshape(torch, rng, dtype):
    order = tuple(int(a) for a in rng.permutation(4))
    rows = [int(i) for i in rng.integers(0, 3, 5)]
    compare(torch, dtype, [normal(rng, 3, 3, 3, 3)],
            lambda x: x.transpose(order)[rows].reshape(15, -1)[1:, ::2],
            lambda x: x.permute(order)[rows].reshape(15, -1)[1:, ::2])


def test_a_small_network(torch, dtype):
    """A small AlexNet from image to loss: the ops pass memory layouts and gradients on to each other."""
    rng, F = np.random.default_rng(0), torch.nn.functional
    labels = [3, 0, 2]
    arrays = [normal(rng, 3, 3, 19, 19), normal(rng, 8, 3, 5, 5) / 6, normal(rng, 8), normal(rng, 6, 4, 3, 3) / 4, normal(rng, 6),
              normal(rng, 5, 24) / 3, normal(rng, 5)]

    def ours(x, w1, b1, w2, b2, w3, b3):
        x = ops.max_pool2d(ops.local_response_norm(ops.relu(ops.conv2d(x, w1, b1, 2)), 5, 0.5), 3, 2)
        x = ops.adaptive_avg_pool2d(ops.relu(ops.conv2d(x, w2, b2, padding=1, groups=2)), 2)
        return ops.cross_entropy(ops.linear(ops.flatten(x), w3, b3), labels)

    def theirs(x, w1, b1, w2, b2, w3, b3):
        x = F.max_pool2d(F.local_response_norm(F.relu(F.conv2d(x, w1, b1, 2)), 5, 5 * 0.5, k=2.0), 3, 2)
        x = F.adaptive_avg_pool2d(F.relu(F.conv2d(x, w2, b2, padding=1, groups=2)), 2)
        return F.cross_entropy(F.linear(x.flatten(1), w3, b3), torch.tensor(labels))

    compare(torch, dtype, arrays, ours, theirs)
