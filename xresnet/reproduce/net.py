"""A trained net in a run's folder: its prototxts, and the weights of a snapshot."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from xresnet.basics.cli import UserError
from xresnet.basics.files import sha256
from xresnet.reproduce.folder import RunFolder
from xresnet.reproduce.forward import image_layer
from xresnet.reproduce.results import find_result
from xresnet.reproduce.snapshots import is_whole_weights, iteration_of, snapshots


@dataclass(frozen=True)
class Net:
    """A net: its train/test prototxt, its deploy prototxt, and weights."""

    name: str
    model: Path
    deploy: Path
    weights: Path

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.model.parent

    @property
    def batch(self) -> int:
        return image_layer(self.model).data_param.batch_size


def net_of(place: Path, snapshot: str | None = None) -> Net:
    """The net in a run's folder at `snapshot`: last (None), best, or an iteration.

    `place` may also be a .caffemodel in a run's folder.

    Raises:
        UserError: it is not a run, or has no such snapshot.
    """
    folder = place.parent if place.suffix == ".caffemodel" else place
    model, deploy = folder / "net.prototxt", folder / "deploy.prototxt"
    for path in (model, deploy):
        if not path.exists():
            raise UserError(f"{folder} has no {path.name}: it is not a run's folder")
    if folder != place:
        if snapshot:
            raise UserError(f"--snapshot {snapshot}: {place} already names one")
        if not is_whole_weights(place):
            raise UserError(f"{place} does not exist, or is not a complete .caffemodel")
        return Net(folder.name, model, deploy, place)
    found = {s.iteration: s.weights for s in snapshots(folder)} or _kept_alone(folder)
    if not found:
        raise UserError(f"{folder} has no complete snapshot yet")
    if snapshot in (None, "last"):
        at = max(found)
    elif snapshot == "best":
        at = RunFolder(folder).history().best(set(found)) or max(found)
    elif re.fullmatch(r"[0-9]+", snapshot) and int(snapshot) in found:
        at = int(snapshot)
    else:
        there = ", ".join(map(str, sorted(found)))
        raise UserError(f"{folder}: no snapshot {snapshot!r}; available: {there}, last and best")
    return Net(folder.name, model, deploy, found[at])


def weights_of(place: Path) -> Path:
    """A file of weights as it is; of a run's folder, those of its last snapshot.

    Raises:
        UserError: a folder that is not a run's, or has no snapshot.
    """
    return net_of(place).weights if place.is_dir() else place


def _kept_alone(folder: Path) -> dict[int, Path]:
    """Iteration -> weights of a finished run without solver states, such as a packed net.

    Raises:
        UserError: the weights are not those of its result.
    """
    result = find_result(folder) or {}
    found = {}
    for name, digest in result.get("sha256", {}).items():
        path = folder / name
        if path.suffix == ".caffemodel" and path.is_file():
            if sha256(path) != digest:
                raise UserError(
                    f"{path} is damaged, or belongs to another run than {folder}/result.json"
                )
            found[iteration_of(path)] = path
    return found
