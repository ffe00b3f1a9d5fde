"""Running trainings: a picture of one, or a page of all below a folder that updates itself.

/            the page, which asks for its changing part every few seconds
/live        its changing part
/state.json  the same for programs

Every training that writes Caffe's log into a train.log is shown, also without the driver.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import stat
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from markupsafe import Markup

from xresnet.basics.cli import UserError, printable
from xresnet.reproduce import curves, pages, pictures
from xresnet.reproduce.estimate import spoken
from xresnet.reproduce.folder import RunFolder
from xresnet.reproduce.history import History
from xresnet.reproduce.kept import find_record, read_record
from xresnet.reproduce.schedule import Decision

REFRESH = 5  # seconds between two questions of a page
RESCAN = 30  # seconds after which new trainings are looked for, at least
SILENT = 600  # seconds without a word after which nobody is taken to be at work
CHARTS = 12  # of the trainings written last; of others there is a line
STEPS = 20  # displayed ones, from which the speed is taken
LOG = "train.log"
_MAX_ITER = re.compile(r"^max_iter: (\d+)$", re.MULTILINE)


def draw(run: Path, out: Path) -> Path:
    """Write the curves of the run in folder `run` to `out`, a picture.

    Raises:
        UserError: there is no training yet, or `out` is not the name of a picture.
    """
    pictures.hold_suffix(out.suffix.lower())
    epoch, files = read_record(run)["epoch"], RunFolder(run)
    history = files.history()
    if not history.steps:
        raise UserError(f"{run}: no iteration in its train.log yet")
    picture = curves.curves(printable(run.name), history, files.decisions(), epoch)
    return pictures.save(picture, out)


# ---- the state of a training -------------------------------------------------------


@dataclass(frozen=True)
class State:
    """The state of a training, from its log.

    `total` is its last iteration, with a plateau rule (`at_most`) the last one allowed;
    `epoch` the number of epochs done; `loss` the last displayed one, None if it is not finite;
    `top1` the last test pass's accuracies by task, from 0 to 1; `left` the seconds left.
    """

    name: str
    state: str  # at work, silent, finished
    changed: float  # when its log was written last, seconds since 1970
    iteration: int = 0
    total: int | None = None
    at_most: bool = False
    epoch: float | None = None
    rate: float | None = None
    loss: float | None = None
    top1: dict[str, float] = field(default_factory=dict)
    left: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class Seen:
    """A training as it was last read."""

    state: State
    history: History
    decisions: list[Decision]
    epoch: int | None  # iterations


def look(run: Path, name: str) -> Seen:
    """Read what a training has written so far."""
    changed = (run / LOG).stat().st_mtime
    quiet = "silent" if time.time() - changed > SILENT else "at work"
    try:
        files = RunFolder(run)
        history, taken, record = files.history(), files.decisions(), find_record(run)
    except UserError as error:  # a damaged file must not hide the other trainings
        state = State(name, quiet, changed, error=str(error))
        return Seen(state, History(), [], None)
    epoch = record["epoch"] if record else None
    total, at_most = _end(run / LOG, taken, epoch)
    last = history.steps[max(history.steps)] if history.steps else None
    at = max([*history.steps, *history.tests, 0])
    finished = taken[-1].action == "stop" if taken else _is_done(run / LOG)
    if finished:  # the last displayed iteration is not the last
        at = total = taken[-1].iteration if taken else total or at
    state = State(
        name=name,
        state="finished" if finished else quiet,
        changed=changed,
        iteration=at,
        total=total,
        at_most=at_most and not finished,
        epoch=at / epoch if epoch else None,
        rate=taken[-1].lr if taken else last.lr if last else None,
        loss=last.loss if last and math.isfinite(last.loss) else None,
        top1=_top1(history),
        left=None if finished or total is None else _left(history, max(0, total - at)),
    )
    return Seen(state, history, taken, epoch)


def _end(log: Path, taken: list[Decision], epoch: int | None) -> tuple[int | None, bool]:
    """The last iteration that is planned, and whether training may end before it."""
    plan = taken[0].numbers if taken else {}
    with contextlib.suppress(KeyError, TypeError, IndexError):
        if isinstance(until := plan["stages"][-1]["until"], int):
            return until, False
    if epoch and isinstance(most := plan.get("max_epochs"), int):
        return most * epoch, True
    with log.open(encoding="utf-8", errors="replace") as file:
        told = _MAX_ITER.search(file.read(100_000))  # of Caffe's "Initializing solver"
    return (int(told[1]), False) if told else (None, False)


def _is_done(log: Path) -> bool:
    """Whether Caffe's last words are that it has come to the end."""
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 2000))
        *_, last = file.read().rpartition(b"Starting Optimization")
        return b"Optimization Done" in last


def _left(history: History, iterations: int) -> float | None:
    """Seconds for a number of iterations at the speed of the last ones, with their tests."""
    timed = [history.steps[i] for i in sorted(history.steps) if history.steps[i].seconds > 0]
    timed = timed[-STEPS:]
    done = sum(step.iterations for step in timed)
    return iterations * sum(step.seconds for step in timed) / done if done else None


def _top1(history: History) -> dict[str, float]:
    """The last test pass's accuracies by task."""
    if not history.tests:
        return {}
    outputs = history.tests[max(history.tests)].outputs
    return {
        name.partition("_")[2] or name: value
        for name, value in outputs.items()
        if name.startswith(("top1", "accuracy")) and math.isfinite(value)
    }


# ---- the trainings of a folder --------------------------------------------------------


