"""The road from LMDBs to the table, walked by real Caffe with nets of a few channels."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from xresnet import realcaffe
from xresnet.basics.cli import UserError
from xresnet.reproduce import table2_table
from xresnet.reproduce.schedule import Stage, Stages
from xresnet.reproduce.table2 import SMOKE, SMOKE_ROWS, Setting, Table2

TINY = Setting(
    name="tiny",
    what="a test",
    net={"width": 4, "blocks": (1, 1, 1, 2), "batch": 8},
    solver={"cpu": True, "seed": 1, "test_interval": 0, "display": 1, "snapshot": 4},
    schedule=Stages((Stage(0.02, 6), Stage(0.002, 9))),
    rows=SMOKE_ROWS,
)


def rates(out: Path, run: str) -> list[str]:
    log = (out / "runs" / run / "train.log").read_text()
    return [line.split("lr = ")[1] for line in log.splitlines() if "lr = " in line]


@pytest.mark.caffe
def test_every_row_is_trained_tested_and_written(caffe_tools, drawn, tmp_path):
    table = Table2(tmp_path, TINY).make(drawn)
    rows = {(row["row"], row["task"]): row for row in table["table"]}
    assert len(rows) == 5 * 3  # chance, ResNet-50, X0, XI, XS
    for (name, task), row in rows.items():
        assert 0 <= row["top1"] <= row["top5"] <= 100, (name, task)
    classes = table["data"]["classes"]
    assert rows["Chance", "adj"]["top1"] == pytest.approx(100 / classes["adj"])
    crosses = rows["XS-ResNet-50", "anp"]["params"] - rows["X0-ResNet-50", "anp"]["params"]
    assert crosses * 1e6 == pytest.approx(6 * 8 * 4 * 4)  # six of res5's 8 * 4 * 4 channels
    assert rates(tmp_path, "xs_resnet50") == ["0.02"] * 6 + ["0.002"] * 3

    # Accuracies are shares of all test images, each seen once.
    for run in table["runs"]:
        for name, value in run["outputs"].items():
            if name.startswith("top"):
                images = value * table["data"]["test"]
                assert images == pytest.approx(round(images), abs=1e-2)

    assert json.loads((tmp_path / "table2.json").read_text()) == table
    with (tmp_path / "table2.csv").open() as file:
        assert [row["task"] for row in csv.DictReader(file)][:3] == ["noun", "adj", "anp"]
    assert "| XS-ResNet-50 | Noun |" in (tmp_path / "table2.md").read_text()
    assert r"\bottomrule" in (tmp_path / "table2.tex").read_text()
    assert table["versions"]["caffe"] == "1.0.0"
    assert table["versions"]["openblas"] == realcaffe.kernels()

    # Once more: all is there.
    logs = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/*.log")}
    assert Table2(tmp_path, TINY).make(drawn)["table"] == table["table"]
    assert {path: path.stat().st_mtime_ns for path in logs} == logs


@pytest.mark.caffe
def test_the_commands_in_the_result_repeat_it_by_hand(caffe_tools, drawn, tmp_path):
    rows = ("x0_resnet50",)
    (run,) = Table2(tmp_path, TINY, rows).make(drawn)["runs"]
    for path in (tmp_path / "runs/x0_resnet50").glob("snapshot_iter_*"):
        path.unlink()
    environment = {**os.environ, "PATH": f"{caffe_tools['caffe'].parent}:{os.environ['PATH']}"}
    for command in run["commands"]:
        ran = subprocess.run(command, shell=True, capture_output=True, text=True, env=environment)
        assert ran.returncode == 0, ran.stderr[-2000:]
    for name, value in run["outputs"].items():
        if name.startswith("top"):
            assert f"] {name} = {value:g}" in ran.stderr


@pytest.mark.caffe
def test_ctrl_c_leaves_a_snapshot_from_which_the_next_call_goes_on(caffe_tools, drawn, tmp_path):
    command = [sys.executable, "-m", "xresnet", "table2", "--smoke", "--data", str(drawn)]
    command += ["--out", str(tmp_path), "--rows", "xs_resnet50"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    log = tmp_path / "runs/xs_resnet50/train.log"
    deadline = time.monotonic() + 60
    while not (log.exists() and "Iteration 10 " in log.read_text()):
        assert time.monotonic() < deadline, "training did not begin"
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    (state,) = log.parent.glob("snapshot_iter_*.solverstate")
    at = int(state.stem.rsplit("_", 1)[1])
    assert 0 < at < SMOKE.schedule.stages[0].until

    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    while f"Resuming from {state}" not in log.read_text():
        assert time.monotonic() < deadline + 60, "the next call did not go on from the snapshot"
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    process.wait(timeout=60)


@pytest.mark.caffe
def test_a_caffe_that_fails_is_quoted_with_its_log(caffe_tools, drawn, tmp_path):
    mean = tmp_path / "damaged.binaryproto"
    mean.write_bytes(b"damaged")
    net = {**TINY.net, "mean_file": str(mean)}
    broken = Setting("broken", "a test", net, TINY.solver, TINY.schedule)
    with pytest.raises(UserError, match=r"caffe train failed: .*; see .*train\.log"):
        Table2(tmp_path, broken, ("x0_resnet50",)).make(drawn)
    assert not (tmp_path / "table2.json").exists()


@pytest.mark.caffe
def test_an_error_is_told_while_other_nets_are_at_work(caffe_tools, drawn, tmp_path, capfd):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "x0_resnet50").write_text("no folder")
    with pytest.raises(UserError, match=r"cannot write .*x0_resnet50"):
        # The first is at work when the second fails.
        Table2(tmp_path, TINY, ("xs_resnet50", "x0_resnet50")).make(drawn, 2)
    assert "x0_resnet50: File exists (no other net is begun" in capfd.readouterr().err
    assert (tmp_path / "runs" / "xs_resnet50" / "result.json").exists()


def test_a_folder_without_databases_says_what_to_run(tmp_path):
    with pytest.raises(UserError, match="python -m data_prep lmdb"):
        Table2(tmp_path, TINY).make(tmp_path)
    with pytest.raises(UserError, match=r"unknown row 'xs_resnet' .did you mean"):
        Table2(tmp_path, TINY, ("xs_resnet",)).make(tmp_path)


@pytest.mark.parametrize(("name", "compared"), [("paper", True), (table2_table.REHEARSAL, False)])
def test_a_rehearsal_is_not_compared_with_the_paper(name, compared):
    classes = {"noun": 7, "adj": 6, "anp": 39}
    data = {"train": 100, "test": 20, "classes": classes}
    setting = {"name": name, "what": "nets of some size"}
    table = {"setting": setting, "data": data, "table": table2_table.tabulated(classes, {})}
    lines = [x for x in table2_table.markdown(table).splitlines() if x.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    assert ("Diff." in lines[0], "+2.38" in lines[-1]) == (compared, compared)
    assert "2.56 (0.18)" in lines[-1]
