"""Caffe as a child process: its output in a log file, parsed into events; no orphans.

Caffe writes into the log file itself, which this process reads. Thus nothing is lost,
and Caffe never waits, whatever happens to this process.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, ClassVar

from xresnet.basics import bars
from xresnet.basics.cli import UserError
from xresnet.basics.files import append_line
from xresnet.realcaffe import train_log
from xresnet.reproduce import stop
from xresnet.reproduce.engine import CAFFE, Engine, explained
from xresnet.reproduce.process import Standstill, is_stopped

POLL = 0.2  # seconds between two looks at the log
PATIENCE = 120  # seconds for the snapshot of a Caffe that was told to stop
LAST_WORK = 30  # seconds: one told to stop that has done nothing for so long will not end
STILL = 120  # seconds without work or word after which a Caffe is told to stand still

# Starts Caffe so that the kernel interrupts it when the thread that started it is
# gone, however that came about (prctl 1, PR_SET_PDEATHSIG): Caffe then writes a
# snapshot and ends. Our parent may have died before we asked: hence the look at it.
# SIGTERM would end Caffe without a snapshot, and whoever stops a job sends it to all
# its processes: blocked, it leaves the stopping to us. An ignored SIGINT (a shell's
# background) would be Caffe's until it has set up its own.
_LAUNCH = """\
import ctypes, os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
ctypes.CDLL(None).prctl(1, int(signal.SIGINT), 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    sys.exit(130)
os.execv(sys.argv[2], sys.argv[2:])
"""


class CaffeError(UserError):
    """Caffe ended with an error.

    `signal` is the number of the signal that ended it, 0 if none did;
    `fatal` is the message of its failed check, if there is one.
    """

    def __init__(self, message: str, signal_number: int = 0, fatal: str = "") -> None:
        super().__init__(message)
        self.signal = signal_number
        self.fatal = fatal


class Caffe:
    """A running `caffe train` or `caffe test`, and the events of its log.

    with Caffe(["train", "-solver", "x.prototxt"], log, name="xs") as caffe:
        for event in caffe.events():
            ...

    Leaving the block early kills Caffe; Ctrl-C waits for its snapshot. `interrupt` makes it take
    one and stop. `keep` is a file descriptor (a lock's) that Caffe inherits.
    """

    _running: ClassVar[set[Caffe]] = set()
    _starting: ClassVar[threading.Lock] = threading.Lock()

    def __init__(
        self,
        command: list[str],
        log: Path,
        name: str,
        engine: Engine = CAFFE,
        keep: int | None = None,
    ) -> None:
        self.engine = engine
        self.command = command
        self.log = log
        self.name = name
        program = engine.program()
        launch = [sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid())]
        with self._starting:  # one that `interrupt_all` does not see must not start after it
            stop.check()
            try:
                self._begin()
                with self.log.open("ab") as file:
                    self.process = subprocess.Popen(
                        [*launch, *program, *command],
                        stdin=subprocess.DEVNULL,
                        stdout=file,
                        stderr=file,
                        env=engine.environment(),
                        pass_fds=() if keep is None else (keep,),
                    )
            except OSError as error:
                raise UserError(f"cannot write {self.log}: {error.strerror}") from error
            self._running.add(self)

    def _begin(self) -> None:
        """Write the command into the log, as a line of glog, so that other parsers can read it."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        now = datetime.now().strftime("%m%d %H:%M:%S.%f")
        words = shlex.join([*self.engine.typed, *self.command])
        line = f"I{now} {threading.get_native_id():5} reproduce.py:1] {words}"
        self._start = append_line(self.log, line)

    def __enter__(self) -> Caffe:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is KeyboardInterrupt:
            self._wait_for_its_end()
        if self.process.poll() is None:
            self.kill()
        self._running.discard(self)

    def _wait_for_its_end(self) -> None:
        """Interrupt Caffe, and wait for its snapshot."""
        self.interrupt()
        watch, begun = Standstill(self.process.pid), time.monotonic()
        while self.process.poll() is None:
            if time.monotonic() - begun > PATIENCE or watch.seconds() > LAST_WORK:
                bars.say(f"{self.name}: Caffe does not stop, so it was killed without a snapshot")
                return
            time.sleep(POLL)

    def lines(self) -> Iterator[str]:
        """The log's lines as they come, until Caffe has ended.

        Raises:
            KeyboardInterrupt: another thread was asked to stop all of them.
        """
        with self.log.open("r+b") as file:
            file.seek(self._start)
            held = b""
            watch, told = Standstill(self.process.pid), False
            while True:
                ended = self.process.poll() is not None  # before reading: what follows is the end
                while line := file.readline():
                    held += line
                    if held.endswith(b"\n"):
                        _fill(file, held)
                        yield held.decode(errors="replace")
                        held = b""
                if ended:
                    break
                stop.check()
                still = watch.seconds() > STILL
                if still and not told:
                    self._tell_standstill()
                told = still
                time.sleep(POLL)
            if held:
                yield held.decode(errors="replace")

    def events(self) -> Iterator[train_log.Event]:
        """The events that the lines of the log tell of.

        Raises:
            CaffeError: Caffe ended with an error: its last message, and where the log is.
        """
        reader, fatal, last = train_log.Reader(), "", ""
        for line in self.lines():
            last = line.strip() or last
            for event in reader.feed(line):
                if isinstance(event, train_log.Fatal):
                    fatal = event.message
                yield event
        yield from reader.close()
        if self.process.returncode:
            raise self._error(fatal, last)

    def interrupt(self) -> None:
        """Make Caffe take a snapshot and end; a second call does no harm."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.send_signal(signal.SIGCONT)  # a stopped one would not hear it

    def kill(self) -> None:
        """End Caffe at once, without a snapshot."""
        self.process.kill()
        self.process.wait()

    def _tell_standstill(self) -> None:
        pid = self.process.pid
        if is_stopped(pid):
            why = f"it was stopped (kill -CONT {pid} continues it)"
        else:
            why = (
                "a GPU, a disk or another process that it waits for may be gone (press Ctrl-C; "
                "the same command then resumes from the last snapshot)"
            )
        bars.say(f"{self.name}: Caffe (process {pid}) has done nothing for {STILL} s: {why}")

    def _error(self, fatal: str, last: str) -> CaffeError:
        code = self.process.returncode
        number = -code if code < 0 else code - 128 if code > 128 else 0
        if fatal:
            reason = explained(fatal)
        elif number:
            reason = f"killed by {_signal_name(number)}"
        else:
            reason = last or f"exit status {code}"
        what = f"{self.engine.typed[-1]} {self.command[0]}"
        message = f"{self.name}: {what} failed: {reason}; see {self.log}"
        return CaffeError(message, number, fatal)

    @classmethod
    def interrupt_all(cls) -> None:
        """Interrupt every Caffe of this process; no other will start."""
        stop.ask()
        with cls._starting:
            for caffe in tuple(cls._running):
                caffe.interrupt()


def _fill(file: BinaryIO, line: bytes) -> None:
    """Put a dot into the line that was read last, if it is blank.

    glog cuts a message after 30,000 characters (a large net's text), possibly within an
    indentation; Caffe's parse_log.py dies on the blank line that this leaves.
    """
    if not line.strip() and len(line) > 1:
        os.pwrite(file.fileno(), b".", file.tell() - len(line))


def _signal_name(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
    hints = {"SIGKILL": " (out of memory?)", "SIGBUS": " (a truncated database, or a full disk)"}
    return name + hints.get(name, "")
