"""Lists in convert_imageset's format: `<path> <label>` a line, split at the last space.

A label is a number whose meaning only the classes tell. The manifest therefore holds the hashes of
the lists and of the classes that they were made for, and `read_part` refuses any others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from data_prep.classes import Classes
from data_prep.folder import PARTS, DataFolder
from data_prep.ontology import is_name
from xresnet.basics.cli import UserError
from xresnet.basics.files import PathLike, read_text, sha256, write


class Entry(NamedTuple):
    """An image: its path relative to the image folder, and the index of its combination of
    labels in `Classes` (for VSO, the ANP's label)."""

    path: str
    label: int


@dataclass(frozen=True)
class Division:
    """Images divided into training and test.

    `parts`: the entries of the two lists; `copies`: groups of identical files (paths);
    `across`: those of these groups with files in both lists; `facts`: the manifest's entry.
    """

    folder: DataFolder
    classes: Classes = field(repr=False)
    parts: tuple[Sequence[Entry], Sequence[Entry]] = field(repr=False)
    copies: list[list[str]] = field(repr=False)
    across: list[list[str]] = field(repr=False)
    facts: dict[str, Any] = field(repr=False)


def on_both_sides(copies: Iterable[list[str]], test: Iterable[Entry]) -> list[list[str]]:
    """The groups of identical files of which some, but not all, are in the test list."""
    tested = {entry.path for entry in test}
    return [group for group in copies if 0 < len(tested.intersection(group)) < len(group)]


def read_classes(folder: DataFolder) -> Classes:
    """The classes of a data folder.

    Raises:
        UserError: there are none yet, or they are invalid.
    """
    if not folder.classes.is_dir():
        raise UserError(
            f"{folder.classes} is not there: run `python -m data_prep filter` first, or `table`"
        )
    return Classes.read(folder.classes)


def write_parts(
    folder: DataFolder, parts: Sequence[Sequence[Entry]], **facts: Any
) -> dict[str, Any]:
    """Write the training and the test list of a data folder, and record them in its manifest.

    Args:
        parts: the entries of the two lists.
        facts: further values for the manifest.

    Returns:
        the manifest's entry.
    """
    lists = {
        part: {
            "images": len(entries),
            "sha256": hashlib.sha256(_text(entries).encode()).hexdigest(),
        }
        for part, entries in zip(PARTS, parts)
    }
    summary = {**facts, "lists": lists}
    folder.begin("split", summary)
    for part, entries in zip(PARTS, parts):
        write_list(folder.list(part), entries)
    folder.record("split", summary)
    return summary


def read_part(folder: DataFolder, part: str, classes: Classes) -> list[Entry]:
    """Read a list of a data folder and check that it was made for `classes`.

    Raises:
        UserError: as in `read_list`, or the list or the classes are not those in the manifest.
    """
    path = folder.list(part)
    entries = read_list(path, classes)
    made = folder.read_manifest()
    if made.get("filter", {}).get("classes") != classes.facts:
        raise UserError(
            f"{folder.classes} holds other classes than `{classes.made_by}` wrote there: "
            f"run `python -m data_prep {classes.made_by}` again"
            + (", with --labels to take your own" if classes.by_anp else "")
        )
    if "split" not in made:
        raise UserError(
            f"{path} was not made for the classes in {folder.classes}: "
            f"run `python -m data_prep {classes.divided_by}` again"
        )
    if made["split"].get("lists", {}).get(part, {}).get("sha256") != sha256(path):
        mend = "run `python -m data_prep table` again, with --split for sides of your own"
        if classes.by_anp:
            mend = "to use it, hand it in: python -m data_prep split --lists TRAIN TEST"
        raise UserError(f"{path} is not the list that `{classes.divided_by}` wrote; {mend}")
    return entries


def write_list(path: PathLike, entries: Iterable[Entry]) -> None:
    """Write a list atomically."""
    write(path, _text(entries))


def _text(entries: Iterable[Entry]) -> str:
    return "".join(f"{entry.path} {entry.label}\n" for entry in entries)


def read_list(path: PathLike, classes: Classes) -> list[Entry]:
    """Read a list and check it against the classes.

    Raises:
        UserError: the list is missing or empty, or a line has no label, a label without a class,
            a path that leaves the image folder, or one in the folder of another class.
    """
    if not Path(path).is_file():
        raise UserError(
            f"{path} is not there: run `python -m data_prep {classes.divided_by}` first"
        )
    return parse_list(read_text(path), classes, str(path))


def parse_list(text: str, classes: Classes, path: str) -> list[Entry]:
    """`read_list` of a list's text; `path` names it in errors."""
    entries: list[Entry] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        name, _, digits = line.rstrip("\r").rpartition(" ")
        where = f"{path}:{number}"
        if (
            not name
            or "\0" in name
            or not (digits.isascii() and digits.isdigit() and len(digits) < 10)
        ):
            raise UserError(f"{where}: expected `path label`, found {line!r}")
        label = int(digits)
        known = len(classes.combinations)
        if label >= known:
            what = "ANP classes" if classes.by_anp else "combinations of labels"
            raise UserError(f"{where}: label {label}, but there are {known} {what}")
        *folders, file = name.split("/")
        if name.startswith("/") or ".." in (*folders, file):
            raise UserError(f"{where}: {name} leaves the image folder")
        # Where pictures of a table lie says nothing of them.
        other = classes.by_anp and _another_class(folders, classes.anp[label], classes)
        if other:
            raise UserError(
                f"{where}: label {label} is {classes.anp[label]}, not {other}; "
                "run `python -m data_prep split` again after `filter`"
            )
        if name in seen:
            raise UserError(f"{where}: {name} is already on line {seen[name]}")
        seen[name] = number
        entries.append(Entry(name, label))
    if not entries:
        raise UserError(f"{path}: no image in it")
    return entries


def in_no_class(entries: Iterable[Entry], classes: Classes) -> int:
    """The number of images outside a folder of their class, whose labels only the list tells."""
    return sum(classes.anp[entry.label] not in entry.path.split("/")[:-1] for entry in entries)


def _another_class(folders: Sequence[str], own: str, classes: Classes) -> str:
    """The first of `folders` that names another class than `own`; "" if there is none.

    A folder named adjective_noun counts as a class (of other lists) even if `classes` lack it,
    unless a folder of the image's own class is on the path too.
    """
    for folder in folders:
        if folder != own and (
            folder in classes.anp_index or (is_name(folder) and own not in folders)
        ):
            return folder
    return ""
