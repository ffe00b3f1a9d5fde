"""Fonts for labels in any script: those of this machine, one behind the other.

matplotlib draws a character by the first font of a list that has it, and a box where none has.
So the list is made for the texts; what no font here has is shown as its code point, and said.
"""

from __future__ import annotations

import functools
import os
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

import matplotlib
from matplotlib import font_manager

_SHOWN = 8  # of the missing characters in a line about them


@dataclass(frozen=True)
class Fonts:
    """Fonts for some texts.

    `families`: what matplotlib's `family` takes.
    `missing`: the characters that none of them has.
    """

    families: tuple[str, ...]
    missing: str = ""

    def shown(self, text: str) -> str:
        """`text` as it can be drawn: a character that is missing as [U+9CE5]."""
        return "".join(f"[U+{ord(c):04X}]" if c in self.missing else c for c in _visible(text))

    @property
    def note(self) -> str:
        """One line about what is missing; "" where nothing is."""
        if not self.missing:
            return ""
        some = ", ".join(f"{c} (U+{ord(c):04X})" for c in self.missing[:_SHOWN])
        more = f" and {len(self.missing) - _SHOWN} more" if len(self.missing) > _SHOWN else ""
        return (
            f"no font on this machine has {some}{more}, so pictures show the code point; install "
            "fonts such as Noto's (Debian: fonts-noto-cjk, fonts-noto-core, fonts-symbola)"
        )


def fonts_for(texts: Iterable[str]) -> Fonts:
    """The fonts that draw `texts`: matplotlib's own, then others of this machine as needed."""
    own = font_manager.FontProperties()
    families = list(own.get_family())
    missing = set("".join(map(_visible, texts))) - set(" \n")
    missing -= _characters(font_manager.findfont(own))
    if missing:
        for family, path in _of_this_machine():
            if found := missing & _characters(path):
                families.append(family)
                missing -= found
            if not missing:
                break
    return Fonts(tuple(families), "".join(sorted(missing)))


def _visible(text: str) -> str:
    """`text` without what only says how others are drawn: joiners, turns, variation selectors."""
    return "".join(
        c for c in text if unicodedata.category(c) != "Cf" and not "\ufe00" <= c <= "\ufe0f"
    )


@functools.cache
def _characters(path: str) -> frozenset[str]:
    return frozenset(map(chr, font_manager.get_font(path).get_charmap()))


@functools.cache
def _of_this_machine() -> tuple[tuple[str, str], ...]:
    """Family and file of each upright font, the usual weight first.

    Asked anew in each process: matplotlib's own list does not learn of fonts that came later.
    """
    manager = font_manager.fontManager
    known = {entry.fname for entry in manager.ttflist}
    for path in sorted(set(font_manager.findSystemFonts()) - known):
        try:
            manager.addfont(path)
        except (RuntimeError, NotImplementedError, OSError, ValueError):  # bitmaps, as of emoji
            continue
    # What matplotlib brings beside its own is mathematics, by other codes than Unicode's, and
    # a "last resort" that draws each character of the world as a box.
    brought = os.path.join(matplotlib.get_data_path(), "")
    usual = sorted(
        (abs(int(entry.weight) - 400), entry.name, entry.fname)
        for entry in manager.ttflist
        if entry.style == "normal"
        and not entry.fname.startswith(brought)
        and "lastresort" not in entry.name.lower().replace(" ", "")
    )
    families: dict[str, str] = {}
    for _, name, path in usual:
        families.setdefault(name, path)
    return tuple(families.items())
