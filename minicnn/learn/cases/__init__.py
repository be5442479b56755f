"""Test cases of every op: inputs, the definition by plain loops, and plausible wrong backwards. One module for each module of ops.

The tests run them, `minicnn show OP --reference --check` prints them, and `minicnn exercises` grades with them. Each module has a dict
OPS = {Function: (the Function or a subclass that the cases run, cases, naive, wrong)}:

    cases   {name: (constructor arguments, input arrays in float64)}
    naive   naive(args, *inputs), the output by explicit loops
    wrong   subclasses of the Function with a wrong backward; the docstring says what the mistake is. Where a mistake makes no
            difference in some cases (ignoring the stride is correct if it is 1), `affects(args, *inputs)` says whether it does
"""

from typing import Any

import numpy as np


def affects(mistake: Any, args: tuple[Any, ...], inputs: Any) -> bool:
    """Whether this wrong backward returns other gradients than the correct one in this case."""
    return not hasattr(mistake, "affects") or bool(mistake.affects(args, *inputs))


class Remembers:
    """A mixin for wrong backwards: forward stores its inputs in self.arrays, so that backward can ignore what the op saves."""

    def forward(self, *arrays):
        self.arrays = arrays
        return super().forward(*arrays)     # type: ignore[misc]  # the class that it is mixed into has forward


def randn(*shapes: tuple[int, ...]) -> list[Any]:
    """Normally distributed float64 arrays of these shapes, the same ones at each call."""
    rng = np.random.default_rng(1)
    return [rng.standard_normal(shape) for shape in shapes]


def distinct_values(*shape: int) -> Any:
    """An array of distinct values, 0.1 apart and at least 0.05 from 0, so that no kink (a tie, a zero of relu) is nearby."""
    size = int(np.prod(shape))
    return 0.1 * (np.random.default_rng(2).permutation(size) - size // 2 + 0.5).reshape(shape)


def cotangent(shape: tuple[int, ...]) -> Any:
    """A random gradient of the output, with entries of either sign and magnitudes from 0.5 to 1.5."""
    rng = np.random.default_rng(3)
    return np.asarray(rng.uniform(0.5, 1.5, shape) * rng.choice([-1.0, 1.0], shape))
