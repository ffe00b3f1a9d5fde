"""The lock of a run's folder: only one driver at a time.

The lock is the kernel's (flock) on RUN/.lock. Caffe inherits it from its driver, so an orphan of
a killed driver keeps others out until it has written its snapshot. The file names both processes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from xresnet.basics import bars
from xresnet.basics.cli import UserError
from xresnet.reproduce.caffe import LAST_WORK, PATIENCE
from xresnet.reproduce.process import Standstill, is_alive

UNSEEN = 5  # seconds for a holder of which there is no trace, such as a child of a dead Caffe


@dataclass(frozen=True)
class Lock:
    """A held lock; a process that inherits `descriptor` holds it as well."""

    descriptor: int

    def name(self, caffe: int | None = None) -> None:
        """Write the process ids of this process and of its Caffe into the file."""
        words = f"{os.getpid()} {caffe or ''}\n".encode()
        os.pwrite(self.descriptor, words, 0)
        os.ftruncate(self.descriptor, len(words))


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[Lock]:
    """Lock a run's folder; a folder that this makes is removed again if it stays empty.

    Raises:
        UserError: another driver trains here, an orphaned Caffe does not end, or the folder
            cannot be written.
    """
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    descriptor = _locked(folder)
    try:
        lock = Lock(descriptor)
        try:
            lock.name()
        except OSError as error:
            raise UserError(f"cannot write {folder}/.lock: {error.strerror}") from error
        yield lock
    finally:
        with contextlib.suppress(OSError):
            if os.listdir(folder) == [".lock"]:
                os.unlink(folder / ".lock")
                for place in made:
                    place.rmdir()
        os.close(descriptor)


def _locked(folder: Path) -> int:
    """The descriptor of the lock, when it is ours."""
    path = folder / ".lock"
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise UserError(f"cannot write {folder}: {error.strerror}") from error
        with contextlib.ExitStack() as unless_ours:
            unless_ours.callback(os.close, descriptor)
            _wait(descriptor, folder)
            # Whoever held it may have taken it away: then another file is the lock by now.
            if path.exists() and os.path.samestat(os.stat(path), os.fstat(descriptor)):
                unless_ours.pop_all()
                return descriptor


def _wait(descriptor: int, folder: Path) -> None:
    """Wait until the lock is ours; an orphaned Caffe was interrupted when its driver died."""
    begun = time.monotonic()
    orphan: Standstill | None = None
    while not _try_lock(descriptor):
        driver, caffe = _holders(descriptor)
        if driver and is_alive(driver):
            raise UserError(
                f"{folder}: another run (process {driver}) is training here; wait for "
                "it, or stop it with Ctrl-C"
            )
        waited = time.monotonic() - begun
        if caffe and is_alive(caffe):
            if orphan is None:
                orphan = Standstill(caffe)
                bars.say(f"{folder}: waiting for the snapshot of Caffe (process {caffe})")
                with contextlib.suppress(OSError):
                    os.kill(caffe, signal.SIGCONT)  # a stopped one has not heard of it
            if orphan.seconds() > LAST_WORK or waited > PATIENCE:
                raise UserError(
                    f"{folder}: Caffe (process {caffe}), left over from a run that has died, does "
                    f"not stop: run kill -9 {caffe}, then the same command again"
                )
        elif waited > UNSEEN:
            raise UserError(
                f"{folder} is locked by a process that is not visible from here (in another "
                "container?): stop it, then run the same command again"
            )
        time.sleep(0.2)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _holders(descriptor: int) -> tuple[int, int]:
    """The process ids of driver and Caffe in the file; 0 for one that is missing."""
    words = os.pread(descriptor, 40, 0).decode(errors="replace").split()
    numbers = [int(word) if word.isdecimal() else 0 for word in words]
    driver, caffe, *_ = [*numbers, 0, 0]
    return driver, caffe
