"""The state of a run's folder before training: empty, to be resumed, or another training's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from netgen.options import words
from xresnet.basics.cli import UserError
from xresnet.basics.files import write_json
from xresnet.reproduce.kept import find_record, keep
from xresnet.reproduce.schedule import Decision
from xresnet.reproduce.start import record_of
from xresnet.reproduce.training import Training


def as_recorded(training: Training) -> Training:
    """The training with the solver's options in the order in which its folder recorded them.

    Their order is a part of its key.
    """
    record = find_record(training.folder)
    if record is None or sorted(record["solver"]) != sorted(words(training.solver)):
        return training

    def place(choice: tuple[str, Any]) -> int:
        flag = words(dict([choice]))[:1]
        return record["solver"].index(flag[0]) if flag else -1

    return replace(training, solver=dict(sorted(training.solver.items(), key=place)))


def take_up(training: Training) -> None:
    """Prepare the folder for training: resume the run that it holds, or begin one.

    Raises:
        UserError: the folder holds another training, or too little to resume this one.
    """
    files = training.files
    goes_on = _goes_on(training)
    engines = files.engines()
    if not training.is_done():
        name = training.engine.name
        engines = [*(engine for engine in engines if engine != name), name]
    for name, content in training.net_texts().items():
        files.write(name, content)
    keep(training.data, training.folder, goes_on)
    write_json(files.path / "run.json", _record(training, engines))
    first, taken = training.schedule.first(), files.decisions()
    if not taken:
        files.append(first)
        files.write_solver(0, training.solver_text(0, first.lr))
    elif [d for d in taken if d.action == "start"][-1].lr != first.lr:
        # Another --lr than before: by hand, from where it is.
        found = training.snapshots()
        at = found[-1].iteration if found else 0
        files.append(Decision("start", at, first.lr, "by hand: --lr", first.numbers))


def _record(training: Training, engines: list[str]) -> dict[str, Any]:
    """The content of run.json: net, solver, weights and data."""
    return {
        "key": training.key,
        "name": training.name,
        "net": training.net.words(),
        "solver": words(training.solver),
        "epoch": training.epoch,
        "batch": training.options.batch,
        "weights": training.initial,
        "made": [made for path in training.weights if (made := record_of(path))],
        "rehearsal": training.fresh,
        "engines": engines,
        "data": training.data.facts(),
    }


def _goes_on(training: Training) -> bool:
    """Whether the folder holds this training, to be resumed.

    A folder in which nothing was trained is begun anew.

    Raises:
        UserError: it holds another training, or too little to resume this one.
    """
    files = training.files
    folder, record = files.path, find_record(files.path)
    taken, found = files.decisions(), training.snapshots()
    mine = record is not None and record["key"] == training.key
    begins = bool(taken) and taken[0].action == "start"
    trained = found or any(d.iteration for d in taken) or (folder / "result.json").exists()
    if not trained:
        if (record is not None and not mine) or (taken and not begins):
            files.clear()
        return False
    rehearsal = training.fresh and record is not None and record.get("rehearsal", False)
    if rehearsal and not (mine and found):
        files.clear()
        return False
    if record is None:
        raise UserError(
            f"{folder}/run.json is missing: without it, the net and data of its snapshots are "
            "unknown; restore it, or choose another --out"
        )
    if not mine:
        raise UserError(
            f"{folder} holds another training ({_difference(training, record)}): "
            "choose another --out, or remove the folder"
        )
    if not found:
        raise UserError(
            f"{folder} has no complete snapshot: restore one, or remove the folder to start anew"
        )
    drops = sum(decision.action == "drop" for decision in taken)
    if not begins or files.solver(drops + 1).exists():
        raise UserError(
            f"{folder}/decisions.jsonl is missing or cut short: without it, the learning rate "
            "is unknown; restore it, choose another --out, or resume by hand: caffe "
            f"train -solver {folder}/solver.prototxt -snapshot {found[-1].state}"
        )
    return True


def _difference(training: Training, record: dict[str, Any]) -> str:
    """How the recorded training differs from this one, in words."""
    weights, initial = record.get("weights", {}), training.initial
    changed = [path for path, digest in initial.items() if weights.get(path, digest) != digest]
    reasons = {
        "another net": record["net"] != training.net.words(),
        "another solver": record["solver"] != words(training.solver),
        "other data": record["data"]["key"] != training.data.key,
        f"--weights {', '.join(changed)}: content has changed": changed,
        "other --weights": not changed and list(weights.values()) != list(initial.values()),
    }
    return "; ".join(reason for reason, so in reasons.items() if so) or "another schedule"
