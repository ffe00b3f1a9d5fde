"""A run's folder: what a training writes there, and reads to resume.

RUN/net.prototxt deploy.prototxt   what is trained; its inference form
    solver_1.prototxt ...          a stage each; solver.prototxt is the present one
    snapshot_iter_*                Caffe's (reproduce.snapshots)
    train.log                      Caffe's words, whole, of all calls
    decisions.jsonl                each decision with the numbers it rests on
    tensorboard/                   event files
    run.json                       what this is, and of which data
    classes/ mean.binaryproto      what else its net needs of them (reproduce.kept)
    .lock                          held by the driver at work (reproduce.lock)
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
    """The files of a run, whichever training they are of."""

    path: Path

    @property
    def log(self) -> Path:
        return self.path / "train.log"

    @property
    def key(self) -> str | None:
        """The key of the training that it holds; None where it holds none."""
        record = find_record(self.path)
        return record["key"] if record else None

    def engines(self) -> list[str]:
        """The names of the engines that trained here, the last one last; none without a run."""
        record = find_record(self.path)
        return record.get("engines", [CAFFE.name]) if record else []  # older ones knew but Caffe

    def history(self) -> History:
        """What the log tells of the weights that were kept.

        After the decision to stop, Caffe goes on for some iterations until it hears of it.
        """
        history, taken = History.read(self.log), self.decisions()
        if taken and taken[-1].action == "stop":
            history.cut(taken[-1].iteration)
        return history

    # ---- decisions ----------------------------------------------------------------------

    def decisions(self) -> list[Decision]:
        """All of them; a line cut short by a kill counts for nothing.

        Raises:
            UserError: a line is whole, but no decision: somebody has changed it.
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
        """Add a decision, and see that it lasts."""
        line = json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **asdict(decision)})
        append_line(self.path / "decisions.jsonl", line, sync=True)

    # ---- files --------------------------------------------------------------------------

    def solver(self, stage: int) -> Path:
        """The solver of a stage, counted from 0."""
        return self.path.resolve() / f"solver_{stage + 1}.prototxt"

    def write_solver(self, stage: int, content: str) -> Path:
        """Write the solver of a stage, which is the present one."""
        path = self.solver(stage)
        self.write(path.name, content)
        self.write("solver.prototxt", content)
        return path

    def write(self, name: str, content: str) -> None:
        """Write a file, unless that is what it holds."""
        path = self.path / name
        if not path.exists() or read_text(path) != content:
            write(path, content)

    def clear(self) -> None:
        """Take away what a training leaves."""
        delete_except(self.path, ())
        for pattern in OWN_FILES:
            for old in self.path.glob(pattern):
                old.unlink()

    def room(self) -> str:
        """In words, what is free on its disk."""
        return f"{megabytes(shutil.disk_usage(self.path).free)} free on that disk"


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
