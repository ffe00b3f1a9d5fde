"""The class lists of a data folder's tasks.

    classes/TASK.txt     the classes of a task, one a line; the label is the line's number, from 0
    classes/tasks.json   the tasks in the order of a label record's values, and the combinations
                         of labels that occur; absent from VSO's folders

Lists of images have one number for each. In a folder made from a table it is the index of the
combination of labels in tasks.json; in VSO's it is the label of the ANP, from which adjective and
noun follow.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from data_prep.ontology import Anp
from xresnet.basics import shapes
from xresnet.basics.cli import UserError
from xresnet.basics.files import PathLike, read_text, write

VSO = ("adj", "anp", "noun")  # VSO's tasks in the order of a label record's three values
MISSING = -1  # the label of an image that has none for a task
_TASKS = "tasks.json"
_SHAPE = {"tasks": [str], "combinations": [[int]]}


@dataclass(frozen=True)
class Classes:
    """The tasks of a data folder, their class names, and the combinations of labels that occur.

    `tasks`: in the order of a label record's values.
    `lists`: the class names of each task, in label order.
    `combinations`: the labels of all tasks (or `MISSING`), by the number in a list of images.
    `by_anp`: whether these are VSO's three tasks, whose combinations are the ANPs.

    Raises:
        UserError: an invalid task name, an empty list, a class named twice, or a label without a
            class.
    """

    tasks: tuple[str, ...]
    lists: tuple[tuple[str, ...], ...]
    combinations: tuple[tuple[int, ...], ...]
    by_anp: bool = False

    def __post_init__(self) -> None:
        for i, task in enumerate(self.tasks):
            if not re.fullmatch(r"[A-Za-z0-9_]+", task) or task in self.tasks[:i]:
                raise UserError(f"the task {task!r}: not letters, digits and _, or named twice")
        for task, names in zip(self.tasks, self.lists):
            _check_names(task, names)
        sides = [len(names) for names in self.lists]
        for labels in self.combinations:
            if len(labels) != len(sides) or not all(
                MISSING <= label < side for label, side in zip(labels, sides)
            ):
                raise UserError(f"the combination of labels {labels} has no classes")

    @classmethod
    def vso(cls, adj: Sequence[str], anp: Sequence[str], noun: Sequence[str]) -> Classes:
        """The classes of VSO's three lists.

        Raises:
            UserError: as for the class itself, or the adjective or noun of an ANP is missing.
        """
        lists = (tuple(adj), tuple(anp), tuple(noun))
        for task, names in zip(VSO, lists):
            _check_names(task, names)
        places = {task: {n: i for i, n in enumerate(names)} for task, names in zip(VSO, lists)}
        triples = []
        for label, name in enumerate(anp):
            halves = {"adj": Anp(name).adjective, "noun": Anp(name).noun}
            for task, half in halves.items():
                if half not in places[task]:
                    raise UserError(f"the ANP {name} has no class in the {task} list")
            triples.append((places["adj"][halves["adj"]], label, places["noun"][halves["noun"]]))
        return cls(VSO, lists, tuple(triples), by_anp=True)

    @classmethod
    def of(cls, names: Iterable[str]) -> Classes:
        """The classes of these ANPs, each list in alphabetical order."""
        anps = [Anp(name) for name in sorted(names)]
        return cls.vso(
            adj=sorted({anp.adjective for anp in anps}),
            anp=[anp.name for anp in anps],
            noun=sorted({anp.noun for anp in anps}),
        )

    @classmethod
    def read(cls, folder: PathLike) -> Classes:
        """Read the classes in a folder: those of its tasks.json, or VSO's.

        VSO's lists are `adj.txt`, `anp.txt` and `noun.txt`, or have a prefix, as the authors'
        `mtvso_adj.txt`.
        """
        folder = Path(folder)
        try:
            if not (folder / _TASKS).is_file():
                return cls.vso(*(read_names(_find(folder, task), words=True) for task in VSO))
            told = shapes.read(folder / _TASKS, _SHAPE)
            lists = tuple(read_names(folder / f"{task}.txt") for task in told["tasks"])
            return cls(tuple(told["tasks"]), lists, tuple(map(tuple, told["combinations"])))
        except UserError as error:
            raise error if str(folder) in str(error) else UserError(f"{folder}: {error}") from None

    def write(self, folder: PathLike) -> None:
        """Write the list of each task and, unless they are VSO's, tasks.json."""
        folder = Path(folder)
        for task in self.tasks:
            write(folder / f"{task}.txt", self._text(task))
        if self.by_anp:
            (folder / _TASKS).unlink(missing_ok=True)
        else:
            write(folder / _TASKS, self._combinations)

    def __getitem__(self, task: str) -> tuple[str, ...]:
        """The class names of a task."""
        return self.lists[self.tasks.index(task)]

    def _text(self, task: str) -> str:
        return "".join(f"{name}\n" for name in self[task])

    @property
    def _combinations(self) -> str:
        return json.dumps({"tasks": self.tasks, "combinations": self.combinations}) + "\n"

    @property
    def counts(self) -> dict[str, int]:
        """Task -> number of classes."""
        return {task: len(names) for task, names in zip(self.tasks, self.lists)}

    @property
    def has_missing(self) -> bool:
        """Whether some images have no label for some task."""
        return any(MISSING in labels for labels in self.combinations)

    @cached_property
    def facts(self) -> dict[str, dict[str, Any]]:
        """Task -> number of classes and SHA-256 of the list as `write` writes it."""
        facts = {task: _fact(n, self._text(task)) for task, n in self.counts.items()}
        if not self.by_anp:
            facts[_TASKS] = _fact(len(self.combinations), self._combinations)
        return facts

    @property
    def made_by(self) -> str:
        """The command that writes these classes."""
        return "filter" if self.by_anp else "table"

    @property
    def divided_by(self) -> str:
        """The command that splits their images."""
        return "split" if self.by_anp else "table"

    @property
    def anp(self) -> tuple[str, ...]:
        """The ANPs.

        Raises:
            UserError: these are not VSO's classes.
        """
        if not self.by_anp:
            raise UserError(f"its tasks are {', '.join(self.tasks)}, not VSO's")
        return self["anp"]

    @cached_property
    def anp_index(self) -> dict[str, int]:
        """ANP -> label; empty for classes made from a table."""
        return {name: label for label, name in enumerate(self.anp)} if self.by_anp else {}

    def title(self, number: int) -> str:
        """A combination's name: the ANP, or the classes of all tasks."""
        if self.by_anp:
            return self.anp[number]
        labels = zip(self.lists, self.combinations[number])
        return " / ".join("-" if label == MISSING else names[label] for names, label in labels)


