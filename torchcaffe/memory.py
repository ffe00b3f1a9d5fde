"""Memory that is freed stays with the process: the next iteration wants the same again."""

from __future__ import annotations

import ctypes
import os

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep() -> None:
    """Tell glibc to give nothing back to the system; elsewhere nothing happens.

    By default each large array comes fresh from the system, which hands it over page by
    page, filled with zeros, and takes it back at the end: every iteration again.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, -1)
