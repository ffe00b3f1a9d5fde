"""The driver: trains with Caffe by a schedule; it can be stopped and resumed at any time.

BVLC Caffe has no plateau policy. To lower the rate, the driver stops Caffe with a
snapshot (SIGINT), writes the solver with a tenth of base_lr, and resumes.

**Stages.** A stage is the training at one rate, mostly one call of Caffe. From Caffe's log the
driver learns that a snapshot is written, or that an iteration and its test are complete. At each
place that the schedule names, it decides: keep, and Caffe trains on undisturbed; or drop or stop,
and Caffe is interrupted. If Caffe, the driver or the machine dies, everything needed is in the
folder: the last complete snapshot says where to resume, the last decision at which rate, and a
decision that is missing in between is made up for.

**Epochs.** A resumed Caffe reads its databases from record 0. Therefore a stage ends with an
epoch, at a snapshot that Caffe takes there by itself; iterations beyond it, made while the driver
decided, are discarded. An epoch is ceil(images / batch) iterations, rounded up so that snapshots
divide it: at the end of a stage, a few batches (fewer than an epoch has snapshots, per pass) have
been read once more than the others. After a crash the epoch's first records are read again in
place of its last.
"""

from __future__ import annotations

import contextlib
import math
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Union

from xresnet.basics.cli import UserError
from xresnet.realcaffe import train_log
from xresnet.reproduce.caffe import Caffe, CaffeError
from xresnet.reproduce.folder import megabytes
from xresnet.reproduce.live import Live
from xresnet.reproduce.lock import Lock, hold
from xresnet.reproduce.schedule import Decision
from xresnet.reproduce.snapshots import Snapshot, delete_except, iteration_of, iterations
from xresnet.reproduce.take_up import as_recorded, take_up
from xresnet.reproduce.training import Training


def train(training: Training) -> Snapshot:
    """Train to the schedule's end, resuming what an earlier call has begun.

    Returns:
        The last snapshot.

    Raises:
        UserError: another process trains here, the folder holds another training, the loss is
            not a finite number, the disk is full, or Caffe fails.
        KeyboardInterrupt: stopped, with a snapshot from which the next call resumes.
    """
    training.check()
    with hold(training.folder) as lock:
        training = as_recorded(training)
        training.data.prepare()
        take_up(training)
        try:
            _Driver(training, lock).run()
        except (OSError, UserError) as error:
            if training.folder.is_dir():
                raise
            raise UserError(f"{training.folder} was removed during training") from error
    return training.snapshots()[-1]


# ---- milestones of Caffe's log ---------------------------------------------------------


@dataclass(frozen=True)
class Written:
    """Caffe has written both files of a snapshot."""

    snapshot: Snapshot


@dataclass(frozen=True)
class Complete:
    """The snapshot after `iteration` updates is written, and the test, if there is one, is done."""

    iteration: int


Milestone = Union[train_log.Event, Written, Complete]


def milestones(
    events: Iterable[train_log.Event], tests_at: Callable[[int], bool]
) -> Iterator[Milestone]:
    """Caffe's events, with the milestones that they prove between them.

    Caffe announces each file of a snapshot before it writes it, and tests afterwards: the event
    after the announcement of the second file proves that both are written.

    Args:
        tests_at: whether Caffe tests after a number of updates.
    """
    announced: Snapshot | None = None
    for event in events:
        written, announced = announced, _announced(event)
        if written:
            yield Written(written)
        yield event
        if written and not tests_at(written.iteration):
            yield Complete(written.iteration)
        if isinstance(event, train_log.TestPass):
            yield Complete(event.iteration)


def _announced(event: train_log.Event) -> Snapshot | None:
    """The snapshot whose second file Caffe is about to write."""
    if not isinstance(event, train_log.Snapshot):
        return None
    path = Path(event.path)
    if path.suffix != ".solverstate":
        return None
    return Snapshot(iteration_of(path), path)


# ---- the driver ----------------------------------------------------------------------


