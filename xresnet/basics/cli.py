"""One clear line for a user's mistake, and no traceback.

A command raises `UserError` with what is wrong, where, and what to do; `run`
turns it into one line on stderr and exit status 1. Anything else that
escapes is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

import argparse
import difflib
import io
import os
import sys
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

import xresnet


class UserError(Exception):
    """A mistake that the user can correct: what is wrong, where, and what to do."""


def near_miss(word: str, known: Iterable[str]) -> str:
    """` (did you mean 'xs_resnet50'?)`, or nothing where nothing is near."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""


def shortened(names: Sequence[str], most: int = 10) -> str:
    """The first of some names, for one line; dots stand for the others."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


class Parser(argparse.ArgumentParser):
    """argparse whose help keeps its examples as they were typed, and that takes no empty value.

    An empty value is a shell's variable that was not set; as a path it would be the
    present folder. Every command has --version, which is the project's.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)
        told = f"{self.prog} {xresnet.__version__}"
        what = "print the version and exit"
        self.add_argument("--version", action="version", version=told, help=what)

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        if action.nargs != argparse.PARSER and not all(value.strip() for value in arg_strings):
            raise argparse.ArgumentError(action, "the value is empty")
        return super()._get_values(action, arg_strings)

    def error(self, message: str) -> NoReturn:
        """One line, not the whole usage: exit status 2."""
        self.exit(2, f"{self.prog}: error: {printable(message)} (see {self.prog} --help)\n")


def told(what: str, of: object = None, default: object = None) -> str:
    """An option's help in the one style: `epochs averaged; an integer from 1; default: 2`.

    Args:
        of: its range, where that has words.
        default: what is taken without the option; None where there is no such thing.
    """
    return "; ".join(
        [what, *([str(of)] if of else []), *([f"default: {default}"] if default else [])]
    )


def printable(text: object) -> str:
    """`text` as a terminal may show it: no escapes or other controls, no half of a character.

    File names are bytes that anybody chose: `\\x1b[2J` in one would clear the screen, and one
    that is not UTF-8 cannot be printed at all. Line ends and tabs stay.
    """
    return "".join(c if c in "\n\t" or shows(c) else _escaped(c) for c in str(text))


def shows(c: str) -> bool:
    """Whether a terminal shows this character, and only that."""
    # Cc: controls; Cf: among them those that turn the direction of writing; Cs: surrogates
    return unicodedata.category(c) not in ("Cc", "Cf", "Cs")


def _escaped(c: str) -> str:
    if "\udc80" <= c <= "\udcff":  # a byte that is not UTF-8, as Python holds it in a name
        return f"\\x{ord(c) - 0xDC00:02x}"
    return c.encode("unicode_escape", "surrogatepass").decode()


def run(main: Callable[[list[str] | None], int | None], prog: str) -> None:
    """Call `main(None)` and exit with its status: 1 on a UserError or an error of the system's
    (a full disk, no right), 130 on Ctrl-C."""
    # What cannot be printed in the terminal's encoding is shown escaped, not a traceback.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        status = main(None) or 0
        sys.stdout.flush()
    except UserError as error:
        status = _say(prog, error)
    except KeyboardInterrupt:
        print(f"{prog}: interrupted", file=sys.stderr)
        status = 130
    except BrokenPipeError:  # `... | head` closed the pipe: the reader has had enough
        status = 141
    except OSError as error:  # the disk is full, a folder went away, no right to read
        if error.strerror is None:
            raise
        status = _say(prog, f"{error.filename or 'cannot write the output'}: {error.strerror}")
    if status:  # what could not be printed must not be tried again, with a complaint, at the end
        try:
            sys.stdout.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)


def _say(prog: str, error: object) -> int:
    print(f"{prog}: error: {printable(error)}", file=sys.stderr)
    return 1
