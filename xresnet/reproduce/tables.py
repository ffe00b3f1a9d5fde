"""Tables as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence


def markdown_table(
    heads: Sequence[str], aligned: str, rows: Iterable[Sequence[str]] = ()
) -> list[str]:
    """The lines of a table in Markdown.

    Args:
        aligned: `l` or `r` for each column, as in LaTeX.
    """
    rule = "".join(f"{'---:' if side == 'r' else '---'}|" for side in aligned)
    return [_line(heads), f"|{rule}", *map(_line, rows)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def csv_text(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table as CSV with a line of `heads`."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([heads, *rows])
    return text.getvalue()
