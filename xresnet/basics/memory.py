"""Whether freed memory stays with the process or is returned to the system."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable

# glibc's <malloc.h>
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4


def keep_freed(most: int | None = None) -> None:
    """Let malloc keep what is freed instead of handing it back to the system each time.

    By default each large array comes fresh from the system, which hands it over page by
    page, filled with zeros, and takes it back at the end: every image and every iteration
    again. A hint of glibc's: elsewhere nothing happens.

    Args:
        most: the largest block kept, in bytes (glibc takes up to 32 MiB), and a quarter of
            what may lie unused; None keeps everything.
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
    """Hand what is free at this moment back to the system, wherever it lies."""
    trim = _of_glibc("malloc_trim")
    if trim is not None:
        trim(0)


def _of_glibc(name: str) -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None), name, None) if os.name == "posix" else None
