"""Command lines: one clear line for a user's mistake, and no traceback.

A command raises `UserError` with what is wrong, where, and what to do; `run` prints it as one
line on stderr and exits with status 1. Any other exception is a bug and keeps its traceback.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
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
    """` (did you mean 'xs_resnet50'?)`, or an empty string where no known word is similar."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""


def check_known(word: str, known: Iterable[str], told: str, listed: bool = False) -> None:
    """Check that a word is one of the known ones.

    Args:
        word: what is given.
        known: the words that there are.
        told: the error's beginning, to which the word and a similar one are added.
        listed: whether the error lists the known words as well.

    Raises:
        UserError: the word is not known.
    """
    known = list(known)
    if word not in known:
        more = f"; there are {', '.join(known)}" if listed else ""
        raise UserError(f"{told} {word!r}{near_miss(str(word), known)}{more}")


def shortened(names: Sequence[str], most: int = 10) -> str:
    """The first `most` of the names on one line, followed by dots if there are more."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that keeps the line breaks of its examples and refuses empty values.

    An empty value usually comes from an unset shell variable; as a path it would mean the
    current folder. Every parser has --version, which prints the project's version.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)
        version = f"{self.prog} {xresnet.__version__}"
        what = "print the version and exit"
        self.add_argument("--version", action="version", version=version, help=what)

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        if action.nargs != argparse.PARSER and not all(value.strip() for value in arg_strings):
            raise argparse.ArgumentError(action, "the value is empty")
        return super()._get_values(action, arg_strings)

    def error(self, message: str) -> NoReturn:
        """Print one line instead of the whole usage, and exit with status 2."""
        self.exit(2, f"{self.prog}: error: {printable(message)} (see {self.prog} --help)\n")


def option_help(what: str, of: object = None, default: object = None) -> str:
    """The help of an option: `epochs averaged; an integer from 1; default: 2`.

    Args:
        what: its meaning.
        of: its range, if it has one.
        default: the value without the option, if there is one.
    """
    return "; ".join(filter(None, [what, str(of or ""), f"default: {default}" if default else ""]))


def printable(text: object) -> str:
    """`text` with control characters and lone surrogates escaped, safe to print to a terminal.

    File names can hold any bytes: `\\x1b[2J` in one would clear the screen, and one that is not
    UTF-8 could not be printed at all. Line ends and tabs are kept.
    """
    return "".join(c if c in "\n\t" or is_printable(c) else _escaped(c) for c in str(text))


def is_printable(c: str) -> bool:
    """Whether a character can be printed to a terminal without side effects."""
    # Cc: controls; Cf: among them those that turn the direction of writing; Cs: surrogates
    return unicodedata.category(c) not in ("Cc", "Cf", "Cs")


def _escaped(c: str) -> str:
    if "\udc80" <= c <= "\udcff":  # a byte that is not UTF-8, as Python holds it in a name
        return f"\\x{ord(c) - 0xDC00:02x}"
    return c.encode("unicode_escape", "surrogatepass").decode()


def run(main: Callable[[list[str] | None], int | None] | str, prog: str) -> None:
    """Call a command's `main(None)` and exit with its status.

    The status is 1 after a UserError or an OSError (a full disk, no permission), each printed as
    one line, and 130 after Ctrl-C.

    Args:
        main: the function, or the name of the module that has it. A module is imported only
            here, so that Ctrl-C during the import does not print a traceback either.
        prog: the command's name, which begins each line.
    """
    # What the terminal's encoding lacks is printed escaped instead of raising an error.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        function = importlib.import_module(main).main if isinstance(main, str) else main
        status = function(None) or 0
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
