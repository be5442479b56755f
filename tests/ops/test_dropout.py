"""Dropout: what it does to one mask is checked like any op; and of many masks, how many units they keep and which."""

import numpy as np
import pytest
from check import check_op, values

import minicnn as mc
from minicnn import Tensor, ops, random
from minicnn.ops.dropout import Dropout, mask_for

CASES = {
    "half":         ((0.5,), values((2, 8))),
    "a quarter":    ((0.25,), values((2, 2, 2, 2))),
    "nine tenths":  ((0.9,), values((3, 8))),
    "one axis":     ((0.4,), values((12,))),
}


class OneMask(Dropout):
    """Dropout that draws the same mask each time: the check moves an input a little and must find the others as they were."""

    def __init__(self, p):
        super().__init__(p, random.generator(random.CHECKS, 5, seed=1))


def naive(args, x):
    """The mask by its definition: of 16 random bits, as a number, at least p * 65536 keep the unit."""
    p, = args
    bits = random.generator(random.CHECKS, 5, seed=1).bit_generator.random_raw(x.size)
    y = np.zeros(x.size)
    for i, value in enumerate(x.ravel()):
        number = int(bits[i // 4]) >> 16 * (i % 4) & 0xffff         # four numbers in each 64 bits, the lowest first
        y[i] = value / (1 - p) if number >= round(p * 65536) else 0
    return y.reshape(x.shape)


class MaskNotScaled(OneMask):
    "Forward divides by 1 - p, backward does not."
    def backward(self, gy, *saved):
        return super().backward(gy, *saved) * (1 - self.p)


class MaskForgotten(OneMask):
    "Silent units hear the gradient too."
    def backward(self, gy, *saved):
        return gy / (1 - self.p)


class MaskInverted(OneMask):
    "The gradient goes to the units that were silent."
    def backward(self, gy, *saved):
        return gy / (1 - self.p) - super().backward(gy, *saved)


class NewMask(OneMask):
    "Backward draws a mask of its own."
    def backward(self, gy, *saved):
        return gy * random.keep_mask(random.generator(random.CHECKS, 6, seed=1), gy.shape, self.p) / (1 - self.p)


class ScaledByP(OneMask):
    "p is taken for the probability to keep a unit."
    def backward(self, gy, *saved):
        return super().backward(gy, *saved) * (1 - self.p) / self.p

    @staticmethod
    def shows(args, x):
        return args[0] != 0.5


class ScaledTwice(OneMask):
    "The mask was scaled already, and is scaled again."
    def backward(self, gy, *saved):
        return super().backward(gy, *saved) / (1 - self.p)


WRONG = [MaskNotScaled, MaskForgotten, MaskInverted, NewMask, ScaledByP, ScaledTwice]


@pytest.mark.parametrize("case", CASES)
def test_dropout(case, device):
    check_op(OneMask, *CASES[case], naive, WRONG, device)


def mask_of(p=0.5, shape=(4, 50), rng=None):
    """Which units one call keeps."""
    return ops.dropout(Tensor(np.ones(shape)), p, rng=rng).data > 0


def test_every_call_draws_a_new_mask():
    masks = [mask_of() for _ in range(4)]
    assert len({m.tobytes() for m in masks}) == 4


def test_the_seed_fixes_all_masks():
    mc.seed(3)
    first = [mask_of() for _ in range(3)]
    mc.seed(3)
    assert all(np.array_equal(mask_of(), m) for m in first)
    mc.seed(4)
    assert not any(np.array_equal(mask_of(), m) for m in first)


def test_a_resumed_run_draws_what_it_would_have_drawn():
    mask_of()
    state = random.state()
    went_on = [mask_of(), mask_of()]
    mc.seed(9)
    random.set_state(state)
    assert np.array_equal(mask_of(), went_on[0])
    assert np.array_equal(mask_of(), went_on[1])


def test_a_generator_of_ones_own_leaves_the_count_alone():
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


@pytest.mark.parametrize(("p", "silent", "kept"), [(0.5, 0x7fff, 0x8000), (0.25, 0x3fff, 0x4000), (0.99999, 0xfffe, 0xffff)])
def test_where_the_line_is_drawn(p, silent, kept):
    """Of the 65536 values of 16 bits, p * 65536 are silent; one at least is kept, however near p is to 1."""
    class Bits:
        def random_raw(self, n):
            return np.full(n, kept << 48 | silent << 32 | kept << 16 | silent, np.uint64)

    class Rng:
        bit_generator = Bits()

    assert random.keep_mask(Rng(), (2, 3), p).tolist() == [[False, True, False], [True, False, True]]


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_as_many_are_kept_as_should_be(p):
    """Of 200,000 units the kept ones are within five standard deviations of their expected number, and the mean stays 1."""
    n = 200_000
    y = ops.dropout(Tensor(np.ones(n)), p).data
    assert abs(np.count_nonzero(y) - n * (1 - p)) < 5 * np.sqrt(n * p * (1 - p))
    assert abs(y.mean() - 1) < 5 * np.sqrt(p / (1 - p) / n)
    np.testing.assert_allclose(np.unique(y), [0, 1 / (1 - p)], rtol=1e-15)


LAST = 2 ** 64 - 1         # the largest word


@pytest.mark.parametrize("counter", [(0,) * 4, (LAST, 0, 0, 0), (LAST - 1, LAST, 5, 6), (LAST - 2, LAST, LAST, 9), (LAST,) * 4, "random"])
def test_both_devices_draw_the_same_masks(cupy, counter):
    """From any key and counter, also where adding to it carries; from any word of its four; and the next draw is the same too."""
    for case in range(30):
        rng = np.random.default_rng(case)
        key = rng.integers(0, 2 ** 64, 2, dtype=np.uint64)
        start = rng.integers(0, 2 ** 64, 4, dtype=np.uint64) if counter == "random" else np.array(counter, np.uint64)
        here, there = (np.random.Generator(np.random.Philox(key=key, counter=start)) for _ in range(2))
        for generator in (here, there):
            generator.bit_generator.random_raw(case % 9)
        for n in (case % 21 + 1, int(rng.integers(1, 4000)), 4 * (case % 3) + 1):
            p = rng.random()
            mask = random.keep_mask(here, (n,), p)
            np.testing.assert_array_equal(mask_for(cupy.zeros(n, "f"), there, p).get(), mask)
            np.testing.assert_equal(there.bit_generator.state["state"], here.bit_generator.state["state"])
        assert there.integers(2 ** 63) == here.integers(2 ** 63)
        assert there.random() == here.random()


@pytest.mark.parametrize("shape", [(1,), (1023,), (1024,), (1025,), (4096,), (2, 3, 5, 7), (40_001,), (0, 4)])
def test_masks_of_any_size_have_one_place_for_each_unit(cupy, shape):
    """A block of threads draws 1024 of them; the last one may have less to do. They lie in the order of the shape, not of the memory."""
    here, there = (random.generator(random.CHECKS, 3) for _ in range(2))
    x = cupy.zeros(shape[::-1]).T
    mask = mask_for(x, there, 0.3)
    assert mask.dtype == bool
    assert mask.shape == shape
    np.testing.assert_array_equal(mask.get(), random.keep_mask(here, shape, 0.3))


@pytest.mark.parametrize("p", [1e-9, 0.5 - 1e-5, 0.99999])
def test_both_devices_draw_the_line_at_the_same_number(cupy, p):
    here, there = (random.generator(random.CHECKS, 3) for _ in range(2))
    np.testing.assert_array_equal(mask_for(cupy.zeros(300_000), there, p).get(), random.keep_mask(here, (300_000,), p))


def test_units_are_silent_independently():
    """A unit's fate says nothing about its neighbour's, nor about its own in the next mask."""
    n, a, b = 100_000, mask_of(shape=(100_000,)), mask_of(shape=(100_000,))
    for left, right in ((a[:-1], a[1:]), (a[:-4], a[4:]), (a, b)):
        assert abs(np.mean(left == right) - 0.5) < 5 * 0.5 / np.sqrt(n)


def test_in_evaluation_nothing_happens_and_nothing_is_drawn():
    before = random.state()
    x = Tensor(np.ones(5))
    assert ops.dropout(x, 0.5, training=False) is x
    assert ops.dropout(x, 0) is x
    assert random.state() == before


def test_a_probability_of_numpy_is_as_good():
    """float32 stays float32, even for p = np.float64(0.5)."""
    x = Tensor(np.ones(8, np.float32), requires_grad=True)
    y = ops.dropout(x, np.float64(0.5))
    y.sum().backward()
    assert y.dtype == np.float32
    assert x.grad.dtype == np.float32


@pytest.mark.parametrize("p", [1, 1.5, -0.1, float("nan")])
def test_bad_probabilities_are_refused(p):
    with pytest.raises(ValueError, match=f"dropout: p is a probability with 0 <= p < 1, not {p}"):
        ops.dropout(Tensor(np.ones(3)), p)
    with pytest.raises(ValueError, match=f"dropout: p is a probability with 0 <= p < 1, not {p}"):
        ops.dropout(Tensor(np.ones(3)), p, training=False)


def test_integers_are_refused():
    with pytest.raises(TypeError, match="dropout: x is int64; float32 or float64 is wanted"):
        ops.dropout(Tensor(np.arange(3)))
