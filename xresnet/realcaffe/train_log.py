"""Parse the log of `caffe train` and `caffe test` line by line.

    for event in train_log.read(process.stderr):
        if isinstance(event, train_log.TrainStep):
            print(event.iteration, event.loss)

`Reader` does the same for lines that are fed to it. Values are those that Caffe prints, with six
digits; NaN and infinities are floats.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Union


@dataclass(frozen=True)
class TrainStep:
    """A displayed training iteration; its values are those before the update.

    Attributes:
        iteration: counted from 0.
        loss: averaged over the solver's `average_loss` iterations.
        lr: the learning rate.
        outputs: the net's outputs in this iteration, by name.
        iterations: the number of iterations since the last display.
        seconds: the time they took, so that batches of n ran at n * iterations / seconds images
            per second; may be 0.
    """

    iteration: int
    loss: float
    lr: float
    outputs: dict[str, float]
    iterations: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class TestPass:
    """A pass over a test net during training.

    Attributes:
        iteration: the training iteration before which it took place.
        net: the index of the test net.
        outputs: the means of the net's outputs, by name.
        loss: the weighted sum of the outputs that are losses; None without any.
    """

    __test__ = False  # not a test for pytest

    iteration: int
    net: int
    outputs: dict[str, float]
    loss: float | None = None


@dataclass(frozen=True)
class Snapshot:
    """A snapshot file that Caffe writes: a .caffemodel[.h5] or a .solverstate[.h5]."""

    path: str


@dataclass(frozen=True)
class FinalLoss:
    """The loss after the last iteration; logged only if the solver sets `display`."""

    iteration: int
    loss: float


@dataclass(frozen=True)
class Done:
    """The end of training: after all iterations, or `early` by a signal."""

    early: bool = False


@dataclass(frozen=True)
class TestResult:
    """The result of `caffe test`: the total loss, and the means of the outputs by name."""

    __test__ = False

    loss: float
    outputs: dict[str, float]


@dataclass(frozen=True)
class Fatal:
    """The reason for which Caffe aborts."""

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
    """Converts log lines to events; an event is returned with the last line that belongs to it.

    Other lines may appear anywhere, since other threads log as well.
    """

    _outputs: _Outputs = field(default_factory=lambda: _Outputs())
    _step: tuple[str, ...] = ()  # "Iteration N (...), loss = ...", before its outputs and lr
    _testing: tuple[int, int] | None = None  # iteration and net of a pass, before its outputs
    _total: float | None = None  # the total loss of `caffe test`, before its outputs

    def feed(self, line: str) -> list[Event]:
        """The events, mostly none, that a line completes."""
        parsed = _LINE.match(line.rstrip("\r\n"))
        if not parsed:  # the text of the solver and the net, stack traces
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
            if step[3] is None:  # the last loss comes without timing, outputs and rate
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
        """The events that the end of the log completes."""
        events: list[Event] = []
        loss, outputs = self._outputs.loss, self._outputs.take()
        if self._testing and outputs:  # a pass that was stopped has none
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
    """The events of a log, each as soon as its lines have been read."""
    reader = Reader()
    for line in lines:
        yield from reader.feed(line)
    yield from reader.close()


class _Outputs:
    """Outputs by name; an output of several numbers becomes name, name[1], name[2], ..."""

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
        """Return the numbers and start again without any."""
        values, self._values, self.loss = self._values, {}, None
        self._counts.clear()
        return values
