"""Going on: runs that were moved, copied, damaged or stopped at a bad moment; other settings."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from netgen import Network
from tests.reproduce.test_train import ENDLESS, NET, Driver, engine, resumed, training
from xresnet.basics.cli import UserError
from xresnet.caffeproto import NetParameter, SolverState
from xresnet.reproduce import lock
from xresnet.reproduce.__main__ import main
from xresnet.reproduce.driver import train
from xresnet.reproduce.engine import CAFFE, RealCaffe, Torch
from xresnet.reproduce.folder import RunFolder
from xresnet.reproduce.run import Run
from xresnet.reproduce.schedule import Stage, Stages
from xresnet.reproduce.snapshots import snapshots
from xresnet.reproduce.table2 import SMOKE, Setting, Table2
from xresnet.reproduce.tensorboard import Events
from xresnet.reproduce.training import Training

__all__ = ["engine"]  # a fixture


@pytest.fixture(scope="module")
def first(caffe_tools, drawn, tmp_path_factory) -> Training:
    """A training of one epoch; tests work on copies."""
    made = training(drawn, tmp_path_factory.mktemp("first"), max_epochs=1)
    train(made)
    return made


@pytest.fixture
def copied(first, tmp_path) -> Path:
    return Path(shutil.copytree(first.folder, tmp_path / "copied"))


def longer(drawn: Path, folder: Path, epochs: int = 2, **more) -> Training:
    """The same training, to go on: what it decided at its end is taken back."""
    path = folder / "decisions.jsonl"
    path.write_text(path.read_text().splitlines(keepends=True)[0])
    return training(drawn, folder, max_epochs=epochs, patience=50, **more)


def learned_net(state: Path) -> str:
    return SolverState.FromString(state.read_bytes()).learned_net


# ---- moved and copied ---------------------------------------------------------------


@pytest.mark.caffe
def test_a_copied_run_goes_on_with_its_own_weights(engine, first, drawn, copied, tmp_path):
    """The state names the original's weights; they may have changed, or be another's."""
    before = first.snapshots()[-1]
    assert learned_net(before.state) == str(before.weights.resolve())
    original = tmp_path / "original"
    shutil.copytree(first.folder, original)
    state = copied / before.state.name
    content = SolverState.FromString(state.read_bytes())
    content.learned_net = str(original / before.weights.name)
    state.write_bytes(content.SerializeToString())
    (original / before.weights.name).write_bytes(b"of another training")
    assert train(longer(drawn, copied, engine=engine)).iteration == 2 * first.epoch
    assert resumed(copied)[-1] == first.epoch
    # All else in the state is as it was.
    told = SolverState.FromString(state.read_bytes()) if state.exists() else content
    told.learned_net = content.learned_net
    assert told == content


@pytest.mark.caffe
def test_a_state_is_settled_once_and_only_its_path_changes(first, copied, tmp_path):
    (snapshot,) = snapshots(copied)[-1:]
    before = SolverState.FromString(snapshot.state.read_bytes())
    snapshot.settle()
    after = SolverState.FromString(snapshot.state.read_bytes())
    assert after.learned_net == str(copied / snapshot.weights.name)
    assert snapshot.is_whole(first.last_layer)
    at = snapshot.state.stat().st_ino
    snapshot.settle()
    assert snapshot.state.stat().st_ino == at, "nothing to write"
    after.learned_net = before.learned_net
    assert after == before
    after.ClearField("learned_net")
    snapshot.state.write_bytes(after.SerializeToString())
    snapshot.settle()
    assert learned_net(snapshot.state) == str(copied / snapshot.weights.name)


# ---- which training it is ---------------------------------------------------------------


@pytest.mark.caffe
def test_weights_are_known_by_their_content(first, drawn, tmp_path):
    weights = tmp_path / "w.caffemodel"
    shutil.copy(first.snapshots()[-1].weights, weights)
    folder = tmp_path / "run"

    def run(path: Path) -> Training:
        return replace(training(drawn, folder, max_epochs=1), weights=(path,))

    train(run(weights))
    calls = len(resumed(folder))
    moved = weights.rename(tmp_path / "elsewhere.caffemodel")
    relative = Path(os.path.relpath(moved))
    train(run(relative))
    assert len(resumed(folder)) == calls, "the same training: it is done"
    net = NetParameter.FromString(moved.read_bytes())
    next(layer for layer in net.layer if layer.blobs).blobs[0].data[0] += 1
    moved.write_bytes(net.SerializeToString())
    with pytest.raises(UserError, match=r"another training \(--weights .*: content has changed"):
        train(run(relative))
    with pytest.raises(UserError, match="no such file"):
        train(run(tmp_path / "none.caffemodel"))
    with pytest.raises(UserError, match=r"another training \(other --weights\)"):
        train(replace(run(moved), weights=()))


@pytest.mark.caffe
def test_a_start_that_failed_is_no_training(caffe_tools, drawn, tmp_path):
    for gpu in (RealCaffe("0"), RealCaffe("all")):
        with pytest.raises(UserError) as said:
            train(training(drawn, tmp_path, gpu))
        assert "Cannot use GPU in CPU-only Caffe: leave out --gpu" in str(said.value)
    other = training(drawn, tmp_path, max_epochs=1)
    other = replace(other, net=Network("x0_resnet50", other.net.choices))
    assert train(other).iteration == other.epoch
    assert "gpu" not in (tmp_path / "train.log").read_text()
    with pytest.raises(UserError, match=r"another training \(another net\)"):
        train(training(drawn, tmp_path))


@pytest.mark.parametrize("kind", [RealCaffe, Torch])
@pytest.mark.parametrize("gpu", ["abc", "", "0,", "-1", "0 1"])
def test_a_gpu_that_is_none_is_one_line(kind, gpu):
    with pytest.raises(UserError, match="expected a GPU's number"):
        kind(gpu)


@pytest.mark.caffe
def test_the_scores_tell_of_a_missing_gpu_too(first, tmp_path, copied, capsys):
    with pytest.raises(UserError, match="leave out --gpu"):
        main(["predict", str(copied), str(next(iter(_images(first)))), "--gpu", "0"])


def _images(run: Training) -> list[Path]:
    return sorted((run.data.folder.root.parent / "vso").rglob("*.jpg"))


@pytest.mark.caffe
@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("decisions.jsonl", None, "decisions.jsonl is missing or cut short"),
        ("decisions.jsonl", "", "decisions.jsonl is missing or cut short"),
        ("decisions.jsonl", "5\n", r"decisions.jsonl:1: no decision"),
        ("decisions.jsonl", '{"action": "start", "iteration": 0, "lr": NaN, "why": ""}', ":1: no"),
        ("decisions.jsonl", '{"action": "fly", "iteration": 0, "lr": 1, "why": ""}', ":1: no"),
        ("run.json", None, "run.json is missing"),
        ("run.json", "", "run.json:1: not JSON.*unknown which training"),
        ("run.json", "[]", "run.json: expected an object, not .*unknown which training"),
        ("run.json", '{"key": 5}', "run.json: key: expected text.*unknown which training"),
    ],
)
def test_what_is_lost_is_told_and_nothing_begins_anew(first, drawn, copied, file, content, said):
    go_on = training(drawn, copied, max_epochs=2, patience=50)
    (copied / file).unlink()
    if content is not None:
        (copied / file).write_text(content)
    before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=said):
        train(go_on)
    del before[copied / ".lock"]
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.caffe
def test_snapshots_that_are_gone_are_told(first, drawn, copied):
    for path in copied.glob("snapshot_iter_*"):
        path.unlink()
    with pytest.raises(UserError, match="no complete snapshot"):
        train(training(drawn, copied, max_epochs=1))


@pytest.mark.caffe
def test_a_log_that_is_gone_is_told(first, drawn, copied, capfd):
    (copied / "train.log").unlink()
    assert train(longer(drawn, copied)).iteration == 2 * first.epoch
    assert (
        "train.log is missing: the plateau rule starts from the next losses"
        in capfd.readouterr().err
    )


@pytest.mark.caffe
def test_decisions_that_lost_a_drop_are_told(caffe_tools, drawn, tmp_path):
    run = training(drawn, tmp_path, max_epochs=6)
    train(run)
    lines = (tmp_path / "decisions.jsonl").read_text().splitlines(keepends=True)
    assert any('"drop"' in line for line in lines)
    (tmp_path / "decisions.jsonl").write_text(lines[0])
    with pytest.raises(UserError, match="cut short"):
        train(run)


# ---- decided late ----------------------------------------------------------------------


@pytest.mark.caffe
def test_a_drop_that_was_due_before_a_kill_comes_where_it_was_due(caffe_tools, drawn, tmp_path):
    """Caffe had gone on past the epoch's end when all was killed before the decision."""
    run = replace(training(drawn, tmp_path, max_epochs=3, patience=50), keep=99)
    train(run)
    path = tmp_path / "decisions.jsonl"
    path.write_text(path.read_text().splitlines(keepends=True)[0])
    last = run.snapshots()[-1]
    for name in (last.state, last.weights):  # a kill between two epochs' ends
        name.unlink()
    assert 2 * run.epoch < run.snapshots()[-1].iteration < 3 * run.epoch
    again = replace(training(drawn, tmp_path, max_epochs=4), keep=99)  # of a rule that drops
    train(again)
    actions = [(d.action, d.iteration) for d in RunFolder(tmp_path).decisions()]
    assert actions[:3] == [("start", 0), ("keep", run.epoch), ("drop", 2 * run.epoch)]
    assert resumed(tmp_path)[:2] == [0, 2 * run.epoch]


