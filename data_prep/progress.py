"""The progress of a part's databases, in a file beside them, to resume an interrupted run.

The file is replaced after each commit of both databases. It can be one commit behind them but
never ahead; records beyond it are deleted on resuming.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.mean import Mean
from xresnet.basics.files import replacing


@dataclass
class Report:
    """The result of writing one list. `dropped` and `damaged` hold (path, reason).

    `histogram` counts records by the number in the list; `mean_values` are blue, green, red;
    `records` is a hash of all image records.
    """

    listed: int
    written: int = 0
    dropped: list[tuple[str, str]] = field(default_factory=list)
    damaged: list[tuple[str, str]] = field(default_factory=list)
    histogram: list[int] = field(default_factory=list)
    mean_values: list[float] = field(default_factory=list)
    records: str = ""
    reused: bool = False
    resumed_at: int = 0

    def facts(self) -> dict[str, Any]:
        """All but how this run came by it, for the manifest."""
        return {k: v for k, v in asdict(self).items() if k not in ("reused", "resumed_at")}


class Progress:
    """The state before list line `next`: report, CRC-32 of each image record, mean."""

    def __init__(self, path: Path, job: dict[str, Any], listed: int, classes: int) -> None:
        self._path = path
        # Nothing is synced on the way: after a crash of the machine nothing can be trusted.
        self._job = {**job, "boot": _boot()}
        self.next = 0
        self.finished = False
        self.report = Report(listed, histogram=[0] * classes)
        self.crcs = array("I")
        self.mean = Mean(job["size"])

    def load(self) -> bool:
        """Load what an earlier run of the same job left; False if there is nothing."""
        try:
            with self._path.open("rb") as file:
                head = json.loads(file.readline())
                if head["job"] != self._job:
                    return False
                report = Report(**head["report"])
                crcs = array("I", file.read(4 * report.written))
                sums = np.frombuffer(file.read(), np.float32).reshape(self.mean.sums.shape)
        except (OSError, ValueError, KeyError, TypeError):
            return False
        self.next, self.finished = head["next"], head["finished"]
        self.report, self.crcs = report, crcs
        self.mean.sums[:] = sums
        return True

    def save(self) -> None:
        """Replace the file, without a sync: only a crash of the machine would lose it."""
        head = {
            "job": self._job,
            "next": self.next,
            "finished": self.finished,
            "report": self.report.facts(),
        }
        with replacing(self._path, sync=False) as file:
            file.write(json.dumps(head).encode() + b"\n")
            file.write(self.crcs.tobytes())
            file.write(self.mean.sums.tobytes())

    def summarise(self) -> None:
        """Complete the report after the last record."""
        self.report.mean_values = self.mean.values(self.report.written)
        self.report.records = hashlib.sha256(self.crcs.tobytes()).hexdigest()


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
