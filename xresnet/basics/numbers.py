"""Numbers with a range: what a count, a learning rate or a seed may be.

A `Number` is an argparse type (`add_argument("--lr", type=RATE)`); `Number.check` checks a value
from a file or a caller against the same range.
"""

from __future__ import annotations

import argparse
import math
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from xresnet.basics.cli import UserError

MOST = 2**31 - 1  # Caffe's int32 fields hold no more


def _as_float32(value: float) -> float:
    """`value` rounded to a 32-bit float, as Caffe's fields hold it; infinite if too large."""
    try:
        return struct.unpack("f", struct.pack("f", value))[0]
    except (OverflowError, struct.error):
        return math.inf


@dataclass(frozen=True)
class Number:
    """An integer or a finite real number within bounds.

    Args:
        what: the quantity, such as "a learning rate".
        kind: int or float.
        low: the lower bound, which `open_low` excludes.
        high: the upper bound, which `open_high` excludes.
        word: a text that is accepted instead of a number, such as "mean".
    """

    what: str
    kind: type
    low: float
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False
    word: str | None = None

    def __call__(self, text: str) -> Any:
        """Convert a command-line argument to the number, or return the word.

        Raises:
            argparse.ArgumentTypeError: it is not a number, or out of range.
        """
        if text == self.word:
            return text
        try:
            value = self.kind(text)
        except ValueError:
            value = None
        if value is None or not self.holds(value):
            raise argparse.ArgumentTypeError(f"expected {self}, not {text!r}")
        return value

    def holds(self, value: Any) -> bool:
        """Whether `value` is within the bounds, a real number also as a 32-bit float.

        NaN and infinities are not, nor are booleans.
        """
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        if self.kind is int:
            if not isinstance(value, int):
                return False
        else:
            value = _as_float32(value)
            if not math.isfinite(value):
                return False
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below

    def check(self, value: Any, where: str) -> Any:
        """Return `value` if it is within the bounds.

        Args:
            value: a number, or anything else.
            where: the option, or the file and the place in it, for errors.

        Raises:
            UserError: it is not such a number.
        """
        if not self.holds(value) and (self.word is None or value != self.word):
            raise UserError(f"{where}: expected {self}, not {value!r}")
        return value

    def __str__(self) -> str:
        low = high = ""
        if self.low != -math.inf:
            low = f"{'above' if self.open_low else 'from'} {self.low:g}"
        if math.isfinite(self.high) and self.high != MOST:
            bound = f"{self.high:g}" if self.kind is float else f"{self.high:,}"
            high = f"{'below' if self.open_high else 'to'} {bound}"
        word = f"or {self.word}" if self.word else ""
        return " ".join(filter(None, [self.what, low, high, word]))


def at_least(low: int, what: str = "an integer", most: int = MOST) -> Number:
    """The range of integers from `low` to `most`."""
    return Number(what, int, low, most)


COUNT = at_least(1)  # of epochs, images, ...
NATURAL = at_least(0)  # a count that may be zero
SEED = at_least(0, "a seed")
PIXELS = at_least(1, "pixels a side", most=4_096)
THREADS = at_least(1, "a number of threads", most=1_024)
PROCESSES = at_least(1, "a number of processes", most=1_024)
TRIES = at_least(0, "a number of tries", most=1_000)
WAIT = at_least(1, "whole seconds", most=86_400)
PORT = at_least(1, "a port", most=65_535)
SECONDS = Number("seconds", float, 0, 86_400, open_low=True)
POSITIVE = Number("a number", float, 0, open_low=True)
RATE = Number("a learning rate", float, 0, open_low=True)
FACTOR = Number("a number", float, 0)  # a multiplier or weight, which may be zero
FRACTION = Number("a fraction", float, 0, 1, open_low=True, open_high=True)
FINITE = Number("a finite number", float, -math.inf)


def exact_fraction(text: str) -> Fraction:
    """Convert `0.8` or `4/5`, above 0 and below 1, to an exact fraction; an argparse type.

    Raises:
        argparse.ArgumentTypeError: it is not such a fraction.
    """
    # Exponents are refused: 1e-999999999 has a billion digits.
    if re.fullmatch(r"\d?\.\d{1,18}|\d{1,9}/0*[1-9]\d{0,8}", text, re.ASCII):
        fraction = Fraction(text)
        if 0 < fraction < 1:
            return fraction
    raise argparse.ArgumentTypeError(
        f"expected a fraction above 0 and below 1, such as 0.8 or 4/5, not {text!r}"
    )


def as_fraction(value: Fraction | float | str, where: str) -> Fraction:
    """Convert a value to the fraction that `exact_fraction` makes of its text; 0.8 is 4/5.

    Raises:
        UserError: it is not such a fraction; `where` names its origin.
    """
    try:
        return exact_fraction(str(value))
    except argparse.ArgumentTypeError as error:
        raise UserError(f"{where}: {error}") from None


def several(one: Number, exactly: tuple[int, ...] = ()) -> Callable[[str], tuple[Any, ...]]:
    """An argparse type for comma-separated numbers.

    Args:
        one: the range of each.
        exactly: how many there may be; any number without.
    """

    def parse(text: str) -> tuple[Any, ...]:
        values = tuple(one(part.strip()) for part in text.split(","))
        if exactly and len(values) not in exactly:
            counts = " or ".join(map(str, exactly))
            raise argparse.ArgumentTypeError(f"expected {counts} values, not {text!r}")
        return values

    return parse
