"""convert_imageset's list format: `<path> <label>` a line, split at the last space.

A label is a number, and only the classes say what it is. So the manifest holds the hashes
of the lists and of the classes that they were made for, and `read_part` takes no others.
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
    """One image: its path relative to the image folder, and which labels it has: the
    place of their combination in `Classes`, an ANP's label among VSO's."""

    path: str
    label: int


@dataclass(frozen=True)
class Division:
    """Images divided into training and test.

    `parts`: the entries of the two lists; `copies`: groups of identical files, by path;
    `across`: those of them that stand on both sides; `facts`: the manifest's entry.
    """

    folder: DataFolder
    classes: Classes = field(repr=False)
    parts: tuple[Sequence[Entry], Sequence[Entry]] = field(repr=False)
    copies: list[list[str]] = field(repr=False)
    across: list[list[str]] = field(repr=False)
    facts: dict[str, Any] = field(repr=False)


def on_both_sides(copies: Iterable[list[str]], test: Iterable[Entry]) -> list[list[str]]:
    """The groups of identical files of which some are tested and some are not."""
    tested = {entry.path for entry in test}
    return [group for group in copies if 0 < len(tested.intersection(group)) < len(group)]


def read_classes(folder: DataFolder) -> Classes:
    """A data folder's classes.

    Raises:
        UserError: there are none yet, or they are wrong.
    """
    if not folder.classes.is_dir():
        raise UserError(
            f"{folder.classes} is not there: run `python -m data_prep filter` first, or `table`"
        )
    return Classes.read(folder.classes)


def write_parts(
    folder: DataFolder, parts: Sequence[Sequence[Entry]], **facts: Any
) -> dict[str, Any]:
    """Write the training and the test list into a data folder and record them for its classes.

    Args:
        parts: the entries of the two lists.
        facts: what else the manifest shall tell of them.

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
    """A data folder's list, if it was made for `classes`.

    Raises:
        UserError: as `read_list`; or the list or the classes are not those that `split` and
            `filter` wrote.
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
    """Write a list, whole or not at all."""
    write(path, _text(entries))


def _text(entries: Iterable[Entry]) -> str:
    return "".join(f"{entry.path} {entry.label}\n" for entry in entries)


def read_list(path: PathLike, classes: Classes) -> list[Entry]:
    """Read a list and hold it against the classes.

    Raises:
        UserError: not there, empty, a line without a label, a label without
            a class, a path that leaves the image folder, or a path in a folder
            named adjective_noun that is not its label's class.
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
    """How many images lie in no folder of their class: only the list says what they show."""
    return sum(classes.anp[entry.label] not in entry.path.split("/")[:-1] for entry in entries)


def _another_class(folders: Sequence[str], own: str, classes: Classes) -> str:
    """The folder that says another class than `own`; "" where none does.

    A folder is known as a class by its name. One that only reads as adjective_noun is taken
    for a class, too (of other lists), unless the image's own class stands beside it.
    """
    for folder in folders:
        if folder != own and (
            folder in classes.anp_index or (is_name(folder) and own not in folders)
        ):
            return folder
    return ""
