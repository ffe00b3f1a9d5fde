"""The stratified 80/20 split into training and test, by ANP in the paper (section 5.2).

Of an ANP's n images, floor(0.8 n) go to training: only this rounding gives the paper's 307,185 of
384,258 images over 553 ANPs.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import TypeVar

from data_prep.lists import Entry

TRAIN, TEST = 0, 1  # sides, and places in the pair that `split` returns
Group = TypeVar("Group", bound=Hashable)


def train_count(n: int, fraction: Fraction) -> int:
    """floor(fraction * n), exactly: with a float 0.8, some products fall just below an integer."""
    return n * fraction.numerator // fraction.denominator


def split(
    groups: Mapping[Group, Sequence[str]],
    numbers: Mapping[str, int],
    seed: int = 0,
    fraction: Fraction = Fraction(4, 5),
    duplicates: Iterable[Sequence[str]] = (),
) -> tuple[list[Entry], list[Entry]]:
    """Shuffled (train, test) lists with the same share of each group in training.

    A file's place depends only on a hash of the seed and its own path, not on the order of `groups`
    or of their files, the machine or the Python version. Identical files go to the same side;
    others are exchanged for them, so that each group with enough other files still has
    floor(fraction n) in training.

    Args:
        groups: ANP or class -> paths.
        numbers: path -> its number in the lists.
        seed: another seed gives another split and order.
        fraction: the share of training.
        duplicates: groups of identical files.
    """
    wanted = {group: sorted(paths) for group, paths in groups.items()}
    quotas = {}
    for group, paths in wanted.items():
        cut = train_count(len(paths), fraction)
        quotas[group] = [cut, len(paths) - cut]
    sides = _place(duplicates, wanted, quotas, seed, fraction)

    parts: tuple[list[Entry], list[Entry]] = ([], [])
    for group, paths in wanted.items():
        free = [path for path in paths if path not in sides]
        free.sort(key=lambda path: rank(seed, "split", path))
        sides.update(dict.fromkeys(free[: max(0, quotas[group][TRAIN])], TRAIN))
        for path in paths:
            parts[sides.get(path, TEST)].append(Entry(path, numbers[path]))
    for entries in parts:
        entries.sort(key=lambda entry: rank(seed, "order", entry.path))
    return parts


def _place(
    duplicates: Iterable[Sequence[str]],
    wanted: Mapping[Group, Sequence[str]],
    quotas: dict[Group, list[int]],
    seed: int,
    fraction: Fraction,
) -> dict[str, int]:
    """Path -> side for every duplicate; reduces the quotas of its group."""
    sides: dict[str, int] = {}
    owner = {path: group for group, paths in wanted.items() for path in paths} if duplicates else {}
    for same in duplicates:
        same = sorted(path for path in same if path in owner)
        if len(same) < 2:
            continue
        needs = Counter(owner[path] for path in same)
        draw = int.from_bytes(rank(seed, "side", same[0])[0][:4], "big")
        first = TRAIN if Fraction(draw, 1 << 32) < fraction else TEST
        fits = [s for s in (first, 1 - first) if all(quotas[g][s] >= n for g, n in needs.items())]
        side = fits[0] if fits else TRAIN  # too many for either quota
        for group, n in needs.items():
            quotas[group][side] -= n
        sides.update(dict.fromkeys(same, side))
    return sides


def rank(seed: int, purpose: str, path: str) -> tuple[bytes, str]:
    """A sorting key that shuffles paths by `seed`, independently for each `purpose`."""
    return hashlib.sha256(f"{seed}/{purpose}/{path}".encode()).digest(), path
