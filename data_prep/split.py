"""Train and test: 80/20, stratified by ANP (section 5.2).

An ANP with n images gives floor(0.8 n) of them to training: only this
rounding meets the paper's 307,185 of 384,258 over 553 ANPs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from fractions import Fraction

from basics.cli import UserError
from data_prep.lists import Entry


def train_count(n: int, fraction: Fraction) -> int:
    """floor(fraction * n), exactly: a float 0.8 turns some products just below an integer."""
    return n * fraction.numerator // fraction.denominator


def parse_fraction(text: str) -> Fraction:
    """`0.8`, `4/5` as an exact fraction strictly between 0 and 1."""
    try:
        fraction = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise UserError(f"{text!r} is not a fraction such as 0.8 or 4/5") from None
    if not 0 < fraction < 1:
        raise UserError(f"the training fraction {text} is not between 0 and 1")
    return fraction


def split(
    by_anp: Mapping[str, Sequence[str]],
    labels: Mapping[str, int],
    seed: int = 0,
    fraction: Fraction = Fraction(4, 5),
) -> tuple[list[Entry], list[Entry]]:
    """Shuffled (train, test) lists of (path, ANP label).

    A file's place follows from the seed and its own path alone, through a
    hash: the order of `by_anp` and of its files, the machine and the Python
    do not matter.

    Args:
        by_anp: ANP -> paths. ANPs outside `labels` are left out.
        labels: ANP -> label.
    """
    train, test = [], []
    for anp, label in labels.items():
        paths = sorted(by_anp.get(anp, ()), key=lambda path: _rank(seed, "split", path))
        cut = train_count(len(paths), fraction)
        train += [Entry(path, label) for path in paths[:cut]]
        test += [Entry(path, label) for path in paths[cut:]]
    for entries in (train, test):
        entries.sort(key=lambda entry: _rank(seed, "order", entry.path))
    return train, test


def _rank(seed: int, purpose: str, path: str) -> tuple[bytes, str]:
    return hashlib.sha256(f"{seed}/{purpose}/{path}".encode()).digest(), path
