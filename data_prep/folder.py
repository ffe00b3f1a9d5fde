"""The layout of a data folder, its manifest and its lock.

DATA/manifest.json       what each stage read, decided and counted
DATA/ontology.csv        every ANP, kept or dropped, with the reason
DATA/classes/{adj,anp,noun}.txt; of a table: TASK.txt of each task, and tasks.json
DATA/{train,test}.txt
DATA/{train,test}_{image,label}_lmdb/
DATA/mean.binaryproto    the mean of the training images
DATA/.partial/           databases being written
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import lmdb
import numpy as np

from xresnet.basics.cli import UserError
from xresnet.basics.files import PathLike, read_text, sha256, write_json

STAGES = ("filter", "split", "lmdb")  # each depends on those before it
_RESULTS = {"filter": "classes", "split": "lists"}  # stage -> its entry with the files' hashes
PARTS = ("train", "test")
LOCK = ".lock"


def check_name(folder: PathLike) -> Path:
    """Return `folder` if its absolute path can be written into nets, lists and manifests.

    Raises:
        UserError: the path is not UTF-8 or not a possible name.
    """
    try:
        os.path.realpath(folder).encode()
    except UnicodeEncodeError:
        raise UserError(f"{folder}: the name is not UTF-8; rename it") from None
    except ValueError as error:  # a NUL
        raise UserError(f"{folder}: not a possible folder name ({error})") from None
    return Path(folder)


class DataFolder:
    """The paths in a data folder, and its manifest; a path-like object itself.

    Raises:
        UserError: its name is not UTF-8.
    """

    def __init__(self, root: PathLike) -> None:
        self.root = check_name(root)
        self.manifest = self.root / "manifest.json"
        self.ontology = self.root / "ontology.csv"
        self.classes = self.root / "classes"
        self.mean = self.root / "mean.binaryproto"
        self.partial = self.root / ".partial"

    def __fspath__(self) -> str:
        return str(self.root)

    def __repr__(self) -> str:
        return f"DataFolder({str(self.root)!r})"

    def list(self, part: str) -> Path:
        """The list of images of `part`, "train" or "test"."""
        return self.root / f"{part}.txt"

    def lmdb(self, part: str, kind: str) -> Path:
        """The database of `part`, "train" or "test", and `kind`, "image" or "label"."""
        return self.root / f"{part}_{kind}_lmdb"

    def read_manifest(self) -> dict[str, Any]:
        """Stage -> what it recorded; empty if no stage has run.

        Raises:
            UserError: the file is not a manifest.
        """
        if not self.manifest.exists():
            return {}
        try:
            stages = json.loads(read_text(self.manifest))
        except json.JSONDecodeError as error:
            raise UserError(f"{self.manifest}:{error.lineno}: not JSON ({error.msg})") from error
        if not isinstance(stages, dict) or any(
            not isinstance(stages.get(stage, {}), dict) for stage in STAGES
        ):
            raise UserError(f"{self.manifest}: not a manifest; remove it and run `filter` again")
        return stages

    def begin(self, stage: str, values: dict[str, Any]) -> None:
        """Remove a stage and those that depend on it from the manifest, before its files change.

        They stay if `values` has the result that is recorded, as its files will not change.
        """
        stages = self.read_manifest()
        result = _RESULTS.get(stage)
        if stage not in stages or (result and stages[stage].get(result) == values[result]):
            return
        before = STAGES[: STAGES.index(stage)]
        self._write({name: stages[name] for name in before if name in stages})

    def record(self, stage: str, values: dict[str, Any]) -> None:
        """Write a stage into the manifest; stages that depend on another result are removed."""
        self.begin(stage, values)
        self._write({**self.read_manifest(), stage: {**values, "versions": versions()}})

    def _write(self, stages: dict[str, Any]) -> None:
        ordered = {name: stages[name] for name in STAGES if name in stages}
        write_json(self.manifest, {"format": 1, **ordered})

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the folder for one writer; the lock ends with the process.

        Raises:
            UserError: another process is writing there, or the folder cannot be written.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            # A link of that name could make us write elsewhere, a pipe could make us wait.
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
            lock = os.open(self.root / LOCK, flags, 0o666)
        except OSError as error:
            raise UserError(f"cannot write {self.root}: {error.strerror}") from error
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UserError(f"{self.root}: another run is writing there; wait for it") from None
            yield
        finally:
            os.close(lock)


def source(path: PathLike) -> dict[str, str | None]:
    """A manifest's entry on a file that was read: path and SHA-256 (None for a folder)."""
    return {"path": str(path), "sha256": sha256(path) if Path(path).is_file() else None}


def versions() -> dict[str, str]:
    """The versions of the software that the bytes of the databases depend on."""
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "py-lmdb": lmdb.__version__,
    }
