"""How many cores this process may use, and how its threads wait for each other."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

CONTROL = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
_OURS = "XRESNET_OMP_NUM_THREADS"  # what `share` chose, for this process and those it starts


def usable() -> int:
    """The cores that this process may use: by its affinity and its control groups' quota.

    A container or a batch system that grants two cores of sixty-four does so by either; the
    machine's count is what neither of them changes.
    """
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
    else:
        allowed = os.cpu_count() or 1
    return max(1, math.ceil(min(allowed, _quota(CONTROL, MEMBERSHIP))))


def share() -> None:
    """Let OpenMP, once it starts, use the cores that may be used and leave others theirs.

    Its threads by default turn round and round while they wait for each other, which beside
    any other work holds up the very thread that they wait for; so they sleep instead. And it
    counts cores by affinity alone; so a smaller quota is told to it. What the user's own
    OMP_WAIT_POLICY, GOMP_SPINCOUNT, KMP_BLOCKTIME or OMP_NUM_THREADS says stands. Once PyTorch
    is loaded it is too late: nothing is changed then.
    """
    if "torch" in sys.modules:
        return
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & os.environ.keys():
        os.environ["OMP_WAIT_POLICY"] = "passive"
    if _quota(CONTROL, MEMBERSHIP) < math.inf and not threads_said():
        os.environ["OMP_NUM_THREADS"] = os.environ[_OURS] = str(usable())


def threads_said() -> bool:
    """Whether the user, or who started us, says how many threads OpenMP shall use."""
    said = os.environ.get("OMP_NUM_THREADS")
    return said is not None and said != os.environ.get(_OURS)


def _quota(control: Path, membership: Path) -> float:
    """The smallest number of cores that a control group of ours, or one above it, may use at
    once; infinity without a limit. Reads both versions of Linux's control groups."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return math.inf
    limits = [math.inf]
    for line in lines:
        _, controllers, inside = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        roots = [control / controllers, control / "cpu"] if controllers else [control]
        for root in roots:
            group = root / inside.lstrip("/")
            limits += map(_limit, [group, *group.parents[: len(Path(inside).parts) - 1]])
    return min(limits)


def _limit(group: Path) -> float:
    """The cores that one control group grants."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota = (group / "cpu.cfs_quota_us").read_text()
            period = (group / "cpu.cfs_period_us").read_text()
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    except (OSError, ValueError):  # no such file, or "max"
        return math.inf
