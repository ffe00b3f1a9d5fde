"""Fonts for labels in any script, chosen among those of this machine.

matplotlib draws a character with the first font of a list that has it, or as a box if none has.
The list is therefore made for the texts; a character without a font is shown as its code point.
"""

from __future__ import annotations

import functools
import os
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

import matplotlib
from matplotlib import font_manager

_SHOWN = 8  # missing characters that `note` names


@dataclass(frozen=True)
class Fonts:
    """Fonts for some texts.

    Attributes:
        families: the value for matplotlib's `family`.
        missing: the characters that none of them has.
    """

    families: tuple[str, ...]
    missing: str = ""

    def shown(self, text: str) -> str:
        """`text` with each missing character replaced by its code point, as [U+9CE5]."""
        return "".join(f"[U+{ord(c):04X}]" if c in self.missing else c for c in _visible(text))

    @property
    def note(self) -> str:
        """One line that names the missing characters; "" if there are none."""
        if not self.missing:
            return ""
        some = ", ".join(f"{c} (U+{ord(c):04X})" for c in self.missing[:_SHOWN])
        more = f" and {len(self.missing) - _SHOWN} more" if len(self.missing) > _SHOWN else ""
        return (
            f"no font on this machine has {some}{more}, so pictures show the code point; install "
            "fonts such as Noto's (Debian: fonts-noto-cjk, fonts-noto-core, fonts-symbola)"
        )


def fonts_for(texts: Iterable[str]) -> Fonts:
    """The fonts that draw `texts`: matplotlib's default, then others of this machine as needed."""
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
    """`text` without joiners, direction marks and variation selectors, which have no shape."""
    return "".join(
        c for c in text if unicodedata.category(c) != "Cf" and not "\ufe00" <= c <= "\ufe0f"
    )


@functools.cache
def _characters(path: str) -> frozenset[str]:
    return frozenset(map(chr, font_manager.get_font(path).get_charmap()))


@functools.cache
def _of_this_machine() -> tuple[tuple[str, str], ...]:
    """Family and file of each upright font, the regular weight first.

    The system is searched once per process: matplotlib's cached list lacks newly installed fonts.
    """
    manager = font_manager.fontManager
    known = {entry.fname for entry in manager.ttflist}
    for path in sorted(set(font_manager.findSystemFonts()) - known):
        try:
            manager.addfont(path)
        except (RuntimeError, NotImplementedError, OSError, ValueError):  # bitmaps, as of emoji
            continue
    # Left out: matplotlib's mathematical fonts, whose codes are not Unicode's, and "last resort"
    # fonts, which draw every character as a box.
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
