"""State of other processes from Linux's /proc: alive, stopped, working or idle."""

from __future__ import annotations

import time
from pathlib import Path


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    fields = _stat(pid)
    return bool(fields) and fields[0] not in "ZX"


def is_stopped(pid: int) -> bool:
    """Whether a process is stopped (SIGSTOP, Ctrl-Z) and waits for SIGCONT."""
    fields = _stat(pid)
    return bool(fields) and fields[0] in "Tt"


class Standstill:
    """For how long a process and its children have used no processor time.

    A Caffe that has lost its GPU, or its peer in NCCL, waits for ever and looks alive.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._used = -1
        self._since = time.monotonic()

    def seconds(self) -> float:
        """Seconds since the last call that saw work."""
        used = sum(map(_ticks, [self.pid, *_children(self.pid)]))
        if used != self._used:
            self._used, self._since = used, time.monotonic()
        return time.monotonic() - self._since


def _stat(pid: int) -> list[str]:
    """/proc/PID/stat from the state on, `PID (name) state ...`; nothing where there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def _ticks(pid: int) -> int:
    """The time in user and system mode, all threads together."""
    fields = _stat(pid)
    return int(fields[11]) + int(fields[12]) if fields else 0


def _children(pid: int) -> list[int]:
    try:
        return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    except OSError:  # gone, or a kernel that does not list them
        return []
