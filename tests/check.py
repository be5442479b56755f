"""The test harness for ops: does forward match its formula, and is backward its derivative?

A test file lists its op's cases, the formula as plain loops, and wrong backwards, each with a plausible mistake.
`check_op` checks all of them. A check that never fails proves nothing, so every wrong backward must be rejected,
by the gradient check, and because of its backward.

A wrong backward is a subclass of the op whose docstring describes the mistake. If the mistake makes no difference in some
cases (ignoring the stride is correct when it is 1), its `affects(args, *inputs)` says whether it does; if not, it
must have no effect.
"""

import contextlib

import numpy as np

from minicnn import GradcheckError, Tensor, gradcheck
from minicnn.backend import threads
from minicnn.backend.arrays import to_device, xp_of
from minicnn.learn.cases import affects, cotangent

RTOL_FLOAT64 = 1e-12          # float64, the same sum in another order; a fraction of the largest value
RTOL_FLOAT32 = 1e-5           # float32 against float64


def check_op(op, args, inputs, naive, wrong=(), device="cpu"):
    """Check everything about one case; AssertionError says what failed.

    Args:
        op: the Function class.
        args: the arguments of its constructor.
        inputs: float64 arrays, with no kink (a tie, a zero of relu) closer than the steps of the gradient check.
        naive: naive(args, *inputs), the output by explicit loops.
        wrong: subclasses of `op` with a wrong backward.
        device: where it runs. On the GPU the gradients are compared with those of the CPU, which are gradient-checked.
    """
    expected = naive(args, *inputs)
    g = cotangent(expected.shape)
    device_inputs, device_g = [on(device, a) for a in inputs], on(device, g)

    y, gradients = run(op, args, device_inputs, device_g)
    assert_close("forward, against the loops", y, expected, RTOL_FLOAT64)
    if device == "cpu":
        gradcheck(lambda *tensors: op(*args)(*tensors), inputs)
    else:
        for i, (gx, cpu_gx) in enumerate(zip(gradients, run(op, args, inputs, g)[1], strict=True)):
            assert_close(f"gradient of input {i}, against the CPU's", gx, cpu_gx, RTOL_FLOAT64)

    assert_bitwise_equal("in a second run", run(op, args, device_inputs, device_g), (y, gradients))
    check_float32(op, args, device_inputs, device_g)
    check_layouts(op, args, device_inputs, device_g, (y, gradients))
    check_single_gradients(op, args, device_inputs, device_g, gradients)
    check_threads(op, args, device_inputs, device_g, (y, gradients))
    if device == "cpu":
        for mistake in wrong:
            check_wrong_backward(mistake, op, args, inputs, expected, g)


def run(op, args, arrays, g, needs=None):
    """Forward and backward once: (output, gradients). Neither may modify the inputs, the output or the cotangent.

    `needs`: for each input, whether its gradient is required; by default all are.
    """
    tensors = [Tensor(a, requires_grad=needs is None or needs[i]) for i, a in enumerate(arrays)]
    before = [np.array(on("cpu", a)) for a in (*arrays, g)]
    y = op(*args)(*tensors)
    output = y.data.copy()
    for i, (a, original) in enumerate(zip(arrays, before[:-1], strict=True)):
        if not np.array_equal(on("cpu", a), original):
            raise AssertionError(f"{op.__name__}: forward modified input {i}")
    y.backward(g)
    for name, a, original in zip([*(f"input {i}" for i in range(len(arrays))), "the cotangent", "the output"],
                                 (*arrays, g, y.data), (*before, on("cpu", output)), strict=True):
        if not np.array_equal(on("cpu", a), original):
            raise AssertionError(f"{op.__name__}: backward modified {name}")
    return output, [t.grad for t in tensors]


def check_float32(op, args, inputs, g):
    """float32 stays float32, and agrees with float64 for the same values."""
    singles, g = [a.astype("float32") for a in inputs], g.astype("float32")
    y, gradients = run(op, args, singles, g)
    y_double, doubles = run(op, args, [a.astype("float64") for a in singles], g.astype("float64"))
    for name, single, double in zip(names(gradients), (y, *gradients), (y_double, *doubles), strict=True):
        if single.dtype != np.float32:
            raise AssertionError(f"{name}: float32 became {single.dtype}")
        assert_close(f"{name}, float32 against float64", single.astype("float64"), double, RTOL_FLOAT32)


def check_layouts(op, args, inputs, g, expected):
    """The memory layout makes no difference, neither that of the inputs nor that of the cotangent."""
    for layout, convert in LAYOUTS.items():
        for g_layout, convert_g in LAYOUTS.items():
            y, gradients = run(op, args, [convert(a) for a in inputs], convert_g(g))
            for name, got, want in zip(names(gradients), (y, *gradients), (expected[0], *expected[1]), strict=True):
                assert_close(f"{name}, for {layout} inputs and a {g_layout} cotangent", got, want, RTOL_FLOAT64)
    xp = xp_of(g)
    broadcast = xp.broadcast_to(xp.ones((), g.dtype), g.shape)          # as the backward of a sum returns
    for i, (got, want) in enumerate(zip(run(op, args, inputs, broadcast)[1], run(op, args, inputs, xp.ones_like(g))[1], strict=True)):
        assert_close(f"gradient of input {i}, for a broadcast cotangent", got, want, RTOL_FLOAT64)


