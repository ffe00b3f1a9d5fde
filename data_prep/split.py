"""Train and test: 80/20, stratified by ANP (section 5.2).

An ANP with n images gives floor(0.8 n) of them to training: only this
rounding meets the paper's 307,185 of 384,258 over 553 ANPs.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

from data_prep.lists import Entry

TRAIN, TEST = 0, 1  # sides, and places in the pair that `split` returns


def train_count(n: int, fraction: Fraction) -> int:
    """floor(fraction * n), exactly: a float 0.8 turns some products just below an integer."""
    return n * fraction.numerator // fraction.denominator


def split(
    by_anp: Mapping[str, Sequence[str]],
    labels: Mapping[str, int],
    seed: int = 0,
    fraction: Fraction = Fraction(4, 5),
    duplicates: Iterable[Sequence[str]] = (),
) -> tuple[list[Entry], list[Entry]]:
    """Shuffled (train, test) lists of (path, ANP label).

    A file's place follows from the seed and its own path alone, through a
    hash: the order of `by_anp` and of its files, the machine and the Python
    do not matter. Identical files take one side together; the others make
    up for it, so that each ANP still gives floor(fraction n) to training
    wherever it has enough of them.

    Args:
        by_anp: ANP -> paths. ANPs outside `labels` are left out.
        labels: ANP -> label.
        duplicates: groups of identical files.
    """
    wanted = {anp: sorted(by_anp.get(anp, ())) for anp in labels}
    quotas = {}
    for anp, paths in wanted.items():
        cut = train_count(len(paths), fraction)
        quotas[anp] = [cut, len(paths) - cut]
    sides = _place(duplicates, wanted, quotas, seed, fraction)

    parts: tuple[list[Entry], list[Entry]] = ([], [])
    for anp, label in labels.items():
        free = [path for path in wanted[anp] if path not in sides]
        free.sort(key=lambda path: rank(seed, "split", path))
        cut = max(0, quotas[anp][TRAIN])
        sides.update(dict.fromkeys(free[:cut], TRAIN))
        for path in wanted[anp]:
            parts[sides.get(path, TEST)].append(Entry(path, label))
    for entries in parts:
        entries.sort(key=lambda entry: rank(seed, "order", entry.path))
    return parts


def _place(
    duplicates: Iterable[Sequence[str]],
    wanted: Mapping[str, Sequence[str]],
    quotas: dict[str, list[int]],
    seed: int,
    fraction: Fraction,
) -> dict[str, int]:
    """Path -> side for every duplicate; takes its place from its ANP's quotas."""
    sides: dict[str, int] = {}
    anps = {path: anp for anp, paths in wanted.items() for path in paths} if duplicates else {}
    for group in duplicates:
        group = sorted(path for path in group if path in anps)
        if len(group) < 2:
            continue
        needs = Counter(anps[path] for path in group)
        draw = int.from_bytes(rank(seed, "side", group[0])[0][:4], "big")
        first = TRAIN if Fraction(draw, 1 << 32) < fraction else TEST
        fits = [s for s in (first, 1 - first) if all(quotas[a][s] >= n for a, n in needs.items())]
        side = fits[0] if fits else TRAIN  # too many of them: training, whatever the quota
        for anp, n in needs.items():
            quotas[anp][side] -= n
        sides.update(dict.fromkeys(group, side))
    return sides


def rank(seed: int, purpose: str, path: str) -> tuple[bytes, str]:
    """A sorting key that shuffles paths by `seed`, otherwise for each `purpose`."""
    return hashlib.sha256(f"{seed}/{purpose}/{path}".encode()).digest(), path
