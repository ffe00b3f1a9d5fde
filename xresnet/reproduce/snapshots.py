"""Caffe's snapshots in a run's folder: which are complete, and which to keep.

A snapshot is two files, `snapshot_iter_N.caffemodel` (written first) and
`snapshot_iter_N.solverstate`; torchcaffe adds `snapshot_iter_N.torchcaffe`, which
it can do without. Both are protobuf messages without a checksum; a full disk,
a kill or a power cut leaves a part of one, which Caffe would load silently or
die on. A file is complete if its fields end where the file ends, and the field
that Caffe writes last is there. Only tags and lengths are read, some kilobytes
of 170 MB.
"""

from __future__ import annotations

import contextlib
import glob
import math
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from xresnet.basics.cli import UserError
from xresnet.basics.files import fsync, replacing
from xresnet.caffeproto import wire

PREFIX = "snapshot"
_STATE = re.compile(r"(.*)_iter_(\d+)\.solverstate")
# The first group is the dot of a file that a killed torchcaffe had not finished writing aside.
_FILE = re.compile(rf"(\.)?{PREFIX}_iter_(\d+)\.(?:solverstate|caffemodel|torchcaffe)(?(1)\..*)")
_NET_LAYER, _LAYER_NAME = 100, 1  # field numbers of NetParameter, LayerParameter,
# SolverState: `iter` comes first, the path of the weights next, `current_step` last.
_STATE_ITER, _STATE_NET, _STATE_STEP = 1, 2, 4


@dataclass(frozen=True, order=True)
class Snapshot:
    """The weights and the solver's state after `iteration` updates."""

    iteration: int
    state: Path

    @classmethod
    def of(cls, folder: Path, iteration: int) -> Snapshot:
        """The snapshot of `iteration` in a run's folder, which need not exist."""
        return cls(iteration, folder / f"{PREFIX}_iter_{iteration}.solverstate")

    @property
    def weights(self) -> Path:
        return self.state.with_suffix(".caffemodel")

    def is_whole(self, last_layer: str | None = None) -> bool:
        """Whether both files are complete; `last_layer` is the last one of the training net."""
        return is_whole_state(self.state) and is_whole_weights(self.weights, last_layer)

    def sync(self) -> None:
        """Bring its files to the disk, so that a power cut cannot take them."""
        for path in (self.weights, self.state, self.state.parent):
            fsync(path)

    def settle(self) -> None:
        """Make the state name the weights beside it.

        Caffe writes their absolute path into the state, and reads that file when it resumes: a
        copied run would resume with the original's weights, and a moved one, or one that a
        container has under another path, not at all.

        Raises:
            UserError: the state cannot be written.
        """
        wanted = os.fsencode(self.state.parent.resolve() / self.weights.name)
        try:
            with self.state.open("rb") as file:
                state = wire.File(file)
                begin = end = 0  # of the field that names them; without one, behind the first
                for number, kind, first, second, _ in wire.fields(state):
                    if number == _STATE_ITER and kind == wire.VARINT:
                        begin = end = len(wire.key(number, kind) + wire.encoded(first))
                    elif number == _STATE_NET and kind == wire.LENGTH:
                        if state[first:second] == wanted:
                            return
                        begin, end = first - len(wire.length(number, second - first)), second
                with replacing(self.state) as made:
                    made.write(state[0:begin])
                    made.write(wire.length(_STATE_NET, len(wanted)) + wanted)
                    file.seek(end)
                    shutil.copyfileobj(file, made)
        except OSError as error:
            raise UserError(f"cannot write {self.state}: {error.strerror}") from error

    def delete(self) -> None:
        # The state first: weights alone are no snapshot.
        for path in (self.state, self.weights, self.state.with_suffix(".torchcaffe")):
            path.unlink(missing_ok=True)


def snapshots(folder: Path, last_layer: str | None = None, prefix: str = PREFIX) -> list[Snapshot]:
    """The complete snapshots in a folder, oldest first."""
    found = []
    for path in folder.glob(f"{glob.escape(prefix)}_iter_*.solverstate"):
        name = _STATE.fullmatch(path.name)
        if name and name[1] == prefix:
            snapshot = Snapshot(int(name[2]), path)
            if snapshot.is_whole(last_layer):
                found.append(snapshot)
    return sorted(found)


def iteration_of(path: Path) -> int:
    """The iteration in the name of a snapshot's file."""
    return int(path.stem.rpartition("_")[2])


def iterations(folder: Path) -> set[int]:
    """The iterations of which there are files, complete or not."""
    names = [_FILE.fullmatch(path.name) for path in folder.glob(f"{PREFIX}_iter_*")]
    return {int(name[2]) for name in names if name}


def delete_except(folder: Path, keep: Iterable[int], before: float = math.inf) -> None:
    """Delete the files of all snapshots before iteration `before`, except those in `keep`."""
    kept = set(keep)
    for path in folder.iterdir():
        name = _FILE.fullmatch(path.name)
        if name and int(name[2]) < before and (name[1] or int(name[2]) not in kept):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()


def is_whole_state(path: Path) -> bool:
    """Whether a .solverstate has its first and its last field and nothing cut off."""
    try:
        with path.open("rb") as file:
            numbers = [number for number, *_ in wire.fields(wire.File(file))]
    except (OSError, wire.Malformed):
        return False
    return bool(numbers) and numbers[0] == _STATE_ITER and numbers[-1] == _STATE_STEP


def is_whole_weights(path: Path, last_layer: str | None = None) -> bool:
    """Whether a .caffemodel has layers, the last of them `last_layer`, and nothing cut off."""
    try:
        with path.open("rb") as file:
            net = wire.File(file)
            layers = [field for field in wire.fields(net) if field[0] == _NET_LAYER]
            if not layers or last_layer is None:
                return bool(layers)
            _, _, first, second, _ = layers[-1]
            name = next(wire.fields(net, first, second), None)
            if name is None or name[0] != _LAYER_NAME:
                return False
            return wire.string(net, name) == last_layer
    except (OSError, wire.Malformed):
        return False
