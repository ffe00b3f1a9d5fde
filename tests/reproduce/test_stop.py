"""Stopping and standing still, with real processes: kills of a whole group, orphans, SIGSTOP."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.reproduce.test_train import ENDLESS, NET, SOLVER, Driver, training
from xresnet.basics.cli import UserError
from xresnet.reproduce import caffe, lock
from xresnet.reproduce.driver import train
from xresnet.reproduce.process import Standstill, is_alive, is_stopped
from xresnet.reproduce.snapshots import snapshots


def table2(drawn: Path, out: Path) -> tuple[list[str], list[Path]]:
    """A rehearsal of two nets at a time, and the folders of its runs."""
    rows = ("x0_resnet50", "xs_resnet50")
    command = ["table2", "--smoke", "--rows", ",".join(rows), "--jobs", "2"]
    return [*command, "--data", str(drawn), "--out", str(out)], [out / "runs" / n for n in rows]


def grid(drawn: Path, out: Path) -> tuple[list[str], list[Path]]:
    plan = {
        "name": "a test",
        "net": [*NET, "--head-lr", "1"],
        "plateau": {"lr": 0.01, "patience": 50},
        "solver": [*SOLVER[2:]],
        "rows": [{"name": "XS", "net": ["xs_resnet50"]}, {"name": "X0", "net": ["x0_resnet50"]}],
    }
    out.mkdir(exist_ok=True)
    (out / "plan.json").write_text(json.dumps(plan))
    command = ["grid", str(out / "plan.json"), "--threads", "1"]
    return [*command, "--data", str(drawn), "--out", str(out)], [out / "runs" / "XS-1"]


def begun(folder: Path) -> bool:
    log = folder / "train.log"
    return log.exists() and "Iteration 5" in log.read_text()


def until(condition, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("command", "one", "name"),
    [
        ("train", "google.protobuf", "xresnet"),
        ("netgen", "google.protobuf", "netgen"),
        ("weights", "google.protobuf", "netgen.weights"),
        ("data_prep", "json", "data_prep"),
    ],
)
def test_ctrl_c_while_imports_run_is_one_line(command, one, name):
    told = [sys.executable, "-X", "importtime", "-m", "xresnet", command, "--help"]
    with subprocess.Popen(told, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        for line in process.stderr:  # the times of imports, each as it ends
            if line.split()[-1] == one.encode():
                process.send_signal(signal.SIGINT)
                break
        rest = process.stderr.read().decode().splitlines()
    said = [line for line in rest if not line.startswith("import time:")]
    assert (said, process.returncode) == ([f"{name}: interrupted"], 130)


@pytest.mark.caffe
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("words", [table2, grid])
def test_a_signal_to_all_processes_stops_with_snapshots(
    caffe_tools, drawn, tmp_path, words, number
):
    """As SLURM, systemd and `timeout` send it: to each process, to some of them twice."""
    command, runs = words(drawn, tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "xresnet", *command],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        until(lambda: all(map(begun, runs)), process)
        process.send_signal(number)
        os.killpg(process.pid, number)
        time.sleep(0.05)
        os.killpg(process.pid, number)
        _, stderr = process.communicate(timeout=30)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130
    assert "interrupted" in stderr and "Traceback" not in stderr and "going on" not in stderr
    for run in runs:
        assert "Snapshotting solver state" in (run / "train.log").read_text()
        assert snapshots(run), "a whole one"


@pytest.mark.caffe
def test_an_orphan_that_stands_still_is_named_at_once(caffe_tools, drawn, tmp_path, monkeypatch):
    with Driver(drawn, tmp_path, *ENDLESS) as driver:
        driver.wait_for("Iteration 15 ")
        orphan = driver.caffe()
        os.kill(orphan, signal.SIGSTOP)
        driver.process.kill()
        driver.process.wait()
        try:
            # Its GPU is gone, as it were: SIGCONT does not help.
            monkeypatch.setattr(lock.signal, "SIGCONT", 0)
            monkeypatch.setattr(lock, "LAST_WORK", 1)
            start = time.monotonic()
            with pytest.raises(UserError, match=f"left over .*kill -9 {orphan}"):
                train(training(drawn, tmp_path))
            assert time.monotonic() - start < 10
            # A stopped one is waked, takes its snapshot and ends.
            monkeypatch.undo()
            with lock.hold(tmp_path):
                assert not is_alive(orphan)
        finally:
            if is_alive(orphan):
                os.kill(orphan, signal.SIGKILL)
    assert snapshots(tmp_path)[-1].iteration >= 15


@pytest.mark.caffe
def test_a_lock_whose_holder_is_not_to_be_seen_is_told(tmp_path, monkeypatch):
    """Another container's: its process ids mean nothing here."""
    monkeypatch.setattr(lock, "UNSEEN", 0.5)
    with lock.hold(tmp_path) as held:
        gone = subprocess.Popen(["true"])
        gone.wait()
        os.pwrite(held.descriptor, f"{gone.pid} {gone.pid}\n".encode().ljust(30), 0)
        with pytest.raises(UserError, match="not visible from here"), lock.hold(tmp_path):
            pass


