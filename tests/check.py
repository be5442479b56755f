"""The same questions for every op: does forward obey its formula, and is backward its derivative?

A test file lists its op's cases, writes the formula as plain loops, and adds wrong backwards, each a mistake that one
could make. `check_op` asks the questions. A check that never says no proves nothing, so every wrong backward must be
refused, by the gradient check, and for what its backward does.

A wrong backward is a subclass of the op whose docstring says what is mistaken. Where a mistake makes no difference in some
cases (who ignores the stride is right when it is 1), its `shows(args, *inputs)` says in which it does; in the others it
has to be invisible.
"""

import contextlib

import numpy as np

from minicnn import GradcheckError, Tensor, gradcheck, parallel
from minicnn.backend import to_device, xp_of

EXACT = 1e-12           # float64, the same sum in another order; a fraction of the largest value
SINGLE = 1e-5           # float32 against float64


def check_op(op, args, inputs, naive, wrong=(), device="cpu"):
    """Ask everything of one case; AssertionError says what is not so.

    Args:
        op: the Function class.
        args: what its constructor takes.
        inputs: float64 arrays, with no kink (a tie, a zero of relu) closer than the steps of the gradient check.
        naive: naive(args, *inputs), the answer by explicit loops.
        wrong: subclasses of `op` with a mistaken backward.
        device: where it runs. On the GPU the gradients are compared with those of the CPU, which are gradient-checked.
    """
    expected = naive(args, *inputs)
    g = cotangent(expected.shape)
    here, g_here = [on(device, a) for a in inputs], on(device, g)

    y, gradients = run(op, args, here, g_here)
    close("forward, against the loops", y, expected, EXACT)
    if device == "cpu":
        gradcheck(lambda *tensors: op(*args)(*tensors), inputs)
    else:
        for i, (gx, wanted) in enumerate(zip(gradients, run(op, args, inputs, g)[1], strict=True)):
            close(f"gradient of input {i}, against the CPU's", gx, wanted, EXACT)

    same_bits("a second time", run(op, args, here, g_here), (y, gradients))
    check_single(op, args, here, g_here)
    check_layouts(op, args, here, g_here, (y, gradients))
    check_one_gradient_at_a_time(op, args, here, g_here, gradients)
    check_threads(op, args, here, g_here, (y, gradients))
    if device == "cpu":
        for mistake in wrong:
            check_mistake(mistake, op, args, inputs, expected, g)


def run(op, args, arrays, g, needs=None):
    """Forward and backward once, as (answer, gradients). Neither may change the inputs, the answer or the cotangent."""
    tensors = [Tensor(a, requires_grad=needs is None or needs[i]) for i, a in enumerate(arrays)]
    before = [np.array(on("cpu", a)) for a in (*arrays, g)]
    y = op(*args)(*tensors)
    answer = y.data.copy()
    for i, (a, was) in enumerate(zip(arrays, before[:-1], strict=True)):
        if not np.array_equal(on("cpu", a), was):
            raise AssertionError(f"{op.__name__}: forward changed input {i}")
    y.backward(g)
    for name, a, was in zip([*(f"input {i}" for i in range(len(arrays))), "the cotangent", "the answer"],
                            (*arrays, g, y.data), (*before, on("cpu", answer)), strict=True):
        if not np.array_equal(on("cpu", a), was):
            raise AssertionError(f"{op.__name__}: backward changed {name}")
    return answer, [t.grad for t in tensors]


def check_single(op, args, inputs, g):
    """float32 stays float32, and says what float64 says about the same numbers."""
    singles, g = [a.astype("float32") for a in inputs], g.astype("float32")
    y, gradients = run(op, args, singles, g)
    y_double, doubles = run(op, args, [a.astype("float64") for a in singles], g.astype("float64"))
    for what, single, double in zip(names(gradients), (y, *gradients), (y_double, *doubles), strict=True):
        if single.dtype != np.float32:
            raise AssertionError(f"{what}: float32 became {single.dtype}")
        close(f"{what}, float32 against float64", single.astype("float64"), double, SINGLE)


def check_layouts(op, args, inputs, g, wanted):
    """How an array lies in memory changes nothing, neither for the inputs nor for the cotangent."""
    for name, lay in LAYOUTS.items():
        for g_name, lay_g in LAYOUTS.items():
            y, gradients = run(op, args, [lay(a) for a in inputs], lay_g(g))
            for what, got, want in zip(names(gradients), (y, *gradients), (wanted[0], *wanted[1]), strict=True):
                close(f"{what}, for inputs {name} and a cotangent {g_name}", got, want, EXACT)
    xp = xp_of(g)
    repeated = xp.broadcast_to(xp.ones((), g.dtype), g.shape)           # what the backward of a sum hands on
    for i, (got, want) in enumerate(zip(run(op, args, inputs, repeated)[1], run(op, args, inputs, xp.ones_like(g))[1], strict=True)):
        close(f"gradient of input {i}, for a cotangent that is one number repeated", got, want, EXACT)


def check_one_gradient_at_a_time(op, args, inputs, g, wanted):
    """An input's gradient is the same when nobody wants the others."""
    for i in range(len(inputs)):
        needs = [j == i for j in range(len(inputs))]
        gradients = run(op, args, inputs, g, needs)[1]
        close(f"gradient of input {i}, asked for alone", gradients[i], wanted[i], EXACT)


