"""Cores by affinity and quota, and what OpenMP is told before it starts."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import pytest

from xresnet.basics import cores


def groups(tmp_path, membership: str, files: dict[str, str]) -> float:
    """The quota that a tree of control groups grants."""
    for name, content in files.items():
        file = tmp_path / "control" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    (tmp_path / "membership").write_text(membership)
    return cores._quota(tmp_path / "control", tmp_path / "membership")


@pytest.mark.parametrize(
    ("membership", "files", "wanted"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, math.inf),
        ("0::/job/step\n", {"job/cpu.max": "200000 100000\n", "job/step/cpu.max": "max 100000"}, 2),
        ("0::/seen/from/outside\n", {"cpu.max": "300000 100000\n"}, 3),
        (
            "3:cpu,cpuacct:/a\n2:memory:/b\n",
            {
                "cpu,cpuacct/a/cpu.cfs_quota_us": "50000\n",
                "cpu,cpuacct/a/cpu.cfs_period_us": "100000\n",
                "memory/b/cpu.max": "1 100\n",
            },
            0.5,
        ),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, math.inf),
        ("1:cpuset:/\n0::/\n", {}, math.inf),
    ],
)
def test_a_quota_is_the_smallest_on_the_way_up(membership, files, wanted, tmp_path):
    assert groups(tmp_path, membership, files) == wanted


def test_affinity_counts(root):
    ask = "import os; os.sched_setaffinity(0, {0}); "
    ask += "from xresnet.basics import cores; print(cores.usable())"
    told = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, cwd=root)
    assert told.stdout == "1\n"


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, "passive"),
        ({"OMP_WAIT_POLICY": "active"}, "active"),
        ({"GOMP_SPINCOUNT": "5"}, "None"),
        ({"KMP_BLOCKTIME": "5"}, "None"),
    ],
)
def test_threads_sleep_while_they_wait_unless_the_user_says_otherwise(given, wanted, root):
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_", "KMP_"))}
    ask = "import os, torchcaffe; print(os.environ.get('OMP_WAIT_POLICY'))"
    told = subprocess.run(
        [sys.executable, "-c", ask], capture_output=True, text=True, cwd=root, env=clean | given
    )
    assert told.stdout == f"{wanted}\n"
    late = f"import sys; sys.modules['torch'] = None; {ask}"
    told = subprocess.run(
        [sys.executable, "-c", late], capture_output=True, text=True, cwd=root, env=clean
    )
    assert told.stdout == "None\n"


def test_openmp_itself_heard_it(root):
    """libgomp prints what it took from its environment; a line of PyTorch's does not tell."""
    pytest.importorskip("torch", reason="NO PYTORCH HERE: pip install '.[torch]'")
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_", "KMP_"))}
    told = subprocess.run(
        [sys.executable, "-c", "import torchcaffe, torch; torch.zeros(1)"],
        capture_output=True,
        text=True,
        cwd=root,
        env=clean | {"OMP_DISPLAY_ENV": "true"},
    )
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in told.stderr


def test_a_quota_is_told_to_openmp(monkeypatch):
    monkeypatch.setattr(cores, "_quota", lambda *_: 1.2)
    monkeypatch.setattr(cores, "sys", type("Sys", (), {"modules": {}}))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # put back at the end, whatever it was
    monkeypatch.setenv(cores._OURS, "1")
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    cores.configure_openmp()
    assert not cores.threads_are_set()
    assert os.environ["OMP_NUM_THREADS"] == str(min(2, len(os.sched_getaffinity(0))))
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    cores.configure_openmp()
    assert cores.threads_are_set()
    assert os.environ["OMP_NUM_THREADS"] == "7"