def _check_names(task: str, names: Sequence[str]) -> None:
    if not names:
        raise UserError(f"no {task} class")
    if len(set(names)) != len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise UserError(f"the {task} class {twice} is named twice")


def _fact(count: int, text: str) -> dict[str, Any]:
    return {"count": count, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def _find(folder: Path, task: str) -> Path:
    exact = folder / f"{task}.txt"
    if exact.is_file():
        return exact
    found = sorted(folder.glob(f"*[_-]{task}.txt"))
    if len(found) != 1:
        what = "several" if found else "no"
        raise UserError(f"{folder}: {what} class lists named {task}.txt or *_{task}.txt")
    return found[0]


def read_names(path: PathLike, words: bool = False) -> tuple[str, ...]:
    """Read class names, one a line. With `words`, names may not contain blanks, as VSO's.

    Raises:
        UserError: the file cannot be read, or a line is blank or an invalid name.
    """
    return parse_names(read_text(path), str(path), words)


def parse_names(text: str, path: str, words: bool = False) -> tuple[str, ...]:
    """`read_names` for the text of a file; `path` names it in errors."""
    text = text.lstrip("\ufeff").rstrip()
    lines = text.split("\n") if text else []
    for number, line in enumerate(lines, 1):
        # A blank line inside would shift every label behind it.
        if not line.strip() or (words and len(line.split()) != 1):
            raise UserError(f"{path}:{number}: expected one class name, found {line!r}")
    return tuple(line.strip() for line in lines)