@pytest.mark.caffe
def test_a_caffe_that_stands_still_is_told_and_ctrl_c_still_works(
    caffe_tools, drawn, tmp_path, monkeypatch, capfd
):
    monkeypatch.setattr(caffe, "STILL", 1)
    run = training(drawn, tmp_path, patience=50)
    told = []

    def disturb() -> None:
        deadline = time.monotonic() + 60
        while not begun(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.05)
        (one,) = caffe.Caffe._running
        os.kill(one.process.pid, signal.SIGSTOP)
        while not told and time.monotonic() < deadline:
            time.sleep(0.2)
            told.extend(line for line in capfd.readouterr().err.splitlines() if "nothing" in line)
        assert is_stopped(one.process.pid)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=disturb)
    thread.start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        train(run)
    thread.join()
    assert time.monotonic() - start < 60
    (line,) = told
    assert "has done nothing for 1 s: it was stopped (kill -CONT" in line
    assert run.snapshots(), "interrupted, it went on to its snapshot"


def test_standstill_sees_work_and_its_absence(monkeypatch):
    now = [0]
    monkeypatch.setattr(f"{Standstill.__module__}.time", SimpleNamespace(monotonic=lambda: now[0]))
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    idle = subprocess.Popen(["sleep", "60"])
    try:
        os.kill(idle.pid, signal.SIGSTOP)
        until(lambda: is_stopped(idle.pid), idle)
        working, resting = Standstill(busy.pid), Standstill(idle.pid)
        assert (working.seconds(), resting.seconds()) == (0, 0)
        now[0] += 10
        assert resting.seconds() == 10
        until(lambda: working.seconds() == 0, busy)
    finally:
        for process in (busy, idle):
            process.kill()
            process.wait()


@pytest.mark.caffe
@pytest.mark.parametrize(
    ("words", "at_work"),
    [
        (["eval", "RUN"], b"caffe.Net(deploy"),
        (["features", "res3a", "--weights", "RUN/WEIGHTS", *NET], b"caffe.Net(deploy"),
        (["grid", "GRID"], b"\0time\0"),
    ],
    ids=["eval", "features", "estimate"],
)
def test_a_kill_leaves_nothing_in_the_temporary_folder(
    caffe_tools, drawn, tmp_path, monkeypatch, words, at_work
):
    """What an engine reads or writes there has no name."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    if words[0] == "grid":
        command, _ = grid(drawn, tmp_path)
    else:
        run = training(drawn, tmp_path / "run", max_epochs=1)
        train(run)
        weights = run.snapshots()[-1].weights.name
        places = {"RUN": str(tmp_path / "run"), "RUN/WEIGHTS": str(tmp_path / "run" / weights)}
        command = [places.get(word, word) for word in words]
        if words[0] == "features":
            command += ["--data", str(drawn), "--out", str(tmp_path / "maps")]
    process = subprocess.Popen(
        [sys.executable, "-m", "xresnet", *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")

    def working() -> bool:
        try:
            commands = [
                Path(f"/proc/{n}/cmdline").read_bytes() for n in children.read_text().split()
            ]
        except OSError:  # gone since
            return False
        return any(at_work in command for command in commands)

    until(working, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not list(temporary.iterdir())
