"""This project's folders in the user's cache, for files that are downloaded once."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path


def folder(part: str) -> Path:
    """Where `part` of this project keeps what it fetched: `~/.cache/xresnet/PART`.

    $XDG_CACHE_HOME stands for `~/.cache`, $XRESNET_CACHE for all before PART.
    """
    if ours := os.environ.get("XRESNET_CACHE", ""):
        return Path(ours).absolute() / part
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The standard says that a relative path there is to be ignored.
    root = Path(base) if Path(base).is_absolute() else Path.home() / ".cache"
    return root / "xresnet" / part


@contextlib.contextmanager
def alone(place: Path, waiting: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Hold a folder against others who want it alone, made if need be; ends with the process.

    `waiting` is called where another holds it already.
    """
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
