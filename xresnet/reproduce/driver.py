"""The driver: trains with Caffe by a schedule, and can be stopped and resumed at any time.

BVLC Caffe has no plateau policy, so a drop of the rate is: stop with a
snapshot (SIGINT), write the solver anew with a tenth of base_lr, resume.

**Stages.** A stage is one rate, and mostly one call of Caffe. What Caffe logs becomes
milestones: a snapshot is written, an iteration is complete, test and all. At each place that
the schedule names, the driver decides: keep, and Caffe never knew; or drop or stop, and Caffe
is told to end. Whatever dies on the way, Caffe, the driver or the machine, all that counts
stands in the folder: the last whole snapshot says where to go on, the last decision at which
rate, and a decision that is missing in between is taken late.

**Epochs.** A resumed Caffe reads its databases from record 0. So a stage
ends where an epoch does, at a snapshot that Caffe takes there by itself; what it has made beyond
while we decided is thrown away. An epoch is ceil(images / batch) iterations,
rounded up so that snapshots divide it: when a stage ends, fewer batches than
there are snapshots in an epoch, a pass, have been read once more than the rest.
After a crash the epoch's first records are read again in place of its last.
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
from xresnet.reproduce.take_up import take_up
from xresnet.reproduce.training import Training


def train(training: Training) -> Snapshot:
    """Train to the schedule's end, from wherever an earlier call has left it.

    Returns the last snapshot.

    Raises:
        UserError: another process trains here, the folder holds another training,
            the loss is no number, the disk is full, or Caffe fails.
        KeyboardInterrupt: stopped, with a snapshot from which the next call goes on.
    """
    training.check()
    with hold(training.folder) as lock:
        training.data.prepare()
        take_up(training)
        try:
            _Driver(training, lock).run()
        except (OSError, UserError) as error:
            if training.folder.is_dir():
                raise
            raise UserError(f"{training.folder} was removed during training") from error
    return training.snapshots()[-1]


# ---- what Caffe's events amount to -----------------------------------------------------


@dataclass(frozen=True)
class Written:
    """Both files of a snapshot are on the disk, as far as Caffe knows."""

    snapshot: Snapshot


@dataclass(frozen=True)
class Complete:
    """All that `iteration` updates bring is there: the snapshot, and the test if there is one."""

    iteration: int


Milestone = Union[train_log.Event, Written, Complete]


def milestones(
    events: Iterable[train_log.Event], tests_at: Callable[[int], bool]
) -> Iterator[Milestone]:
    """Caffe's events, and between them what they prove.

    Caffe announces each file of a snapshot before it writes it, and tests after it: so the
    event behind the announcement of the second file proves that both are written.

    Args:
        tests_at: whether Caffe tests after so many updates.
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
    """A training at work, in a folder that is held and ready.

    The folder has all that counts; `history`, the losses, can be read again from its log.
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
        """Caffe from the last snapshot at the present rate, to the next drop or stop."""
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
        """See Caffe to its end; returns the decision that ended it, if one did.

        Raises:
            KeyboardInterrupt: somebody stopped Caffe, which took a snapshot.
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
        """Whether `iteration` is a place of a decision, and that is not taken yet."""
        taken, due_after = self.files.decisions(), self.training.schedule.due_after
        return (
            due_after(iteration - 1, self.training.epoch) == iteration
            and taken[-1].iteration < iteration
        )

    def _missing(self) -> int | None:
        """The place of a decision that an earlier call was ended before it could take.

        Not where a test is still to come: a Caffe that resumes begins with it.
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
        """Write a decision down; where it ends a stage, what Caffe has made since is no use."""
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
        """Hold a new snapshot to be whole, make it last, and prune the old ones."""
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
        """Stop Caffe where a loss is no number, and keep the snapshots of before."""
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
        """Let a training go on whose Caffe a signal ended; not twice at the same place."""
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
    """Let a Caffe end that was told to; whatever it says or dies of, all we need is written."""
    with contextlib.suppress(CaffeError):
        for _ in events:
            pass
