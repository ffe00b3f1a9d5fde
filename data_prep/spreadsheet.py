"""CSV for people: what a spreadsheet shows and does not compute.

A cell that begins like a formula is one to a spreadsheet, and names and reasons come from
folders and servers of anybody's. Such a cell gets an apostrophe in front, which `plain`
takes away again.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

_FORMULA = ("=", "+", "-", "@", "\t")


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """The CSV text; None is an empty cell, and numbers stay as they are.

    A carriage return, which would begin a row of its own, becomes a space.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([_guarded(value) for value in row] for row in rows)
    return out.getvalue()


def plain(cell: str) -> str:
    """A cell's text as it was before `table` guarded it."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_FORMULA) else cell


def _guarded(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    value = value.replace("\r", " ")
    return f"'{value}" if value.startswith(_FORMULA) else value
