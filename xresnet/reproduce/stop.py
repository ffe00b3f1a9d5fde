"""The request to stop (Ctrl-C or a kill), and how it reaches all threads of this process.

`timeout`, SLURM and systemd send SIGTERM to some processes twice. Therefore only the first signal
counts, and later ones do not disturb what is being saved.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

_asked = threading.Event()


def ask() -> None:
    """Ask all threads to stop at their next `check`: Python interrupts the main thread only."""
    _asked.set()


def clear() -> None:
    """Forget the request, as all threads have ended."""
    _asked.clear()


def check() -> None:
    """Stop this thread if it was asked to.

    Raises:
        KeyboardInterrupt: `ask` was called.
    """
    if _asked.is_set():
        raise KeyboardInterrupt


@contextlib.contextmanager
def on_signals() -> Iterator[None]:
    """Within the block the first SIGINT or SIGTERM raises KeyboardInterrupt, once.

    After it both are ignored, also after the block: the process is ending, and a second signal
    must not change its exit status. A SIGINT that was ignored before stays ignored: a shell starts
    background commands that way.
    """
    numbers = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        numbers.append(signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}

    asked = False

    def first(*_: object) -> None:
        nonlocal asked
        asked = True
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in numbers:
        signal.signal(number, first)
    try:
        yield
    finally:
        if not asked:
            for number, handler in before.items():
                signal.signal(number, handler)
