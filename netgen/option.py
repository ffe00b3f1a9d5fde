"""How an option is declared, checked, and converted from and to command-line arguments."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass, field
from typing import Any, Callable

from netgen.tasks import Task
from xresnet.basics.cli import UserError, check_known, option_help
from xresnet.basics.numbers import Number, several


def option(default: Any, what: str, metavar: str | None = None, **more: Any) -> Any:
    """A field of a family that declares an option; the arguments are fields of `Option`."""
    return field(default=default, metadata={"what": what, "metavar": metavar, **more})


def flag(name: str) -> str:
    """`--cross-blocks` of `cross_blocks`."""
    return f"--{name.replace('_', '-')}"


@dataclass(frozen=True)
class Option:
    """An option, whose flag is `--` and its name.

    Args:
        name: the name of the field.
        family: the family that it belongs to.
        default: the paper's value; False makes a flag without a value.
        what: its help, to which range and default are added.
        metavar: the name of its value in the help.
        of: its range, a `Number`, or the words that there are; by default any text.
        many: whether its value is several such numbers, separated by commas.
        unset: what the default None stands for.
        parse: converts text from the command line, where `of` does not suffice.
        check: checks a value, where `of` does not suffice.
    """

    name: str
    family: type
    default: Any
    what: str
    metavar: str | None
    of: Any = None
    many: bool = False
    unset: str = ""
    parse: Callable[[str], Any] | None = None
    check: Callable[[Any], Any] | None = None

    @property
    def flag(self) -> str:
        return flag(self.name)

    def add_to(self, parser: argparse._ActionsContainer, dest: str, others: str = "") -> None:
        """Add it to an argparse parser, without a default; `others` are defaults for the help."""
        more: dict[str, Any] = {"metavar": self.metavar} if self.metavar else {}
        if self.default is False:
            more["action"] = "store_true"
        elif self.parse:
            more["type"] = self.parse
        elif isinstance(self.of, Number):
            more["type"] = several(self.of) if self.many else self.of
        elif self.of:
            more["choices"] = self.of
        what = "; ".join(filter(None, [self.help, others]))
        more["help"] = what.replace("%", "%%")  # argparse fills in what follows a %
        parser.add_argument(self.flag, dest=dest, default=argparse.SUPPRESS, **more)

    @property
    def help(self) -> str:
        """Its help: `channels of conv1; channels from 1 to 4,096; default: 64`."""
        known = self.of if isinstance(self.of, Number) else None
        if self.default is False:
            return option_help(self.what)
        default = self.unset if self.default in (None, ()) else spell(self.default)
        return option_help(self.what, known, default or "none")

    def checked(self, value: Any) -> Any:
        """Check a value; several numbers become a tuple.

        Raises:
            UserError: a number is out of range, a word unknown, or a text cannot be written.
        """
        if value is None and self.default is None:
            return None
        if self.check:
            return self.check(value)
        if not self.many:
            return self._checked_one(value)
        if not isinstance(value, (list, tuple)) or not value:
            raise UserError(f"{self.flag}: expected a list, each {self.of}, not {value!r}")
        return tuple(map(self._checked_one, value))

    def _checked_one(self, value: Any) -> Any:
        if isinstance(self.of, Number):
            return self.of.check(value, self.flag)
        if self.default is False:
            if not isinstance(value, bool):
                raise UserError(f"{self.flag}: expected True or False, not {value!r}")
        elif self.of:
            check_known(value, self.of, f"{self.flag}: unknown", listed=True)
        elif not isinstance(value, str) or not _is_writable(value):
            raise UserError(f"{self.flag}: {value!r} cannot be written into a prototxt")
        return value

    def words(self, value: Any) -> list[str]:
        """The command-line arguments that choose this value."""
        if self.default is False:
            return [self.flag] if value else []
        text = spell(value)
        # argparse would take some values that begin with - for an option.
        if text.startswith("-") and not re.fullmatch(r"-\d+|-\d*\.\d+", text):
            return [f"{self.flag}={text}"]
        return [self.flag, text]


def spell(value: Any) -> str:
    """A value as on the command line: `117`, `0.0442`, `1,1,1,3`, `adj:117,anp:553`."""
    if isinstance(value, tuple):
        return ",".join(map(_spell_item, value))
    return _spell_item(value)


def _spell_item(item: Any) -> str:
    if isinstance(item, Task):
        return f"{item.name}:{item.classes}"
    if isinstance(item, tuple):
        return ":".join(map(_spell_item, item))
    if isinstance(item, float):
        short = f"{item:g}"
        short = short if float(short) == item else repr(item)
        return re.sub(r"e([+-])0", r"e\1", short)
    return str(item)


def _is_writable(name: str) -> bool:
    """Whether a name can be written into a prototxt, and on one line of a comment."""
    try:
        name.encode()
    except UnicodeEncodeError:  # bytes that are not UTF-8, as Python holds them
        return False
    return bool(name.strip()) and "\0" not in name and len(name.splitlines()) == 1
