"""Pictures by matplotlib: one style, and files of .svg, .png and .pdf."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import matplotlib

from netgen.paper import paper
from xresnet.basics import bars
from xresnet.basics.cli import UserError, printable
from xresnet.basics.files import write
from xresnet.basics.fonts import fonts_for

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.text import Text

plt.rcParams.update(
    {
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.25,
        "svg.fonttype": "none",  # text as text: small, and it can be selected
        "svg.hashsalt": "xresnet",  # the same picture is the same file
        "legend.frameon": False,
        "text.parse_math": False,  # `$` in a run's name is a dollar
    }
)
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # for every eye
PANEL = 3.3  # inches: the width of one of many small charts
FORMATS = {".svg", ".png", ".pdf"}


def save(figure: Figure, path: Path) -> Path:
    """Write a picture: .svg, .png or .pdf.

    Raises:
        UserError: the suffix is another, or the file cannot be written.
    """
    return write(path, render(figure, path.suffix.lower()))


def hold_suffix(suffix: str) -> None:
    """Check that a file's suffix is a picture's.

    Raises:
        UserError: it is not.
    """
    if suffix not in FORMATS:
        raise UserError(f"a picture is {', '.join(sorted(FORMATS))}, not {suffix or 'nameless'}")


def render(figure: Figure, suffix: str = ".svg", whole: bool = False) -> bytes:
    """The picture's bytes, cropped to what is drawn; `whole` keeps the figure's size."""
    hold_suffix(suffix)
    target = io.BytesIO()
    metadata = {"Date": None} if suffix == ".svg" else None
    box = None if whole else "tight"
    texts = figure.findobj(Text)
    fonts = fonts_for(text.get_text() for text in texts)
    for text in texts if fonts != fonts_for([]) else ():
        text.set_fontfamily(list(fonts.families))
        if suffix != ".svg":
            text.set_text(fonts.shown(text.get_text()))
    if fonts.note and suffix != ".svg":
        bars.say(fonts.note)
    with warnings.catch_warnings():
        if suffix == ".svg":  # whose text is drawn by who shows it, with fonts of their own
            warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from")
        if figure.get_layout_engine() is None:
            figure.tight_layout()
        figure.savefig(target, format=suffix[1:], dpi=150, bbox_inches=box, metadata=metadata)
    plt.close(figure)
    return target.getvalue()


def panel(rows: int = 1, height: float = 2.1) -> tuple[Figure, tuple[Any, ...]]:
    """A small chart of `rows` plots, one below the other, `height` inches in all."""
    figure, axes = plt.subplots(
        rows, 1, figsize=(PANEL, height), sharex=True, squeeze=False, layout="constrained"
    )
    return figure, tuple(axes[:, 0])


def task_title(task: str) -> str:
    return printable(paper()["tasks"].get(task, task)) or "all"
