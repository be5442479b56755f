"""Dropout: the checks of every op with a fixed mask; and the statistics and reproducibility of the masks."""

import numpy as np
import pytest
from check import check_op

import minicnn as mc
from minicnn import Tensor, ops
from minicnn.backend import random
from minicnn.learn.cases.dropout import CASES, WRONG, OneMask, naive
from minicnn.ops.dropout import draw_mask


@pytest.mark.parametrize("case", CASES)
def test_dropout(case, device):
    check_op(OneMask, *CASES[case], naive, WRONG, device)


def mask_of(p=0.5, shape=(4, 50), rng=None):
    """The mask of one call: True where a unit is kept."""
    return ops.dropout(Tensor(np.ones(shape)), p, rng=rng).data > 0


def test_every_call_draws_a_new_mask():
    masks = [mask_of() for _ in range(4)]
    assert len({m.tobytes() for m in masks}) == 4


def test_the_seed_determines_all_masks():
    mc.seed(3)
    first = [mask_of() for _ in range(3)]
    mc.seed(3)
    assert all(np.array_equal(mask_of(), m) for m in first)
    mc.seed(4)
    assert not any(np.array_equal(mask_of(), m) for m in first)


def test_a_restored_state_draws_the_same_masks():
    mask_of()
    state = random.state()
    continued = [mask_of(), mask_of()]
    mc.seed(9)
    random.set_state(state)
    assert np.array_equal(mask_of(), continued[0])
    assert np.array_equal(mask_of(), continued[1])


def test_an_explicit_generator_does_not_advance_the_counter():
    before = random.state()
    masks = [mask_of(rng=random.generator(random.SAMPLES, 7)) for _ in range(2)]
    assert np.array_equal(*masks)
    assert random.state() == before


def test_the_mask_depends_on_neither_dtype_nor_layout():
    a = np.ones((6, 7, 5, 4))
    masks = []
    for x in (a, a.astype(np.float32), np.ones((6, 5, 4, 7)).transpose(0, 3, 1, 2)):
        masks.append(ops.dropout(Tensor(x), rng=random.generator(random.SAMPLES, 1)).data > 0)
    assert np.array_equal(masks[0], masks[1])
    assert np.array_equal(masks[0], masks[2])


@pytest.mark.parametrize(("p", "dropped", "kept"), [(0.5, 0x7fff, 0x8000), (0.25, 0x3fff, 0x4000), (0.99999, 0xfffe, 0xffff)])
def test_threshold_of_the_mask(p, dropped, kept):
    """Of the 65536 values of 16 bits, p * 65536 drop a unit; at least one keeps it, however near p is to 1."""
    class Bits:
        def random_raw(self, n):
            return np.full(n, kept << 48 | dropped << 32 | kept << 16 | dropped, np.uint64)

    class Rng:
        bit_generator = Bits()

    assert random.keep_mask(Rng(), (2, 3), p).tolist() == [[False, True, False], [True, False, True]]


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_fraction_of_kept_units(p):
    """Of 200,000 units, the number kept is within five standard deviations of its expectation, and the mean stays 1."""
    n = 200_000
    y = ops.dropout(Tensor(np.ones(n)), p).data
    assert abs(np.count_nonzero(y) - n * (1 - p)) < 5 * np.sqrt(n * p * (1 - p))
    assert abs(y.mean() - 1) < 5 * np.sqrt(p / (1 - p) / n)
    np.testing.assert_allclose(np.unique(y), [0, 1 / (1 - p)], rtol=1e-15)


LAST = 2 ** 64 - 1         # the largest word