class _Driver:
    """A training in progress, in a folder that is locked and prepared.

    Its state is in the folder; `history`, the losses, can be read again from the log.
    """

    def __init__(self, training: Training, lock: Lock) -> None:
        self.training = training
        self.files = training.files
        self.lock = lock
        self.history = self.files.history()
        self.live = Live(
            training.name,
            training.schedule.end(-1, training.epoch),
            training.epoch,
            training.options.batch,
            training.folder / "tensorboard",
        )

    def run(self) -> None:
        """Stage by stage to the schedule's end."""
        died_at = None
        try:
            if self._at() and not self.files.log.exists():
                self.live.say("train.log is missing: the plateau rule starts from the next losses")
            self.live.begin(self.history, self._at())
            while not self.training.is_done():
                self.history.cut(self._at())
                try:
                    if (missing := self._missing()) is not None:
                        self._carry_out(self._decide(missing))
                    else:
                        self._stage()
                except CaffeError as error:
                    self._after_death(error, died_at)
                    died_at = self._at()
        finally:
            self.live.close()

    def _at(self) -> int:
        """The iteration of the last whole snapshot."""
        found = self.training.snapshots()
        return found[-1].iteration if found else 0

    # ---- a stage ----------------------------------------------------------------------

    def _stage(self) -> None:
        """Run Caffe from the last snapshot at the present rate, to the next drop or stop."""
        training, files = self.training, self.files
        found, taken = training.snapshots(), files.decisions()
        state = found[-1] if found else None
        if state:
            state.settle()
        stage = sum(decision.action == "drop" for decision in taken)
        solver = files.write_solver(stage, training.solver_text(stage, taken[-1].lr))
        command = training.command(solver, state)
        with Caffe(
            command, files.log, training.name, training.engine, self.lock.descriptor
        ) as caffe:
            self.lock.name(caffe.process.pid)
            turn = self._follow(caffe)
        if turn:
            self._carry_out(turn)

    def _follow(self, caffe: Caffe) -> Decision | None:
        """Follow Caffe to its end; returns the decision that ended it, if there is one.

        Raises:
            KeyboardInterrupt: Caffe was interrupted by someone else, and took a snapshot.
        """
        events = milestones(caffe.events(), self.training.tests_at)
        for event in events:
            if isinstance(event, Written):
                self._keep(event.snapshot)
            elif isinstance(event, Complete):
                if self._is_due(event.iteration):
                    decision = self._decide(event.iteration)
                    if decision.action != "keep":
                        caffe.interrupt()
                        _see_out(events)
                        return decision
                    self._carry_out(decision)
            else:
                self.history.add(event)
                self.live.see(event)
                if isinstance(event, train_log.TrainStep):
                    self._look_for_nan(event, caffe)
                elif isinstance(event, train_log.Done) and event.early:
                    _see_out(events)
                    raise KeyboardInterrupt
        return None

    # ---- decisions --------------------------------------------------------------------

    def _is_due(self, iteration: int) -> bool:
        """Whether a decision is due at `iteration`, and not taken yet."""
        taken, due_after = self.files.decisions(), self.training.schedule.due_after
        return (
            due_after(iteration - 1, self.training.epoch) == iteration
            and taken[-1].iteration < iteration
        )

    def _missing(self) -> int | None:
        """The place of a decision that an earlier call did not live to take.

        None where its test is still missing: a resumed Caffe begins with that test.
        """
        taken, at = self.files.decisions(), self._at()
        due = self.training.schedule.due_after(taken[-1].iteration, self.training.epoch)
        if due is None or due > at or (due == at and self.training.tests_at(at)):
            return None
        return due

    def _decide(self, at: int) -> Decision:
        epochs = self.history.epochs(self.training.epoch, at)
        return self.training.schedule.decide(at, epochs, self.files.decisions())

    def _carry_out(self, decision: Decision) -> None:
        """Record a decision; if it ends a stage, delete what Caffe has written since."""
        at = decision.iteration
        if decision.action != "keep":
            whole = {s.iteration for s in self.training.snapshots()}
            if at in whole:
                delete_except(self.files.path, {i for i in whole if i <= at})
                self.history.cut(at)
        self.files.append(decision)
        self.live.at(at)
        if words := self.training.schedule.words(decision, self.training.epoch):
            self.live.say(words)

    # ---- snapshots, good and bad --------------------------------------------------------

    def _keep(self, snapshot: Snapshot) -> None:
        """Check that a new snapshot is complete, bring it to the disk, and delete old ones."""
        training = self.training
        if not snapshot.is_whole(training.last_layer):
            size = sum(p.stat().st_size for p in (snapshot.weights, snapshot.state) if p.exists())
            snapshot.delete()
            raise UserError(
                f"{training.name}: only half of the snapshot at iteration {snapshot.iteration:,} "
                f"could be written ({megabytes(size)}; {self.files.room()}): free some "
                "space, then run the same command again"
            )
        snapshot.sync()
        whole = [s.iteration for s in training.snapshots()]
        turns = [d.iteration for d in self.files.decisions() if d.action != "keep"]
        best = self.history.best(set(whole))
        kept = {*whole[-training.keep :], *turns, *([] if best is None else [best])}
        delete_except(self.files.path, kept, before=snapshot.iteration)

    def _look_for_nan(self, step: train_log.TrainStep, caffe: Caffe) -> None:
        """Stop Caffe if a loss is not finite, and keep the snapshots of before."""
        if all(map(math.isfinite, [step.loss, *step.outputs.values()])):
            return
        caffe.kill()
        finite = self.history.last_finite()
        good = [s.iteration for s in self.training.snapshots() if s.iteration <= finite]
        delete_except(self.files.path, good)
        kept = f"the snapshot at iteration {good[-1]:,} is kept" if good else "no snapshot yet"
        lower = self.files.decisions()[-1].lr / 10
        raise UserError(
            f"{self.training.name}: the loss is not a finite number at iteration "
            f"{step.iteration:,}; {kept}. Try a lower learning rate (--lr {lower:g} resumes from "
            "there), check the data (python -m data_prep verify), or give initial --weights"
        )

    def _after_death(self, error: CaffeError, died_at: int | None) -> None:
        """Let a training resume whose Caffe a signal ended, but not twice at the same place."""
        whole = {s.iteration for s in self.training.snapshots()}
        at = max(whole, default=0)
        halves = iterations(self.files.path) > whole
        delete_except(self.files.path, whole)
        if halves and (error.fatal or error.signal in (signal.SIGABRT, signal.SIGXFSZ)):
            raise UserError(
                f"{self.training.name}: a snapshot could not be written whole "
                f"({self.files.room()}); iteration {at:,} is kept. Free some space, then run "
                "the same command again"
            ) from error
        if error.signal == signal.SIGINT:  # before Caffe had its own handler
            raise KeyboardInterrupt from error
        if error.fatal or not error.signal or error.signal == signal.SIGABRT or died_at == at:
            raise error
        self.live.say(f"{error}; going on from iteration {at:,}")


def _see_out(events: Iterator[Milestone]) -> None:
    """Let an interrupted Caffe end; its errors do not matter, as everything needed is written."""
    with contextlib.suppress(CaffeError):
        for _ in events:
            pass
