"""One network, trained and tested by real Caffe in a folder of its own.

OUT/runs/xs_resnet50/net.prototxt        what is trained and tested
                     deploy.prototxt     the same for inference
                     solver_1.prototxt   the first learning rate, and so on
                     snapshot_iter_*     Caffe's
                     train.log test.log  Caffe's words, whole
                     result.json         what came out; a run that has it is done
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

import realcaffe
from basics.cli import UserError
from basics.files import read_text, sha256, write, write_json
from netgen.command import generate
from realcaffe import train_log


@dataclass(frozen=True)
class Stage:
    """A learning rate and the iteration at which it ends."""

    lr: float
    until: int


@dataclass(frozen=True)
class Run:
    """A net by its netgen arguments, a solver by its stages, and where both go.

    `argv` makes the train/test net: `["xs_resnet50", "--width", "16", ...]`.
    The stages are the paper's schedule: a fixed rate, lowered by stopping with
    a snapshot and resuming at the next rate. `threads` are for Caffe's BLAS.
    """

    name: str
    argv: list[str]
    stages: tuple[Stage, ...]
    solver: list[str]
    data_key: str
    folder: Path
    threads: int = 1

    @property
    def result_file(self) -> Path:
        return self.folder / "result.json"

    def result(self) -> dict[str, Any]:
        """Train and test, or take what an earlier call has left of it.

        Raises:
            UserError: Caffe failed, or the loss is no number.
            KeyboardInterrupt: stopped, with a snapshot from which the next call goes on.
        """
        key = self._key()
        done = _read_json(self.result_file)
        if done and done["key"] == key:
            return done
        self._prepare(key)
        self._train()
        weights = self._snapshots()[-1][1].with_suffix(".caffemodel")
        tested = self._test(weights)
        counted = json.loads(generate([*self.argv, "--params", "--json"]))
        made = {
            "key": key,
            "name": self.name,
            "params": counted["total"],
            "outputs": tested.outputs,
            "commands": self._commands(),
            "sha256": {path.name: sha256(path) for path in [*self._files(), weights]},
        }
        write_json(self.result_file, made)
        return made

    # ---- files ---------------------------------------------------------------

    def _texts(self) -> dict[str, str]:
        """File name to content of all that Caffe reads."""
        texts = {
            "net.prototxt": generate(self.argv),
            "deploy.prototxt": generate([*self.argv, "--deploy"]),
        }
        for i, stage in enumerate(self.stages, start=1):
            own = ["--lr", f"{stage.lr:g}", "--max-iter", str(stage.until)]
            paths = ["--net", str(self.folder / "net.prototxt")]
            prefix = ["--snapshot-prefix", str(self.folder / "snapshot")]
            argv = [*self.argv, "--solver", *self.solver, *own, *paths, *prefix]
            texts[f"solver_{i}.prototxt"] = generate(argv)
        return texts

    def _files(self) -> list[Path]:
        return [self.folder / name for name in self._texts()]

    def _key(self) -> str:
        """Changes with whatever could change the result."""
        parts = [self.data_key, realcaffe.version(), json.dumps(self._texts(), sort_keys=True)]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def _prepare(self, key: str) -> None:
        """Write the files; take away snapshots and logs of another net, solver or data."""
        mark = self.folder / "key"
        if not mark.exists() or read_text(mark) != key:
            if self.folder.is_dir():
                for old in [*self.folder.glob("snapshot_iter_*"), *self.folder.glob("*.log")]:
                    old.unlink()
            for name, content in self._texts().items():
                write(self.folder / name, content)
            write(mark, key)

    def _snapshots(self) -> list[tuple[int, Path]]:
        """(iteration, .solverstate) of the snapshots that are whole, oldest first."""
        found = []
        for path in self.folder.glob("snapshot_iter_*.solverstate"):
            number = re.fullmatch(r"snapshot_iter_(\d+)", path.stem)
            # Caffe writes the weights first: without them the state is no use.
            if number and path.with_suffix(".caffemodel").exists() and path.stat().st_size:
                found.append((int(number[1]), path))
        return sorted(found)

    # ---- Caffe ---------------------------------------------------------------

    def _train_command(self, stage: int, state: Path | None) -> list[str]:
        command = ["train", "-solver", str(self.folder / f"solver_{stage}.prototxt")]
        return [*command, "-snapshot", str(state)] if state else command

    def _test_command(self, weights: Path) -> list[str]:
        solver = generate([*self.argv, "--solver"])
        iterations = re.search(r"^test_iter: (\d+)$", solver, re.M)
        assert iterations, "netgen's solver tests"
        model = ["-model", str(self.folder / "net.prototxt")]
        return ["test", *model, "-weights", str(weights), "-iterations", iterations[1]]

    def _commands(self) -> list[str]:
        """What an undisturbed run types, to repeat it by hand."""
        commands, state = [], None
        for i, stage in enumerate(self.stages, start=1):
            commands.append(self._train_command(i, state))
            state = self.folder / f"snapshot_iter_{stage.until}.solverstate"
        commands.append(self._test_command(state.with_suffix(".caffemodel")))
        return [shlex.join(["caffe", *command]) for command in commands]

    def _train(self) -> None:
        total = self.stages[-1].until
        every = 1 if sys.stderr.isatty() else 15  # seconds; a log file needs no animation
        with tqdm(
            total=total, desc=self.name.ljust(18), unit="it", mininterval=every, maxinterval=every
        ) as bar:
            for i, stage in enumerate(self.stages, start=1):
                snapshots = self._snapshots()
                at, state = snapshots[-1] if snapshots else (0, None)
                bar.update(at - bar.n)
                if at >= stage.until:
                    continue
                for event in self._caffe(self._train_command(i, state), "train.log"):
                    if isinstance(event, train_log.TrainStep):
                        bar.update(event.iteration - bar.n)
                        losses = {k.replace("loss_", ""): v for k, v in event.outputs.items()}
                        shown = {k: f"{v:.2f}" for k, v in losses.items()}
                        bar.set_postfix(shown, refresh=False)
                        if not all(map(math.isfinite, event.outputs.values())):
                            raise UserError(
                                f"{self.name}: the loss is no number at iteration "
                                f"{event.iteration}; lower the learning rate ({stage.lr:g})"
                            )
                    elif isinstance(event, train_log.Done) and event.early:
                        raise KeyboardInterrupt  # Caffe took a snapshot: the next call goes on
                bar.update(stage.until - bar.n)

    def _test(self, weights: Path) -> train_log.TestResult:
        events = self._caffe(self._test_command(weights), "test.log")
        found = [event for event in events if isinstance(event, train_log.TestResult)]
        if not found:
            raise UserError(f"{self.name}: caffe test gave no result; see {self.folder}/test.log")
        # Caffe's Accuracy counts scores that are no numbers as right.
        if not all(map(math.isfinite, found[0].outputs.values())):
            raise UserError(f"{self.name}: the test loss is no number; see {self.folder}/test.log")
        return found[0]

    def _caffe(self, command: list[str], log: str) -> Iterator[train_log.Event]:
        """Run Caffe, its words into the log, and yield what they mean.

        Raises:
            UserError: Caffe ended with an error: its own last word, and where the log is.
        """
        fatal = ""
        full = [str(realcaffe.find("caffe")), *command]
        with (self.folder / log).open("a", encoding="utf-8") as file:
            file.write(f"# {shlex.join(['caffe', *command])}\n")
            process = subprocess.Popen(
                full,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env={**os.environ, "OPENBLAS_NUM_THREADS": str(self.threads)},
            )
            reader = train_log.Reader()
            try:
                for line in process.stderr:
                    file.write(line)
                    for event in reader.feed(line):
                        if isinstance(event, train_log.Fatal):
                            fatal = event.message
                        yield event
                yield from reader.close()
            except KeyboardInterrupt:
                # Ctrl-C reached Caffe too: it stops by itself, with a snapshot.
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.communicate(timeout=60)
                raise
            finally:
                process.kill()  # one that still runs: we were left early, by an error
                process.wait()
        if process.returncode:
            reason = fatal or f"exit status {process.returncode}"
            raise UserError(f"{self.name}: caffe {command[0]} failed: {reason}; see {file.name}")


def run_all(runs: dict[Hashable, Run], jobs: int) -> dict[Hashable, dict[str, Any]]:
    """The results of all runs, `jobs` at a time; the first error ends those not yet begun."""
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(run.result) for run in runs.values()]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return dict(zip(runs, (future.result() for future in futures)))


def _read_json(path: Path) -> Any:
    """The file's JSON; None where there is none, or a half of one from elsewhere."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
