"""The driver with real Caffe processes: drops by the rule, kills, NaN, full disks, by hand."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from netgen import Network
from netgen.options import words
from xresnet.basics.cli import UserError
from xresnet.reproduce.data import Data
from xresnet.reproduce.driver import train
from xresnet.reproduce.engine import CAFFE, ENGINES, Engine
from xresnet.reproduce.folder import RunFolder
from xresnet.reproduce.process import is_alive
from xresnet.reproduce.schedule import Plateau
from xresnet.reproduce.snapshots import snapshots
from xresnet.reproduce.training import Training

CHOICES = {"width": 4, "blocks": (1, 1, 1, 2), "batch": 8, "bn_fraction": 0.9}
CHOSEN_SOLVER = {"seed": 1, "display": 5, "snapshot": 10}
NET, SOLVER = words(CHOICES), words(CHOSEN_SOLVER)
ENDLESS = ("--patience", "50", "--lr", "0.01")


def training(drawn: Path, folder: Path, engine: Engine = CAFFE, **rule) -> Training:
    return Training(
        name="xs",
        net=Network("xs_resnet50", {**CHOICES, "head_lr": 1}),
        data=Data.read(drawn),
        folder=folder,
        schedule=Plateau(**{"lr": 0.01, "patience": 1, "min_gain": 0.5, "drops": 1, **rule}),
        solver=CHOSEN_SOLVER,
        engine=engine,
    )


@pytest.fixture(params=ENGINES)
def engine(request, caffe_tools) -> Engine:
    """Each engine in turn."""
    if request.param == "torch":
        pytest.importorskip("torch", reason="SKIPPED FOR LACK OF PYTORCH: pip install '.[torch]'")
    return ENGINES[request.param](threads=1)


def resumed(folder: Path) -> list[int]:
    """The iterations from which Caffe went on, call by call; 0 for a start."""
    calls = re.findall(r"caffe train (.*)", (folder / "train.log").read_text())
    return [int(m[1]) if (m := re.search(r"_iter_(\d+)\.sol", call)) else 0 for call in calls]


class Driver:
    """`xresnet train` as a process of its own."""

    def __init__(self, drawn: Path, folder: Path, *options: str) -> None:
        self.folder = folder
        self.log = folder / "train.log"
        command = [sys.executable, "-m", "xresnet", "train", "xs_resnet50", *NET, *SOLVER]
        command += ["--head-lr", "1", "--data", str(drawn), "--out", str(folder), *options]
        self.process = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stderr.close()

    def wait_for(self, pattern: str, calls: int = 1) -> None:
        """Until the log of the call number `calls` holds the pattern."""
        deadline = time.monotonic() + 120
        while True:
            text = self.log.read_text(errors="replace") if self.log.exists() else ""
            parts = re.split(r"reproduce\.py:1\] .*?caffe train ", text)
            if len(parts) > calls and re.search(pattern, parts[calls]):
                return
            assert time.monotonic() < deadline, f"no {pattern!r} in {text[-2000:]}"
            assert self.process.poll() is None, self.process.stderr.read()
            time.sleep(0.02)

    def caffe(self) -> int:
        """The process id of its Caffe."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return int(children.split()[0])

    def end(self, status: int) -> str:
        _, stderr = self.process.communicate(timeout=120)
        assert self.process.returncode == status, stderr
        assert "Traceback" not in stderr
        return stderr


@pytest.fixture(scope="module")
def trained(caffe_tools, drawn, tmp_path_factory) -> Training:
    """A training that came to its end: a stage, a drop, a second stage."""
    made = training(drawn, tmp_path_factory.mktemp("trained"), max_epochs=6)
    train(made)
    return made


