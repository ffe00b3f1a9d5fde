"""From a table with three odd tasks, labels missing among them, to predictions in real Caffe."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest

from data_prep.__main__ import main as data_prep
from data_prep.classes import MISSING, Classes
from tests.data_prep.test_table import pictures, rows, write_csv  # noqa: F401
from xresnet.basics.files import sha256
from xresnet.caffeproto import NetParameter, text
from xresnet.reproduce.__main__ import main
from xresnet.reproduce.data import Data
from xresnet.reproduce.evaluation import Evaluation
from xresnet.reproduce.records import labels

TASKS = "label=Kind of thing,data=maker,2=size"  # named as blobs of Caffe's are, and by a number
SMALL = ["--width", "4", "--blocks", "1,1,1,2", "--bn-fraction", "0.9", "--head-lr", "1"]
RULE = ["--batch", "8", "--lr", "0.01", "--max-epochs", "2", "--display", "1", "--seed", "1"]


@pytest.fixture(params=["caffe", "torch"])
def engine(request, caffe_tools) -> str:
    """Each engine in turn."""
    if request.param == "torch":
        pytest.importorskip("torch", reason="SKIPPED FOR LACK OF PYTORCH: pip install '.[torch]'")
    return request.param


@pytest.fixture
def data(pictures, tmp_path) -> Path:  # noqa: F811
    """The table's folder; makers are missing so often that test batches of two are without."""
    values = [{**row, "maker": row["maker"] if i % 3 == 0 else ""} for i, row in enumerate(rows())]
    table, out = str(write_csv(tmp_path / "t.csv", values)), str(tmp_path / "data")
    where = ["--images", str(pictures), "--out", out]
    assert data_prep(["table", table, "--tasks", TASKS, "--stratify", "2", *where]) == 0
    assert data_prep(["lmdb", "--size", "32", *where]) == 0
    assert data_prep(["verify", "--out", out, "--sheet", str(tmp_path / "sheet.jpg")]) == 0
    return Path(out)


@pytest.mark.caffe
def test_a_table_comes_to_predictions(engine, data, pictures, tmp_path, capsys):  # noqa: F811
    run = tmp_path / "run"
    argv = ["train", "xs_resnet50", *SMALL, *RULE, "--test-batch", "2", "--threads", "1"]
    assert main([*argv, "--engine", engine, "--data", str(data), "--out", str(run)]) == 0
    net = text.load(run / "net.prototxt", NetParameter)
    losses = [layer for layer in net.layer if layer.type == "SoftmaxWithLoss"]
    assert [layer.name for layer in losses] == ["loss_label", "loss_data", "loss_2"]
    assert {layer.loss_param.ignore_label for layer in losses} == {MISSING}

    capsys.readouterr()
    assert main(["eval", str(run), "--engine", engine]) == 0, "the two ways agree"
    said = capsys.readouterr().out
    (one,) = Evaluation.all(run)
    result, truth, arrays = one.result(), labels(data), one.arrays()
    known = truth["data"] != MISSING
    batches = known.reshape(-1, 2).sum(axis=1)
    assert 0 in batches and len(set(batches)) > 1, "Caffe's mean of batches is another number"
    assert f"of {known.sum()} with a label" in said
    assert result["tasks"]["data"]["labelled"] == known.sum()
    assert "labelled" not in result["tasks"]["label"]
    right = int((arrays["best_data"][known, 0] == truth["data"][known]).sum())
    assert result["tasks"]["data"]["top1"]["correct"] == right
    assert result["tasks"]["data"]["top1"]["percent"] == pytest.approx(100 * right / known.sum())
    assert result["outputs"]["top1_data"] == pytest.approx(right / known.sum())
    assert sum(c["images"] for c in result["tasks"]["data"]["classes"]) == known.sum()

    assert main(["predict", str(run), str(pictures / "a b"), "--engine", engine]) == 0
    found = json.loads(capsys.readouterr().out)
    classes = Classes.read(data / "classes")
    assert len(found) == 20
    for task in classes.tasks:
        assert {answer["class"] for answer in found[0][task]} == set(classes[task])
    assert main(["figure5", str(run), "--out", str(tmp_path / "5.svg")]) == 0
    for suffix in ("svg", "png"):  # its text is drawn by who shows it, or here: no box, then
        shown = [str(pictures / "a b" / "0.png"), "--out", str(tmp_path / f"6.{suffix}")]
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "Glyph")
            assert main(["figure6", str(run), *shown, "--engine", engine]) == 0
    drawn = (tmp_path / "6.svg").read_text(encoding="utf-8")
    assert "dög &amp; &lt;b&gt;cow&lt;/b&gt;" in drawn and ">2</text>" in drawn and "鳥" in drawn
    assert main(["report", str(run), "--out", str(tmp_path / "report.html")]) == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "classes: 3 label, 2 data, 2 2" in page
    assert "caffe train -solver" in page or "torchcaffe train -solver" in page
    assert sha256(run / "net.prototxt") in page, "one run has its commands and hashes, too"
    assert "dög &amp; &lt;b&gt;cow" in page and "<b>cow" not in page


