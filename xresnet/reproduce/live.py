"""A training as it runs: a progress line, and TensorBoard's files."""

from __future__ import annotations

from pathlib import Path

from xresnet.basics import bars
from xresnet.realcaffe.train_log import Event, TestPass, TrainStep
from xresnet.reproduce.history import History
from xresnet.reproduce.tensorboard import Events


class Live:
    """Shows iteration, epoch, losses and accuracies by task, learning rate and images per second.

    The time left is the time to the last iteration allowed; with the plateau rule, training may
    end before it.
    """

    def __init__(self, name: str, total: int, epoch: int, batch: int, tensorboard: Path) -> None:
        self.epoch = epoch
        self.batch = batch
        self.bar = bars.bar(what=name.ljust(18), total=total, unit="it")
        self.events = Events(tensorboard)
        self._accuracies = ""

    def begin(self, history: History, at: int) -> None:
        """Show the history up to iteration `at`."""
        events: list[TrainStep | TestPass] = [*history.steps.values(), *history.tests.values()]
        for event in sorted(events, key=lambda e: e.iteration):
            self._record(event)
        self.bar.initial = self.bar.n = at
        self.bar.refresh()

    def see(self, event: Event) -> None:
        if isinstance(event, (TrainStep, TestPass)):
            self._record(event)
        if isinstance(event, TrainStep):
            self.bar.set_postfix_str(self._words(event), refresh=False)
            self.at(event.iteration)

    def at(self, iteration: int) -> None:
        self.bar.update(iteration - self.bar.n)

    def say(self, line: str) -> None:
        """Print a line above the progress line."""
        bars.say(f"{self.bar.desc.strip()}: {line}")

    def close(self) -> None:
        self.bar.close()
        self.events.close()

    def _record(self, event: TrainStep | TestPass) -> None:
        if isinstance(event, TrainStep):
            values = {"train/loss": event.loss, "train/lr": event.lr}
            values |= {f"train/{name}": value for name, value in event.outputs.items()}
        else:
            values = {f"test/{name}": value for name, value in event.outputs.items()}
            tops = {k[5:]: v for k, v in event.outputs.items() if k.startswith("top1_")}
            if tops:
                self._accuracies = " top1 " + " ".join(f"{k} {v:.1%}" for k, v in tops.items())
        self.events.scalars(event.iteration, values)

    def _words(self, step: TrainStep) -> str:
        losses = {k.replace("loss_", ""): v for k, v in step.outputs.items()}
        words = f"epoch {step.iteration / self.epoch:.2f} lr {step.lr:g} loss {step.loss:.2f} ("
        words += " ".join(f"{k} {v:.2f}" for k, v in losses.items()) + ")" + self._accuracies
        if step.seconds > 0:
            words += f" {self.batch * step.iterations / step.seconds:.0f} img/s"
        return words