@pytest.mark.parametrize("counter", [(0,) * 4, (LAST, 0, 0, 0), (LAST - 1, LAST, 5, 6), (LAST - 2, LAST, LAST, 9), (LAST,) * 4, "random"])
def test_cpu_and_gpu_draw_the_same_masks(cupy, counter):
    """From any key and counter, also where the addition carries; from each of a block's four words; and the next draw is the same too."""
    for case in range(30):
        rng = np.random.default_rng(case)
        key = rng.integers(0, 2 ** 64, 2, dtype=np.uint64)
        start = rng.integers(0, 2 ** 64, 4, dtype=np.uint64) if counter == "random" else np.array(counter, np.uint64)
        cpu_rng, gpu_rng = (np.random.Generator(np.random.Philox(key=key, counter=start)) for _ in range(2))
        for generator in (cpu_rng, gpu_rng):
            generator.bit_generator.random_raw(case % 9)
        for n in (case % 21 + 1, int(rng.integers(1, 4000)), 4 * (case % 3) + 1):
            p = rng.random()
            mask = random.keep_mask(cpu_rng, (n,), p)
            np.testing.assert_array_equal(draw_mask(cupy.zeros(n, "f"), gpu_rng, p).get(), mask)
            np.testing.assert_equal(gpu_rng.bit_generator.state["state"], cpu_rng.bit_generator.state["state"])
        assert gpu_rng.integers(2 ** 63) == cpu_rng.integers(2 ** 63)
        assert gpu_rng.random() == cpu_rng.random()


@pytest.mark.parametrize("shape", [(1,), (1023,), (1024,), (1025,), (4096,), (2, 3, 5, 7), (40_001,), (0, 4)])
def test_masks_of_any_size_and_memory_order(cupy, shape):
    """A block of threads draws 1024 elements; the last block may have fewer. The mask is in row-major order whatever x is."""
    cpu_rng, gpu_rng = (random.generator(random.CHECKS, 3) for _ in range(2))
    x = cupy.zeros(shape[::-1]).T
    mask = draw_mask(x, gpu_rng, 0.3)
    assert mask.dtype == bool
    assert mask.shape == shape
    np.testing.assert_array_equal(mask.get(), random.keep_mask(cpu_rng, shape, 0.3))


@pytest.mark.parametrize("p", [1e-9, 0.5 - 1e-5, 0.99999])
def test_cpu_and_gpu_have_the_same_threshold(cupy, p):
    cpu_rng, gpu_rng = (random.generator(random.CHECKS, 3) for _ in range(2))
    np.testing.assert_array_equal(draw_mask(cupy.zeros(300_000), gpu_rng, p).get(), random.keep_mask(cpu_rng, (300_000,), p))


def test_units_are_dropped_independently():
    """A unit is uncorrelated with its neighbours, and with itself in the next mask."""
    n, a, b = 100_000, mask_of(shape=(100_000,)), mask_of(shape=(100_000,))
    for left, right in ((a[:-1], a[1:]), (a[:-4], a[4:]), (a, b)):
        assert abs(np.mean(left == right) - 0.5) < 5 * 0.5 / np.sqrt(n)


def test_evaluation_returns_x_and_draws_nothing():
    before = random.state()
    x = Tensor(np.ones(5))
    assert ops.dropout(x, 0.5, training=False) is x
    assert ops.dropout(x, 0) is x
    assert random.state() == before


def test_p_may_be_a_numpy_scalar():
    """float32 stays float32, even for p = np.float64(0.5)."""
    x = Tensor(np.ones(8, np.float32), requires_grad=True)
    y = ops.dropout(x, np.float64(0.5))
    y.sum().backward()
    assert y.dtype == np.float32
    assert x.grad.dtype == np.float32


@pytest.mark.parametrize("p", [1, 1.5, -0.1, float("nan")])
def test_bad_probabilities_raise(p):
    with pytest.raises(ValueError, match=f"dropout: p must be a probability with 0 <= p < 1, got {p}"):
        ops.dropout(Tensor(np.ones(3)), p)
    with pytest.raises(ValueError, match=f"dropout: p must be a probability with 0 <= p < 1, got {p}"):
        ops.dropout(Tensor(np.ones(3)), p, training=False)


def test_integers_raise():
    with pytest.raises(TypeError, match="dropout: x must be float32 or float64, got int64"):
        ops.dropout(Tensor(np.arange(3)))