@pytest.mark.caffe
def test_the_rate_falls_at_epochs_and_training_ends(trained, capfd):
    taken = RunFolder(trained.folder).decisions()
    assert taken[0].action == "start" and taken[-1].action == "stop"
    (drop,) = [d for d in taken if d.action == "drop"]
    assert drop.lr == 0.001 and drop.iteration % trained.epoch == 0
    assert drop.numbers["epochs_without_gain"] == 1, "the decision keeps its numbers"
    # Caffe's own words: the second call began where the first stage ended, at a tenth.
    assert resumed(trained.folder) == [0, drop.iteration]
    history = RunFolder(trained.folder).history()
    for iteration, step in history.steps.items():
        assert step.lr == pytest.approx(0.01 if iteration < drop.iteration else 0.001)
    assert set(history.tests) == {d.iteration for d in taken if d.iteration}
    # Each number is the log's.
    (epoch,) = history.epochs(trained.epoch, trained.epoch)
    assert taken[1].numbers["smoothed"] == pytest.approx(epoch.train)
    last = trained.snapshots()[-1]
    assert last.iteration == taken[-1].iteration
    assert f"lr: {0.001:g}" in (trained.folder / "solver.prototxt").read_text()

    # Once more: nothing to do.
    before = trained.files.log.stat().st_size
    assert train(trained) == last
    assert trained.files.log.stat().st_size == before


@pytest.mark.caffe
def test_snapshots_are_pruned_to_the_best_the_last_and_the_stages_ends(trained):
    kept = {s.iteration for s in trained.snapshots()}
    turns = {d.iteration for d in RunFolder(trained.folder).decisions() if d.action != "keep"} - {0}
    assert turns <= kept
    assert len(kept) <= len(turns) + trained.keep + 1
    assert len(list(trained.folder.glob("snapshot_iter_*"))) == 2 * len(kept)


@pytest.mark.caffe
def test_tensorboard_reads_the_event_file(trained):
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    crc32c = pytest.importorskip("tensorboardX.crc32c").crc32c
    import struct

    (path,) = (trained.folder / "tensorboard").iterdir()
    data, at, events = path.read_bytes(), 0, []
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        event = data[at + 12 : at + 12 + length]
        for content, place in ((data[at : at + 8], at + 8), (event, at + 12 + length)):
            crc = crc32c(content)
            masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
            assert struct.unpack_from("<I", data, place)[0] == masked
        events.append(event_pb2.Event.FromString(event))
        at += 16 + length
    assert events[0].file_version == "brain.Event:2"
    found = {(v.tag, e.step): v.simple_value for e in events for v in e.summary.value}
    history = RunFolder(trained.folder).history()
    for iteration, step in history.steps.items():
        assert found["train/loss", iteration] == pytest.approx(step.loss)
        assert found["train/lr", iteration] == pytest.approx(step.lr)
    for iteration, test in history.tests.items():
        assert found["test/top1_anp", iteration] == pytest.approx(test.outputs["top1_anp"])


