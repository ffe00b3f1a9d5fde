"""Find files with the same bytes without reading most of them.

Only files of the same size can be identical. Of those, the ones with the same last bytes (in an
image, compressed data that is as good as a hash) are read completely.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path

from data_prep.decode import MOST_BYTES
from xresnet.basics import bars
from xresnet.basics.files import sha256

_TAIL = 64  # bytes


def find(root: Path, paths: Iterable[str]) -> list[list[str]]:
    """The groups of identical files among `paths` (relative to `root`), each sorted.

    Empty, unreadable and oversized files are in no group, as they give no image.
    """
    base = os.fspath(root)
    groups = [list(paths)]
    sizes: dict[str, int] = {}

    def size(path: str) -> int:
        found = os.path.getsize(path)
        return sizes.setdefault(path, found if found <= MOST_BYTES else 0)

    def tail(path: str) -> bytes:
        return _tail(path, sizes[path])

    for what, look in (("sizes", size), ("tails", tail), ("duplicates", sha256)):
        groups = _divide(base, groups, look, what)
    return sorted(sorted(group) for group in groups)


def _divide(
    base: str, groups: list[list[str]], look: Callable[[str], Hashable], what: str
) -> list[list[str]]:
    divided = []
    total = sum(map(len, groups))
    with bars.bar(what=what, total=total, unit="file") as bar:
        for group in groups:
            by_look: dict[Hashable, list[str]] = defaultdict(list)
            for path in group:
                try:
                    by_look[look(f"{base}/{path}")].append(path)
                except OSError:
                    continue
            bar.update(len(group))
            divided += [same for seen, same in by_look.items() if len(same) > 1 and seen]
    return divided


def _tail(path: str, size: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.pread(descriptor, _TAIL, max(0, size - _TAIL))
    finally:
        os.close(descriptor)
