"""Winograd convolution equals the definition, in all three passes: y, gx and gw."""

import numpy as np
import pytest

import minicnn as mc
from minicnn import Tensor, ops
from minicnn.backend import threads
from minicnn.examples.alexnet import alexnet
from minicnn.ops.conv2d import winograd

PASSES = ["y", "gx", "gw"]

# H, W, C, O, r, padding, groups
SHAPES = [(13, 13, 8, 6, 3, (1, 1), 1), (27, 27, 4, 4, 5, (2, 2), 1), (9, 14, 4, 6, 3, (0, 2), 2), (6, 6, 6, 6, 3, (1, 1), 3),
          (5, 5, 2, 3, 5, (0, 0), 1), (7, 8, 3, 2, 2, (1, 0), 1), (8, 8, 2, 2, 4, (3, 3), 1), (10, 9, 2, 2, 7, (3, 2), 1),
          (3, 3, 2, 2, 3, (2, 2), 2),
          (12, 12, 2, 2, 3, (3, 4), 1)]

ALEXNET = {"conv2": (27, 27, 96, 256, 5, (2, 2), 1), "conv3": (13, 13, 256, 384, 3, (1, 1), 1), "conv4": (13, 13, 384, 384, 3, (1, 1), 1),
           "conv5": (13, 13, 384, 256, 3, (1, 1), 1), "conv2 of paper": (27, 27, 96, 256, 5, (2, 2), 2),
           "conv4 of paper": (13, 13, 384, 384, 3, (1, 1), 2), "conv5 of paper": (13, 13, 384, 256, 3, (1, 1), 2),
           "conv2 of torchvision": (27, 27, 64, 192, 5, (2, 2), 1)}


def three_passes(shape, algorithm, dtype, batch=3):
    """y, gx and gw for random values."""
    H, W, C, O, r, padding, groups = shape
    rng = np.random.default_rng(0)
    x = Tensor(rng.standard_normal((batch, C, H, W)).astype(dtype), requires_grad=True)
    w = Tensor((rng.standard_normal((O, C // groups, r, r)) / r).astype(dtype), requires_grad=True)
    b = Tensor(rng.standard_normal(O).astype(dtype), requires_grad=True)
    y = ops.conv2d(x, w, b, padding=padding, groups=groups, algorithm=algorithm)
    y.backward(rng.standard_normal(y.shape).astype(dtype))
    return y.data, x.grad, w.grad


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_the_definition_up_to_rounding(shape):
    for name, got, want in zip(PASSES, three_passes(shape, "winograd", np.float64), three_passes(shape, "im2col", np.float64), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-11 * np.abs(want).max(), err_msg=name)


@pytest.mark.parametrize("layer", ALEXNET)
def test_float32_error_at_every_layer_of_alexnet(layer):
    """Within 1e-4 of the largest magnitude, against the definition in float64."""
    got = three_passes(ALEXNET[layer], "winograd", np.float32, batch=2)
    want = three_passes(ALEXNET[layer], "im2col", np.float64, batch=2)
    # The inputs in float32 are rounded; that error, below 1e-7, is counted as Winograd's.
    for name, g, w in zip(PASSES, got, want, strict=True):
        error = np.abs(g - w).max() / np.abs(w).max()
        assert g.dtype == np.float32
        assert 1e-8 < error < 1e-4, f"{name}: {error:.1e}"


@pytest.mark.parametrize(("m", "r"), [(m, r) for r in (2, 3, 5, 7) for m in range(1, 10 - r)])
def test_the_matrices_are_exact(m, r):
    """In one dimension: A^T [(G w) * (B^T x)] is the convolution, for the unit vectors and so for all."""
    AT, G, BT = winograd.matrices(m, r)
    assert AT.shape == (m, m + r - 1)
    for k in range(r):
        for i in range(m + r - 1):
            w, x = np.eye(r)[k], np.eye(m + r - 1)[i]
            np.testing.assert_allclose(AT @ ((G @ w) * (BT @ x)), [x[j + k] for j in range(m)], atol=1e-11)


def test_auto_selects_winograd_for_alexnet_and_not_for_small_networks():
    selected = []
    original = winograd.correlate

    def spy(x, w, *rest):
        selected.append(w.shape)
        return original(x, w, *rest)

    def layers(arch, side, channels):
        selected.clear()
        with mc.no_grad():
            alexnet(arch, 10, channels).eval()(Tensor(np.zeros((2, channels, side, side), np.float32)))
        return list(selected)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd, "correlate", spy)
        assert layers("one-tower", 227, 3) == [(256, 5, 5, 96), (384, 3, 3, 256), (384, 3, 3, 384), (256, 3, 3, 384)]
        assert layers("paper", 227, 3) == [(256, 5, 5, 48), (384, 3, 3, 256), (384, 3, 3, 192), (256, 3, 3, 192)]
        assert layers("mini", 28, 1) == []


def test_workspace_does_not_grow_with_the_batch():
    import tracemalloc

    def held(batch):
        rng = np.random.default_rng(0)
        x = rng.standard_normal((batch, 13, 13, 64), dtype=np.float32)
        w = rng.standard_normal((64, 3, 3, 64), dtype=np.float32)
        tracemalloc.start()
        y = winograd.correlate(x, w, None, (1, 1), 1)
        peak = tracemalloc.get_traced_memory()[1] - y.nbytes
        tracemalloc.stop()
        return peak

    small, large = held(256), held(1024)
    assert large < 1.3 * small + (4 << 20)
    assert large < 2 * winograd.WORKSPACE


def test_training_with_winograd_matches_training_with_im2col():
    def losses(algorithm):
        mc.seed(0)
        rng = np.random.default_rng(0)
        x, labels = Tensor(rng.standard_normal((8, 4, 9, 9), dtype=np.float32)), rng.integers(0, 5, 8)
        w1 = Tensor(rng.standard_normal((16, 4, 3, 3), dtype=np.float32) * 0.2, requires_grad=True)
        w2 = Tensor(rng.standard_normal((5, 16, 9, 9), dtype=np.float32) * 0.02, requires_grad=True)
        optimizer = mc.optim.SGD([w1, w2], lr=0.02)
        history = []
        for _ in range(20):
            h = ops.relu(ops.conv2d(x, w1, padding=1, algorithm=algorithm))
            loss = ops.cross_entropy(ops.conv2d(h, w2).flatten(), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            history.append(loss.item())
        return history

    a, b = losses("winograd"), losses("im2col")
    assert a[-1] < 0.5 * a[0]
    np.testing.assert_allclose(a, b, rtol=1e-3)
    assert a != b


@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[2]], ids=str)
def test_the_same_bits_for_any_number_of_threads(shape):
    before = threads.num_threads()
    try:
        results = []
        for n in (1, 2, 5):
            threads.set_num_threads(n)
            results.append(three_passes(shape, "winograd", np.float32, batch=7))
    finally:
        threads.set_num_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("kwargs", "size"), [({"stride": 2}, 3), ({}, (3, 5)), ({}, 8), ({}, 1)])
def test_unsupported_filters_and_algorithms_raise(kwargs, size):
    KH, KW = size if isinstance(size, tuple) else (size, size)
    x, w = Tensor(np.ones((1, 2, 9, 9), np.float32)), Tensor(np.ones((2, 2, KH, KW), np.float32))
    with pytest.raises(ValueError, match='algorithm "winograd" needs square filters'):
        ops.conv2d(x, w, algorithm="winograd", **kwargs)
    with pytest.raises(ValueError, match='"auto", "im2col" or "winograd", got \'fft\''):
        ops.conv2d(x, w, algorithm="fft")
