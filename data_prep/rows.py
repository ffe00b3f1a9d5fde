"""The rows of a table: one row per image, one column per task.

CSV, TSV, JSON lines or Parquet. A cell's text is the class; an empty cell is a missing label.
Blanks at the ends of a label and of a column's name are removed, several in a row become one,
and Unicode is normalised to NFC, so that what looks the same is the same.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.images import unfit_for_lists
from data_prep.split import TEST, TRAIN
from xresnet.basics.cli import UserError, near_miss
from xresnet.basics.files import MOST_TEXT, PathLike, read_text

FORMATS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
MOST_LABEL = 1_000  # characters; a longer text is a description, not a class
_SIDES = {"train": TRAIN, "test": TEST}  # what cells of a split's column say
_Rows = Iterator[tuple[str, list[str]]]  # where a row stands, and its cells of some columns


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
    """Read the rows of a table. Columns that are not asked for may hold anything.

    Args:
        tasks: task -> its column.
        path: the column of paths, relative to the image folder.
        side: the column that says train or test.

    Raises:
        UserError: the table cannot be read, lacks a column or has no row, or a cell is wrong
            (the message names its line).
    """
    rows: list[Row] = []
    seen: dict[str, str] = {}
    columns = [_one_form(name) for name in (path, *tasks.values(), *([side] if side else []))]
    for where, (name, *cells) in _read(Path(table), columns):
        name = _path(name, where)
        if name in seen:
            raise UserError(f"{where}: {name} is already at {seen[name]}")
        seen[name] = where
        labels = tuple(label(*both, where) for both in zip(cells, tasks.values()))
        rows.append(Row(where, name, labels, _side(cells[-1], where) if side else None))
    if not rows:
        raise UserError(f"{table}: no row in it")
    return rows


def _read(table: Path, columns: Sequence[str]) -> _Rows:
    kind = table.suffix.lower()
    if kind not in FORMATS:
        raise UserError(f"{table}: expected a table named {', '.join('*' + f for f in FORMATS)}")
    if kind == ".parquet":
        return _read_parquet(table, columns)
    text = read_text(table).lstrip("\ufeff")
    if kind in (".jsonl", ".ndjson"):
        return _read_json(table, text, columns)
    return _read_csv(table, text, "\t" if kind == ".tsv" else ",", columns)


def _read_csv(table: Path, text: str, delimiter: str, columns: Sequence[str]) -> _Rows:
    csv.field_size_limit(MOST_TEXT)  # a column that is not asked for may hold whole images
    source = io.StringIO(text, newline="")
    lines = csv.reader(source, delimiter=delimiter, strict=True, skipinitialspace=True)
    header: list[str] = []
    places: list[int] = []
    while True:
        where = f"{table}:{lines.line_num + 1}"
        try:
            cells = next(lines)
        except StopIteration:
            return
        except csv.Error as error:
            raise UserError(
                f"{where}: no row of a table ({error}); is a quotation mark left open?"
            ) from None
        if not any(cell.strip() for cell in cells):
            continue
        if not header:
            header, places = cells, _places(cells, columns, where)
        elif len(cells) != len(header):
            raise UserError(f"{where}: {len(cells)} cells, the header has {len(header)}")
        else:
            yield where, [cells[place] for place in places]


def _read_json(table: Path, text: str, columns: Sequence[str]) -> _Rows:
    names: dict[str, None] = {}
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{table}:{number}"
        try:
            row = json.loads(line, object_pairs_hook=_object)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}: not JSON ({error})") from None
        if not isinstance(row, dict):
            raise UserError(f"{where}: expected an object, {{...}}, a line")
        names.update(dict.fromkeys(row))
        found.append((where, row))
    return _of_objects(found, list(names), columns, str(table))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a name stands twice in an object")
    return dict(pairs)


def _read_parquet(table: Path, columns: Sequence[str]) -> _Rows:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise UserError(f"{table}: Parquet needs pyarrow: pip install pyarrow") from None
    try:
        with ParquetFile(table) as file:
            names = file.schema_arrow.names
            wanted = [names[place] for place in _places(names, columns, str(table))]
            rows = file.read(columns=wanted).to_pylist()
    except (ArrowException, OSError) as error:
        raise UserError(f"{table}: no Parquet table ({' '.join(str(error).split())})") from None
    numbered = [(f"{table}, row {number}", row) for number, row in enumerate(rows, 1)]
    return _of_objects(numbered, names, columns, str(table))


def _of_objects(
    rows: list[tuple[str, dict[str, Any]]], names: list[str], columns: Sequence[str], table: str
) -> _Rows:
    """The cells of rows of JSON or Parquet; what a row leaves out is an empty cell."""
    wanted = [names[place] for place in _places(names, columns, table)] if rows else []
    for where, row in rows:
        yield where, [_cell(row.get(name), where, name) for name in wanted]


def _cell(value: Any, where: str, column: str) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (str, int, float)):
        return str(value)
    raise UserError(f"{where}: {column} is neither a text nor a number")


def _places(names: Sequence[str], columns: Sequence[str], where: str) -> list[int]:
    """The place of each of `columns` among the `names` of all columns."""
    header = [_one_form(name) for name in names]
    for name, n in Counter(header).items():
        if n > 1 and name:
            raise UserError(f"{where}: two columns are named {name!r}")
    if len(header) == 1 < len(set(columns)):
        raise UserError(
            f"{where}: there is one column, {header[0]!r}; cells stand between commas in *.csv, "
            "between tabs in *.tsv"
        )
    for column in columns:
        if column not in header:
            raise UserError(
                f"{where}: no column {column!r}{near_miss(column, header)}; there are "
                f"{', '.join(header)}"
            )
    return [header.index(column) for column in columns]


def _one_form(text: str) -> str:
    """Text in the one form of all that looks the same."""
    # A file's mark at its beginning stands within, where files were joined.
    return unicodedata.normalize("NFC", " ".join(text.replace("\ufeff", "").split()))


def _path(text: str, where: str) -> str:
    name = text.strip()
    if not name:
        raise UserError(f"{where}: no path in it")
    if wrong := unfit_for_lists(name):
        raise UserError(f"{where}: {name!r}: {wrong}")
    if name.startswith("/") or ".." in name.split("/"):
        raise UserError(f"{where}: {name} leaves the image folder: paths are relative to --images")
    return os.path.normpath(name)


def label(text: str, column: str, where: str) -> str:
    """A label in the one form of all that look the same.

    Raises:
        UserError: it holds what no text shows, or is too long for a class; begins with `where`.
    """
    name = _one_form(text)
    wrong = next((c for c in name if unicodedata.category(c) in ("Cc", "Cs")), None)
    if name and all(unicodedata.category(c) == "Cf" for c in name):
        wrong = name
    if wrong is not None:
        raise UserError(f"{where}: {column} holds {wrong!r}, which no text shows")
    if len(name) > MOST_LABEL:
        raise UserError(
            f"{where}: {column} has {len(name):,} characters, more than the name of a class may "
            f"have ({MOST_LABEL:,}): is that column one of labels?"
        )
    return name


def _side(text: str, where: str) -> int:
    side = _SIDES.get(text.strip().lower())
    if side is None:
        raise UserError(f"{where}: expected train or test, found {text!r}")
    return side
