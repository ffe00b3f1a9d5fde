"""A run's folder: the files that a training writes, and reads to resume.

RUN/net.prototxt deploy.prototxt   the training net and its inference form
    solver_1.prototxt ...          the solver of each stage; solver.prototxt is the present one
    snapshot_iter_*                Caffe's snapshots (reproduce.snapshots)
    train.log                      Caffe's whole output, of all calls
    decisions.jsonl                each decision with its numbers
    tensorboard/                   event files
    run.json                       net, solver and data of this training
    classes/ mean.binaryproto      copies of the data's (reproduce.kept)
    .lock                          held while a driver trains here (reproduce.lock)
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from xresnet.basics.cli import UserError
from xresnet.basics.files import append_line, read_text, write
from xresnet.reproduce.engine import CAFFE
from xresnet.reproduce.history import History
from xresnet.reproduce.kept import find_record
from xresnet.reproduce.schedule import Decision
from xresnet.reproduce.snapshots import delete_except

# What a training leaves beside its snapshots, and its tests after it.
OWN_FILES = (
    *("train.log", "decisions.jsonl", "run.json", "solver*.prototxt"),
    *("test*.log", "eval*.json", "eval*.npz", "result.json"),
)


@dataclass(frozen=True)
class RunFolder:
    """The files of a run, whatever is trained."""

    path: Path

    @property
    def log(self) -> Path:
        return self.path / "train.log"

    @property
    def key(self) -> str | None:
        """The key of the training in this folder; None if there is none."""
        record = find_record(self.path)
        return record["key"] if record else None

    def engines(self) -> list[str]:
        """The names of the engines that trained here, in order; none without a run."""
        record = find_record(self.path)
        return record.get("engines", [CAFFE.name]) if record else []  # older runs had Caffe only

    def history(self) -> History:
        """The log's losses and test passes, without those after the decision to stop.

        Caffe trains on for some iterations until it is stopped.
        """
        history, taken = History.read(self.log), self.decisions()
        if taken and taken[-1].action == "stop":
            history.cut(taken[-1].iteration)
        return history

    # ---- decisions ----------------------------------------------------------------------

    def decisions(self) -> list[Decision]:
        """All decisions; a line that a kill has cut short is skipped.

        Raises:
            UserError: a complete line is not a decision, as somebody has changed it.
        """
        found = []
        path = self.path / "decisions.jsonl"
        if path.exists():
            for number, line in enumerate(read_text(path).splitlines(), 1):
                try:
                    values = json.loads(line)
                except ValueError:
                    continue
                try:
                    values.pop("time", None)
                    found.append(Decision(**values))
                except (AttributeError, TypeError, UserError) as error:
                    raise UserError(f"{path}:{number}: no decision of this driver's") from error
        return found

    def append(self, decision: Decision) -> None:
        """Add a decision, and bring it to the disk."""
        line = json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **asdict(decision)})
        append_line(self.path / "decisions.jsonl", line, sync=True)

    # ---- files --------------------------------------------------------------------------

    def solver(self, stage: int) -> Path:
        """The solver of a stage, counted from 0."""
        return self.path.resolve() / f"solver_{stage + 1}.prototxt"

    def write_solver(self, stage: int, content: str) -> Path:
        """Write the solver of a stage, which becomes the present one."""
        path = self.solver(stage)
        self.write(path.name, content)
        self.write("solver.prototxt", content)
        return path

    def write(self, name: str, content: str) -> None:
        """Write a file, unless it has this content already."""
        path = self.path / name
        if not path.exists() or read_text(path) != content:
            write(path, content)

    def clear(self) -> None:
        """Delete the files of a training."""
        delete_except(self.path, ())
        for pattern in OWN_FILES:
            for old in self.path.glob(pattern):
                old.unlink()

    def room(self) -> str:
        """The free space of the folder's disk, in words."""
        return f"{megabytes(shutil.disk_usage(self.path).free)} free on that disk"


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