def check_single_gradients(op, args, inputs, g, expected):
    """The gradient of an input is the same when it is the only one required."""
    for i in range(len(inputs)):
        needs = [j == i for j in range(len(inputs))]
        gradients = run(op, args, inputs, g, needs)[1]
        assert_close(f"gradient of input {i}, when only it is required", gradients[i], expected[i], RTOL_FLOAT64)


def check_threads(op, args, inputs, g, expected):
    """With blocks of one image, one thread and two give the same bits, and the output is still correct."""
    with small_blocks():
        with use_threads(1):
            one = run(op, args, inputs, g)
        with use_threads(2):
            two = run(op, args, inputs, g)
    assert_bitwise_equal("on two threads", two, one)
    for name, got, want in zip(names(expected[1]), (one[0], *one[1]), (expected[0], *expected[1]), strict=True):
        assert_close(f"{name}, in blocks of one image", got, want, RTOL_FLOAT64)


def check_wrong_backward(mistake, op, args, inputs, expected, g):
    """The gradient check rejects this wrong backward, if it affects this case; returns the worst entry, or None."""
    name = mistake.__name__
    if not issubclass(mistake, op) or not mistake.__doc__:
        raise AssertionError(f"{name} must be a subclass of {op.__name__} whose docstring describes the mistake")
    y, gradients = run(mistake, args, inputs, g)
    assert_close(f"{name}: forward, which must be right", y, expected, RTOL_FLOAT64)
    if not affects(mistake, args, inputs):
        for i, (got, want) in enumerate(zip(gradients, run(op, args, inputs, g)[1], strict=True)):
            assert_close(f"{name} should not affect this case: gradient of input {i}", got, want, RTOL_FLOAT64)
        return None
    try:
        gradcheck(lambda *tensors: mistake(*args)(*tensors), inputs)
    except GradcheckError as error:
        if error.report is None:
            raise AssertionError(f"{name} was rejected, but not because of its backward: {error}") from error
        return error.report.worst
    raise AssertionError(f"the gradient check accepted {name}: {mistake.__doc__}")


def check_each_affects(wrong, cases):
    """Every wrong backward affects at least one of `cases`, {name: (args, inputs)}."""
    for mistake in wrong:
        if not any(affects(mistake, args, inputs) for args, inputs in cases.values()):
            raise AssertionError(f"{mistake.__name__} affects none of the cases, so no check can reject it")


# Comparing

def assert_close(what, got, want, tolerance):
    """Equal in shape and dtype, and in every value up to `tolerance` times the largest value."""
    got, want = on("cpu", got), on("cpu", want)
    if got.shape != want.shape or got.dtype != want.dtype:
        raise AssertionError(f"{what}: must be {want.dtype} {want.shape}, got {got.dtype} {got.shape}")
    error, allowed = np.abs(got - want), tolerance * np.abs(want).max(initial=0)
    if not (error <= allowed).all():
        worst = np.unravel_index(np.argmax(np.where(np.isnan(error), np.inf, error)), error.shape)
        index = f"[{', '.join(map(str, worst))}]"
        raise AssertionError(f"{what}: at {index} must be {want[worst]:.8g} within {allowed:.1e}, got {got[worst]:.8g}")


def assert_bitwise_equal(what, got, want):
    """The same output and the same gradients, to the last bit."""
    for name, a, b in zip(names(want[1]), (got[0], *got[1]), (want[0], *want[1]), strict=True):
        if on("cpu", a).tobytes() != on("cpu", b).tobytes():
            raise AssertionError(f"{name}: other bits {what}")


def names(gradients):
    return ["forward", *(f"gradient of input {i}" for i in range(len(gradients)))]


# Making arrays

def on(device, array):
    """The array, or a number as an array, on that device."""
    return to_device(np.asarray(array) if np.isscalar(array) else array, device)


def contiguous(a):
    """C-contiguous, as NumPy makes arrays: (N, C, H, W) with the columns innermost."""
    return a.copy("C")


def channels_last(a):
    """The same shape with axis 1 innermost in memory: the layout in which the ops work."""
    xp = xp_of(a)
    return a if a.ndim < 2 else xp.moveaxis(xp.ascontiguousarray(xp.moveaxis(a, 1, -1)), -1, 1)


def strided(a):
    """A view with gaps: every second column of a wider array, with NaN in between."""
    if a.ndim == 0:
        return a
    wide = xp_of(a).full((*a.shape[:-1], 2 * a.shape[-1]), np.nan, a.dtype)
    wide[..., ::2] = a
    return wide[..., ::2]


LAYOUTS = {"contiguous": contiguous, "channels-last": channels_last, "strided": strided}


# Threads

@contextlib.contextmanager
def use_threads(n):
    """A context manager: `n` threads are used inside."""
    before = threads.num_threads()
    threads.set_num_threads(n)
    try:
        yield
    finally:
        threads.set_num_threads(before)


@contextlib.contextmanager
def small_blocks():
    """A context manager: every image is a block of its own inside, so that even a small batch has work for several threads."""
    before, threads.BLOCK_BYTES = threads.BLOCK_BYTES, 1
    try:
        yield
    finally:
        threads.BLOCK_BYTES = before
