"""How sure an accuracy is: bootstrap intervals over images, and McNemar's test of two nets."""

from __future__ import annotations

import math

import numpy as np

RESAMPLES = 10_000


def bootstrap(correct: int, images: int, level: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """The percentile interval of a share of images, by resampling images with replacement.

    The number of right ones among `images` drawn with replacement is binomial,
    so the resamples are drawn from that distribution instead of one by one.
    """
    rng = np.random.default_rng(seed)
    shares = rng.binomial(images, correct / images, RESAMPLES) / images
    low, high = np.quantile(shares, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_bootstrap(
    only_a: int, only_b: int, images: int, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """The interval of A's share less B's over the same images.

    `only_a` of them A alone has right, `only_b` B alone; resampling images
    makes these two counts multinomial.
    """
    rng = np.random.default_rng(seed)
    rest = images - only_a - only_b
    counts = rng.multinomial(images, np.array([only_a, only_b, rest]) / images, RESAMPLES)
    low, high = np.quantile(
        (counts[:, 0] - counts[:, 1]) / images, [(1 - level) / 2, (1 + level) / 2]
    )
    return float(low), float(high)


def mcnemar(only_a: int, only_b: int) -> float:
    """The exact two-sided p of McNemar's test: were A and B equally good.

    Under that the images that only one of them has right are coin tosses.
    """
    n, k = only_a + only_b, min(only_a, only_b)
    if n == 0:
        return 1.0
    logs = [math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) for i in range(k + 1)]
    top = max(logs)
    tail = math.exp(top - n * math.log(2)) * sum(math.exp(value - top) for value in logs)
    return min(1.0, 2 * tail)
