"""One seed, and random numbers that are functions of it: same key, same numbers.

A counter-based generator (Philox 4x64-10: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
SC 2011) turns a key into numbers without any hidden state, so what is drawn does not depend on the order of
the draws, the number of threads, or the device; and a run that is resumed draws what it would have drawn.

All the state there is: the seed, and how many parameters and dropout masks have been drawn since it was set.
`state()` returns these three numbers, checkpoints keep them, and NumPy's own global generator is never touched.
"""

import contextlib

import numpy as np

# What the numbers are for: part of the key, so that no two purposes ever share numbers.
PARAMETERS, DROPOUT, SHUFFLE, SAMPLES, CHECKS = range(5)

_state = {"seed": 0, "parameters": 0, "dropout": 0}


def seed(n):
    """Start anew from seed `n`, an int from 0 to 2**64 - 1. ValueError otherwise."""
    set_state({"seed": n, "parameters": 0, "dropout": 0})


def state():
    """The seed and the two counters, as a dict that JSON can hold."""
    return dict(_state)


def set_state(saved):
    """Go on from a `state()`."""
    if set(saved) != set(_state):
        raise ValueError(f"a random state has the entries {sorted(_state)}, not {sorted(saved)}")
    for name, value in saved.items():
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or not 0 <= value < 2 ** 64:
            raise ValueError(f"random: {name} is an int from 0 to 2**64 - 1, not {value!r}")
        _state[name] = int(value)


@contextlib.contextmanager
def preserved():
    """Whatever is drawn inside leaves the counters as they were."""
    before = state()
    try:
        yield
    finally:
        set_state(before)


def generator(purpose, *where, seed=None):
    """A NumPy Generator for (seed, purpose, up to two numbers that say where): independent of every other one."""
    high, low = (0, 0, *where)[-2:]
    key = np.array([_state["seed"] if seed is None else seed, purpose], np.uint64)       # (a list would go through float64)
    return np.random.Generator(np.random.Philox(key=key, counter=np.array([0, 0, low, high], np.uint64)))


def next_generator(purpose_name):
    """The generator for the next draw of "parameters" or "dropout"; counts it."""
    number = _state[purpose_name]
    _state[purpose_name] = number + 1
    return generator({"parameters": PARAMETERS, "dropout": DROPOUT}[purpose_name], number)


def keep_mask(rng, shape, p):
    """Booleans of `shape`, each False with probability `p` (to the nearest 1/65536): 16 random bits per element."""
    count = int(np.prod(shape))
    bits = rng.bit_generator.random_raw(-(-count // 4)).astype("<u8", copy=False).view("<u2")[:count]
    return (bits >= least_kept(p)).reshape(shape)


def least_kept(p):
    """Of the numbers that 16 bits can be, the smallest that keeps a unit."""
    return min(round(p * 65536), 65535)


def take_words(rng, n):
    """Skip the next `n` words of 64 bits, as if they had been drawn. Returns where they come from: (key, counter, first word).

    A block of four words belongs to each value of the counter; the first of the n is this word of the counter's block, where
    word 4 is the first of the next block.
    """
    state = rng.bit_generator.state
    first, (blocks, rest) = state["buffer_pos"], divmod(state["buffer_pos"] + n, 4)
    if blocks:
        rng.bit_generator.advance(blocks - 1)       # leaves the whole block blocks - 1 behind us, so that the next word begins a new one
        rng.bit_generator.random_raw(rest)
    else:
        rng.bit_generator.random_raw(n)
    return state["state"]["key"], state["state"]["counter"], first
