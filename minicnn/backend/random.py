"""Random numbers as functions of one seed: the same key gives the same numbers.

A counter-based generator (Philox 4x64-10: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
SC 2011) maps a key to numbers without any hidden state, so what is drawn does not depend on the order of
the draws, the number of threads, or the device; and a resumed run draws the same numbers as an uninterrupted one.

The whole state is the seed and the number of parameters and dropout masks drawn since it was set.
`state()` returns these three numbers, checkpoints save them, and NumPy's own global generator is never used.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

# The purpose of the numbers is part of the key, so that each purpose has its own random stream.
PARAMETERS, DROPOUT, SHUFFLE, SAMPLES, CHECKS = range(5)

_state = {"seed": 0, "parameters": 0, "dropout": 0}


def seed(n: int) -> None:
    """Set the seed, an int from 0 to 2**64 - 1 (ValueError otherwise), and reset both counters."""
    set_state({"seed": n, "parameters": 0, "dropout": 0})


def state() -> dict[str, int]:
    """The seed and the two counters, as a dict that JSON can hold."""
    return dict(_state)


def set_state(saved: Mapping[str, int]) -> None:
    """Restore a `state()`. ValueError if it has other keys, or values that are not ints from 0 to 2**64 - 1."""
    if set(saved) != set(_state):
        raise ValueError(f"random.set_state: the keys must be {sorted(_state)}, got {sorted(saved)}")
    for name, value in saved.items():
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or not 0 <= value < 2 ** 64:
            raise ValueError(f"random: {name} must be an int from 0 to 2**64 - 1, got {value!r}")
        _state[name] = int(value)


@contextlib.contextmanager
def fork_rng() -> Iterator[None]:
    """A context manager that restores the seed and the counters at its end, whatever is drawn inside."""
    before = state()
    try:
        yield
    finally:
        set_state(before)


def generator(purpose: int, *position: int, seed: int | None = None) -> np.random.Generator:
    """A NumPy Generator keyed by (seed, purpose, up to two numbers such as epoch and index), independent of every other key's."""
    high, low = (0, 0, *position)[-2:]
    key = np.array([_state["seed"] if seed is None else seed, purpose], np.uint64)       # (a list would go through float64)
    return np.random.Generator(np.random.Philox(key=key, counter=np.array([0, 0, low, high], np.uint64)))


def next_generator(purpose_name: str) -> np.random.Generator:
    """The generator for the next draw of "parameters" or "dropout"; increments the counter."""
    number = _state[purpose_name]
    _state[purpose_name] = number + 1
    return generator({"parameters": PARAMETERS, "dropout": DROPOUT}[purpose_name], number)


def keep_mask(rng: np.random.Generator, shape: tuple[int, ...], p: float) -> Any:
    """Booleans of `shape`, each False with probability `p` (to the nearest 1/65536): 16 random bits per element."""
    count = int(np.prod(shape))
    bit_generator: Any = rng.bit_generator
    words = (count + 3) // 4                    # of 64 bits
    bits = bit_generator.random_raw(words).astype("<u8", copy=False).view("<u2")[:count]
    return (bits >= keep_threshold(p)).reshape(shape)


def keep_threshold(p: float) -> int:
    """The smallest of the 16-bit numbers that keep an element: below it are the fraction `p` of them."""
    return min(round(p * 65536), 65535)


def advance(rng: np.random.Generator, n: int) -> tuple[Any, Any, int]:
    """Skip the next `n` 64-bit words, as if they had been drawn. Returns their position: (key, counter, first word).

    Each value of the counter gives a block of four words; the first of the n is this word of the counter's block, where
    word 4 is the first of the next block.
    """
    bit_generator: Any = rng.bit_generator
    state = bit_generator.state
    first, (blocks, rest) = state["buffer_pos"], divmod(state["buffer_pos"] + n, 4)
    if blocks:
        bit_generator.advance(blocks - 1)       # skips whole blocks and empties the buffer, so that the next word begins a new block
        bit_generator.random_raw(rest)
    else:
        bit_generator.random_raw(n)
    return state["state"]["key"], state["state"]["counter"], first