@pytest.mark.caffe
def test_a_grid_of_a_table_is_its_table_2(data, tmp_path, capsys, caffe_tools):
    """Nets of all tasks beside those of one, means over seeds, accuracies of what is labelled."""
    plan = {
        "name": "odd",
        "net": [*SMALL, "--batch", "8", "--test-batch", "2"],
        "plateau": {"lr": 0.01, "max_epochs": 1},
        "rows": [
            {"name": "XS", "net": ["xs_resnet50"], "seeds": [1, 2]},
            {"name": "one", "net": ["resnet50", "--task", "2"], "seeds": [1]},
        ],
    }
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    argv = ["grid", str(tmp_path / "plan.json"), "--data", str(data), "--threads", "1", "--json"]
    assert main([*argv, "--out", str(tmp_path / "grid")]) == 0
    table = json.loads(capsys.readouterr().out)
    assert table["finished"] == table["runs"] == 3
    both, one = table["rows"]
    assert (both["n"], set(both["tasks"])) == (2, {"label", "data", "2"})
    assert (one["n"], set(one["tasks"])) == (1, {"2"})


@pytest.mark.caffe
def test_a_tables_trunk_is_cached(data, tmp_path, capsys, caffe_tools):
    """The maps of all images, mirrored ones too; nets behind them learn the same tasks."""
    run, maps, tail = (str(tmp_path / name) for name in ("run", "maps", "tail"))
    argv = ["train", "xs_resnet50", *SMALL, *RULE, "--test-batch", "2", "--threads", "1"]
    assert main([*argv, "--data", str(data), "--out", run]) == 0
    weights = str(max(Path(run).glob("*.caffemodel")))
    given = ["--weights", weights, "--threads", "1", *SMALL[:4]]
    assert main(["features", "res4a", "--data", str(data), "--out", maps, *given]) == 0
    assert data_prep(["verify", "--out", maps]) == 0
    images, cached = labels(data), labels(Path(maps))
    assert all(np.array_equal(images[task], cached[task]) for task in ("label", "data", "2"))
    assert Data.read(Path(maps)).train == 2 * Data.read(data).train
    assert main([*argv, "--data", maps, "--out", tail]) == 0
    assert main(["eval", tail]) == 0


@pytest.mark.caffe
def test_engines_agree_on_missing_labels(data, tmp_path, caffe_tools):
    """The first losses and the test pass before training, from the same weights."""
    pytest.importorskip("torch", reason="SKIPPED FOR LACK OF PYTORCH: pip install '.[torch]'")
    from xresnet.reproduce.engine import ENGINES
    from xresnet.reproduce.evaluate import caffe_test
    from xresnet.reproduce.net import net_of

    run = tmp_path / "run"
    argv = ["train", "xs_resnet50", *SMALL, *RULE, "--test-batch", "2", "--threads", "1"]
    assert main([*argv, "--data", str(data), "--out", str(run)]) == 0
    images = Data.read(data).test
    ours, theirs = (
        caffe_test(net_of(run), tmp_path / f"{name}.log", images, ENGINES[name](threads=1))
        for name in ("torch", "caffe")
    )
    assert set(ours.outputs) == set(theirs.outputs)
    for name, value in theirs.outputs.items():
        assert np.isfinite(value) and ours.outputs[name] == pytest.approx(value, rel=2e-4)
