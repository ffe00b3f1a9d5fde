"""The class lists of the three tasks: one class a line, line order is label order, from 0."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from basics.cli import UserError
from basics.files import PathLike, read_text, write
from data_prep.ontology import Anp

TASKS = ("adj", "anp", "noun")  # the order of a label record's three values


@dataclass(frozen=True)
class Classes:
    """Class names of the three tasks, each in label order.

    Raises:
        UserError: an empty list, a class named twice, or an ANP whose
            adjective or noun is missing.
    """

    adj: tuple[str, ...]
    anp: tuple[str, ...]
    noun: tuple[str, ...]

    def __post_init__(self) -> None:
        for task in TASKS:
            names = getattr(self, task)
            if not names:
                raise UserError(f"no {task} class")
            if len(set(names)) != len(names):
                twice = next(name for i, name in enumerate(names) if name in names[:i])
                raise UserError(f"the {task} class {twice} is named twice")
        _ = self.triples

    @classmethod
    def of(cls, names: Iterable[str]) -> Classes:
        """The classes of these ANPs, each list in alphabetical order."""
        anps = [Anp(name) for name in sorted(names)]
        return cls(
            adj=tuple(sorted({anp.adjective for anp in anps})),
            anp=tuple(anp.name for anp in anps),
            noun=tuple(sorted({anp.noun for anp in anps})),
        )

    @classmethod
    def read(cls, folder: PathLike) -> Classes:
        """The lists `*adj.txt`, `*anp.txt`, `*noun.txt` of a folder.

        The authors' lists are named `mtvso_adj.txt` and so on; ours have no prefix.
        """
        folder = Path(folder)
        try:
            return cls(**{task: _read_list(_find(folder, task)) for task in TASKS})
        except UserError as error:
            raise error if str(folder) in str(error) else UserError(f"{folder}: {error}") from None

    def write(self, folder: PathLike) -> None:
        """Write `adj.txt`, `anp.txt` and `noun.txt`."""
        for task in TASKS:
            write(Path(folder) / f"{task}.txt", self._text(task))

    def _text(self, task: str) -> str:
        return "".join(f"{name}\n" for name in getattr(self, task))

    @cached_property
    def facts(self) -> dict[str, dict[str, Any]]:
        """Task -> number of classes and SHA-256 of the list as `write` writes it."""
        return {
            task: {
                "count": len(getattr(self, task)),
                "sha256": hashlib.sha256(self._text(task).encode()).hexdigest(),
            }
            for task in TASKS
        }

    @cached_property
    def anp_index(self) -> dict[str, int]:
        """ANP -> label."""
        return {name: label for label, name in enumerate(self.anp)}

    @cached_property
    def triples(self) -> list[tuple[int, int, int]]:
        """By ANP label: the labels (adjective, ANP, noun), in the order of `TASKS`."""
        adj = {name: label for label, name in enumerate(self.adj)}
        noun = {name: label for label, name in enumerate(self.noun)}
        triples = []
        for label, name in enumerate(self.anp):
            anp = Anp(name)
            if anp.adjective not in adj or anp.noun not in noun:
                task = "adj" if anp.adjective not in adj else "noun"
                raise UserError(f"the ANP {name} has no class in the {task} list")
            triples.append((adj[anp.adjective], label, noun[anp.noun]))
        return triples


def _find(folder: Path, task: str) -> Path:
    exact = folder / f"{task}.txt"
    if exact.is_file():
        return exact
    found = sorted(folder.glob(f"*[_-]{task}.txt"))
    if len(found) != 1:
        what = "several" if found else "no"
        raise UserError(f"{folder}: {what} class lists named {task}.txt or *_{task}.txt")
    return found[0]


def _read_list(path: Path) -> tuple[str, ...]:
    return parse_names(read_text(path), str(path))


def parse_names(text: str, path: str) -> tuple[str, ...]:
    """The class names in a label file's text; `path` names it in errors."""
    lines = text.lstrip("\ufeff").splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    for number, line in enumerate(lines, 1):
        # A blank line inside would shift every label behind it.
        if not line.strip() or len(line.split()) != 1:
            raise UserError(f"{path}:{number}: expected one class name, found {line!r}")
    return tuple(line.strip() for line in lines)
