"""convert_imageset's list format: `<path> <label>` a line, split at the last space."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from basics.cli import UserError
from basics.files import PathLike, read_text, write
from data_prep.classes import Classes


class Entry(NamedTuple):
    """One image: its path relative to the image folder, and its ANP label."""

    path: str
    label: int


def write_list(path: PathLike, entries: Iterable[Entry]) -> None:
    """Write a list, whole or not at all."""
    write(path, "".join(f"{entry.path} {entry.label}\n" for entry in entries))


def read_list(path: PathLike, classes: Classes) -> list[Entry]:
    """Read a list and hold it against the classes.

    Raises:
        UserError: not there, empty, a line without a label, a label without
            a class, a path that leaves the image folder, or a path in the
            folder of another class (the lists are older than the classes).
    """
    if not Path(path).is_file():
        raise UserError(f"{path} is not there: run `python -m data_prep split` first")
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
        if not name or not (digits.isascii() and digits.isdigit() and len(digits) < 10):
            raise UserError(f"{where}: expected `path label`, found {line!r}")
        label = int(digits)
        if label >= len(classes.anp):
            raise UserError(f"{where}: label {label}, but there are {len(classes.anp)} ANP classes")
        parts = name.split("/")
        if name.startswith("/") or ".." in parts:
            raise UserError(f"{where}: {name} leaves the image folder")
        if classes.anp_index.get(parts[0], label) != label:
            raise UserError(
                f"{where}: label {label} is {classes.anp[label]}, not {parts[0]}; "
                "run `python -m data_prep split` again after `filter`"
            )
        if name in seen:
            raise UserError(f"{where}: {name} stands already on line {seen[name]}")
        seen[name] = number
        entries.append(Entry(name, label))
    if not entries:
        raise UserError(f"{path}: no image in it")
    return entries
