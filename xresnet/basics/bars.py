"""Progress of long work: a bar in a terminal, occasional lines in a log."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

from xresnet.basics.cli import printable

EVERY = 15  # seconds between the lines of a log; work that takes less leaves none


def bar(
    items: Iterable[Any] | None = None, what: str = "", total: int | None = None, **more: Any
) -> tqdm[Any]:
    """tqdm's bar on stderr, over `items` or moved by `update`; `more` is tqdm's too."""
    if not sys.stderr.isatty():
        more |= {"mininterval": EVERY, "maxinterval": EVERY, "delay": EVERY}
        more |= {"file": _Lines(), "position": 0}  # of several none moves a cursor
    return tqdm(items, what, total, **more)


def say(line: str) -> None:
    """A line on stderr, above the bar if there is one; names in it as a terminal may show them."""
    tqdm.write(printable(line), file=sys.stderr)


class _Lines:
    """stderr, where every state of a bar becomes a line of its own."""

    def write(self, text: str) -> None:
        state = text.strip("\r\n ")
        if state:
            sys.stderr.write(f"{state}\n")

    def flush(self) -> None:
        sys.stderr.flush()
