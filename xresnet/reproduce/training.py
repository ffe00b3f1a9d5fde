"""The driver: Caffe trained by a schedule, stopped and taken up again at will.

BVLC Caffe has no plateau policy, so a drop of the rate is: stop with a
snapshot (SIGINT), write the solver anew with a tenth of base_lr, resume.

RUN/net.prototxt deploy.prototxt   what is trained; its inference form
    solver_1.prototxt ...          a stage each; solver.prototxt is the present one
    snapshot_iter_*                Caffe's
    train.log                      Caffe's words, whole, of all calls
    decisions.jsonl                each decision with the numbers it rests on
    tensorboard/                   event files
    run.json                       what this is, and of which data
    classes/ mean.binaryproto      what else its net needs of them (reproduce.kept)

**Epochs.** A resumed Caffe reads its databases from record 0. So a stage
ends where an epoch does, at a snapshot that Caffe takes there by itself; what it has made beyond
while we decided is thrown away. An epoch is ceil(images / batch) iterations,
rounded up so that snapshots divide it: when a stage ends, fewer batches than
there are snapshots in an epoch, a pass, have been read once more than the rest.
After a crash the epoch's first records are read again in place of its last.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import signal
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from netgen import command as netgen
from netgen.catalog import find
from netgen.measure import takes_part
from netgen.options import Options
from netgen.resnet import cached_maps
from xresnet.basics.cli import UserError
from xresnet.basics.files import read_text, sha256, write, write_json
from xresnet.caffeproto import NetParameter, text
from xresnet.realcaffe import train_log
from xresnet.reproduce.caffe import Caffe, CaffeError
from xresnet.reproduce.data import Data
from xresnet.reproduce.engine import CAFFE, Engine
from xresnet.reproduce.history import History
from xresnet.reproduce.kept import find_record, keep
from xresnet.reproduce.live import Live
from xresnet.reproduce.lock import Lock, hold
from xresnet.reproduce.plateau import Decision, Plateau, Schedule
from xresnet.reproduce.snapshots import (
    PREFIX,
    Snapshot,
    delete_except,
    is_whole_weights,
    iterations,
    snapshots,
)
from xresnet.reproduce.start import record_of

# What a training leaves in its folder beside its snapshots, and its tests after it.
OWN_FILES = ("train.log", "decisions.jsonl", "run.json", "solver*.prototxt")
OWN_FILES += ("test*.log", "eval*.json", "eval*.npz", "result.json")
SNAPSHOT_EVERY = 2000  # iterations at most: what a crash may cost
# netgen's options that the driver sets itself, and what to do instead.
_FORM = "it makes each form of the net: leave it out (python -m netgen writes one)"
_DATA = "it is read from the data: leave it out"
_SOLVER = "it is set for each stage: leave it out"
OURS = {
    **dict.fromkeys(("--solver", "--deploy", "--params", "--list", "--draw", "--json"), _FORM),
    **dict.fromkeys(("--tasks", "--train-images", "--test-images", "--ignore-label"), _DATA),
    "--from-block": f"{_DATA} (python -m xresnet features makes them)",
    "--input-size": f"{_DATA}; data_prep lmdb --size makes images of another",
    "--crop": "its nets take the images whole: leave it out, and give data_prep lmdb --size",
    **dict.fromkeys(("--max-iter", "--test-interval", "--net", "--snapshot-prefix"), _SOLVER),
    "--cpu": "leave it out: without --gpu it is the CPU",
}
KEPT = 2  # most recent snapshots: the one before the last stands in for a damaged last


@dataclass(frozen=True)
class Training:
    """A net by its netgen arguments, a schedule, and the folder where all of it goes.

    `argv` makes the net, the data's arguments apart: `["xs_resnet50", "--width", "16"]`;
    `solver` are netgen's arguments for the solver, without rate and iterations. `weights`
    are copied before the first iteration. `fresh` begins anew where the folder holds
    another training, instead of an error.

    Which engine trains is not part of what is trained: one goes on from the other's files.
    """

    name: str
    argv: list[str]
    data: Data
    folder: Path
    schedule: Schedule
    solver: list[str]
    weights: tuple[Path, ...] = ()
    engine: Engine = CAFFE
    fresh: bool = False
    keep: int = KEPT

    # ---- what it is ------------------------------------------------------------

    @property
    def net_argv(self) -> list[str]:
        return [*self.argv, *self.data.argv()]

    @cached_property
    def options(self) -> Options:
        """netgen's options, those of the solver included."""
        args = netgen.parser().parse_args([*self.net_argv, *self.solver])
        options = netgen.options_of(args, find(args.net))
        held, wanted = (self.data.features or {}).get("maps"), cached_maps(options)
        if held and tuple(held) != wanted:
            raise UserError(
                f"{self.data.folder.root} holds maps of {_shape(held)}, the net wants "
                f"{_shape(wanted)}: give both the same --width, --blocks, --depth and --pool1"
            )
        return options

    @cached_property
    def intervals(self) -> tuple[int, int]:
        """(iterations between snapshots, iterations of an epoch)."""
        epoch = -(-self.options.train_images // self.options.batch)
        chosen = self.options.solver.snapshot
        if not isinstance(self.schedule, Plateau):
            return chosen or _part(epoch), epoch
        parts = -(-epoch // (chosen or SNAPSHOT_EVERY))
        snapshot = -(-epoch // parts)
        return snapshot, snapshot * parts

    @property
    def epoch(self) -> int:
        return self.intervals[1]

    @property
    def tests(self) -> bool:
        """Whether Caffe tests at the end of each epoch."""
        return self.options.solver.test_interval != 0

    @property
    def log(self) -> Path:
        return self.folder / "train.log"

    def net_texts(self) -> dict[str, str]:
        return {
            "net.prototxt": netgen.generate(self.net_argv),
            "deploy.prototxt": netgen.generate([*self.net_argv, "--deploy"]),
        }

    def solver_text(self, lr: float, end: int) -> str:
        snapshot, epoch = self.intervals
        options = ["--lr", f"{lr:g}", "--max-iter", str(end), "--snapshot", str(snapshot)]
        if isinstance(self.schedule, Plateau) and self.tests:
            options += ["--test-interval", str(epoch)]
        if self.engine.gpu is None:
            options.append("--cpu")
        paths = ["--net", str(self.folder.resolve() / "net.prototxt")]
        paths += ["--snapshot-prefix", str(self.folder.resolve() / PREFIX)]
        return netgen.generate([*self.net_argv, "--solver", *self.solver, *options, *paths])

    @cached_property
    def key(self) -> str:
        """Changes with the net, the data or the solver; not with rates, rule or places."""
        # What Caffe reads of the net: the comments may change with this code.
        net = text.loads(netgen.generate([*self.argv, *self.data.argv("DATA")]), NetParameter)
        plan = "" if isinstance(self.schedule, Plateau) else repr(self.schedule)
        parts = [self.data.key, text.dump(net), json.dumps(self.solver), plan]
        parts += self.initial.values()
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    @cached_property
    def initial(self) -> dict[str, str]:
        """The files of initial weights, known by their content: path -> SHA-256."""
        return {str(path): _content(path) if path.is_file() else "missing" for path in self.weights}

    @cached_property
    def last_layer(self) -> str:
        """The last layer of the training net: by it a .caffemodel is known to be whole."""
        net = text.loads(netgen.generate(self.net_argv), NetParameter)
        return [layer.name for layer in net.layer if takes_part(layer, 0)][-1]

    # ---- what is there ------------------------------------------------------------

    def snapshots(self) -> list[Snapshot]:
        """The whole ones, oldest first."""
        return snapshots(self.folder, self.last_layer)

    def decisions(self) -> list[Decision]:
        return read_decisions(self.folder)

    def is_done(self) -> bool:
        """Whether this very training has come to its end."""
        taken = self.decisions()
        return bool(taken) and taken[-1].action == "stop" and self._recorded() == self.key

    def engines(self) -> list[str]:
        """The names of the engines that trained here, the last one last."""
        return read_engines(self.folder)

    def _recorded(self) -> str | None:
        record = find_record(self.folder)
        return record and record["key"]

    # ---- training -------------------------------------------------------------------

    def run(self) -> Snapshot:
        """Train to the schedule's end, from wherever an earlier call has left it.

        Raises:
            UserError: another process trains here, the folder holds another training,
                the loss is no number, the disk is full, or Caffe fails.
            KeyboardInterrupt: stopped, with a snapshot from which the next call goes on.
        """
        with hold(self.folder) as lock:
            self.data.prepare()
            self._prepare()
            try:
                self._train(lock)
            except (OSError, UserError) as error:
                if self.folder.is_dir():
                    raise
                raise UserError(f"{self.folder} was taken away while it was trained") from error
        return self.snapshots()[-1]

    def _train(self, lock: Lock) -> None:
        """Stage by stage to the schedule's end."""
        history = read_history(self.folder)
        live = Live(
            self.name,
            self.schedule.end(-1, self.epoch),
            self.epoch,
            self.options.batch,
            self.folder / "tensorboard",
        )
        try:
            if self._at() and not self.log.exists():
                live.say("train.log is gone: the rule starts from the losses that come now")
            live.begin(history, self._at())
            died_at = None
            while not self.is_done():
                try:
                    self._stage(history, live, lock)
                except CaffeError as error:
                    died_at = self._after_death(error, died_at, live)
        finally:
            live.close()

    def _stage(self, history: History, live: Live, lock: Lock) -> None:
        """Resume at the present rate; stay until the next decision against going on."""
        taken = self.decisions()
        found = self.snapshots()
        state = found[-1] if found else None
        at = state.iteration if state else 0
        history.cut(at)
        due = self._due_after(taken[-1].iteration)
        if due is not None and (due < at or (due == at and not self._tests_at(at))):
            self._catch_up(due, history, live)
            return
        if state:
            state.settle()
        number = sum(d.action == "drop" for d in taken)
        solver = self._write_solver(number, taken[-1].lr)
        turn: Decision | None = None
        writing: Snapshot | None = None
        stopped = False
        command = self._command(solver, state)
        caffe = Caffe(command, self.log, self.name, self.engine, lock.descriptor)
        try:
            with caffe:
                lock.name(caffe.process.pid)
                for event in caffe.events():
                    history.add(event)
                    if turn:  # on its way out
                        continue
                    live.see(event)
                    due = None
                    if writing:  # it was announced; this event is proof that it was written
                        self._check(writing, history)
                        if not self._tests_at(writing.iteration):
                            due = writing.iteration
                        writing = None
                    if isinstance(event, train_log.TrainStep):
                        self._look_for_nan(event, taken[-1].lr, history, caffe)
                    elif isinstance(event, train_log.Snapshot):
                        writing = _announced(event)
                    elif isinstance(event, train_log.TestPass):
                        due = event.iteration
                    elif isinstance(event, train_log.Done):
                        stopped = event.early
                    if due and self._is_due(due) and taken[-1].iteration < due:
                        decision = self._decide(history, due)
                        if decision.action == "keep":
                            self._turn(decision, live)
                            taken = self.decisions()
                        else:
                            turn = decision
                            caffe.interrupt()
        except CaffeError:
            if not turn:  # else: interrupted as it ended by itself; all we need is written
                raise
        if turn:
            # Caffe went on while we decided: what it made since is of no use.
            whole = {s.iteration for s in self.snapshots() if s.iteration <= turn.iteration}
            delete_except(self.folder, whole)
            history.cut(turn.iteration)
            self._turn(turn, live)
        elif stopped:
            raise KeyboardInterrupt  # somebody stopped Caffe, which took a snapshot

    def _catch_up(self, due: int, history: History, live: Live) -> None:
        """Decide at `due` what an earlier call was ended before it could decide.

        Where Caffe has gone on since, and should not have: back to the snapshot there.
        """
        decision = self._decide(history, due)
        whole = {s.iteration for s in self.snapshots()}
        if decision.action != "keep" and due in whole:
            delete_except(self.folder, {iteration for iteration in whole if iteration <= due})
            history.cut(due)
        self._turn(decision, live)

    def _decide(self, history: History, at: int) -> Decision:
        if isinstance(self.schedule, Plateau):
            epochs = history.epochs(self.epoch, at)
        else:
            epochs = history.epochs(at, at)
        return self.schedule.decide(epochs, self.decisions())

    def _turn(self, decision: Decision, live: Live) -> None:
        append_decision(self.folder, decision)
        live.at(decision.iteration)
        if isinstance(self.schedule, Plateau):
            n = decision.numbers
            loss = n.get("smoothed")
            shown = "" if loss is None else f", {n['on']} loss {loss:.4f}"
            live.say(
                f"epoch {decision.iteration // self.epoch}{shown}: {decision.action}, "
                f"lr {decision.lr:g} ({decision.why})"
            )

    def _is_due(self, iteration: int) -> bool:
        return self._due_after(iteration - 1) == iteration

    def _due_after(self, iteration: int) -> int | None:
        """The first decision's place behind `iteration`; None behind the plan's end."""
        if isinstance(self.schedule, Plateau):
            return (iteration // self.epoch + 1) * self.epoch
        ends = (stage.until for stage in self.schedule.stages)
        return min((end for end in ends if end > iteration), default=None)

    def _tests_at(self, iteration: int) -> bool:
        """Whether Caffe tests after `iteration` updates."""
        if not self.tests:
            return False
        interval = self.options.solver.test_interval or self.epoch
        return iteration % (self.epoch if isinstance(self.schedule, Plateau) else interval) == 0

    def _check(self, snapshot: Snapshot, history: History) -> None:
        """Hold a new snapshot to be whole, make it last, and prune the old ones."""
        if not snapshot.is_whole(self.last_layer):
            size = sum(p.stat().st_size for p in (snapshot.weights, snapshot.state) if p.exists())
            snapshot.delete()
            raise UserError(
                f"{self.name}: only half of the snapshot at iteration {snapshot.iteration:,} could "
                f"be written ({_megabytes(size)}; {_free(self.folder)}): make room, then type the "
                "same command again"
            )
        snapshot.sync()
        whole = [s.iteration for s in self.snapshots()]
        keep = {
            *whole[-self.keep :],
            *(d.iteration for d in self.decisions() if d.action != "keep"),
        }
        best = history.best(set(whole))
        keep |= {best} if best else set()
        delete_except(self.folder, keep, before=snapshot.iteration)

    def _look_for_nan(
        self, step: train_log.TrainStep, lr: float, history: History, caffe: Caffe
    ) -> None:
        if all(map(math.isfinite, [step.loss, *step.outputs.values()])):
            return
        caffe.process.kill()
        caffe.process.wait()
        good = [s.iteration for s in self.snapshots() if s.iteration <= history.last_finite()]
        delete_except(self.folder, good)
        kept = f"the snapshot at iteration {good[-1]:,} is kept" if good else "no snapshot yet"
        raise UserError(
            f"{self.name}: the loss is no number at iteration {step.iteration:,}; {kept}. Try a "
            f"lower learning rate (--lr {lr / 10:g} goes on from there), look at the data "
            "(python -m data_prep verify), or give initial weights (--weights)"
        )

    def _after_death(self, error: CaffeError, died_at: int | None, live: Live) -> int:
        """Go on after a Caffe that a signal ended; not twice at the same place.

        Returns the iteration of the last whole snapshot.
        """
        at = self._at()
        whole = {s.iteration for s in self.snapshots()}
        halves = iterations(self.folder) > whole
        delete_except(self.folder, whole)
        if halves and (error.fatal or error.signal in (signal.SIGABRT, signal.SIGXFSZ)):
            raise UserError(
                f"{self.name}: a snapshot could not be written whole ({_free(self.folder)}); "
                f"iteration {at:,} is kept. Make room, then type the same command again"
            ) from error
        if error.signal == signal.SIGINT:  # before Caffe had its own handler
            raise KeyboardInterrupt from error
        if error.fatal or not error.signal or error.signal == signal.SIGABRT or died_at == at:
            raise error
        live.say(f"{error}; going on from iteration {at:,}")
        return at

    def _at(self) -> int:
        found = self.snapshots()
        return found[-1].iteration if found else 0

    # ---- files ----------------------------------------------------------------------

    def _command(self, solver: Path, state: Snapshot | None) -> list[str]:
        command = ["train", "-solver", str(solver), *self.engine.training]
        if self.engine.gpu is not None:
            command += ["-gpu", self.engine.gpu]
        if state:
            return [*command, "-snapshot", str(state.state.resolve())]
        if self.weights:
            return [*command, "-weights", ",".join(str(path.resolve()) for path in self.weights)]
        return command

    def commands(self) -> list[str]:
        """Caffe's arguments, stage by stage, as an undisturbed run has them."""
        turns = [d for d in self.decisions() if d.action in ("start", "drop")]
        return [
            self._command(
                self.folder.resolve() / f"solver_{i + 1}.prototxt",
                Snapshot(d.iteration, self.folder / f"{PREFIX}_iter_{d.iteration}.solverstate")
                if d.iteration
                else None,
            )
            for i, d in enumerate(turns)
        ]

    def _write_solver(self, number: int, lr: float) -> Path:
        content = self.solver_text(lr, self.schedule.end(number, self.epoch))
        path = self.folder.resolve() / f"solver_{number + 1}.prototxt"
        for place in (path, path.with_name("solver.prototxt")):
            if not place.exists() or read_text(place) != content:
                write(place, content)
        return path

    def _prepare(self) -> None:
        """Write the net; take up an older run, or begin.

        Raises:
            UserError: the folder holds another training, what it holds is not enough to go on,
                or weights are missing.
        """
        for path in self.weights:
            if not is_whole_weights(path):
                raise UserError(f"--weights {path}: no such file, or not a whole .caffemodel")
        if self.options.bn == "frozen" and not self.weights:
            raise UserError("--bn frozen needs --weights: without, norms have no statistics")
        resumed = self._take_up()
        engines = self.engines()
        if not self.is_done():
            engines = [*(e for e in engines if e != self.engine.name), self.engine.name]
        for name, content in self.net_texts().items():
            path = self.folder / name
            if not path.exists() or read_text(path) != content:
                write(path, content)
        keep(self.data, self.folder, resumed)
        write_json(
            self.folder / "run.json",
            {
                "key": self.key,
                "name": self.name,
                "net": self.argv,
                "solver": self.solver,
                "epoch": self.epoch,
                "batch": self.options.batch,
                "weights": self.initial,
                "made": [made for path in self.weights if (made := record_of(path))],
                "rehearsal": self.fresh,
                "engines": engines,
                "data": self.data.facts(),
            },
        )
        first, taken = self.schedule.first(), self.decisions()
        if not taken:
            append_decision(self.folder, first)
            self._write_solver(0, first.lr)
        elif isinstance(self.schedule, Plateau) and _starting_rate(taken) != first.lr:
            # Another --lr than before: by hand, from where it is.
            why = "by hand: --lr"
            append_decision(
                self.folder, Decision("start", self._at(), first.lr, why, first.numbers)
            )

    def _take_up(self) -> bool:
        """Hold what an earlier call has left to be of this training, and enough to go on.

        Where nothing was trained there is nothing to lose: the folder is begun anew.

        Returns whether it goes on.

        Raises:
            UserError: it is not.
        """
        record, taken, found = find_record(self.folder), self.decisions(), self.snapshots()
        mine = record is not None and record["key"] == self.key
        begins = bool(taken) and taken[0].action == "start"
        trained = found or any(d.iteration for d in taken) or (self.folder / "result.json").exists()
        if not trained:
            if (record is not None and not mine) or (taken and not begins):
                self._clear()
            return False
        rehearsal = self.fresh and record is not None and record.get("rehearsal", False)
        if rehearsal and not (mine and found):
            self._clear()
            return False
        if record is None:
            raise UserError(
                f"{self.folder}/run.json is gone: without it nobody can tell of which net and data "
                "its snapshots are: put it back, or choose another --out"
            )
        if not mine:
            raise UserError(
                f"{self.folder} holds another training ({self._difference(record)}): "
                "choose another --out, or take it away"
            )
        if not found:
            raise UserError(
                f"{self.folder}: its snapshots are gone, or none is whole: put one back, or take "
                "the folder away to begin anew"
            )
        drops = sum(decision.action == "drop" for decision in taken)
        if not begins or (self.folder / f"solver_{drops + 2}.prototxt").exists():
            raise UserError(
                f"{self.folder}/decisions.jsonl is gone or cut short: without it nobody can tell "
                "at which rate to go on: put it back, or choose another --out; by hand: caffe "
                f"train -solver {self.folder}/solver.prototxt -snapshot {found[-1].state}"
            )
        return True

    def _difference(self, record: dict[str, Any]) -> str:
        """In words, by what the recorded training is another than this one."""
        weights = record.get("weights", {})
        changed = [p for p, digest in self.initial.items() if weights.get(p, digest) != digest]
        reasons = {
            "another net": record["net"] != self.argv,
            "another solver": record["solver"] != self.solver,
            "other data": record["data"]["key"] != self.data.key,
            f"--weights {', '.join(changed)}: another content now": changed,
            "other --weights": not changed
            and list(weights.values()) != list(self.initial.values()),
        }
        return "; ".join(words for words, so in reasons.items() if so) or "another schedule"

    def _clear(self) -> None:
        """Take away what a training leaves."""
        delete_except(self.folder, ())
        for pattern in OWN_FILES:
            for old in self.folder.glob(pattern):
                old.unlink()


def refuse_ours(words: Sequence[str], where: str = "") -> None:
    """Hold netgen's arguments to those that are the user's to give; `where` they stand.

    Raises:
        UserError: one that the driver sets itself: it would be overridden without a word.
    """
    for word in words:
        option = word.split("=")[0]
        if option in OURS:
            raise UserError(f"{where}{option} is the driver's own business: {OURS[option]}")


def read_engines(folder: Path) -> list[str]:
    """The names of the engines that trained a run, the last one last; none without a run."""
    record = find_record(folder)
    return record.get("engines", [CAFFE.name]) if record else []  # older records knew but Caffe


def read_history(folder: Path) -> History:
    """What a run's log tells of the weights that were kept.

    After the decision to stop, Caffe goes on for some iterations until it hears of it.
    """
    history, taken = History.read(folder / "train.log"), read_decisions(folder)
    if taken and taken[-1].action == "stop":
        history.cut(taken[-1].iteration)
    return history


def read_decisions(folder: Path) -> list[Decision]:
    """All decisions of a run; a line cut short by a kill counts for nothing.

    Raises:
        UserError: a line is whole, but no decision: somebody has changed it.
    """
    found = []
    path = folder / "decisions.jsonl"
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


def append_decision(folder: Path, decision: Decision) -> None:
    """Add a line to decisions.jsonl, and see that it lasts."""
    line = json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **decision.as_json()})
    try:
        with (folder / "decisions.jsonl").open("ab+") as file:
            end = file.seek(0, os.SEEK_END)
            if end:
                file.seek(end - 1)
                if file.read(1) != b"\n":
                    file.write(b"\n")
            file.write(line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise UserError(f"cannot write {folder}/decisions.jsonl: {error.strerror}") from error


def _announced(event: train_log.Snapshot) -> Snapshot | None:
    """The snapshot whose second file Caffe is about to write."""
    path = Path(event.path)
    if path.suffix != ".solverstate":
        return None
    return Snapshot(int(path.stem.rpartition("_")[2]), path)


def _starting_rate(taken: list[Decision]) -> float:
    return [d for d in taken if d.action == "start"][-1].lr


def _part(epoch: int) -> int:
    """Iterations between snapshots that divide an epoch; the epoch where none of use do."""
    if epoch <= SNAPSHOT_EVERY:
        return epoch
    few = range(SNAPSHOT_EVERY, SNAPSHOT_EVERY // 4, -1)
    return next((part for part in few if epoch % part == 0), epoch)


def _content(path: Path) -> str:
    """A file's SHA-256; read once for all runs of a grid that start from it."""
    facts = path.stat()
    return _digest(str(path.resolve()), facts.st_size, facts.st_mtime_ns)


@cache
def _digest(path: str, size: int, changed: int) -> str:
    return sha256(path)


def _shape(sides: Iterable[int]) -> str:
    return " x ".join(map(str, sides))


def _free(folder: Path) -> str:
    return f"{_megabytes(shutil.disk_usage(folder).free)} free on that disk"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
