"""A data folder as the harness sees it: classes, counts, and a key of its content."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data_prep.classes import MISSING, Classes
from data_prep.folder import DataFolder
from data_prep.reorder import reorder
from netgen import Network, Task
from netgen.option import flag
from xresnet.basics.cli import UserError
from xresnet.basics.files import sha256

_making = threading.Lock()  # several runs of a grid want the same data at once


@dataclass(frozen=True)
class Data:
    """A data folder with finished LMDBs.

    Args:
        train, test: numbers of images.
        size: side of an image in pixels.
        key: identifies classes, lists of images, and maps.
        features: the manifest's entry of maps cached by `features`.
        order: if the training images are in another order, the seed of that order and the data
            that they are taken from; `prepare` makes such a folder.
    """

    folder: DataFolder
    names: Classes
    train: int
    test: int
    size: int
    key: str
    features: dict[str, Any] | None = None
    order: tuple[int, Data] | None = None

    @classmethod
    def read(cls, root: Path) -> Data:
        """Read the folder's manifest, classes and lists.

        A folder in another order is read as its source, `reordered`.

        Raises:
            UserError: the folder has no finished LMDBs.
        """
        folder = DataFolder(os.path.realpath(root))  # resolve() is no OSError on a looping link
        made = folder.read_manifest().get("lmdb")
        if not made:
            raise UserError(f"{root} has no finished LMDBs: run `python -m data_prep lmdb` first")
        if order := folder.read_manifest().get("order"):
            return cls.read(Path(order["of"])).reordered(order["seed"], folder.root)
        names = Classes.read(folder.classes)
        train, test = (made[part]["written"] for part in ("train", "test"))
        lists = [sha256(folder.list(part)) for part in ("train", "test")]
        sizes = json.dumps([names.counts, train, test, made["size"]])
        features = folder.read_manifest().get("features")
        others = [] if names.by_anp else [json.dumps(names.facts)]
        cached = [json.dumps(features["key"])] if features else []
        key = hashlib.sha256("".join([*lists, sizes, *others, *cached]).encode()).hexdigest()
        return cls(folder, names, train, test, made["size"], key, features)

    def reordered(self, seed: int, root: Path) -> Data:
        """The same data with its training images in the order of `seed`, to be made in `root`."""
        key = hashlib.sha256(f"{self.key} in order {seed}".encode()).hexdigest()
        folder = DataFolder(os.path.realpath(root))
        return replace(self, folder=folder, key=key, order=(seed, self))

    def prepare(self) -> None:
        """Make the folder of another order, unless it is there.

        Raises:
            UserError: the disk is full, or the folder holds something else.
        """
        if self.order:
            seed, source = self.order
            with _making:
                reorder(source.folder, self.folder, seed)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks in the order of a label record's values."""
        return tuple(Task(name, count) for name, count in self.names.counts.items())

    def choices(self, folder: str | None = None, whole: bool = False) -> dict[str, Any]:
        """The options of netgen that these data determine.

        Args:
            folder: stands in the net for the data folder's path.
            whole: of a net on cached maps, the net with its trunk.
        """
        found = {
            "tasks": self.tasks,
            "input_size": self.size,
            "data": folder or str(self.folder.root),
            "train_images": self.train,
            "test_images": self.test,
            "ignore_label": MISSING if self.names.has_missing else None,
            "from_block": self.features["block"] if self.features and not whole else None,
        }
        return {name: value for name, value in found.items() if value is not None}

    def network(self, net: Network, folder: str | None = None, whole: bool = False) -> Network:
        """`net` with the options that these data determine (`choices`).

        Raises:
            UserError: the net has chosen one of them itself, or does not take it.
        """
        choices = self.choices(folder, whole)
        for name in net.choices.keys() & choices.keys():
            raise UserError(f"{flag(name)} is determined by the data: leave it out")
        return net.choose(**choices)

    def facts(self) -> dict[str, Any]:
        """Folder, counts and key, as results record them."""
        return {
            "folder": str(self.folder.root),
            "classes": self.names.counts,
            "train": self.train,
            "test": self.test,
            "size": self.size,
            "key": self.key,
        }


def hold_vso(data: Data, what: str) -> None:
    """Check that the data have VSO's three tasks, as `what` needs them.

    Raises:
        UserError: they have others.
    """
    if not data.names.by_anp:
        raise UserError(
            f"{data.folder.root}: its tasks are {', '.join(data.names.tasks)}; {what}, of VSO's "
            "adj, anp and noun (train, grid, features and eval take any)"
        )
