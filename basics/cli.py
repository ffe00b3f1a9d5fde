"""One clear line for a user's mistake, and no traceback.

A command raises `UserError` with what is wrong, where, and what to do; `run`
turns it into one line on stderr and exit status 1. Anything else that
escapes is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Callable, Iterable
from typing import NoReturn


class UserError(Exception):
    """A mistake that the user can mend: what is wrong, where, what to do."""


def near_miss(word: str, known: Iterable[str]) -> str:
    """` (did you mean 'xs_resnet50'?)`, or nothing where nothing is near."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""


class Parser(argparse.ArgumentParser):
    """argparse whose help keeps its examples as they were typed."""

    def __init__(self, *args, **kwargs) -> None:
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        """One line, not the whole usage: exit status 2."""
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def run(main: Callable[[list[str] | None], int | None], prog: str) -> None:
    """Call `main(None)` and exit with its status, 1 on a UserError, 130 on Ctrl-C."""
    try:
        status = main(None) or 0
        sys.stdout.flush()
    except UserError as error:
        print(f"{prog}: error: {error}", file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        print(f"{prog}: interrupted", file=sys.stderr)
        status = 130
    except BrokenPipeError:  # `... | head` closed the pipe: the reader has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 141
    sys.exit(status)