# ---- what goes away meanwhile ------------------------------------------------------------


@pytest.mark.caffe
def test_a_folder_that_is_taken_away_is_one_line(caffe_tools, drawn, tmp_path):
    folder = tmp_path / "run"
    with Driver(drawn, folder, *ENDLESS) as driver:
        driver.wait_for(r"Snapshotting solver state(.*\n)*.*Iteration \d+ \(")
        folder.rename(tmp_path / "away")
        stderr = driver.end(1)
    assert "run was removed during training" in stderr


def test_event_files_that_cannot_be_written_are_told_once(tmp_path, capsys):
    (tmp_path / "tensorboard").write_text("no folder")
    events = Events(tmp_path / "tensorboard")
    for step in range(3):
        events.scalars(step, {"train/loss": 1e300})
    events.close()
    (line,) = capsys.readouterr().err.splitlines()
    assert "without TensorBoard's files from here on" in line


@pytest.fixture
def full_disk(tmp_path):
    """A folder on a disk with 64 kB left, which `fill` takes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("SKIPPED FOR LACK OF RIGHTS: a small disk needs root (mount -t tmpfs)")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def _fill(disk: Path) -> None:
    with pytest.raises(OSError), (disk / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def test_a_full_disk_ends_the_event_file_not_the_training(full_disk, capsys):
    events = Events(full_disk / "tensorboard")
    _fill(full_disk)
    for step in range(2000):
        events.scalars(step, {"train/loss": 1.0})
    events.close()
    (line,) = capsys.readouterr().err.splitlines()
    assert "No space left on device: without TensorBoard" in line


@pytest.mark.caffe
def test_a_full_disk_at_the_start_is_one_line(caffe_tools, drawn, full_disk, first):
    _fill(full_disk)
    with pytest.raises(UserError, match=r"cannot write .*/\.lock: No space left"):
        train(training(drawn, full_disk))


@pytest.mark.caffe
def test_a_log_that_cannot_be_written_is_one_line(first, copied):
    """`eval` on a full disk, or in a folder that may only be read."""
    for log in copied.glob("test*.log"):
        log.unlink()
    for name in ("test.log", f"test_{first.epoch}.log"):
        (copied / name).symlink_to("/dev/full")
    command = [sys.executable, "-m", "xresnet", "eval", str(copied)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "error: cannot write" in line and "No space left" in line


def test_a_start_that_is_refused_leaves_no_folder(drawn, tmp_path):
    command = ["train", "xs_resnet50", "--data", str(drawn), "--weights", "none.caffemodel"]
    with pytest.raises(UserError, match="no such file"):
        main([*command, "--out", str(tmp_path / "runs" / "xs")])
    assert list(tmp_path.iterdir()) == []
    there = sorted(drawn.iterdir())
    with pytest.raises(UserError, match="is the data folder: choose another --out"):
        main(["train", "xs_resnet50", "--data", str(drawn), "--out", str(drawn)])
    assert sorted(drawn.iterdir()) == there
    plan = {"name": "a", "net": [*NET], "weights": ["none.caffemodel"]}
    plan["rows"] = [{"name": "XS", "net": ["xs_resnet50"]}]
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    command = ["grid", str(tmp_path / "plan.json"), "--data", str(drawn)]
    with pytest.raises(UserError, match="no such file"):
        main([*command, "--out", str(tmp_path / "grid")])
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "xs_resnet50.caffemodel").write_text("no weights")
    command = ["table2", "--data", str(drawn), "--rows", "xs_resnet50"]
    with pytest.raises(UserError, match="not a whole"):
        main([*command, "--out", str(tmp_path / "out"), "--weights", str(tmp_path / "weights")])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plan.json", "weights"]


def test_a_lock_goes_with_the_folder_that_it_made(tmp_path):
    with pytest.raises(UserError), lock.hold(tmp_path / "a" / "b"):
        raise UserError("no data")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    with lock.hold(tmp_path / "mine"):
        pass
    assert list((tmp_path / "mine").iterdir()) == [], "whose folder it is made it"
    with lock.hold(tmp_path / "run"):
        (tmp_path / "run" / "run.json").touch()
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"run.json", ".lock"}


def test_a_lock_that_its_holder_took_away_is_made_anew(tmp_path, monkeypatch):
    """Who waits for a lock has it open; two must not hold a run each by another file."""
    held = "import fcntl, os, sys; file = open(sys.argv[1], 'w'); fcntl.flock(file, 2);"
    held += "print(flush=True); input(); os.unlink(sys.argv[1])"
    path = tmp_path / "run" / ".lock"
    path.parent.mkdir()
    command = [sys.executable, "-c", held, str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as holder:
        holder.stdout.readline()

        def wait(seconds: float) -> None:
            holder.communicate(b"\n")  # it takes the lock away and ends

        monkeypatch.setattr(lock.time, "sleep", wait)
        with lock.hold(path.parent) as mine:
            assert os.path.samestat(os.stat(path), os.fstat(mine.descriptor))
            with pytest.raises(UserError, match="another run"), lock.hold(path.parent):
                pass


def test_a_lock_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"), lock.hold(tmp_path / "file"):
        pass


# ---- rehearsals ------------------------------------------------------------------------

TINY = Setting(
    name="tiny",
    what="a test",
    net={"width": 4, "blocks": (1, 1, 1, 2), "batch": 8},
    solver={"cpu": True, "seed": 1, "test_interval": 0, "display": 1, "snapshot": 4},
    schedule=Stages((Stage(0.02, 4),)),
    rows=("x0_resnet50",),
)


@pytest.mark.caffe
def test_a_rehearsal_deletes_no_training(caffe_tools, drawn, tmp_path, monkeypatch):
    def files() -> dict[Path, bytes]:
        found = (path for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock")
        return {path: path.read_bytes() for path in found}

    Table2(tmp_path, TINY).make(drawn)
    before = files()
    with pytest.raises(UserError, match=r"the table of another setting \(tiny\)"):
        Table2(tmp_path, SMOKE, ("x0_resnet50",)).make(drawn)
    for path in tmp_path.glob("table2.*"):  # stopped before it was set
        del before[path]
        path.unlink()
    (tmp_path / "runs/x0_resnet50/result.json").unlink()
    del before[tmp_path / "runs/x0_resnet50/result.json"]
    with pytest.raises(UserError, match="holds another training"):
        Table2(tmp_path, SMOKE, ("x0_resnet50",)).make(drawn)
    assert files() == before


@pytest.mark.caffe
def test_a_rehearsal_of_another_kind_takes_an_older_ones_place(caffe_tools, drawn, tmp_path):
    def rehearsal(**more) -> Run:
        made = training(drawn, tmp_path, max_epochs=1, **more)
        net = Network("x0_resnet50" if more else "xs_resnet50", made.net.choices)
        return Run(replace(made, net=net, fresh=True))

    assert train(rehearsal().training).iteration
    assert train(rehearsal(lr=0.02).training).iteration
    assert resumed(tmp_path) == [0], "of the second alone"
    assert CAFFE.name == "caffe" and json.loads((tmp_path / "run.json").read_text())["rehearsal"]
