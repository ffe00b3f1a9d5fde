"""Whether freed memory stays with the process or is returned to the system (glibc's malloc)."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable

# glibc's <malloc.h>
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4


def keep_freed(most: int | None = None) -> None:
    """Make malloc keep freed memory instead of returning it to the system.

    By default each large array is mapped anew, filled with zeros page by page, and unmapped
    when it is freed: for every image and every iteration. Without glibc this has no effect.

    Args:
        most: the size of the largest block that is kept, in bytes (at most 32 MiB); up to four
            times as much may stay unused. None keeps everything.
    """
    mallopt = _of_glibc("mallopt")
    if mallopt is None:
        return
    if most is None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, -1)
    else:
        mallopt(_MMAP_THRESHOLD, most)
        mallopt(_TRIM_THRESHOLD, 4 * most)


def give_back() -> None:
    """Return the memory that is free at this moment to the system."""
    trim = _of_glibc("malloc_trim")
    if trim is not None:
        trim(0)


def _of_glibc(name: str) -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None), name, None) if os.name == "posix" else None
