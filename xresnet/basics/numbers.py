"""Numbers with a range: the one place that says what a count, a rate or a seed may be.

A `Number` is an argparse type (`add_argument("--lr", type=RATE)`), and `check` holds a value
that came another way, from a file or a caller, to the same range.
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
    """What Caffe's float fields make of `value`; what is too large for them is infinite."""
    try:
        return struct.unpack("f", struct.pack("f", value))[0]
    except (OverflowError, struct.error):
        return math.inf


@dataclass(frozen=True)
class Number:
    """An integer or a finite real number within bounds.

    Args:
        what: the field's word for it, as in "a learning rate".
        kind: int or float.
        low: the smallest value; with `open_low` it is itself excluded.
        high: the largest value; with `open_high` it is itself excluded.
        word: what may stand in a number's place, as "mean".
    """

    what: str
    kind: type
    low: float
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False
    word: str | None = None

    def __call__(self, text: str) -> Any:
        """The number that `text` spells, or the word.

        Raises:
            argparse.ArgumentTypeError: no such number, or out of range; says which are.
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
        """Whether `value` is such a number, a real one as Caffe's floats hold it.

        NaN and what is infinite there never are.
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
        """`value`, which `where` gives.

        Raises:
            UserError: it is not such a number.
        """
        if not self.holds(value) and (self.word is None or value != self.word):
            raise UserError(f"{where}: expected {self}, not {value!r}")
        return value

    def __str__(self) -> str:
        low = (
            "" if self.low == -math.inf else f"{'above' if self.open_low else 'from'} {self.low:g}"
        )
        high = ""
        if math.isfinite(self.high) and self.high != MOST:
            bound = f"{self.high:g}" if self.kind is float else f"{self.high:,}"
            high = f"{'below' if self.open_high else 'to'} {bound}"
        word = f"or {self.word}" if self.word else ""
        return " ".join(filter(None, [self.what, low, high, word]))


def at_least(low: int, what: str = "an integer", most: int = MOST) -> Number:
    """Integers from `low` to `most`."""
    return Number(what, int, low, most)


COUNT = at_least(1)  # of things there must be one of: epochs, batches, images
NATURAL = at_least(0)  # where none is a choice
SEED = at_least(0, "a seed")
PIXELS = at_least(1, "pixels a side", most=4_096)
THREADS = at_least(1, "a number of threads", most=1_024)
PROCESSES = at_least(1, "a number of processes", most=1_024)
TRIES = at_least(0, "a number of tries", most=1_000)
WAIT = at_least(1, "whole seconds", most=86_400)  # as SECONDS, where parts are not taken
PORT = at_least(1, "a port", most=65_535)
SECONDS = Number("seconds", float, 0, 86_400, open_low=True)
POSITIVE = Number("a number", float, 0, open_low=True)
RATE = Number("a learning rate", float, 0, open_low=True)
FACTOR = Number("a number", float, 0)  # a multiplier or weight that may be nothing
SHARE = Number("a share", float, 0, 1)
FRACTION = Number("a fraction", float, 0, 1, open_low=True, open_high=True)
FINITE = Number("a finite number", float, -math.inf)


def exact_fraction(text: str) -> Fraction:
    """The argparse type of `0.8` or `4/5`, above 0 and below 1, exactly.

    Raises:
        argparse.ArgumentTypeError: no such fraction.
    """
    # No exponents: 1e-999999999 is a number of a billion digits.
    if re.fullmatch(r"\d?\.\d{1,18}|\d{1,9}/0*[1-9]\d{0,8}", text, re.ASCII):
        fraction = Fraction(text)
        if 0 < fraction < 1:
            return fraction
    raise argparse.ArgumentTypeError(
        f"expected a fraction above 0 and below 1, such as 0.8 or 4/5, not {text!r}"
    )


def as_fraction(value: Fraction | float | str, where: str) -> Fraction:
    """`value`, which `where` gives, as `exact_fraction` takes it; 0.8 is 4/5.

    Raises:
        UserError: it is not such a fraction.
    """
    try:
        return exact_fraction(str(value))
    except argparse.ArgumentTypeError as error:
        raise UserError(f"{where}: {error}") from None


def several(one: Number, exactly: tuple[int, ...] = ()) -> Callable[[str], tuple[Any, ...]]:
    """The argparse type of comma-separated numbers, as many as one of `exactly` says if given."""

    def parse(text: str) -> tuple[Any, ...]:
        values = tuple(one(part.strip()) for part in text.split(","))
        if exactly and len(values) not in exactly:
            counts = " or ".join(map(str, exactly))
            raise argparse.ArgumentTypeError(f"expected {counts} values, not {text!r}")
        return values

    return parse
