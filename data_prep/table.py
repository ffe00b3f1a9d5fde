"""A data folder from a table of images and labels: any tasks, labels as text.

The general way; VSO's (`vso.py`) takes its labels from adjective-noun pairs instead.
"""

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
MOST_CLASSES = 32_767  # what evaluations keep of a label
RESERVED = ("image", ALL)  # what predictions call the image's name; to stratify by


@dataclass(frozen=True)
class Taken(Division):
    """A data folder's classes and lists, from a table.

    `root`: where its paths start; `rows`: how many it has; `absent`: those whose image is not
    there; `unlabelled`: how many were left out because no label was left; `counts`: as `count`
    has them; `facts`: the manifest's entries on the classes and on the lists.
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
    """Write classes and lists as a table has them.

    Args:
        out: the data folder.
        table: CSV, TSV, JSON lines or Parquet; a row an image.
        images: the folder that the table's paths start from.
        tasks: `colour,kind=Art der Ware`, names of columns, or task -> column.
        path: the column of paths.
        split: the column that says train or test.
        stratify: the task whose classes are divided alike (the first), or `ALL`: each
            combination of labels.
        train: share for training (4/5).
        seed: another one, another split and order.
        min_images: a class of fewer is no label.
        classes: a folder of TASK.txt with classes in their order; otherwise they are sorted.
        allow_missing: leave out rows whose image is not there.

    Raises:
        UserError: something cannot be read or written, a row is wrong (its line), an image is
            not there, or nothing is left of a task on one of the sides.
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
    there, absent = [], []
    for row in listed:
        (there if os.path.isfile(os.path.join(root, row.path)) else absent).append(row)
    if absent and not (allow_missing and there):
        raise UserError(
            f"{absent[0].where}: {not_there(absent, len(listed), root)}; to leave them out, add "
            "--allow-missing"
        )
    kept = keep_common(there, list(tasks), min_images)
    found, numbers = classes_of(kept, list(tasks), classes)
    copies = duplicates.find(root, [row.path for row in kept])
    parts = divide(
        kept, numbers, None if by == ALL else list(tasks).index(by), seed, fraction, copies
    )
    counts = count(parts, found)
    for i, side in enumerate(PARTS):
        if not parts[i]:
            raise UserError(f"{table}: no image is left for {side} of {len(kept)}")
        for task, n in counts.items():
            if not n[side]:
                raise UserError(f"{table}: no {side} image has a label of the task {task}")
    decided: dict[str, Any] = {"stratify": by, "fraction": str(fraction)}
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
            **({"column": split} if split else decided),
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
    """`colour,kind=Art der Ware`, or its parts, or the same as a mapping: task -> column.

    Raises:
        UserError: an invalid task name, or one that is named twice.
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


def not_there(absent: Sequence[Row], listed: int, root: PathLike) -> str:
    """The rows whose image is not in `root`, of `listed`, as a line."""
    first = absent[0].path
    forms = (unicodedata.normalize(form, first) for form in ("NFC", "NFD"))
    # As file systems and archives change names; both look the same.
    alike = any(os.path.exists(os.path.join(root, name)) for name in forms)
    return f"{len(absent):,} of {listed:,} images are not in {root}: {first}" + (
        " (only under another Unicode form of that name: rename the file)" if alike else ""
    )


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
        ordered = sorted(rows, key=lambda row: rank(seed, "order", row.path))
        return (
            [Entry(row.path, numbers[row.path]) for row in ordered if row.side == TRAIN],
            [Entry(row.path, numbers[row.path]) for row in ordered if row.side == TEST],
        )
    groups: dict[Any, list[str]] = {}
    for row in rows:
        groups.setdefault(row.labels if by is None else row.labels[by], []).append(row.path)
    few = [name for name, paths in groups.items() if not train_count(len(paths), fraction)]
    if few:
        groups[None] = [path for name in few for path in groups.pop(name)]
    return split(groups, numbers, seed, fraction, duplicates)


def count(parts: Sequence[Sequence[Entry]], classes: Classes) -> dict[str, dict[str, Any]]:
    """Task -> images with a label in train and test, and the classes that have none there."""
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
