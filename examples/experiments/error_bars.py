"""Error bars: the mean of a few values, its standard error and its confidence interval, and whether an effect is significant.

Two networks that are trained with different seeds end with different errors. So each condition is trained with several seeds, and two
conditions are compared in pairs, seed by seed: the random variation that both members of a pair share cancels in their difference.

    mean = sum(v) / n       s^2 = sum((v - mean)^2) / (n - 1)       standard error = s / sqrt(n)

The 95 % confidence interval is mean +- t * standard error, with t from Student's distribution: if the experiment were repeated many
times, 95 of 100 such intervals would contain the true mean.
"""

import math
from collections.abc import Sequence

# The 97.5 % quantile of Student's t distribution by n - 1, the degrees of freedom. With few values s is uncertain, and t is large.
T95 = (math.inf, 12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """(mean, standard error); the error of a single value is NaN, which has no spread."""
    n = len(values)
    mean = sum(values) / n
    if n == 1:
        return mean, math.nan
    return mean, math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1) / n)


def confidence_interval(values: Sequence[float]) -> tuple[float, float]:
    """(low, high) of the 95 % confidence interval of the mean; (-inf, inf) for a single value."""
    mean, error = mean_and_error(values)
    if len(values) == 1:
        return -math.inf, math.inf
    t = T95[min(len(values), len(T95)) - 1]
    return mean - t * error, mean + t * error


def effects(larger: Sequence[float | None], smaller: Sequence[float | None], ratio: bool = False) -> list[float]:
    """Seed by seed, the difference (or the ratio) of two conditions. Seeds for which one of them is None are skipped."""
    pairs = [(a, b) for a, b in zip(larger, smaller, strict=True) if a is not None and b is not None]
    return [a / b if ratio else a - b for a, b in pairs]


def verdict(effects: Sequence[float], no_effect: float = 0.0, expected: float | None = None) -> str:
    """Whether the mean effect is significant: whether its 95 % confidence interval excludes `no_effect` (0, or 1 for ratios).

    `expected` is the paper's effect, if it gives a number.
    """
    if not effects:
        return "undecided: no seed has a value for both"
    if len(effects) == 1:
        return "undecided: one seed has no error bar"
    low, high = confidence_interval(effects)
    if low > no_effect:
        result = "significant"
    elif high < no_effect:
        result = "significant, in the opposite direction"
    else:
        result = "not significant"
    if expected is None:
        return result
    position = "inside" if low <= expected <= high else "above" if expected > high else "below"
    return f"{result}; the paper's {expected:g} is {position} the interval"


def iterations_to(error: float, steps: Sequence[int], errors: Sequence[float]) -> float | None:
    """The step at which the error first fell to `error`, linearly interpolated between evaluations; None if it never did."""
    before = None
    for step, e in zip(steps, errors, strict=True):
        if e <= error:
            if before is None:
                return float(step)
            last_step, last = before
            return last_step + (step - last_step) * (last - error) / (last - e)
        before = step, e
    return None
