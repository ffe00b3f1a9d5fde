"""Images and labels from a table: a row an image, a column a task, any tasks.

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
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from data_prep.classes import MISSING, Classes, read_names
from data_prep.lists import Entry
from data_prep.split import TEST, TRAIN, rank, split, train_count
from xresnet.basics.cli import UserError, near_miss
from xresnet.basics.files import PathLike, read_text

FORMATS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
SIDES = {"train": TRAIN, "test": TEST}  # what cells of a split's column say
ALL = "all"  # to stratify by: the combinations of all tasks
MOST_CLASSES = 32_767  # what evaluations keep of a label
RESERVED = ("image", ALL)  # what predictions call the image's name; to stratify by


@dataclass(frozen=True)
class Row:
    """An image: where its row stands, its path, its class of each task ("" for none), its side."""

    where: str
    path: str
    labels: tuple[str, ...]
    side: int | None = None


def parse_tasks(text: str) -> dict[str, str]:
    """`colour,kind=Art der Ware` as task -> column.

    Raises:
        UserError: no name of a task, or one that stands there twice.
    """
    found: dict[str, str] = {}
    for part in text.split(","):
        task, _, column = (side.strip() for side in part.partition("="))
        if not re.fullmatch(r"[A-Za-z0-9_]+", task):
            raise UserError(
                f"--tasks: {task!r} is no name of letters, digits and _; of a column of another "
                "name make a task so: --tasks 'kind=Kind of thing'"
            )
        if task in found or task in RESERVED:
            why = "stands there twice" if task in found else "has another meaning: give another"
            raise UserError(f"--tasks: {task!r} {why}")
        found[task] = column or task
    return found


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
            raise UserError(f"{where}: {name} stands already at {seen[name]}")
        seen[name] = where
        labels = tuple(_label(cells[column], where, column) for column in tasks.values())
        rows.append(Row(where, name, labels, _side(cells[side], where) if side else None))
    if not rows:
        raise UserError(f"{table}: no row in it")
    return rows


def keep_common(rows: Sequence[Row], tasks: Sequence[str], least: int) -> list[Row]:
    """`rows`, where classes of fewer than `least` images are no labels, and rows without any out.

    Raises:
        UserError: nothing is left of a task.
    """
    counts = [Counter(row.labels[i] for row in rows if row.labels[i]) for i in range(len(tasks))]
    kept = [
        replace(row, labels=tuple(x if n[x] >= least else "" for x, n in zip(row.labels, counts)))
        for row in rows
    ]
    for i, task in enumerate(tasks):
        if not any(row.labels[i] for row in kept):
            few = (
                f" of {least} images or more: lower --min-images" if counts[i] else " in its column"
            )
            raise UserError(f"the task {task} has no class{few}")
    return [row for row in kept if any(row.labels)]


def classes_of(
    rows: Sequence[Row], tasks: Sequence[str], given: PathLike | None = None
) -> tuple[Classes, dict[str, int]]:
    """The classes of the rows, and path -> the number of its combination of labels.

    Each list is sorted, or as it stands in TASK.txt in the folder `given`, where that is.

    Raises:
        UserError: a label that is not in a given list, or too many classes for labels.
    """
    lists = [_names(rows, i, task, given) for i, task in enumerate(tasks)]
    if given and not any((Path(given) / f"{task}.txt").is_file() for task in tasks):
        raise UserError(f"--classes {given}: none of {', '.join(f'{t}.txt' for t in tasks)} there")
    places = [{name: i for i, name in enumerate(names)} for names in lists]
    labels = {
        row.path: tuple(
            place[label] if label else MISSING for label, place in zip(row.labels, places)
        )
        for row in rows
    }
    combinations = sorted(set(labels.values()))
    number = {labels_: i for i, labels_ in enumerate(combinations)}
    classes = Classes(tuple(tasks), tuple(lists), tuple(combinations))
    return classes, {path: number[found] for path, found in labels.items()}


def divide(
    rows: Sequence[Row],
    numbers: Mapping[str, int],
    by: int | None,
    seed: int,
    fraction: Fraction,
    duplicates: Iterable[Sequence[str]],
) -> tuple[list[Entry], list[Entry]]:
    """(train, test): as the rows' column says, or stratified as VSO's images are by ANP.

    Args:
        numbers: path -> the number of its combination.
        by: the place of the task to stratify by; None for all combinations. Groups too small
            to give training an image are one group.
        fraction: the share of training.
        duplicates: groups of identical files; each is on one side.
    """
    if rows[0].side is not None:
        parts: tuple[list[Entry], list[Entry]] = ([], [])
        for row in rows:
            parts[row.side].append(Entry(row.path, numbers[row.path]))
        for entries in parts:
            entries.sort(key=lambda entry: rank(seed, "order", entry.path))
        return parts
    groups: dict[Any, list[str]] = {}
    for row in rows:
        groups.setdefault(row.labels if by is None else row.labels[by], []).append(row.path)
    few = [name for name, paths in groups.items() if not train_count(len(paths), fraction)]
    if few:
        groups[None] = [path for name in few for path in groups.pop(name)]
    order = {name: i for i, name in enumerate(groups)}
    train, test = split(groups, order, seed, fraction, duplicates)
    return (
        [Entry(entry.path, numbers[entry.path]) for entry in train],
        [Entry(entry.path, numbers[entry.path]) for entry in test],
    )


def count(parts: Sequence[Sequence[Entry]], classes: Classes) -> dict[str, dict[str, Any]]:
    """Task -> images with a label in train and test, and the classes that have none there."""
    found: dict[str, dict[str, Any]] = {}
    for i, (task, names) in enumerate(zip(classes.tasks, classes.lists)):
        values = {}
        for side, entries in zip(SIDES, parts):
            seen = Counter(classes.combinations[entry.label][i] for entry in entries)
            values[side] = sum(n for label, n in seen.items() if label != MISSING)
            values[f"without_{side}"] = [n for label, n in enumerate(names) if label not in seen]
        found[task] = {"classes": len(names), **values}
    return found


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


def _label(text: str, where: str, column: str) -> str:
    name = unicodedata.normalize("NFC", " ".join(text.split()))
    wrong = next((c for c in name if unicodedata.category(c) in ("Cc", "Cs")), None)
    if wrong is not None:
        raise UserError(f"{where}: {column} holds {wrong!r}, which no text shows")
    return name


def _side(text: str, where: str) -> int:
    side = SIDES.get(text.strip().lower())
    if side is None:
        raise UserError(f"{where}: expected train or test, found {text!r}")
    return side


def _names(rows: Sequence[Row], i: int, task: str, given: PathLike | None) -> tuple[str, ...]:
    path = Path(given or "") / f"{task}.txt"
    if given and path.is_file():
        names = read_names(path)
        known = set(names)
        for row in rows:
            if row.labels[i] and row.labels[i] not in known:
                raise UserError(
                    f"{row.where}: {row.labels[i]!r} is not in {path}"
                    f"{near_miss(row.labels[i], names)}: add it there, or empty the cell"
                )
    else:
        names = tuple(sorted({row.labels[i] for row in rows if row.labels[i]}))
    if len(names) > MOST_CLASSES:
        raise UserError(
            f"the task {task} has {len(names):,} classes, more than {MOST_CLASSES:,}: is that "
            "column one of labels?"
        )
    return names
