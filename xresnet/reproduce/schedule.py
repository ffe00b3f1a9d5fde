"""When the learning rate falls and when training ends.

"A starting fixed learning rate of 0.001 ... decreased by a factor of ten
whenever the loss plateaued until convergence" (section 5.2). `Plateau` makes
that rule explicit; `Stages` is a plan fixed beforehand. Both implement
`Schedule`, through which the driver uses them.
docs/REPRODUCTION.md argues the defaults.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import accumulate
from typing import Any

from xresnet.basics.cli import UserError
from xresnet.basics.numbers import COUNT, FRACTION, NATURAL, RATE, Number

SNAPSHOT_EVERY = 2000  # iterations at most: what a crash may cost
LOSSES = ("train", "test")
GAIN = Number("a relative gain", float, 0, 1, open_high=True)
ACTIONS = ("start", "keep", "drop", "stop")


@dataclass(frozen=True)
class Decision:
    """A decision at `iteration`, with the numbers that it is based on.

    `action` is start, keep (train on), drop (train on at a lower `lr`) or stop; `lr` is the
    learning rate from here on.
    """

    action: str
    iteration: int
    lr: float
    why: str
    numbers: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise UserError(f"a decision is one of {', '.join(ACTIONS)}, not {self.action!r}")
        NATURAL.check(self.iteration, "a decision's iteration")
        RATE.check(self.lr, "a decision's rate")
        if not isinstance(self.why, str) or not isinstance(self.numbers, dict):
            raise UserError("a decision has a reason in words, and its numbers by name")


@dataclass(frozen=True)
class Epoch:
    """The epoch that ends at `iteration`: its mean training loss, and the test loss at its end."""

    iteration: int
    train: float | None = None
    test: float | None = None


class Schedule(ABC):
    """The learning rate over a training, and its end. An `epoch` is given in iterations.

    The driver asks `decide` at the iterations that `due_after` names, each of which has a
    snapshot, and ends a stage if the answer is drop or stop.
    """

    @property
    @abstractmethod
    def identity(self) -> str:
        """What identifies a training of this schedule; empty if it may change on the way."""

    @abstractmethod
    def intervals(self, epoch: int, snapshot: int | None) -> tuple[int, int]:
        """(iterations between snapshots, iterations of an epoch that these divide).

        Args:
            epoch: iterations in which each image is seen once.
            snapshot: the wanted interval; None if there is none.
        """

    @abstractmethod
    def test_interval(self, asked: int | None, epoch: int) -> int | None:
        """Iterations between Caffe's tests if `asked` are wanted; 0: no tests, None: an epoch."""

    @abstractmethod
    def end(self, stage: int, epoch: int) -> int:
        """The iteration at which Caffe ends a stage by itself; stage -1 is the last."""

    @abstractmethod
    def due_after(self, iteration: int, epoch: int) -> int | None:
        """The first iteration after `iteration` at which a decision is due; None after the last."""

    @abstractmethod
    def first(self) -> Decision:
        """The decision to start."""

    @abstractmethod
    def decide(self, now: int, epochs: Sequence[Epoch], taken: Sequence[Decision]) -> Decision:
        """The decision after iteration `now`, based on the `epochs` and decisions before it."""

    @abstractmethod
    def words(self, decision: Decision, epoch: int) -> str | None:
        """A decision as a line for the user; None if there is nothing to tell."""


def _value(default: Any, of: Number | tuple[str, ...], what: str, metavar: str = "") -> Any:
    """A field of the rule: its default, its range, and its help on a command line."""
    return field(default=default, metadata={"of": of, "what": what, "metavar": metavar or None})


