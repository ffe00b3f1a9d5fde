"""Train and test: 80/20, stratified, as the paper's by ANP (section 5.2).

An ANP with n images gives floor(0.8 n) of them to training: only this
rounding meets the paper's 307,185 of 384,258 over 553 ANPs.
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
    """floor(fraction * n), exactly: a float 0.8 turns some products just below an integer."""
    return n * fraction.numerator // fraction.denominator


def split(
    groups: Mapping[Group, Sequence[str]],
    numbers: Mapping[str, int],
    seed: int = 0,
    fraction: Fraction = Fraction(4, 5),
    duplicates: Iterable[Sequence[str]] = (),
) -> tuple[list[Entry], list[Entry]]:
    """Shuffled (train, test) lists: of each group a share for training.

    A file's place follows from the seed and its own path alone, through a
    hash: the order of `groups` and of their files, the machine and the Python
    do not matter. Identical files take one side together; the others make
    up for it, so that each group still gives floor(fraction n) to training
    wherever it has enough of them.

    Args:
        groups: what is divided alike, as an ANP or a class -> paths.
        numbers: path -> its number in the lists.
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
    """Path -> side for every duplicate; takes its place from its group's quotas."""
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
        side = fits[0] if fits else TRAIN  # too many of them: training, whatever the quota
        for group, n in needs.items():
            quotas[group][side] -= n
        sides.update(dict.fromkeys(same, side))
    return sides


def rank(seed: int, purpose: str, path: str) -> tuple[bytes, str]:
    """A sorting key that shuffles paths by `seed`, otherwise for each `purpose`."""
    return hashlib.sha256(f"{seed}/{purpose}/{path}".encode()).digest(), path
