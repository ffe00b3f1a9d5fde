"""The number of cores that this process may use, and OpenMP's settings."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

CONTROL = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
_OURS = (
    "XRESNET_OMP_NUM_THREADS"  # what `configure_openmp` chose, for this process and those it starts
)


def usable() -> int:
    """The number of cores that this process may use: its affinity, limited by its cgroups' quota.

    A container or a batch system that grants two cores of sixty-four does so by one of these;
    neither changes `os.cpu_count()`.
    """
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
    else:
        allowed = os.cpu_count() or 1
    return max(1, math.ceil(min(allowed, _quota(CONTROL, MEMBERSHIP))))


def configure_openmp() -> None:
    """Make OpenMP use the cores that this process may use, and sleep while it waits.

    By default its threads spin while they wait for each other, which delays the very thread
    they wait for when other work runs beside them. And OpenMP knows the affinity only, so a
    smaller quota is passed to it. The user's own OMP_WAIT_POLICY, GOMP_SPINCOUNT,
    KMP_BLOCKTIME and OMP_NUM_THREADS are kept. Call it before PyTorch is imported: later it
    has no effect.
    """
    if "torch" in sys.modules:
        return
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & os.environ.keys():
        os.environ["OMP_WAIT_POLICY"] = "passive"
    if _quota(CONTROL, MEMBERSHIP) < math.inf and not threads_are_set():
        os.environ["OMP_NUM_THREADS"] = os.environ[_OURS] = str(usable())


def threads_are_set() -> bool:
    """Whether OMP_NUM_THREADS is set by anyone but `configure_openmp`."""
    said = os.environ.get("OMP_NUM_THREADS")
    return said is not None and said != os.environ.get(_OURS)


def _quota(control: Path, membership: Path) -> float:
    """The smallest quota, in cores, among our control groups and their parents; may be infinite.

    Reads versions 1 and 2 of Linux's control groups.
    """
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
    """The quota of one control group, in cores."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota = (group / "cpu.cfs_quota_us").read_text()
            period = (group / "cpu.cfs_period_us").read_text()
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    except (OSError, ValueError):  # no such file, or "max"
        return math.inf
