"""Statistics of accuracies: over images (bootstrap, McNemar), over seeds (Student's t)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import numpy as np

RESAMPLES = 10_000


def bootstrap(correct: int, images: int, level: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """The percentile bootstrap interval of a share of images.

    The number of right images among `images` drawn with replacement is binomial, so the
    resamples are drawn from that distribution instead of image by image.
    """
    rng = np.random.default_rng(seed)
    shares = rng.binomial(images, correct / images, RESAMPLES) / images
    low, high = np.quantile(shares, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_bootstrap(
    only_a: int, only_b: int, images: int, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """The bootstrap interval of A's share minus B's over the same images.

    `only_a` images are right by A alone, `only_b` by B alone; resampling images makes these two
    counts multinomial.
    """
    rng = np.random.default_rng(seed)
    rest = images - only_a - only_b
    counts = rng.multinomial(images, np.array([only_a, only_b, rest]) / images, RESAMPLES)
    low, high = np.quantile(
        (counts[:, 0] - counts[:, 1]) / images, [(1 - level) / 2, (1 + level) / 2]
    )
    return float(low), float(high)


def mcnemar(only_a: int, only_b: int) -> float:
    """The exact two-sided p of McNemar's test that A and B are equally good.

    If they are, the images that only one of them has right are coin tosses.
    """
    n, k = only_a + only_b, min(only_a, only_b)
    if n == 0:
        return 1.0
    logs = [math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) for i in range(k + 1)]
    top = max(logs)
    tail = math.exp(top - n * math.log(2)) * sum(math.exp(value - top) for value in logs)
    return min(1.0, 2 * tail)


def t_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Student's interval of the mean of two or more values."""
    half = t_quantile((1 + level) / 2, len(values) - 1) * _standard_error(values)
    middle = statistics.fmean(values)
    return middle - half, middle + half


def t_test(values: Sequence[float]) -> float:
    """The two-sided p of Student's test of two or more values: is their mean zero?"""
    error, middle = _standard_error(values), statistics.fmean(values)
    if error == 0:
        return 0.0 if middle else 1.0
    return 2 * t_probability(-abs(middle / error), len(values) - 1)


def pairs_needed(
    deviation: float, difference: float, level: float = 0.95, power: float = 0.8
) -> int:
    """The number of pairs that find a true mean `difference` with `power` at a `level`.

    `deviation` is the standard deviation of their differences. The smallest n of at least 2 with
    n >= ((t(level) + t(power)) deviation / difference)^2, the quantiles at n - 1 degrees of
    freedom; this meets the exact count, by the noncentral t, to within a pair.
    """
    n = 2
    while True:
        reach = t_quantile((1 + level) / 2, n - 1) + t_quantile(power, n - 1)
        if n >= (reach * deviation / difference) ** 2:
            return n
        n += 1


def holm(ps: Sequence[float], tests: int | None = None) -> list[float]:
    """The p of several tests after Holm's step-down correction, in their order.

    `tests` is the number of planned tests, if some have no result yet.
    """
    count = len(ps) if tests is None else tests
    found, most = [0.0] * len(ps), 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        most = max(most, min(1.0, (count - rank) * ps[i]))
        found[i] = most
    return found


def t_probability(t: float, freedom: int) -> float:
    """The chance that Student's t of `freedom` degrees of freedom is at most `t`.

    For whole degrees of freedom that is a finite sum of powers of cos(atan(t / sqrt(n)))
    (Abramowitz and Stegun, 26.7.3 and 26.7.4).
    """
    angle = math.atan2(t, math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    term = total = cosine if freedom % 2 else 1.0
    for k in range(3 if freedom % 2 else 2, freedom, 2):
        term *= (k - 1) / k * cosine**2
        total += term
    if freedom % 2:
        between = 2 / math.pi * (angle + (sine * total if freedom > 1 else 0.0))
    else:
        between = sine * total
    return (1 + between) / 2


def t_quantile(share: float, freedom: int) -> float:
    """The value below which Student's t lies with the chance `share`, between 0 and 1."""
    low, high = -1.0, 1.0
    while t_probability(low, freedom) > share:
        low *= 2
    while t_probability(high, freedom) < share:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if t_probability(middle, freedom) < share else (low, middle)
    return (low + high) / 2


def _standard_error(values: Sequence[float]) -> float:
    return statistics.stdev(values) / math.sqrt(len(values))