def logs(folder: Path) -> Iterator[Path]:
    """The train.log files below `folder`, each a file: no pipe or device."""
    for place, inside, files in os.walk(folder):
        inside[:] = [name for name in inside if not name.endswith("_lmdb")]
        if LOG in files:
            log = Path(place, LOG)
            with contextlib.suppress(OSError):  # it has gone meanwhile, or is a link to itself
                if stat.S_ISREG(log.stat().st_mode):
                    yield log


class Trainings:
    """The trainings below a folder, each read again only if its files have changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()  # matplotlib draws one figure at a time
        self._logs: list[Path] = []
        self._scan_at = 0.0
        self._seen: dict[Path, tuple[Any, Seen]] = {}
        self._charts: dict[Path, tuple[Any, Any]] = {}

    def states(self) -> list[State]:
        """The states of all trainings, the latest first."""
        with self._lock:
            return [seen.state for _, _, seen in self._look()]

    def live(self) -> str:
        """The changing part of the page."""
        with self._lock:
            found = self._look()
            tasks = curves.loss_tasks(seen.history for _, _, seen in found)
            cards = []
            for run, stamp, seen in found[:CHARTS]:
                drawn = self._charts.get(run)
                if drawn is None or drawn[0] != (stamp, tasks):
                    drawn = self._charts[run] = (stamp, tasks), _chart(seen, tasks)
                cards.append({"seen": seen, "chart": drawn[1]})
            histories = [seen.history for _, _, seen in found[:CHARTS]]
            return pages.page(
                "watch_live.html",
                folder=self.folder,
                states=[seen.state for _, _, seen in found],
                tops=list(dict.fromkeys(t for _, _, seen in found for t in seen.state.top1)),
                cards=cards,
                legend_lines=pages.legend(tasks) if tasks != [""] else [],
                dashed=any(map(curves.has_test_losses, histories)),
                spoken=spoken,
                clock=_clock,
            )

    def _look(self) -> list[tuple[Path, Any, Seen]]:
        """Folder, stamp of its files, and content of each training."""
        begun = time.monotonic()
        if begun >= self._scan_at:
            self._logs = list(logs(self.folder))
            took = time.monotonic() - begun
            self._scan_at = begun + max(RESCAN, 20 * took)  # a folder of many images takes long
        found = []
        for log in self._logs:
            run = log.parent
            with contextlib.suppress(OSError):  # it has gone meanwhile
                files = (log, run / "decisions.jsonl", run / "run.json")
                # A training falls silent without a file that changes.
                silent = time.time() - log.stat().st_mtime > SILENT
                stamp = (*map(_stamp, files), silent)
                kept = self._seen.get(run)
                if kept is None or kept[0] != stamp:
                    name = str(run.relative_to(self.folder))
                    name = self.folder.resolve().name if name == "." else name
                    kept = self._seen[run] = stamp, look(run, name)
                found.append((run, stamp, kept[1]))
        return sorted(found, key=lambda one: -one[2].state.changed)


def _clock(at: float) -> str:
    """The time of day; with the date if it is not today's."""
    then = time.localtime(at)
    today = time.strftime("%Y-%m-%d") == time.strftime("%Y-%m-%d", then)
    return time.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M", then)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        facts = path.stat()
    except FileNotFoundError:
        return None
    return facts.st_size, facts.st_mtime_ns


def _chart(seen: Seen, tasks: list[str]) -> Any:
    """A training's curves as part of the page; None before the first iteration."""
    if not seen.history.steps:
        return None
    figure = curves.small_curves(seen.history, seen.decisions, seen.epoch, tasks)
    return pages.chart(figure, f"Curves of {seen.state.name}")


# ---- the server ---------------------------------------------------------------------------


def server(folder: Path, host: str, port: int) -> Server:
    """A listening server of the page of `folder`.

    Raises:
        UserError: there is no such folder, or the address cannot be used.
    """
    if not folder.is_dir():
        raise UserError(f"no folder {folder}")
    try:
        return Server((host, port), Trainings(folder))
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"cannot listen on {host}, port {port}: {reason}; --port names another"
        ) from error


class Server(ThreadingHTTPServer):
    """Serves the page of some trainings."""

    server_address: tuple[str, int]

    def __init__(self, address: tuple[str, int], trainings: Trainings) -> None:
        self.trainings = trainings
        super().__init__(address, Page)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # the reader has gone
            super().handle_error(request, client_address)


class Page(BaseHTTPRequestHandler):
    """Answers for the page and its parts."""

    server: Server

    def do_GET(self) -> None:
        trainings = self.server.trainings
        place = self.path.partition("?")[0]
        if place == "/":
            name = trainings.folder.resolve().name or str(trainings.folder)
            live = Markup(trainings.live())
            text = pages.page("watch.html", name=name, live=live, refresh=REFRESH)
            self._answer(200, "text/html", text)
        elif place == "/live":
            self._answer(200, "text/html", trainings.live())
        elif place == "/state.json":
            states = [asdict(state) for state in trainings.states()]
            self._answer(200, "application/json", json.dumps(states, indent=2))
        else:
            self._answer(404, "text/plain", "there are /, /live and /state.json\n")

    do_HEAD = do_GET

    def _answer(self, status: int, kind: str, text: str) -> None:
        data = text.encode("utf-8", "backslashreplace")
        tag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
        if status == 200 and self.headers.get("If-None-Match") == tag:
            status, data = 304, b""
        self.send_response(status)
        if status != 304:
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", tag)
        self.send_header("Cache-Control", "no-cache")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *args: object) -> None:  # a line a request says nothing
        pass
