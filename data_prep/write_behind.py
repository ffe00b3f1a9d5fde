"""A thread that writes a growing file to the disk while its writer continues."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path


class WriteBehind:
    """Syncs a file whenever it is told to and gives its pages back to the system.

    Left alone, a database of 58 GB fills the machine's memory with pages that
    nobody reads again soon, every record is copied into a page fetched anew, and
    the last sync waits for gigabytes. Handing back what has reached the disk
    keeps the few pages in use warm.

    Errors are none of its business: the system reports them once for each open
    file, so the writer's own sync still sees them.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR)
        self._told = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=f"sync {path.name}", daemon=True)
        self._thread.start()

    def tell(self) -> None:
        """There is more to sync; returns at once."""
        self._told.set()

    def close(self) -> None:
        """Wait for a sync that is under way, start none."""
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


_sync = getattr(os, "fdatasync", os.fsync)  # macOS has neither this one


def _drop(file: int) -> None:
    if hasattr(os, "posix_fadvise"):  # nor this
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
