"""Is this backward the derivative of that forward?

Backward is a claim about forward, and forward can be asked: move an input a little and see. In float64 a central
difference (f(x + e) - f(x - e)) / 2e is right to about ten digits, so a wrong factor, sign or missing term shows.

Four things make such a check fool its user, and are guarded against here:

- A cotangent of ones. What backward multiplies with is drawn at random: with ones, softmax and every
  normalisation give zero whatever their backward says.
- Kinks. Where max(x, 0) bends or the winner of a pool changes, left and right slope differ and neither is the
  derivative. Such places are recognised (the gap between the slopes does not shrink with the step) and left out.
- Nothing to see. If all gradients are below the noise, or all places were left out, the check fails and says so.
- Averages. Agreement is asked of the worst entry, and the report names it.

Small functions are checked entry by entry, the whole Jacobian; large ones along random directions, in each of
which every entry has a part, and then at the entries where forward and backward may differ most.
"""

import dataclasses

import numpy as np

from minicnn import random
from minicnn.autograd import no_grad
from minicnn.tensor import Tensor

WHOLE_JACOBIAN = 4096       # up to this many (input, output) pairs every one is checked
DIRECTIONS = 6              # for larger functions, per input
PROBED = 40                 # and so many single entries
NOISE = 1e-7                # gradients below this fraction of the output's size show nothing


class GradcheckError(AssertionError):
    """Backward is not the derivative of forward, or the check could not tell. `report` has the details."""

    def __init__(self, message, report=None):
        super().__init__(message)
        self.report = report


@dataclasses.dataclass
class Entry:
    """One place where analytic and numeric gradient were compared."""

    where: str
    analytic: float
    numeric: float
    error: float            # |analytic - numeric| over the largest gradient of this input

    def __str__(self):
        ratio = f"{self.analytic / self.numeric:.4g}" if self.numeric else "-"
        return f"{self.where}: backward says {self.analytic:.6g}, forward says {self.numeric:.6g} (ratio {ratio}, error {self.error:.1e})"


@dataclasses.dataclass
class Report:
    """What a gradient check saw: the worst entry, how many were compared, how many lay on a kink."""

    worst: Entry
    compared: int
    kinks: int

    def __str__(self):
        kinks = f", {self.kinks} left out at kinks" if self.kinks else ""
        return f"{self.compared} comparisons{kinks}; worst {self.worst}"


