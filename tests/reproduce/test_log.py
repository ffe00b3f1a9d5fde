"""train.log as others read it: Caffe's own parse_log.py, where its source is at hand."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.reproduce.test_train import training
from xresnet.reproduce.caffe import Caffe
from xresnet.reproduce.driver import train
from xresnet.reproduce.engine import RealCaffe
from xresnet.reproduce.folder import RunFolder

SOURCE = "XRESNET_CAFFE_SOURCE"
TOOLS = ("parse_log.py", "extract_seconds.py")


@pytest.fixture(scope="module")
def folder(caffe_tools, drawn, tmp_path_factory) -> Path:
    """A training of two stages."""
    made = training(drawn, tmp_path_factory.mktemp("trained"), max_epochs=4)
    train(made)
    return made.folder


@pytest.fixture(scope="module")
def parse_log(root, tmp_path_factory) -> Path:
    """Caffe's tool, for Python 3: its one `print` statement made a call."""
    source = Path(os.environ.get(SOURCE, root / "work" / "source"))
    target = tmp_path_factory.mktemp("tools")
    for path in source.rglob("tools/extra/*.py"):
        if path.name in TOOLS:
            (target / path.name).write_bytes(path.read_bytes())
    for path in source.glob("*.orig.tar.*"):  # what `make caffe-cpu` fetches
        with tarfile.open(path) as archive:
            for member in archive:
                if "/tools/extra/" in member.name and Path(member.name).name in TOOLS:
                    (target / Path(member.name).name).write_bytes(
                        archive.extractfile(member).read()
                    )
    tool = target / TOOLS[0]
    if not tool.exists():
        pytest.skip(
            f"SKIPPED FOR LACK OF CAFFE'S SOURCE: none in {source} (set {SOURCE}, or "
            "python docker/fetch.py work/source)"
        )
    tool.write_text(re.sub(r"print ('.*)", r"print(\1)", tool.read_text()))
    return tool


@pytest.mark.caffe
def test_caffes_own_parser_makes_the_tables_that_the_log_holds(folder, parse_log, tmp_path):
    command = [sys.executable, "-W", "ignore", parse_log, folder / "train.log", tmp_path]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-2000:]
    history = RunFolder(folder).history()
    train, test = (table(tmp_path / f"train.log.{part}") for part in ("train", "test"))
    for rows, events in ((train, history.steps), (test, history.tests)):
        assert events and events.keys() <= rows.keys()
        for iteration, event in events.items():
            for name, value in event.outputs.items():
                assert float(rows[iteration][name]) == value, (iteration, name)
    # Caffe names the rate after a row's outputs: the tool's rates lag by a row.
    (drop,) = [d for d in RunFolder(folder).decisions() if d.action == "drop"]
    rates = {i: float(train[i]["LearningRate"]) for i in history.steps}
    second = [i for i in history.steps if i >= drop.iteration]
    assert {rates[i] for i in history.steps if i < drop.iteration} == {0.01}
    assert {rates[i] for i in second[1:]} == {0.001}


def table(path: Path) -> dict[float, dict[str, str]]:
    """Rows by iteration; of what a stage did beyond its end, the later row counts."""
    with path.open() as file:
        return {float(row["NumIters"]): row for row in csv.DictReader(file)}


@pytest.mark.caffe
def test_every_line_of_the_log_is_one_that_the_parser_can_pass(folder):
    """It skips what has no date, but not a line without a word."""
    lines = (folder / "train.log").read_text().splitlines()
    assert all(line.strip() for line in lines)
    assert any("Solving" in line for line in lines), "its start of time"
    heads = [line for line in lines if line[:1] in "IWEF" and "] " in line]
    assert all(
        re.match(r"[IWEF]\d{4} \d\d:\d\d:\d\d\.\d{6} +\d+ \w+\.\w+:\d+\] ", h) for h in heads
    )


class Talker(RealCaffe):
    """Says what glog says of a large net."""

    def program(self) -> list[str]:
        said = "layer {\\n   \\nI1121 00:00:00.000000 1 solver.cpp:1] Iteration 5, loss = 1\\n"
        return [sys.executable, "-c", f"print('{said}', end='')"]


def test_a_line_left_blank_by_glogs_cut_is_filled(tmp_path):
    with Caffe([], tmp_path / "log", "talker", Talker()) as caffe:
        (event,) = caffe.events()
    assert event.loss == 1
    assert (tmp_path / "log").read_text().splitlines()[1:3] == ["layer {", ".  "]
