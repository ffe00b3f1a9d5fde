"""The rows of a table: one row per image, one column per task.

CSV, TSV, JSON lines or Parquet. A cell's text is the class; an empty cell is no label. Blanks at
its ends are left off, several in a row are one, and Unicode is taken in its composed form (NFC),
so that what looks the same is the same class.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.split import TEST, TRAIN
from xresnet.basics.cli import UserError, near_miss
from xresnet.basics.files import PathLike, read_text

FORMATS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
_SIDES = {"train": TRAIN, "test": TEST}  # what cells of a split's column say


@dataclass(frozen=True)
class Row:
    """An image: where its row stands, its path, its class of each task ("" for none), its side."""

    where: str
    path: str
    labels: tuple[str, ...]
    side: int | None = None


def read(
    table: PathLike, tasks: Mapping[str, str], path: str = "path", side: str | None = None
) -> list[Row]:
    """The rows of a table.

    Args:
        tasks: task -> its column.
        path: the column of paths, relative to the image folder.
        side: the column that says train or test.

    Raises:
        UserError: it cannot be read, has no such column or no row, or a row's cells are wrong:
            its line.
    """
    rows: list[Row] = []
    seen: dict[str, str] = {}
    wanted = [path, *tasks.values(), *([side] if side else [])]
    for where, cells in _read(Path(table)):
        for column in wanted:
            if column not in cells:
                raise UserError(
                    f"{where}: no column {column!r}{near_miss(column, cells)}; there are "
                    f"{', '.join(cells)}"
                )
        name = _path(cells[path], where)
        if name in seen:
            raise UserError(f"{where}: {name} is already at {seen[name]}")
        seen[name] = where
        labels = tuple(label(cells[column], where, column) for column in tasks.values())
        rows.append(Row(where, name, labels, _side(cells[side], where) if side else None))
    if not rows:
        raise UserError(f"{table}: no row in it")
    return rows


def _read(table: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """(where it stands, column -> cell) of each row."""
    kind = table.suffix.lower()
    if kind not in FORMATS:
        raise UserError(f"{table}: expected a table named {', '.join('*' + f for f in FORMATS)}")
    if kind == ".parquet":
        return _read_parquet(table)
    text = read_text(table).lstrip("\ufeff")
    if kind in (".jsonl", ".ndjson"):
        return _read_json(table, text)
    return _read_csv(table, text, "\t" if kind == ".tsv" else ",")


def _read_csv(table: Path, text: str, delimiter: str) -> Iterator[tuple[str, dict[str, str]]]:
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    columns: list[str] = []
    begin = 1
    while True:
        where = f"{table}:{begin}"
        try:
            cells = next(lines)
        except StopIteration:
            return
        except csv.Error as error:
            raise UserError(f"{where}: no row of a table ({error})") from None
        begin = lines.line_num + 1
        if not any(cell.strip() for cell in cells):
            continue
        if not columns:
            columns = [cell.strip() for cell in cells]
            twice = [name for name, n in Counter(columns).items() if n > 1 and name]
            if twice:
                raise UserError(f"{where}: two columns are named {twice[0]!r}")
            continue
        if len(cells) != len(columns):
            raise UserError(f"{where}: {len(cells)} cells, the header has {len(columns)}")
        yield where, dict(zip(columns, cells))


def _read_json(table: Path, text: str) -> Iterator[tuple[str, dict[str, str]]]:
    columns: dict[str, None] = {}
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{table}:{number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}: not JSON ({error})") from None
        if not isinstance(row, dict):
            raise UserError(f"{where}: expected an object, {{...}}, a line")
        columns.update(dict.fromkeys(row))
        found.append((where, row))
    for where, row in found:  # what a line leaves out is an empty cell
        yield where, {column: _cell(row.get(column), where, column) for column in columns}


def _read_parquet(table: Path) -> Iterator[tuple[str, dict[str, str]]]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import read_table
    except ImportError:
        raise UserError(f"{table}: Parquet needs pyarrow: pip install pyarrow") from None
    try:
        rows = read_table(table).to_pylist()
    except (ArrowException, OSError) as error:
        raise UserError(f"{table}: no Parquet table ({error})") from None
    for number, row in enumerate(rows, 1):
        where = f"{table}, row {number}"
        yield where, {name: _cell(value, where, name) for name, value in row.items()}


def _cell(value: Any, where: str, column: str) -> str:
    """A value of JSON or Parquet as a cell's text."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (str, int, float)):
        return str(value)
    raise UserError(f"{where}: {column} is neither a text nor a number")


def _path(text: str, where: str) -> str:
    name = text.strip()
    if not name:
        raise UserError(f"{where}: no path in it")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UserError(f"{where}: the path {name!r} is not UTF-8") from None
    if any(c in name for c in "\n\r\0"):
        raise UserError(f"{where}: a path with a line break: {name!r}")
    if name.startswith("/") or ".." in name.split("/"):
        raise UserError(f"{where}: {name} leaves the image folder: paths are relative to --images")
    return os.path.normpath(name)


def label(text: str, where: str, column: str) -> str:
    """A label's one form, whichever way it was typed.

    Raises:
        UserError: it holds what no text shows; begins with `where`.
    """
    # A file's mark at its begin stands within, where files were joined.
    name = unicodedata.normalize("NFC", " ".join(text.replace("\ufeff", "").split()))
    wrong = next((c for c in name if unicodedata.category(c) in ("Cc", "Cs")), None)
    if name and all(unicodedata.category(c) == "Cf" for c in name):
        wrong = name
    if wrong is not None:
        raise UserError(f"{where}: {column} holds {wrong!r}, which no text shows")
    return name


def _side(text: str, where: str) -> int:
    side = _SIDES.get(text.strip().lower())
    if side is None:
        raise UserError(f"{where}: expected train or test, found {text!r}")
    return side