def gradcheck(fn, inputs, tolerance=1e-6, eps=1e-5, seed=0):
    """Compare the backward of `fn` with finite differences of its forward, in float64.

    Args:
        fn: takes as many tensors as there are inputs and returns one tensor. It must give the same answer each time
            (fix a dropout mask by its `rng`).
        inputs: an array or a Tensor, or a list of them. They are copied to float64; the gradient of every one is
            checked.
        tolerance: the largest error allowed, as a fraction of the largest gradient of the same input.
        eps: how far an input is moved, times max(1, its largest magnitude).
        seed: for the random cotangent and directions.

    Returns a Report. Raises GradcheckError if backward is wrong (naming the worst entry with both values and their
    ratio), if every gradient is too small to tell, if fn is not deterministic, or if too much lies on kinks.
    """
    inputs = inputs if isinstance(inputs, (list, tuple)) else [inputs]
    arrays = [np.array(i.numpy() if isinstance(i, Tensor) else i, dtype=np.float64) for i in inputs]
    rng = random.generator(random.CHECKS, seed=seed)

    def forward():
        with no_grad():
            return np.array(fn(*map(Tensor, arrays)).data)

    y = forward()
    if not np.array_equal(y, forward(), equal_nan=True):
        raise GradcheckError("gradcheck: two calls of fn with the same inputs gave different answers; fix its randomness "
                             "(for dropout: pass an rng made anew in each call)")
    if y.dtype != np.float64:
        raise GradcheckError(f"gradcheck: fn returned {y.dtype} for float64 inputs; it loses the digits the check needs")
    if not np.isfinite(y).all():
        raise GradcheckError("gradcheck: fn returned values that are not finite")

    small = [a.size * y.size <= WHOLE_JACOBIAN for a in arrays]
    # One backward per cotangent. Small: a one for each output in turn, so that the rows of the Jacobian are seen apart;
    # always: a random one.
    cotangent = rng.uniform(0.5, 1.5, y.shape) * rng.choice([-1.0, 1.0], y.shape)
    analytic = [g.ravel() for g in gradients(fn, arrays, cotangent)]
    jacobian = [gradients(fn, arrays, row.reshape(y.shape)) for row in np.eye(y.size)] if any(small) else []

    entries, kinks, vacuous = [], 0, []
    for i, x in enumerate(arrays):
        step = eps * max(1.0, float(np.abs(x).max(initial=0)))
        weighted, rows, skipped = [], [], 0
        units = range(x.size) if small[i] else probe(analytic[i], rng)
        moves = [] if small[i] else [("direction", k, direction(x.size, rng)) for k in range(DIRECTIONS)]
        moves += [("entry", j, None) for j in units]
        for kind, j, d in moves:
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
        if skipped > len(moves) // 2:
            raise GradcheckError(f"gradcheck: {skipped} of {len(moves)} places of input {i} lie on a kink, where there is no derivative; "
                                 "move the inputs apart (away from 0 for relu, apart from each other for max-pool)")
        for seen in (weighted, rows):
            if seen:
                largest = max(max(abs(a), abs(n)) for _, a, n in seen)
                if largest <= NOISE * max(1.0, float(np.abs(y).max())):
                    vacuous.append(f"input {i}")
                entries += [Entry(w, a, n, abs(a - n) / max(largest, 1e-300)) for w, a, n in seen]

    if not entries:
        raise GradcheckError("gradcheck: nothing to see: no input has an element")
    if vacuous:
        raise GradcheckError(f"gradcheck: nothing to see: every gradient of {vacuous[0]} is below the noise, so a wrong backward would "
                             "pass. Does fn use this input? Are the values such that it matters?")
    worst = max(entries, key=lambda e: e.error if np.isfinite(e.error) else np.inf)
    report = Report(worst, len(entries), kinks)
    if not worst.error <= tolerance:
        raise GradcheckError(f"gradcheck: backward is not the derivative of forward. {report}", report)
    return report


def gradients(fn, arrays, cotangent):
    """What backward says: the gradient of every input for this cotangent."""
    tensors = [Tensor(a.copy(), requires_grad=True) for a in arrays]
    y = fn(*tensors)
    if not y.requires_grad:
        raise GradcheckError("gradcheck: the answer of fn does not depend on its inputs as far as the graph knows; does it detach?")
    y.backward(cotangent)
    return [np.zeros_like(a) if t.grad is None else t.grad for t, a in zip(tensors, arrays, strict=True)]


def derivative(forward, x, y, d, step):
    """What forward says: dy along `d` at x, shaped like y; None on a kink. `x` is moved in place and put back.

    Left and right slope differ by step * curvature where fn is smooth: halve the step and the gap halves. At a
    kink the gap stays; and a kink between the two steps makes it fall to almost nothing.
    """
    here = x.copy()

    def at(t):
        x[...] = here + t * d
        result = forward()
        x[...] = here
        return result

    def slopes(h):
        return (at(h) - y) / h, (y - at(-h)) / h

    (right, left), (far_right, far_left) = slopes(step / 2), slopes(step)
    gap, far_gap = np.abs(right - left), np.abs(far_right - far_left)
    floor = 1e-14 / step * max(1.0, float(np.abs(y).max())) + 1e-6 * np.maximum(np.abs(right), np.abs(left))

    def bent(gap, far_gap):
        return (((gap > 0.75 * far_gap) | (gap < 0.25 * far_gap)) & (np.maximum(gap, far_gap) > floor)).any()

    if bent(gap, far_gap):
        return None
    if (gap > floor).any():             # a kink a third of a step away makes the gap halve once, but not twice
        near_right, near_left = slopes(step / 4)
        if bent(np.abs(near_right - near_left), gap):
            return None
    return (right + left) / 2


def direction(size, rng):
    """A random direction in which every entry has a part of about the same size."""
    return rng.uniform(0.5, 1.5, size) * rng.choice([-1.0, 1.0], size)


def probe(gradient, rng):
    """Entries worth a look of their own: the largest gradients, the smallest, and some at random."""
    by_size = np.argsort(np.abs(gradient))
    third = PROBED // 3
    return list(dict.fromkeys([*by_size[-third:], *by_size[:third], *rng.integers(0, gradient.size, third)]))
