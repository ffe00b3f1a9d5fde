"""A training: net, data and schedule, and the prototxts that Caffe reads."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from netgen import Network
from netgen.blocks import cached_maps
from netgen.measure import takes_part
from netgen.options import Options, words
from xresnet.basics.cli import UserError
from xresnet.basics.files import fingerprint, sha256
from xresnet.caffeproto import text
from xresnet.reproduce.data import Data
from xresnet.reproduce.engine import CAFFE, Engine
from xresnet.reproduce.folder import RunFolder
from xresnet.reproduce.schedule import Schedule
from xresnet.reproduce.snapshots import PREFIX, Snapshot, is_whole_weights, snapshots

KEPT = 2  # most recent snapshots: the one before the last stands in for a damaged last


@dataclass(frozen=True)
class Training:
    """A net, its data and schedule, and the folder of its files.

    Args:
        net: without the options that the data determine: `Network("xs_resnet50", {"width": 16})`.
        solver: the solver's options by name, without rate and iterations.
        weights: .caffemodels that are copied before the first iteration.
        engine: not a part of what is trained: one engine resumes from the other's files.
        fresh: begin anew where the folder holds another rehearsal, instead of an error.
        keep: how many of the last snapshots to keep.
    """

    name: str
    net: Network
    data: Data
    folder: Path
    schedule: Schedule
    solver: dict[str, Any]
    weights: tuple[Path, ...] = ()
    engine: Engine = CAFFE
    fresh: bool = False
    keep: int = KEPT

    # ---- what it is ------------------------------------------------------------

    @cached_property
    def network(self) -> Network:
        """The net on its data."""
        return self.data.network(self.net)

    @cached_property
    def options(self) -> Options:
        """The net's options, with those that the data determine."""
        options = self.network.options
        held, wanted = (self.data.features or {}).get("maps"), cached_maps(options)
        if held and wanted and tuple(held) != wanted:
            raise UserError(
                f"{self.data.folder.root} holds maps of {_shape(held)}, the net wants "
                f"{_shape(wanted)}: give both the same --width, --blocks, --depth and --pool1"
            )
        return options

    @cached_property
    def intervals(self) -> tuple[int, int]:
        """(iterations between snapshots, iterations of an epoch)."""
        epoch = -(-self.options.train_images // self.options.batch)
        return self.schedule.intervals(epoch, self.solver.get("snapshot"))

    @property
    def epoch(self) -> int:
        return self.intervals[1]

    @property
    def files(self) -> RunFolder:
        return RunFolder(self.folder)

    def tests_at(self, iteration: int) -> bool:
        """Whether Caffe tests after `iteration` updates."""
        interval = self.schedule.test_interval(self.solver.get("test_interval"), self.epoch)
        return interval != 0 and iteration % (interval or self.epoch) == 0

    def net_texts(self) -> dict[str, str]:
        return {
            "net.prototxt": self.network.prototxt(),
            "deploy.prototxt": self.network.deploy(),
        }

    def solver_text(self, stage: int, lr: float) -> str:
        """The solver of a stage, counted from 0, at the rate `lr`."""
        snapshot, epoch = self.intervals
        folder = self.folder.resolve()
        chosen = {
            **self.solver,
            "lr": float(f"{lr:g}"),
            "max_iter": self.schedule.end(stage, epoch),
            "snapshot": snapshot,
            "test_interval": self.schedule.test_interval(self.solver.get("test_interval"), epoch),
            "net": str(folder / "net.prototxt"),
            "snapshot_prefix": str(folder / PREFIX),
        }
        if self.engine.gpu is None:
            chosen["cpu"] = True
        return self.network.solver(**chosen)

    @cached_property
    def key(self) -> str:
        """Identifies net, data, solver and initial weights; not rates, plateau rule or paths."""
        # As Caffe reads the net: comments may change with this code.
        net = self.data.network(self.net, "DATA").proto()
        solver = json.dumps(words(self.solver))
        parts = (self.data.key, text.dump(net), solver, self.schedule.identity)
        return fingerprint(*parts, *self.initial.values())

    @cached_property
    def initial(self) -> dict[str, str]:
        """The SHA-256 of each file of initial weights, by path."""
        return {str(path): _content(path) if path.is_file() else "missing" for path in self.weights}

    @cached_property
    def last_layer(self) -> str:
        """The last layer of the training net, by which a complete .caffemodel is recognised."""
        layers = self.network.proto().layer
        return [layer.name for layer in layers if takes_part(layer, 0)][-1]

    def check(self) -> None:
        """Check the net on these data and its initial weights.

        Raises:
            UserError: the net does not fit the data, its weights are missing, or its folder is
                the data's.
        """
        if self.folder.resolve() == self.data.folder.root:
            raise UserError(f"{self.folder} is the data folder: choose another --out")
        for path in self.weights:
            if not is_whole_weights(path):
                raise UserError(f"--weights {path}: no such file, or not a whole .caffemodel")
        if self.options.bn == "frozen" and not self.weights:
            raise UserError("--bn frozen needs --weights: without, norms have no statistics")

    # ---- what is there ------------------------------------------------------------

    def snapshots(self) -> list[Snapshot]:
        """The complete snapshots, oldest first."""
        return snapshots(self.folder, self.last_layer)

    def is_done(self) -> bool:
        """Whether this training, and no other in its folder, has ended."""
        taken = self.files.decisions()
        return bool(taken) and taken[-1].action == "stop" and self.files.key == self.key

    # ---- how Caffe is called --------------------------------------------------------

    def command(self, solver: Path, state: Snapshot | None) -> list[str]:
        """Caffe's arguments for a stage, from `state` or from the start."""
        command = ["train", "-solver", str(solver), *self.engine.training]
        if self.engine.gpu is not None:
            command += ["-gpu", self.engine.gpu]
        if state:
            return [*command, "-snapshot", str(state.state.resolve())]
        if self.weights:
            return [*command, "-weights", ",".join(str(path.resolve()) for path in self.weights)]
        return command

    def commands(self) -> list[list[str]]:
        """Caffe's arguments, stage by stage, as an undisturbed run has them."""
        found, stage = [], 0
        for decision in self.files.decisions():
            stage += decision.action == "drop"
            if decision.action in ("start", "drop"):
                at = decision.iteration
                state = Snapshot.of(self.folder, at) if at else None
                found.append(self.command(self.files.solver(stage), state))
        return found


def _content(path: Path) -> str:
    """A file's SHA-256; read once for all runs of a grid that start from it."""
    facts = path.stat()
    return _digest(str(path.resolve()), facts.st_size, facts.st_mtime_ns)


@cache
def _digest(path: str, size: int, changed: int) -> str:
    return sha256(path)


def _shape(sides: Iterable[int]) -> str:
    return " x ".join(map(str, sides))
