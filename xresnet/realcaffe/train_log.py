"""Read what `caffe train` and `caffe test` log, line by line, as it comes.

    for event in train_log.read(process.stderr):
        if isinstance(event, train_log.TrainStep):
            print(event.iteration, event.loss)

`Reader` is the same for one who gets the lines otherwise. Values are those
Caffe printed (six digits); nan and inf come through as floats.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Union


@dataclass(frozen=True)
class TrainStep:
    """One displayed iteration, at the state before its update.

    `loss` is Caffe's, smoothed over `average_loss` iterations; `outputs` are
    this iteration's by name; `seconds` is the time since the last display,
    for `iterations` iterations (0.0 where nothing measurable passed), so that
    a batch of n ran at n * iterations / seconds images a second.
    """

    iteration: int
    loss: float
    lr: float
    outputs: dict[str, float]
    iterations: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class TestPass:
    """One pass over a test net during training: the means of its outputs.

    `loss` is the sum of those that are losses, each times its weight; None where none is.
    """

    __test__ = False  # for pytest: no test of ours

    iteration: int
    net: int
    outputs: dict[str, float]
    loss: float | None = None


@dataclass(frozen=True)
class Snapshot:
    """A file that was written: a .caffemodel[.h5] or a .solverstate[.h5]."""

    path: str


@dataclass(frozen=True)
class FinalLoss:
    """The loss after the last iteration (only with `display` set)."""

    iteration: int
    loss: float


@dataclass(frozen=True)
class Done:
    """Training ended: all iterations done, or (`early`) stopped by a signal."""

    early: bool = False


@dataclass(frozen=True)
class TestResult:
    """The end of `caffe test`: the total loss and the outputs' means over all batches."""

    __test__ = False

    loss: float
    outputs: dict[str, float]


@dataclass(frozen=True)
class Fatal:
    """Caffe is about to abort, and why."""

    message: str


Event = Union[TrainStep, TestPass, Snapshot, FinalLoss, Done, TestResult, Fatal]

_NUMBER = r"([-+]?(?:nan|inf|[\d.]+(?:e[-+]?\d+)?))"
# glog's prefix: severity and date, time, thread, file:line]
_LINE = re.compile(r"^([IWEF])\d+ [\d:.]+\s+\d+ ([\w.]+):\d+\] (.*)$")
_STEP = re.compile(
    rf"Iteration (\d+)(?: \({_NUMBER} iter/s, {_NUMBER}s/(\d+) iters?\))?, loss = {_NUMBER}"
)
_RATE = re.compile(rf"Iteration \d+, lr = {_NUMBER}")
_TESTING = re.compile(r"Iteration (\d+), Testing net \(#(\d+)\)")
_OUTPUT = re.compile(
    rf"\s+(?:Train|Test) net output #\d+: (\S+) = {_NUMBER}(?: \(\* .* = {_NUMBER} loss\))?"
)
_SNAPSHOT = re.compile(r"Snapshotting (?:.* )?to (?:binary proto|HDF5) file (.*)")
_TOTAL = re.compile(rf"Loss: {_NUMBER}")
_MEAN = re.compile(rf"(\S+) = {_NUMBER}(?: \(\* .* loss\))?")


@dataclass
class Reader:
    """Turns log lines into events; an event comes once its last line has.

    Lines that mean nothing here may stand anywhere: other threads log too.
    """

    _outputs: _Outputs = field(default_factory=lambda: _Outputs())
    _step: tuple[str, ...] = ()  # the "Iteration N (...), loss" waiting for its outputs and lr
    _testing: tuple[int, int] | None = None  # iteration and net of the test pass being listed
    _total: float | None = None  # the total loss of `caffe test`, its outputs to follow

    def feed(self, line: str) -> list[Event]:
        """The events (mostly none) that this line completes."""
        parsed = _LINE.match(line.rstrip("\r\n"))
        if not parsed:  # the solver's and net's own text, stack traces
            return []
        severity, file, message = parsed.groups()
        if severity == "F":
            return [*self.close(), Fatal(message)]
        if file == "caffe.cpp":
            if self._total is not None and (mean := _MEAN.fullmatch(message)):
                self._outputs.put(mean[1], mean[2])
            elif total := _TOTAL.fullmatch(message):
                self._total = float(total[1])
        elif output := _OUTPUT.match(message):
            self._outputs.put(output[1], output[2], output[3])
        elif rate := _RATE.match(message):
            if self._step:
                return [self._take_step(float(rate[1]))]
        elif step := _STEP.match(message):
            events = self.close()
            if step[3] is None:  # the last one has no timing, no outputs and no rate
                return [*events, FinalLoss(int(step[1]), float(step[5]))]
            self._step = step.groups()
            return events
        elif testing := _TESTING.match(message):
            events = self.close()
            self._testing = (int(testing[1]), int(testing[2]))
            return events
        elif snapshot := _SNAPSHOT.match(message):
            return [*self.close(), Snapshot(snapshot[1])]
        elif message.startswith("Optimization Done"):
            return [*self.close(), Done()]
        elif message.startswith("Optimization stopped early"):
            return [*self.close(), Done(early=True)]
        return []

    def close(self) -> list[Event]:
        """What the end of the log completes."""
        events: list[Event] = []
        loss, outputs = self._outputs.loss, self._outputs.take()
        if self._testing and outputs:  # none: stopped within the pass
            iteration, net = self._testing
            events.append(TestPass(iteration, net, outputs, loss))
        elif self._total is not None:
            events.append(TestResult(self._total, outputs))
        self._step, self._testing, self._total = (), None, None
        return events

    def _take_step(self, rate: float) -> TrainStep:
        iteration, _, seconds, iterations, loss = self._step
        self._step = ()
        return TrainStep(
            int(iteration), float(loss), rate, self._outputs.take(), int(iterations), float(seconds)
        )


def read(lines: Iterable[str]) -> Iterator[Event]:
    """All events of a log."""
    reader = Reader()
    for line in lines:
        yield from reader.feed(line)
    yield from reader.close()


class _Outputs:
    """Named numbers; an output of several has them under name, name[1], name[2], ..."""

    def __init__(self) -> None:
        self._values: dict[str, float] = {}
        self._counts: Counter[str] = Counter()
        self.loss: float | None = None  # the sum of the losses among them, weighted

    def put(self, name: str, value: str, share: str | None = None) -> None:
        if share is not None:
            self.loss = (self.loss or 0.0) + float(share)
        count = self._counts[name]
        self._values[f"{name}[{count}]" if count else name] = float(value)
        self._counts[name] += 1

    def take(self) -> dict[str, float]:
        """The numbers, forgetting them."""
        values, self._values, self.loss = self._values, {}, None
        self._counts.clear()
        return values
