"""Where everything lies in a data folder, its manifest, and its lock.

DATA/manifest.json       what each stage read, decided and counted
DATA/ontology.csv        every ANP, kept or dropped, with the reason
DATA/classes/{adj,anp,noun}.txt
DATA/{train,test}.txt
DATA/{train,test}_{image,label}_lmdb/
DATA/mean.binaryproto    the mean of the training images
DATA/.partial/           databases being written
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import lmdb
import numpy as np

from basics.cli import UserError
from basics.files import PathLike, read_text, write_json

STAGES = ("filter", "split", "lmdb")  # each rests on those before it
PARTS = ("train", "test")


class DataFolder:
    """The paths under one data folder, and what is written down about them."""

    def __init__(self, root: PathLike) -> None:
        self.root = Path(root)
        self.manifest = self.root / "manifest.json"
        self.ontology = self.root / "ontology.csv"
        self.classes = self.root / "classes"
        self.mean = self.root / "mean.binaryproto"
        self.partial = self.root / ".partial"

    def list(self, part: str) -> Path:
        """The list of `train` or `test`."""
        return self.root / f"{part}.txt"

    def lmdb(self, part: str, kind: str) -> Path:
        """The database folder of `train` or `test`, kind `image` or `label`."""
        return self.root / f"{part}_{kind}_lmdb"

    def read_manifest(self) -> dict[str, Any]:
        """Stage -> what it recorded; empty where no stage has run.

        Raises:
            UserError: the file is not a manifest.
        """
        if not self.manifest.exists():
            return {}
        try:
            stages = json.loads(read_text(self.manifest))
        except json.JSONDecodeError as error:
            raise UserError(f"{self.manifest}:{error.lineno}: not JSON ({error.msg})") from error
        if not isinstance(stages, dict):
            raise UserError(f"{self.manifest}: not a manifest; move it away and run `filter` again")
        return stages

    def record(self, stage: str, values: dict[str, Any]) -> None:
        """Write a stage into the manifest and take out the stages that rested on its old result."""
        stages = self.read_manifest()
        kept = {name: stages[name] for name in STAGES[: STAGES.index(stage)] if name in stages}
        write_json(self.manifest, {"format": 1, **kept, stage: {**values, "versions": versions()}})

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for one writer; a killed one lets go by itself.

        Raises:
            UserError: another process is writing there, or the folder cannot be written.
        """
        path = self.root / ".lock"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            file = path.open("w")
        except OSError as error:
            raise UserError(f"cannot write {self.root}: {error.strerror}") from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UserError(f"{self.root}: another run is writing there; wait for it") from None
            yield


def versions() -> dict[str, str]:
    """The software that decides about bytes."""
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "py-lmdb": lmdb.__version__,
    }
