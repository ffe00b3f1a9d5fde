"""Fonts for labels in any script, from those that a machine has."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from xresnet.basics.fonts import fonts_for

OURS = "\U00105aaa"  # for private use: no font but our own has it
NONES = "\u0378"  # stands for nothing


def drawn(text: str, families: tuple[str, ...]) -> np.ndarray:
    """The pixels of a text. matplotlib warns where it draws a box for want of a character."""
    figure = Figure((4, 1), dpi=50)
    figure.text(0, 0.5, text, family=list(families), parse_math=False)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def test_what_matplotlibs_own_font_has_needs_no_other():
    fonts = fonts_for(["chien, chat", 'ä "b" <b>$x^2$', "Ωμέγα", "кошка"])
    assert fonts.families == fonts_for([]).families and fonts.missing == fonts.note == ""
    assert fonts.shown("a_b $x$") == "a_b $x$"


def test_what_no_font_has_is_a_code_point_and_said():
    fonts = fonts_for(["cat", f"{NONES}x{NONES}", "a\u200d\ufe0fb"])
    assert fonts.missing == NONES
    assert fonts.shown(f"a{NONES}\n\u200db\ufe0f") == "a[U+0378]\nb"
    assert "U+0378" in fonts.note and "\n" not in fonts.note
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (drawn(fonts.shown(NONES), fonts.families) < 255).any()


def make_font(path: Path) -> None:
    """A font of one character: a square."""
    pen = TTGlyphPen(None)
    for i, point in enumerate(((0, 0), (0, 700), (700, 700), (700, 0))):
        (pen.lineTo if i else pen.moveTo)(point)
    pen.closePath()
    square = pen.glyph()
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder([".notdef", "square"])
    font.setupCharacterMap({ord(OURS): "square"})
    font.setupGlyf({".notdef": square, "square": square})
    font.setupHorizontalMetrics({".notdef": (800, 0), "square": (800, 0)})
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": "Ours", "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    path.parent.mkdir(parents=True)
    font.save(path)


def test_a_font_that_came_later_is_found(tmp_path):
    """matplotlib's own list of fonts is of the day when it was made."""
    assert fonts_for([OURS]).missing == OURS
    make_font(tmp_path / "fonts" / "ours.ttf")
    code = (
        "import warnings; warnings.simplefilter('error')\n"
        "from tests.basics.test_fonts import OURS, drawn, fonts_for\n"
        "fonts = fonts_for([OURS])\n"
        "assert fonts.families[-1] == 'Ours' and not fonts.missing, fonts\n"
        "assert fonts.shown(OURS) == OURS\n"
        "assert (drawn(OURS, fonts.families) < 255).any()\n"
    )
    environment = {**os.environ, "XDG_DATA_HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