def check_threads(op, args, inputs, g, wanted):
    """With each image a block of its own, one thread and two give the same bits, and the answer is still right."""
    with small_blocks():
        with threads(1):
            alone = run(op, args, inputs, g)
        with threads(2):
            together = run(op, args, inputs, g)
    same_bits("on two threads", together, alone)
    for what, got, want in zip(names(wanted[1]), (alone[0], *alone[1]), (wanted[0], *wanted[1]), strict=True):
        close(f"{what}, in blocks of one image", got, want, EXACT)


def check_mistake(mistake, op, args, inputs, expected, g):
    """The gradient check refuses this wrong backward; the place where it was worst is returned."""
    name = mistake.__name__
    if not issubclass(mistake, op) or not mistake.__doc__:
        raise AssertionError(f"{name} is to be a {op.__name__} whose docstring says what is mistaken")
    y, gradients = run(mistake, args, inputs, g)
    close(f"{name}: forward, which is to be right", y, expected, EXACT)
    if not shows(mistake, args, inputs):
        for i, (got, want) in enumerate(zip(gradients, run(op, args, inputs, g)[1], strict=True)):
            close(f"{name} is said not to show in this case: gradient of input {i}", got, want, EXACT)
        return None
    try:
        gradcheck(lambda *tensors: mistake(*args)(*tensors), inputs)
    except GradcheckError as error:
        if error.report is None:
            raise AssertionError(f"{name} was refused, but not for its backward: {error}") from error
        return error.report.worst
    raise AssertionError(f"the gradient check let {name} pass: {mistake.__doc__}")


def shows(mistake, args, inputs):
    """Whether this mistake makes a difference in this case."""
    return not hasattr(mistake, "shows") or bool(mistake.shows(args, *inputs))


def check_each_shows(wrong, cases):
    """Among `cases`, (args, inputs) by name, every mistake makes a difference in at least one."""
    for mistake in wrong:
        if not any(shows(mistake, args, inputs) for args, inputs in cases.values()):
            raise AssertionError(f"{mistake.__name__} shows in none of the cases, so nothing says that it would be noticed")


class Remembers:
    """For wrong backwards: keeps the input arrays, so that they need not know what the op saves."""

    def forward(self, *arrays):
        self.arrays = arrays
        return super().forward(*arrays)


# Comparing

def close(what, got, want, tolerance):
    """Equal in shape and dtype, and in every value up to `tolerance` times the largest value."""
    got, want = on("cpu", got), on("cpu", want)
    if got.shape != want.shape or got.dtype != want.dtype:
        raise AssertionError(f"{what}: shape {got.shape} and {got.dtype} instead of {want.shape} and {want.dtype}")
    error, allowed = np.abs(got - want), tolerance * np.abs(want).max(initial=0)
    if not (error <= allowed).all():
        worst = np.unravel_index(np.argmax(np.where(np.isnan(error), np.inf, error)), error.shape)
        place = f"[{', '.join(map(str, worst))}]"
        raise AssertionError(f"{what}: at {place} {got[worst]:.8g} instead of {want[worst]:.8g}; the error may be {allowed:.1e}")


def same_bits(what, got, want):
    """The same answer and the same gradients, to the last bit."""
    for name, a, b in zip(names(want[1]), (got[0], *got[1]), (want[0], *want[1]), strict=True):
        if on("cpu", a).tobytes() != on("cpu", b).tobytes():
            raise AssertionError(f"{name}: other bits {what}")


def names(gradients):
    return ["forward", *(f"gradient of input {i}" for i in range(len(gradients)))]


# Making arrays

def values(*shapes):
    """Normally distributed float64 arrays of these shapes, the same ones at each call."""
    rng = np.random.default_rng(1)
    return [rng.standard_normal(shape) for shape in shapes]


def apart(*shape):
    """One array whose values are all different, 0.1 apart, and none nearer to 0 than 0.05: no kinks nearby."""
    size = int(np.prod(shape))
    return 0.1 * (np.random.default_rng(2).permutation(size) - size // 2 + 0.5).reshape(shape)


def cotangent(shape):
    """Random numbers of either sign, none of them small."""
    rng = np.random.default_rng(3)
    return np.asarray(rng.uniform(0.5, 1.5, shape) * rng.choice([-1.0, 1.0], shape))


def on(device, array):
    """The array, or a number as an array, on that device."""
    return to_device(np.asarray(array) if np.isscalar(array) else array, device)


def row_major(a):
    """(N, C, H, W) with the columns side by side, as NumPy makes it."""
    return a.copy("C")


def channels_last(a):
    """The same shape with axis 1 innermost in memory: the layout in which the ops work."""
    xp = xp_of(a)
    return a if a.ndim < 2 else xp.moveaxis(xp.ascontiguousarray(xp.moveaxis(a, 1, -1)), -1, 1)


def every_second(a):
    """A view with gaps: every second column of a wider array, with NaN between."""
    if a.ndim == 0:
        return a
    wide = xp_of(a).full((*a.shape[:-1], 2 * a.shape[-1]), np.nan, a.dtype)
    wide[..., ::2] = a
    return wide[..., ::2]


LAYOUTS = {"in rows": row_major, "with channels last": channels_last, "with gaps": every_second}


# Threads

@contextlib.contextmanager
def threads(n):
    """Inside, `n` threads share the work."""
    before = parallel.threads()
    parallel.set_threads(n)
    try:
        yield
    finally:
        parallel.set_threads(before)


@contextlib.contextmanager
def small_blocks():
    """Inside, every image is a block of its own, so that even a small batch has work for several threads."""
    before, parallel.BLOCK_BYTES = parallel.BLOCK_BYTES, 1
    try:
        yield
    finally:
        parallel.BLOCK_BYTES = before
