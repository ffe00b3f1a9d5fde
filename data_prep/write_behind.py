"""Sync a growing file to the disk in a thread, while its writer continues."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path


class WriteBehind:
    """Syncs a file on request and releases its pages from the page cache.

    Otherwise a database of 58 GB fills the memory with pages that are not read again soon, each
    record is copied into a new page, and the last sync takes minutes.

    Errors are ignored: the system reports them once for each open file, so that the writer's own
    sync still sees them.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR)
        self._told = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=f"sync {path.name}", daemon=True)
        self._thread.start()

    def tell(self) -> None:
        """Request a sync; returns at once."""
        self._told.set()

    def close(self) -> None:
        """Wait for a running sync and end the thread."""
        self._closing = True
        self._told.set()
        self._thread.join()
        os.close(self._file)

    def _run(self) -> None:
        while True:
            self._told.wait()
            self._told.clear()
            if self._closing:
                return
            with contextlib.suppress(OSError):
                _sync(self._file)
                _drop(self._file)


_sync = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync


def _drop(file: int) -> None:
    if hasattr(os, "posix_fadvise"):  # nor posix_fadvise
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
