"""One network, trained and tested by real Caffe in a folder of its own.

Beside what reproduce.driver and reproduce.evaluate write there:

RUN/test.log      Caffe's words in `caffe test`
    result.json   what came out; a run that has it is done
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from xresnet.basics import bars
from xresnet.basics.files import fingerprint, sha256, write_json
from xresnet.reproduce import stop
from xresnet.reproduce.accuracy import KS
from xresnet.reproduce.caffe import Caffe
from xresnet.reproduce.driver import train
from xresnet.reproduce.evaluate import caffe_test_arguments, evaluate, on_training
from xresnet.reproduce.net import Net
from xresnet.reproduce.results import find_result
from xresnet.reproduce.snapshots import delete_except, iteration_of
from xresnet.reproduce.training import Training

Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class Run:
    """A training and the test of its last weights; with `both`, on the training images as well."""

    training: Training
    both: bool = False

    @property
    def name(self) -> str:
        return self.training.name

    @property
    def folder(self) -> Path:
        return self.training.folder

    def result(self) -> dict[str, Any]:
        """Train and test, or return the result of an earlier call.

        Raises:
            UserError: Caffe failed, or the loss is not a finite number.
            KeyboardInterrupt: stopped, with a snapshot from which the next call resumes.
        """
        if done := self.finished():
            return done
        engine = self.training.engine
        # A tail's trunk is part of the net, too.
        whole = self.training.data.network(self.training.net, whole=True)
        params = whole.params()["total"]
        weights = train(self.training).weights
        net = Net(self.name, self.folder / "net.prototxt", self.folder / "deploy.prototxt", weights)
        tested = evaluate(net, self.folder, engine)
        test = caffe_test_arguments(net, tested["images"], engine)
        commands = [*self.training.commands(), test]
        made = {
            "key": self.key,
            "plan": self.plan,
            "name": self.name,
            "params": params,
            "outputs": tested["outputs"],
            "tasks": {
                task: {f"top{k}": values[f"top{k}"] for k in KS}
                for task, values in tested["tasks"].items()
            },
            **({"train": on_training(net, engine)} if self.both else {}),
            "iterations": iteration_of(weights),
            "trained_by": self.training.files.engines(),
            "tested_by": engine.name,
            "version": engine.version(),
            "commands": [shlex.join([*engine.typed, *command]) for command in commands],
            "sha256": {path.name: sha256(path) for path in [*self._files(), weights]},
        }
        write_json(self.folder / "result.json", made)
        return made

    def trim(self) -> None:
        """Delete all snapshots but the last, which the result is of."""
        for last in self.training.snapshots()[-1:]:
            delete_except(self.folder, [last.iteration])

    def finished(self) -> dict[str, Any] | None:
        """The result of an earlier call; None if there is none of this very run."""
        done = find_result(self.folder)
        return done if done and done.get("key") == self.key else None

    @property
    def plan(self) -> str:
        """Identifies what is trained and for how long, whatever the engine and its version."""
        return fingerprint(self.training.key, repr(self.training.schedule))

    @property
    def key(self) -> str:
        """Identifies everything that could change the result: plan, engine and its version."""
        return fingerprint(self.plan, self.training.engine.version())

    def _files(self) -> list[Path]:
        solvers = sorted(self.folder.glob("solver_*.prototxt"))
        return [self.folder / "net.prototxt", self.folder / "deploy.prototxt", *solvers]


def run_all(
    runs: dict[Name, Run],
    jobs: int,
    done: Callable[[Name, dict[str, Any]], object] = lambda name, result: None,
) -> dict[Name, dict[str, Any]]:
    """Train and test all runs, `jobs` at a time, and return their results.

    All runs are checked before any is trained. After an error no other run is begun.

    Args:
        done: called with the name and the result of each run as it ends.

    Raises:
        UserError: a run cannot be trained, or has failed.
    """
    for run in runs.values():
        if not run.finished():
            run.training.check()
    try:
        with ThreadPoolExecutor(jobs) as pool:
            futures = {pool.submit(run.result): name for name, run in runs.items()}
            try:
                for future in as_completed(futures):
                    done(futures[future], future.result())
            except BaseException as error:
                pool.shutdown(wait=False, cancel_futures=True)
                if isinstance(error, KeyboardInterrupt):
                    Caffe.interrupt_all()
                elif any(future.running() for future in futures):
                    bars.say(f"{error} (no other net is begun; those at work end first)")
                raise
    finally:
        stop.clear()
    return dict(zip(runs, (future.result() for future in futures)))
