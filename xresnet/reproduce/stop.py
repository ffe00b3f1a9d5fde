"""The request to stop (Ctrl-C or a kill), and how it reaches all threads of this process.

`timeout`, SLURM and systemd send their SIGTERM to some processes twice. So the first signal
counts, and those that follow change nothing: what is being saved is saved.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

_asked = threading.Event()


def ask() -> None:
    """Let `check` stop every thread: Python raises KeyboardInterrupt in the main one alone."""
    _asked.set()


def clear() -> None:
    """The threads that were to stop have ended."""
    _asked.clear()


def check() -> None:
    """
    Raises:
        KeyboardInterrupt: somebody asked to stop.
    """
    if _asked.is_set():
        raise KeyboardInterrupt


@contextlib.contextmanager
def on_signals() -> Iterator[None]:
    """Within the block the first SIGINT or SIGTERM raises KeyboardInterrupt, once.

    After it both stay ignored, beyond the block too: the process is ending, and a second
    signal must not change its exit status. An ignored SIGINT stays so: a shell starts what
    it puts in the background that way.
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
