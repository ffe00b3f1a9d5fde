"""Progress bars: a bar in a terminal, occasional lines in a log."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

from xresnet.basics.cli import printable

EVERY = 15  # seconds between the lines in a log; shorter work leaves none


def bar(
    items: Iterable[Any] | None = None, what: str = "", total: int | None = None, **more: Any
) -> tqdm[Any]:
    """A tqdm bar on stderr, over `items` or advanced by `update`.

    Args:
        items: what to iterate over.
        what: the text before the bar.
        total: the number of items, where it is not `len(items)`.
        more: further arguments of tqdm.
    """
    if not sys.stderr.isatty():
        more |= {"mininterval": EVERY, "maxinterval": EVERY, "delay": EVERY}
        more |= {"file": _Lines(), "position": 0}  # a log has no cursor to move
    return tqdm(items, what, total, **more)


def say(line: str) -> None:
    """Print a line to stderr, above the bar if there is one, with control characters escaped."""
    tqdm.write(printable(line), file=sys.stderr)


class _Lines:
    """stderr, where each state of a bar becomes a line."""

    def write(self, text: str) -> None:
        state = text.strip("\r\n ")
        if state:
            sys.stderr.write(f"{state}\n")

    def flush(self) -> None:
        sys.stderr.flush()