@dataclass(frozen=True)
class Plateau(Schedule):
    """Lower the rate when an epoch's loss has not fallen for some epochs.

    The loss (`on`: train, the mean over the epoch; or test, at its end) is averaged over
    `window` epochs. An epoch is a gain if it brings this loss below (1 - `min_gain`) times the
    stage's best so far. `patience` epochs in a row without a gain are a plateau: the rate is
    multiplied by `factor`. Training has converged if a stage at a lowered rate ends in a plateau
    with its best loss no lower than (1 - `min_gain`) times the best before it, or if there is a
    plateau after `drops` drops. It ends after `max_epochs` epochs at the latest.
    """

    lr: float = _value(0.001, RATE, "the initial learning rate", "LR")
    on: str = _value("train", LOSSES, "the loss that has to fall")
    window: int = _value(1, COUNT, "epochs over which the loss is averaged", "N")
    patience: int = _value(2, COUNT, "epochs in a row without a gain that make a plateau", "N")
    min_gain: float = _value(
        0.01, GAIN, "the relative decrease of the loss that counts as a gain", "F"
    )
    factor: float = _value(0.1, FRACTION, "factor of the learning rate at a drop", "F")
    drops: int = _value(3, NATURAL, "maximum number of drops of the rate", "N")
    max_epochs: int = _value(60, COUNT, "maximum number of epochs", "N")

    def __post_init__(self) -> None:
        for one in fields(self):
            value, of = getattr(self, one.name), one.metadata["of"]
            where = f"the plateau rule's {one.name}"
            if isinstance(of, Number):
                of.check(value, where)
            elif value not in of:
                raise UserError(f"{where}: expected {' or '.join(of)}, not {value!r}")

    @property
    def identity(self) -> str:
        return ""  # a rate or a rule may be changed by hand

    def intervals(self, epoch: int, snapshot: int | None) -> tuple[int, int]:
        """The epoch is rounded up so that snapshots divide it: one ends each."""
        parts = -(-epoch // (snapshot or SNAPSHOT_EVERY))
        interval = -(-epoch // parts)
        return interval, interval * parts

    def test_interval(self, asked: int | None, epoch: int) -> int | None:
        return 0 if asked == 0 else epoch

    def end(self, stage: int, epoch: int) -> int:
        return self.max_epochs * epoch

    def due_after(self, iteration: int, epoch: int) -> int | None:
        return (iteration // epoch + 1) * epoch

    def first(self) -> Decision:
        return Decision("start", 0, self.lr, "the starting rate", asdict(self))

    def decide(self, now: int, epochs: Sequence[Epoch], taken: Sequence[Decision]) -> Decision:
        turns = [d for d in taken if d.action in ("start", "drop")]
        begun, lr = turns[-1].iteration, taken[-1].lr
        stage = self._smooth([e for e in epochs if e.iteration > begun])
        before = [
            loss
            for start, end in zip(turns, turns[1:])
            for loss in self._smooth(
                [e for e in epochs if start.iteration < e.iteration <= end.iteration]
            )
        ]
        best, waited = self._waited(stage)
        numbers = {
            "on": self.on,
            "epochs_in_stage": len(stage),
            "smoothed": _last(stage),
            "best_in_stage": best,
            "best_before": min(before, default=None),
            "epochs_without_gain": waited,
            "patience": self.patience,
            "min_gain": self.min_gain,
        }

        def decision(action: str, why: str, lr: float = lr) -> Decision:
            return Decision(action, now, lr, why, numbers)

        if len(epochs) >= self.max_epochs:
            return decision("stop", f"{self.max_epochs} epochs, the most allowed")
        if waited < self.patience:
            return decision("keep", "the loss still falls" if not waited else "waiting for a gain")
        if before and min(stage) > (1 - self.min_gain) * min(before):
            return decision("stop", "converged: the lowered rate brought no gain")
        if sum(d.action == "drop" for d in taken) >= self.drops:
            return decision("stop", f"converged: a plateau after {self.drops} drops")
        return decision("drop", "a plateau", float(f"{lr * self.factor:.6g}"))

    def words(self, decision: Decision, epoch: int) -> str | None:
        n = decision.numbers
        loss = n.get("smoothed")
        shown = "" if loss is None else f", {n['on']} loss {loss:.4f}"
        return (
            f"epoch {decision.iteration // epoch}{shown}: {decision.action}, lr {decision.lr:g} "
            f"({decision.why})"
        )

    def _smooth(self, epochs: Sequence[Epoch]) -> list[float]:
        losses = [loss for e in epochs if (loss := getattr(e, self.on)) is not None]
        w = self.window
        return [sum(losses[i : i + w]) / w for i in range(len(losses) - w + 1)]

    def _waited(self, losses: Sequence[float]) -> tuple[float | None, int]:
        """The lowest loss, and the number of epochs since the last gain."""
        reference, waited = None, 0
        for loss in losses:
            if reference is None or loss < (1 - self.min_gain) * reference:
                reference, waited = loss, 0
            else:
                waited += 1
        return min(losses, default=None), waited


@dataclass(frozen=True)
class Stage:
    """A learning rate and the iteration at which it ends."""

    lr: float
    until: int


@dataclass(frozen=True)
class Stages(Schedule):
    """Rates and their ends, fixed beforehand."""

    stages: tuple[Stage, ...]

    @classmethod
    def of_epochs(cls, legs: Sequence[tuple[float, int]], epoch: int) -> Stages:
        """Each rate for its number of epochs, of `epoch` iterations each."""
        ends = accumulate(epochs * epoch for _, epochs in legs)
        return cls(tuple(Stage(lr, end) for (lr, _), end in zip(legs, ends)))

    @property
    def identity(self) -> str:
        return repr(self)

    def intervals(self, epoch: int, snapshot: int | None) -> tuple[int, int]:
        return snapshot or _part(epoch), epoch

    def test_interval(self, asked: int | None, epoch: int) -> int | None:
        return asked

    def end(self, stage: int, epoch: int) -> int:
        return self.stages[stage].until

    def due_after(self, iteration: int, epoch: int) -> int | None:
        ends = (stage.until for stage in self.stages)
        return min((end for end in ends if end > iteration), default=None)

    def first(self) -> Decision:
        return Decision("start", 0, self.stages[0].lr, "the plan", asdict(self))

    def decide(self, now: int, epochs: Sequence[Epoch], taken: Sequence[Decision]) -> Decision:
        at = sum(stage.until <= now for stage in self.stages)
        if at == len(self.stages):
            return Decision("stop", now, taken[-1].lr, "the plan's end")
        lr = self.stages[at].lr
        begun = sum(d.action == "drop" for d in taken)
        return Decision("drop" if at > begun else "keep", now, lr, "the plan")

    def words(self, decision: Decision, epoch: int) -> str | None:
        return None


def _part(epoch: int) -> int:
    """Iterations between snapshots that divide an epoch; the epoch if no suitable number does."""
    if epoch <= SNAPSHOT_EVERY:
        return epoch
    few = range(SNAPSHOT_EVERY, SNAPSHOT_EVERY // 4, -1)
    return next((part for part in few if epoch % part == 0), epoch)


def _last(values: Sequence[float]) -> float | None:
    return values[-1] if values else None
