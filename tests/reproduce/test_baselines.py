"""Table 2's published baselines, on the same road as the ResNets: trained, tested, tabulated."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from data_prep.__main__ import main as data_prep
from netgen.command import generate
from tests.helpers.caffe_nets import pycaffe
from xresnet.basics.cli import UserError
from xresnet.reproduce.deepsentibank import DeepSentiBank
from xresnet.reproduce.schedule import Plateau
from xresnet.reproduce.table2 import Setting, Table2

SIDE = 47  # Inception-v1's smallest input


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """39 images to train, 39 to test."""
    folder = tmp_path_factory.mktemp("small")
    images, out = str(folder / "vso"), str(folder / "data")
    data_prep(["sample", "--per-anp", "2", "--out", images])
    options = ["--images", images, "--out", out]
    data_prep(["filter", "--ontology", f"{images}/ontology.txt", "--min-images", "1", *options])
    data_prep(["split", *options])
    data_prep(["lmdb", "--size", str(SIDE), *options])
    return Path(out)


@pytest.fixture(scope="module")
def deepsentibank(caffe_tools, data, tmp_path_factory) -> DeepSentiBank:
    """A DeepSentiBank for small images with random weights, and a class list that has our ANPs."""
    folder = tmp_path_factory.mktemp("deepsentibank")
    deploy, weights = folder / "deploy.prototxt", folder / "dsb.caffemodel"
    deploy.write_text(generate(["deepsentibank", "--deploy", "--input-size", str(SIDE)]))
    save = "import sys, caffe; caffe.Net(sys.argv[1], caffe.TEST).save(sys.argv[2])"
    pycaffe(caffe_tools, save, deploy, weights)
    anps = (data / "classes" / "anp.txt").read_text().split()
    outputs = [*anps, *(f"other_{i}" for i in range(2089 - len(anps)))]
    (folder / "classes.json").write_text(json.dumps(outputs))
    return DeepSentiBank(weights, folder / "classes.json")


@pytest.mark.caffe
@pytest.mark.slow
def test_published_baselines_are_trained_and_tabulated(
    caffe_tools, data, deepsentibank, tmp_path, monkeypatch
):
    """The ANP's net of each row: those of the other tasks differ in their classes alone."""
    monkeypatch.setattr("xresnet.reproduce.table2._tasks", lambda net: ["anp"])
    monkeypatch.setattr("xresnet.reproduce.deepsentibank.INPUT", (SIDE, SIDE))
    setting = Setting(
        name="small",
        what="a test",
        net={"batch": 20},
        solver={"display": 1, "seed": 1},
        schedule=Plateau(max_epochs=1),
    )
    rows = ("caffenet", "inception_v1", "vggnet16")
    wanted = Table2(tmp_path, setting, rows, deepsentibank=deepsentibank)
    table = wanted.make(data, 2)
    anp = [row for row in table["table"] if row["task"] == "anp"]
    named = ["Chance", "DeepSentiBank", "CaffeNet", "Inception-v1", "VggNet-16"]
    assert [row["row"] for row in anp] == named
    for row in anp[1:]:
        assert row["params"] > 5 and 0 <= row["top1"] <= row["top5"] <= 100, row["row"]
    for run in table["runs"]:
        assert run["iterations"] == 2, "39 images in batches of 20"
    # Inception's auxiliary heads learn, and are not what is tested.
    log = (tmp_path / "runs/inception_v1_anp/train.log").read_text()
    assert "loss1/loss_anp" in log and "(* 0.3 =" in log
    with (tmp_path / "table2.csv").open() as file:
        assert [row["row"] for row in csv.DictReader(file)][2:] == named

    # Any subset, from what is there.
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/*.*")}
    again = replace(wanted, rows=("deepsentibank",)).make(data)
    assert again["table"] == table["table"][:4]  # chance, a row a task, and DeepSentiBank
    assert {path: path.stat().st_mtime_ns for path in before} == before
    with pytest.raises(UserError, match="give its files"):
        Table2(tmp_path, setting, ("deepsentibank",)).make(data)
    with pytest.raises(UserError, match="none does not exist"):
        gone = replace(deepsentibank, weights=tmp_path / "none")
        replace(wanted, deepsentibank=gone).make(data)
