"""The content of a training log: losses by iteration, accuracies by test pass, over resumes."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path

from xresnet.realcaffe import train_log
from xresnet.realcaffe.train_log import TestPass, TrainStep
from xresnet.reproduce.schedule import Epoch

# The line with which reproduce.caffe heads each call of Caffe.
_CALL = re.compile(r"reproduce\.py:1\] .*?caffe train (?:.*_iter_(\d+)\.solverstate)?")


@dataclass
class History:
    """Displayed steps and test passes by iteration, up to the weights that the run has.

    When a run resumes from a snapshot, `cut` discards what an earlier call logged after it.
    """

    steps: dict[int, TrainStep] = field(default_factory=dict)
    tests: dict[int, TestPass] = field(default_factory=dict)

    @classmethod
    def read(cls, log: Path) -> History:
        """Read a whole log; a log that does not exist is empty."""
        history, reader = cls(), train_log.Reader()
        if log.exists():
            with log.open(encoding="utf-8", errors="replace") as file:
                for line in file:
                    if call := _CALL.search(line):
                        reader = train_log.Reader()
                        history.cut(int(call[1] or 0))
                    for event in reader.feed(line):
                        history.add(event)
        return history

    def add(self, event: train_log.Event) -> None:
        if isinstance(event, TrainStep):
            self.steps[event.iteration] = event
        elif isinstance(event, TestPass):
            self.tests[event.iteration] = event

    def cut(self, iteration: int) -> None:
        """Discard what was logged with weights of more than `iteration` updates."""
        self.steps = {i: step for i, step in self.steps.items() if i < iteration}
        self.tests = {i: test for i, test in self.tests.items() if i <= iteration}

    def epochs(self, iterations: int, until: int) -> list[Epoch]:
        """The epochs of `iterations` iterations that end at or before `until`.

        The training loss is the mean of the losses that Caffe displays, each of which is the
        mean of the iterations since the last display.
        """
        found = []
        for end in range(iterations, until + 1, iterations):
            losses = [s.loss for i, s in self.steps.items() if end - iterations <= i < end]
            test = self.tests.get(end)
            found.append(
                Epoch(
                    end,
                    sum(losses) / len(losses) if losses else None,
                    test.loss if test else None,
                )
            )
        return found

    def last_finite(self) -> int:
        """The last displayed iteration with a finite loss; -1 if there is none."""
        return max((i for i, s in self.steps.items() if math.isfinite(s.loss)), default=-1)

    def best(self, among: set[int]) -> int | None:
        """The iteration in `among` with the lowest test loss; None if none was tested."""
        losses = {i: self.tests[i].loss for i in among & self.tests.keys()}
        tested = {i: loss for i, loss in losses.items() if loss is not None}
        return min(tested, key=tested.__getitem__, default=None)
