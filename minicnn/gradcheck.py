"""Gradient check: is this backward the derivative of that forward?

The gradients of backward are compared with finite differences of forward. In float64 a central difference
(f(x + e) - f(x - e)) / 2e is accurate to about ten digits, so it detects a wrong factor, a wrong sign or a missing term.

Four things would make such a check pass wrongly; this one avoids them:

- A cotangent of ones. The vector that backward multiplies with is drawn at random: with ones, softmax and every
  normalisation give zero whatever their backward computes.
- Kinks. Where max(x, 0) bends or the maximum of a pool changes, left and right slope differ and neither is the
  derivative. Such points are detected (the gap between the slopes does not shrink with the step) and skipped.
- Vacuous checks. If all gradients are below the noise, or all points were skipped, the check fails and says so.
- Averages, which hide single errors. The worst entry must agree, and the report names it.

For small functions the whole Jacobian is checked, entry by entry; for large ones, directional derivatives along random
directions that involve every entry, and then the entries where an error is most likely to show.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minicnn.autograd import no_grad
from minicnn.backend import random
from minicnn.tensor import Tensor

MAX_JACOBIAN_ENTRIES = 4096     # up to this many (input, output) pairs, every one is checked
NUM_DIRECTIONS = 6              # for larger functions, per input
NUM_PROBES = 40                 # and this many single entries
NOISE = 1e-7                    # gradients below this fraction of the output's size are indistinguishable from rounding errors

Array = Any


class GradcheckError(AssertionError):
    """Backward is not the derivative of forward, or the check is inconclusive.

    `report` is the Report of a failed comparison, or None if there was none.
    """

    def __init__(self, message: str, report: "Report | None" = None) -> None:
        super().__init__(message)
        self.report = report


@dataclasses.dataclass
class Entry:
    """One comparison of an analytic with a numeric gradient."""

    where: str
    analytic: float         # by backward
    numeric: float          # by finite differences of forward
    error: float            # |analytic - numeric| over the largest gradient of this input

    def __str__(self) -> str:
        ratio = f"{self.analytic / self.numeric:.4g}" if self.numeric else "-"
        return (f"{self.where}: backward gives {self.analytic:.6g}, finite differences give {self.numeric:.6g} "
                f"(ratio {ratio}, error {self.error:.1e})")


@dataclasses.dataclass
class Report:
    """The result of a gradient check: the worst entry, the number of comparisons, and of points skipped because they lie on a kink."""

    worst: Entry
    compared: int
    kinks: int

    def __str__(self) -> str:
        kinks = f", {self.kinks} skipped at kinks" if self.kinks else ""
        return f"{self.compared} comparisons{kinks}; worst {self.worst}"


def gradcheck(fn: Callable[..., Tensor], inputs: Any, tolerance: float = 1e-6, eps: float = 1e-5, seed: int = 0) -> Report:
    """Compare the backward of `fn` with finite differences of its forward, in float64.

    Args:
        fn: takes as many tensors as there are inputs and returns one tensor. It must be deterministic
            (fix a dropout mask by its `rng`).
        inputs: an array or a Tensor, or a list of them. They are copied to float64; the gradient of every one is
            checked.
        tolerance: the largest error allowed, as a fraction of the largest gradient of the same input.
        eps: the finite-difference step, times max(1, the input's largest magnitude).
        seed: for the random cotangent and directions.

    Returns a Report. Raises GradcheckError if backward is wrong (naming the worst entry with both values and their
    ratio), if every gradient is below the noise, if fn is not deterministic, or if too many points lie on kinks.
    """
    inputs = inputs if isinstance(inputs, (list, tuple)) else [inputs]
    arrays = [np.array(i.numpy() if isinstance(i, Tensor) else i, dtype=np.float64) for i in inputs]
    rng = random.generator(random.CHECKS, seed=seed)

    def forward() -> Array:
        with no_grad():
            return np.array(fn(*map(Tensor, arrays)).data)

    y = forward()
    if not np.array_equal(y, forward(), equal_nan=True):
        raise GradcheckError("gradcheck: two calls of fn with the same inputs gave different outputs; fix its randomness "
                             "(for dropout: create the rng inside fn)")
    if y.dtype != np.float64:
        raise GradcheckError(f"gradcheck: fn must return float64 for float64 inputs, got {y.dtype}, which is not precise enough")
    if not np.isfinite(y).all():
        raise GradcheckError("gradcheck: the output of fn has values that are not finite")

    small = [a.size * y.size <= MAX_JACOBIAN_ENTRIES for a in arrays]
    # One backward per cotangent: always a random one; if an input is small, also the unit vectors, which give the Jacobian row by row.
    cotangent = signed_uniform(y.shape, rng)
    analytic = [g.ravel() for g in gradients(fn, arrays, cotangent)]
    jacobian = [gradients(fn, arrays, row.reshape(y.shape)) for row in np.eye(y.size)] if any(small) else []

    entries: list[Entry] = []
    kinks, vacuous = 0, []
    for i, x in enumerate(arrays):
        step = eps * max(1.0, float(np.abs(x).max(initial=0)))
        positions = range(x.size) if small[i] else select_entries(analytic[i], rng)
        perturbations = [] if small[i] else [("direction", k, signed_uniform(x.size, rng)) for k in range(NUM_DIRECTIONS)]
        perturbations += [("entry", j, None) for j in positions]
        weighted, rows, skipped = [], [], 0                 # (where, analytic, numeric): of cotangent . y, and of single outputs
        for kind, j, d in perturbations:
            if d is None:
                d = np.zeros(x.size)
                d[j] = 1
            slope = derivative(forward, x, y, d.reshape(x.shape), step)
            if slope is None:
                skipped += 1
                continue
            where = (f"input {i} at [{', '.join(map(str, np.unravel_index(j, x.shape)))}]" if kind == "entry"
                     else f"input {i} along random direction {j}")
            weighted.append((where, float(analytic[i][j] if kind == "entry" else analytic[i] @ d), float((cotangent * slope).sum())))
            if small[i]:
                column = np.array([row[i].ravel()[j] for row in jacobian])
                rows += [(f"{where}, output {o}", float(a), float(n)) for o, (a, n) in enumerate(zip(column, slope.ravel(), strict=True))]
        kinks += skipped
        if skipped > len(perturbations) // 2:
            raise GradcheckError(f"gradcheck: {skipped} of {len(perturbations)} points of input {i} lie on a kink, where there is no "
                                 "derivative; move the inputs apart (away from 0 for relu, apart from each other for max-pool)")
        for comparisons in (weighted, rows):
            if comparisons:
                largest = max(max(abs(a), abs(n)) for _, a, n in comparisons)
                if largest <= NOISE * max(1.0, float(np.abs(y).max())):
                    vacuous.append(f"input {i}")
                entries += [Entry(where, a, n, abs(a - n) / max(largest, 1e-300)) for where, a, n in comparisons]

    if not entries:
        raise GradcheckError("gradcheck: the check is vacuous: the inputs have no elements")
    if vacuous:
        raise GradcheckError(f"gradcheck: the check is vacuous: every gradient of {vacuous[0]} is below the noise, so a wrong backward "
                             "would pass. Does fn use this input? Do its values affect the output?")
    worst = max(entries, key=lambda e: e.error if np.isfinite(e.error) else np.inf)
    report = Report(worst, len(entries), kinks)
    if not worst.error <= tolerance:
        raise GradcheckError(f"gradcheck: backward is not the derivative of forward. {report}", report)
    return report


def gradients(fn: Callable[..., Tensor], arrays: Sequence[Array], cotangent: Array) -> list[Array]:
    """The analytic gradient of every input for this cotangent, by backward."""
    tensors = [Tensor(a.copy(), requires_grad=True) for a in arrays]
    y = fn(*tensors)
    if not y.requires_grad:
        raise GradcheckError("gradcheck: in the graph, the output of fn does not depend on its inputs; does fn detach them?")
    y.backward(cotangent)
    return [np.zeros_like(a) if t.grad is None else t.grad for t, a in zip(tensors, arrays, strict=True)]


def derivative(forward: Callable[[], Array], x: Array, y: Array, d: Array, step: float) -> Array | None:
    """The directional derivative of y = forward() along `d` at x, by finite differences; None on a kink. `x` is modified and restored.

    Left and right slope differ by step * curvature where fn is smooth: halve the step and the gap halves. At a
    kink the gap stays; and a kink between the two steps makes it fall to almost nothing.
    """
    x0 = x.copy()

    def at(t: float) -> Array:
        x[...] = x0 + t * d
        result = forward()
        x[...] = x0
        return result

    def slopes(h: float) -> tuple[Array, Array]:
        return (at(h) - y) / h, (y - at(-h)) / h

    (right, left), (far_right, far_left) = slopes(step / 2), slopes(step)
    gap, far_gap = np.abs(right - left), np.abs(far_right - far_left)
    floor = 1e-14 / step * max(1.0, float(np.abs(y).max())) + 1e-6 * np.maximum(np.abs(right), np.abs(left))

    def is_kink(gap: Array, far_gap: Array) -> bool:
        return (((gap > 0.75 * far_gap) | (gap < 0.25 * far_gap)) & (np.maximum(gap, far_gap) > floor)).any()

    if is_kink(gap, far_gap):
        return None
    if (gap > floor).any():             # a kink a third of a step away makes the gap halve once, but not twice
        near_right, near_left = slopes(step / 4)
        if is_kink(np.abs(near_right - near_left), gap):
            return None
    return (right + left) / 2


def signed_uniform(shape: Any, rng: np.random.Generator) -> Array:
    """Random numbers of either sign with magnitudes from 0.5 to 1.5: no element is much less important than another."""
    return rng.uniform(0.5, 1.5, shape) * rng.choice([-1.0, 1.0], shape)


def select_entries(gradient: Array, rng: np.random.Generator) -> list[Any]:
    """Indices of about NUM_PROBES entries to check singly: those with the largest gradients, the smallest, and some at random."""
    by_size = np.argsort(np.abs(gradient))
    third = NUM_PROBES // 3
    return list(dict.fromkeys([*by_size[-third:], *by_size[:third], *rng.integers(0, gradient.size, third)]))
