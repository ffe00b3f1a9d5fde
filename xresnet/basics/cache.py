"""The project's folders in the user's cache, for files that are downloaded once."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path


def folder(part: str) -> Path:
    """The folder of what `part` of the project has downloaded: `~/.cache/xresnet/PART`.

    $XDG_CACHE_HOME replaces `~/.cache`, and $XRESNET_CACHE all that precedes PART.
    """
    if ours := os.environ.get("XRESNET_CACHE", ""):
        return Path(ours).absolute() / part
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification has relative paths ignored.
    root = Path(base) if Path(base).is_absolute() else Path.home() / ".cache"
    return root / "xresnet" / part


@contextlib.contextmanager
def locked(place: Path, waiting: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Hold the exclusive lock of a folder, which is created if need be.

    The lock ends with the process at the latest. `waiting` is called if another process holds it.
    """
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
