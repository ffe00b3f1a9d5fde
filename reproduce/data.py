"""What the harness needs to know of a data folder."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from basics.cli import UserError
from basics.files import sha256
from data_prep.classes import TASKS, Classes
from data_prep.folder import DataFolder


@dataclass(frozen=True)
class Data:
    """A data folder with finished LMDBs: its classes, counts, and a key of its content."""

    folder: DataFolder
    names: Classes
    train: int
    test: int
    size: int
    key: str

    @classmethod
    def read(cls, root: Path) -> Data:
        """Look into the folder.

        Raises:
            UserError: no finished LMDBs there.
        """
        folder = DataFolder(Path(root).resolve())
        made = folder.read_manifest().get("lmdb")
        if not made:
            raise UserError(f"{root} has no finished LMDBs: run `python -m data_prep lmdb` first")
        names = Classes.read(folder.classes)
        train, test = (made[part]["written"] for part in ("train", "test"))
        lists = [sha256(folder.list(part)) for part in ("train", "test")]
        classes = {task: len(getattr(names, task)) for task in TASKS}
        sizes = json.dumps([classes, train, test, made["size"]])
        key = hashlib.sha256("".join([*lists, sizes]).encode()).hexdigest()
        return cls(folder, names, train, test, made["size"], key)

    @property
    def classes(self) -> dict[str, int]:
        """Task -> number of classes."""
        return {task: len(getattr(self.names, task)) for task in TASKS}

    def argv(self, folder: str | None = None) -> list[str]:
        """netgen's arguments for nets on this data, in `folder` if it is called otherwise."""
        return [
            *("--tasks", ",".join(f"{task}:{n}" for task, n in self.classes.items())),
            *("--input-size", str(self.size)),
            *("--data", folder or str(self.folder.root)),
            *("--train-images", str(self.train)),
            *("--test-images", str(self.test)),
        ]

    def facts(self) -> dict[str, Any]:
        """For results: where, how many, which."""
        return {
            "folder": str(self.folder.root),
            "classes": self.classes,
            "train": self.train,
            "test": self.test,
            "key": self.key,
        }
