"""CSV whose cells a spreadsheet shows and never computes.

Names and reasons come from folders and servers that anybody may have filled, and a spreadsheet
computes a cell that begins like a formula. Such a cell is written with an apostrophe in front,
which `plain` removes.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

_FORMULA = ("=", "+", "-", "@", "\t")


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """The CSV text of a header and rows. None is an empty cell; a carriage return, which would
    start a new row, becomes a space."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([_guarded(value) for value in row] for row in rows)
    return out.getvalue()


def plain(cell: str) -> str:
    """The text of a cell before `table` guarded it."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_FORMULA) else cell


def _guarded(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    value = value.replace("\r", " ")
    return f"'{value}" if value.startswith(_FORMULA) else value