@pytest.mark.caffe
def test_caffe_by_hand_goes_on_from_the_same_files(caffe_tools, trained, tmp_path):
    folder = trained.folder
    state = trained.snapshots()[0].state
    solver = (folder / "solver.prototxt").read_text()
    longer = re.sub(r"max_iter: \d+", f"max_iter: {trained.snapshots()[0].iteration + 3}", solver)
    longer = re.sub(r'snapshot_prefix: ".*"', f'snapshot_prefix: "{tmp_path}/hand"', longer)
    (tmp_path / "solver.prototxt").write_text(longer)
    command = [caffe_tools["caffe"], "train", "-solver", tmp_path / "solver.prototxt"]
    ran = subprocess.run([*command, "-snapshot", state], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert f"Resuming from {state}" in ran.stderr


@pytest.mark.caffe
def test_another_net_in_the_same_folder_is_refused(trained, drawn):
    other = replace(training(drawn, trained.folder), net=Network("x0_resnet50", CHOICES))
    with pytest.raises(UserError, match="holds another training"):
        train(other)


@pytest.mark.caffe
def test_the_same_options_in_another_order_are_the_same_training(trained, drawn):
    calls = resumed(trained.folder)
    turned = dict(reversed(CHOSEN_SOLVER.items()))
    train(replace(training(drawn, trained.folder, max_epochs=6), solver=turned))
    assert resumed(trained.folder) == calls
    turned["seed"] = 2
    with pytest.raises(UserError, match=r"holds another training \(another solver\)"):
        train(replace(training(drawn, trained.folder), solver=turned))


@pytest.mark.caffe
def test_killed_caffe_is_started_again_from_the_last_snapshot(caffe_tools, drawn, tmp_path):
    with Driver(drawn, tmp_path, *ENDLESS) as driver:
        for call, number in ((1, signal.SIGKILL), (2, signal.SIGBUS)):
            driver.wait_for(r"Snapshotting solver state(.*\n)*.*Iteration \d+ \(", call)
            os.kill(driver.caffe(), number)
            driver.wait_for("Resuming from", call + 1)
        at = resumed(tmp_path)
        assert at[1] >= 9 and at[2] >= at[1]

        # A second driver keeps out.
        with Driver(drawn, tmp_path, *ENDLESS) as second:
            assert "another run" in second.end(1)
        os.kill(driver.process.pid, signal.SIGTERM)
        stderr = driver.end(130)
    assert "SIGKILL" in stderr and "SIGBUS" in stderr
    assert snapshots(tmp_path)[-1].iteration > at[-1], "stopping took a snapshot"


@pytest.mark.caffe
def test_a_killed_driver_leaves_no_orphan_and_loses_no_more_than_a_snapshot_interval(
    caffe_tools, drawn, tmp_path
):
    with Driver(drawn, tmp_path, *ENDLESS) as driver:
        driver.wait_for("Iteration 15 ")
        caffe = driver.caffe()
        os.kill(driver.process.pid, signal.SIGKILL)
        driver.process.wait()
        # At once: the orphan may still be writing its snapshot.
        with Driver(drawn, tmp_path, *ENDLESS) as second:
            second.wait_for("Resuming from", 2)
            assert not is_alive(caffe)
            assert resumed(tmp_path)[1] >= 15, "the orphan took a snapshot before it ended"
            second.wait_for(r"Iteration \d+ ", 2)
            # Both at once, as by a reboot; and the last snapshot is damaged.
            os.killpg(second.process.pid, signal.SIGKILL)
    *_, before, last = snapshots(tmp_path)
    with last.weights.open("r+b") as file:
        file.truncate(last.weights.stat().st_size - 100)
    with Driver(drawn, tmp_path, *ENDLESS) as third:
        third.wait_for("Resuming from", 3)
        assert resumed(tmp_path)[2] == before.iteration
    for line in (tmp_path / "decisions.jsonl").read_text().splitlines():
        json.loads(line)


@pytest.mark.caffe
def test_a_loss_that_is_no_number_stops_and_says_what_to_try(engine, drawn, tmp_path):
    good = training(drawn, tmp_path, engine, max_epochs=1)
    at = train(good).iteration
    taken = RunFolder(tmp_path).decisions()
    (tmp_path / "decisions.jsonl").write_text(json.dumps(asdict(taken[0])) + "\n")
    with pytest.raises(UserError, match=rf"not a finite number .*{at}.*--lr 1e\+08 .*--weights"):
        train(training(drawn, tmp_path, engine, lr=1e9, max_epochs=3))
    assert snapshots(tmp_path)[-1].iteration == at
    # What the message says works.
    assert train(training(drawn, tmp_path, engine, max_epochs=2)).iteration == 2 * at


@pytest.mark.caffe
def test_a_full_disk_keeps_the_last_whole_snapshot(engine, drawn, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1600k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("SKIPPED FOR LACK OF RIGHTS: a small disk needs root (mount -t tmpfs)")
    try:
        run = training(drawn, disk / "run", engine, lr=0.01, patience=50)
        with pytest.raises(UserError, match=r"could not be written whole|only half|cannot write"):
            train(run)
        kept = run.snapshots()
        assert kept, "the last whole one is there"
        subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)
        go_on = training(drawn, disk / "run", engine, lr=0.01, max_epochs=1)
        assert train(go_on).iteration == go_on.epoch
        assert resumed(disk / "run")[-1] == kept[-1].iteration
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.caffe
def test_a_caffe_that_refuses_is_quoted_and_not_tried_again(caffe_tools, drawn, tmp_path):
    mean = tmp_path / "damaged.binaryproto"
    mean.write_bytes(b"damaged")
    broken = training(drawn, tmp_path)
    broken = replace(broken, net=broken.net.choose(mean_file=str(mean)))
    with pytest.raises(UserError, match=r"caffe train failed: .*; see .*train\.log"):
        train(broken)
    assert resumed(tmp_path) == [0]


def test_weights_that_are_none_are_refused(drawn, tmp_path):
    (tmp_path / "w.caffemodel").write_text("no weights")
    run = Training(
        **{**vars(training(drawn, tmp_path / "run")), "weights": (tmp_path / "w.caffemodel",)}
    )
    with pytest.raises(UserError, match="not a whole"):
        train(run)
