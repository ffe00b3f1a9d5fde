"""Make a data folder's classes and lists from a table of images and labels, for any tasks."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from data_prep import duplicates, rows
from data_prep.classes import MISSING, Classes, read_names
from data_prep.folder import PARTS, DataFolder, source
from data_prep.images import find_root
from data_prep.lists import Division, Entry, on_both_sides, write_parts
from data_prep.rows import Row
from data_prep.split import TEST, TRAIN, rank, split, train_count
from xresnet.basics.cli import UserError, near_miss
from xresnet.basics.files import PathLike
from xresnet.basics.numbers import COUNT, SEED, as_fraction

ALL = "all"  # to stratify by: the combinations of all tasks
MOST_CLASSES = 32_767  # evaluations store labels in 16 bits
RESERVED = ("image", ALL)  # a column of predictions; the value of --stratify


@dataclass(frozen=True)
class Taken(Division):
    """The result of `take`.

    `root`: the folder that paths are relative to; `rows`: the number of rows; `absent`: those
    whose image does not exist; `unlabelled`: the number of images left out because they have no
    label; `counts`: see `count`; `facts`: the manifest's entries on classes and lists.
    """

    root: Path
    rows: int
    absent: list[Row] = field(repr=False)
    unlabelled: int
    counts: dict[str, dict[str, Any]] = field(repr=False)


def take(
    out: PathLike,
    table: PathLike,
    images: PathLike,
    tasks: str | Mapping[str, str] | Sequence[str],
    *,
    path: str = "path",
    split: str | None = None,
    stratify: str | None = None,
    train: Fraction | float | str | None = None,
    seed: int = 0,
    min_images: int = 1,
    classes: PathLike | None = None,
    allow_missing: bool = False,
) -> Taken:
    """Write the classes and the lists of a data folder from a table.

    Args:
        out: the data folder.
        table: CSV, TSV, JSON lines or Parquet, with one row per image.
        images: the folder that the table's paths are relative to.
        tasks: columns of labels: names, `colour,kind=Art der Ware`, or task -> column.
        path: the column of paths.
        split: the column that says train or test; otherwise the images are split.
        stratify: the task whose classes are split with the same share (the first by default),
            or `ALL` for each combination of labels.
        train: share of training (4/5 by default).
        seed: another seed gives another split and order.
        min_images: labels of classes with fewer images count as missing.
        classes: a folder of TASK.txt, the classes in their order; by default they are sorted.
        allow_missing: leave out rows whose image does not exist.

    Raises:
        UserError: a file cannot be read or written, a row is invalid (the message names its
            line), an image does not exist, or a task has no label in training or test.
    """
    tasks = tasks_of(tasks)
    if split and (stratify or train):
        raise UserError("--split takes the sides from the table: leave out --stratify and --train")
    by = stratify or next(iter(tasks))
    if by not in (*tasks, ALL):
        raise UserError(f"--stratify: {by!r} is no task; give {', '.join(tasks)} or {ALL}")
    fraction = as_fraction(train or Fraction(4, 5), "train")
    SEED.check(seed, "seed")
    COUNT.check(min_images, "min_images")
    folder, root = DataFolder(out), find_root(images, by_anp=False)
    listed = rows.read(table, tasks, path, split)
    there, absent = _present(listed, root, allow_missing)
    kept = keep_common(there, list(tasks), min_images)
    found, numbers = classes_of(kept, list(tasks), classes)
    copies = duplicates.find(root, [row.path for row in kept])
    if split:
        parts = _as_given(kept, numbers, seed)
    else:
        place = None if by == ALL else list(tasks).index(by)
        parts = divide(kept, numbers, place, seed, fraction, copies)
    counts = count(parts, found)
    for side, entries in zip(PARTS, parts):
        if not entries:
            raise UserError(f"{table}: no image is left for {side} of {len(kept)}")
        for task, n in counts.items():
            if not n[side]:
                raise UserError(f"{table}: no {side} image has a label of the task {task}")
    chosen = {
        "table": source(table),
        "columns": {"path": path, **tasks},
        "min_images": min_images,
        "rows": len(listed),
        "not_there": len(absent),
        "tasks": counts,
        "classes": found.facts,
    }
    with folder.lock():
        folder.begin("filter", chosen)
        found.write(folder.classes)
        folder.ontology.unlink(missing_ok=True)  # of ANPs, if these were classes before
        folder.record("filter", chosen)
        written = write_parts(
            folder,
            parts,
            images={"root": str(root)},
            **({"column": split} if split else {"stratify": by, "fraction": str(fraction)}),
            seed=seed,
            duplicates=copies,
        )
    across = on_both_sides(copies, parts[1]) if split else []
    facts = {"classes": chosen, "split": written}
    return Taken(
        *(folder, found, parts, copies, across, facts),
        *(root, len(listed), absent, len(there) - len(kept), counts),
    )


def tasks_of(given: str | Mapping[str, str] | Sequence[str]) -> dict[str, str]:
    """Task -> column, from `colour,kind=Art der Ware`, a sequence of such parts, or a mapping.

    Raises:
        UserError: a task name is invalid, reserved or listed twice.
    """
    if isinstance(given, Mapping):
        pairs = list(given.items())
    else:
        parts = given.split(",") if isinstance(given, str) else given
        halves = [part.partition("=") for part in parts]
        pairs = [(task.strip(), column.strip()) for task, _, column in halves]
    found: dict[str, str] = {}
    for task, column in pairs:
        if not re.fullmatch(r"[A-Za-z0-9_]+", task):
            raise UserError(
                f"--tasks: {task!r} is no name of letters, digits and _; of a column of another "
                "name make a task so: --tasks 'kind=Kind of thing'"
            )
        if task in found or task in RESERVED:
            why = "is listed twice" if task in found else "is reserved: choose another name"
            raise UserError(f"--tasks: {task!r} {why}")
        found[task] = column or task
    if not found:
        raise UserError("--tasks: name a column, or several")
    return found


def _present(listed: Sequence[Row], root: Path, allow_missing: bool) -> tuple[list[Row], list[Row]]:
    """The rows whose image is in `root`, and the others, if these are allowed."""
    there: list[Row] = []
    absent: list[Row] = []
    for row in listed:
        (there if os.path.isfile(os.path.join(root, row.path)) else absent).append(row)
    if absent and not (allow_missing and there):
        raise UserError(
            f"{absent[0].where}: {not_there(absent, len(listed), root)}; to leave them out, add "
            "--allow-missing"
        )
    return there, absent


def not_there(absent: Sequence[Row], listed: int, root: PathLike) -> str:
    """A line about rows whose image is not in `root`; `listed` is the number of all rows."""
    first = absent[0].path
    forms = (unicodedata.normalize(form, first) for form in ("NFC", "NFD"))
    # Some file systems and archives change the form of names; both look the same.
    alike = any(os.path.exists(os.path.join(root, name)) for name in forms)
    return f"{len(absent):,} of {listed:,} images are not in {root}: {first}" + (
        " (only under another Unicode form of that name: rename the file)" if alike else ""
    )


def keep_common(rows: Sequence[Row], tasks: Sequence[str], least: int) -> list[Row]:
    """Remove the labels of classes with fewer than `least` images, then rows without any label.

    Raises:
        UserError: a task has no label left.
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
    """The classes of the rows, and path -> the index of its combination of labels.

    Classes are sorted, or in the order of TASK.txt in the folder `given`, if it has that file.

    Raises:
        UserError: a label is not in the given list, or a task has too many classes.
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
    """Stratified (train, test) lists, as `split` makes them.

    Args:
        numbers: path -> the index of its combination.
        by: the index of the task to stratify by; None for all combinations. Groups too small
            to give training an image are merged.
        seed, fraction, duplicates: see `split`.
    """
    groups: dict[Any, list[str]] = {}
    for row in rows:
        groups.setdefault(row.labels if by is None else row.labels[by], []).append(row.path)
    few = [name for name, paths in groups.items() if not train_count(len(paths), fraction)]
    if few:
        groups[None] = [path for name in few for path in groups.pop(name)]
    return split(groups, numbers, seed, fraction, duplicates)


def _as_given(
    rows: Sequence[Row], numbers: Mapping[str, int], seed: int
) -> tuple[list[Entry], list[Entry]]:
    """(train, test) as the table's column says."""
    ordered = sorted(rows, key=lambda row: rank(seed, "order", row.path))
    train, test = (
        [Entry(row.path, numbers[row.path]) for row in ordered if row.side == side]
        for side in (TRAIN, TEST)
    )
    return train, test


