"""The copies of data facts in a run's folder, by which its net can be used without the data.

RUN/classes/                     the class names of each task, in label order
    mean.binaryproto             the mean image, where its net subtracts one
    run.json                     under "data": where the data lay, counts, size and key

A data folder may be filtered or filled anew at any time; labels keep the meaning that they had
when the net learned them. Older runs kept no classes: theirs are the data folder's, as long as
its key is the run's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.classes import Classes
from xresnet.basics import shapes
from xresnet.basics.cli import UserError
from xresnet.basics.files import sha256, write
from xresnet.reproduce.data import Data
from xresnet.reproduce.forward import MEAN, image_layer, mean_file

CLASSES = "classes"
FACTS = {
    "folder": str,
    "classes": {str: int},
    "train": int,
    "test": int,
    "key": str,
    "size?": int,
}
RECORD = {
    "key": str,
    "name": str,
    "net": [str],
    "solver": [str],
    "epoch": int,
    "engines?": [str],
    "weights?": {str: str},
    "rehearsal?": bool,
    "data": FACTS,
}


def keep(data: Data, folder: Path, resumed: bool) -> None:
    """Copy the class names and the mean image into a run's folder, which has its net already.

    Raises:
        UserError: the training is `resumed`, and its classes or its mean image have changed; or
            the net's mean image does not exist.
    """
    try:
        names = Classes.read(folder / CLASSES)
    except UserError:  # none yet, or not all of them
        names = None
    if names != data.names:
        if resumed and names:
            raise UserError(
                f"{data.folder.root}: its classes differ from those with which {folder} was started"
            )
        data.names.write(folder / CLASSES)
    mean = mean_file(folder / "net.prototxt")
    if mean is None:
        return
    if not mean.is_file():
        raise UserError(f"{mean}: the mean image (--mean-file) does not exist")
    kept = folder / MEAN
    if not kept.is_file() or sha256(kept) != sha256(mean):
        if resumed and kept.is_file():
            raise UserError(
                f"{mean} differs from the mean image with which {folder} was started ({kept})"
            )
        write(kept, mean.read_bytes())


@dataclass(frozen=True)
class Kept:
    """A run's class names, the side of its images in pixels before a crop, and its data's key."""

    run: Path
    names: Classes
    size: int
    key: str
    root: Path  # the data folder, which may have changed since, or be gone

    @classmethod
    def read(cls, run: Path) -> Kept:
        """Read what the run in folder `run` has kept.

        Raises:
            UserError: it is not a run, or an older one whose data have changed.
        """
        facts = read_record(run)["data"]
        root = Path(image_layer(run / "net.prototxt").data_param.source).parent
        if (run / CLASSES).is_dir() and "size" in facts:
            return cls(run, Classes.read(run / CLASSES), facts["size"], facts["key"], root)
        try:
            data = Data.read(root)
        except UserError as error:
            raise UserError(f"{run}: trained before runs kept their class lists; {error}") from None
        if data.key != facts["key"]:
            raise UserError(
                f"{run}: trained before runs kept their class lists, and {root} has changed "
                "since, so the meaning of its labels is unknown"
            )
        return cls(run, data.names, data.size, data.key, root)

    def change(self) -> str | None:
        """What has changed in the data folder since training; None if nothing, or it is gone."""
        if not self.root.exists():
            return None
        try:
            data = Data.read(self.root)
        except UserError:
            return f"{self.root} has changed since {self.run} was trained: no finished LMDBs there"
        if data.names != self.names:
            return f"{self.root} has other classes now than when {self.run} was trained"
        if data.key != self.key:
            return f"{self.root} has other images now than when {self.run} was trained"
        mean, kept = mean_file(self.run / "net.prototxt"), self.run / MEAN
        if mean and mean.is_file() and kept.is_file() and sha256(mean) != sha256(kept):
            return f"{mean} has changed since {self.run} was trained"
        return None

    def tested_on(self) -> Path:
        """The data folder, for tests of the net.

        Raises:
            UserError: it is gone, or has changed since the training: labels could mean other
                classes, and training images could be among the test images.
        """
        if not self.root.is_dir():
            raise UserError(
                f"{self.run}: its data folder {self.root} does not exist: put it, or a link to it, "
                "there again"
            )
        if changed := self.change():
            raise UserError(f"{changed}, so a test on it would say nothing about this net")
        return self.root


def read_record(run: Path) -> dict[str, Any]:
    """The content of run.json: net, solver and data of a run.

    Raises:
        UserError: there is no run.json, or it is damaged.
    """
    record = find_record(run)
    if record is None:
        raise UserError(f"{run} has no run.json: it is not a run's folder")
    return record


def find_record(folder: Path) -> dict[str, Any] | None:
    """The content of run.json; None if there is none.

    Raises:
        UserError: the file exists, but is damaged.
    """
    path = folder / "run.json"
    if not path.exists():
        return None
    try:
        return shapes.read(path, RECORD)
    except UserError as error:
        raise UserError(
            f"{error}, so it is unknown which training this is: restore that file from a copy, or "
            "choose another folder"
        ) from error
