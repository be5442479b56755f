"""Means, error bars, and what may be concluded from them.

A network trained with another seed ends with another error. So a condition is tried with several seeds, and two conditions are
compared seed by seed: what a seed brings by chance is in both, and goes away in the difference.

    mean = sum(v) / n       s^2 = sum((v - mean)^2) / (n - 1)       standard error = s / sqrt(n)

The mean of many experiments like this one would be within t standard errors of the mean here in 95 of 100 of them.
"""

import math

# t of Student's distribution for 95 %, by the number of values less one. With few values s is known badly, and t is large.
T95 = (math.inf, 12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)


def mean_and_error(values):
    """(mean, standard error); the error of one value is NaN: a single seed says nothing about the next one."""
    n = len(values)
    mean = sum(values) / n
    if n == 1:
        return mean, math.nan
    return mean, math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1) / n)


def interval(values):
    """(low, high): where the mean is with 95 % confidence. From one value, anywhere."""
    mean, error = mean_and_error(values)
    if len(values) == 1:
        return -math.inf, math.inf
    t = T95[min(len(values), len(T95)) - 1]
    return mean - t * error, mean + t * error


def effects(larger, smaller, ratio=False):
    """Seed by seed, by how much (or, with ratio, how many times) one condition is larger. A seed where one has None is left out."""
    pairs = [(a, b) for a, b in zip(larger, smaller, strict=True) if a is not None and b is not None]
    return [a / b if ratio else a - b for a, b in pairs]


def verdict(values, nothing=0.0, paper=None):
    """One sentence on these effects. `nothing` is the effect of no effect (0, or 1 for ratios); `paper` is what the paper found."""
    if not values:
        return "undecided: no seed has a number for both"
    if len(values) == 1:
        return "undecided: one seed has no error bar"
    low, high = interval(values)
    if low > nothing:
        what = "seen"
    elif high < nothing:
        what = "the opposite is seen"
    else:
        what = "not seen beyond the error bars"
    if paper is None:
        return what
    return f"{what}; the paper's {paper:g} is {'inside' if low <= paper <= high else 'above' if paper > high else 'below'} them"


def iterations_to(level, steps, errors):
    """After how many steps the error first was `level` or less, on straight lines between the looks; None: it never was."""
    before = None
    for step, error in zip(steps, errors, strict=True):
        if error <= level:
            if before is None:
                return float(step)
            s, e = before
            return s + (step - s) * (e - level) / (e - error)
        before = step, error
    return None