def count(parts: Sequence[Sequence[Entry]], classes: Classes) -> dict[str, dict[str, Any]]:
    """Task -> the numbers of classes and of labelled training and test images, and the classes
    without any (`without_train`, `without_test`)."""
    found: dict[str, dict[str, Any]] = {}
    for i, (task, names) in enumerate(zip(classes.tasks, classes.lists)):
        values: dict[str, Any] = {}
        for side, entries in zip(PARTS, parts):
            seen = Counter(classes.combinations[entry.label][i] for entry in entries)
            values[side] = sum(n for label, n in seen.items() if label != MISSING)
            values[f"without_{side}"] = [n for label, n in enumerate(names) if label not in seen]
        found[task] = {"classes": len(names), **values}
    return found


def _names(listed: Sequence[Row], i: int, task: str, given: PathLike | None) -> tuple[str, ...]:
    path = Path(given or "") / f"{task}.txt"
    if given and path.is_file():
        names = tuple(rows.label(name, task, str(path)) for name in read_names(path))
        known = set(names)
        for row in listed:
            if row.labels[i] and row.labels[i] not in known:
                raise UserError(
                    f"{row.where}: {row.labels[i]!r} is not in {path}"
                    f"{near_miss(row.labels[i], names)}: add it there, or empty the cell"
                )
    else:
        names = tuple(sorted({row.labels[i] for row in listed if row.labels[i]}))
    if len(names) > MOST_CLASSES:
        raise UserError(
            f"the task {task} has {len(names):,} classes, more than {MOST_CLASSES:,}: is that "
            "column one of labels?"
        )
    return names
