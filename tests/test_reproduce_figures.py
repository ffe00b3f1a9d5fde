"""Figures 5 and 6, predictions and curves, from a run of a tiny net."""

from __future__ import annotations

import json
import re

import cv2
import numpy as np
import pytest

from basics.cli import UserError
from reproduce import figures, watch
from reproduce.__main__ import main
from reproduce.evaluate import keys, labels, net_of, records
from reproduce.weights import cross_weights
from tests.caffe_nets import pycaffe
from tests.test_reproduce_train import training


@pytest.fixture(scope="module")
def run(caffe_tools, drawn, tmp_path_factory):
    """A run of three epochs, all its snapshots kept."""
    folder = tmp_path_factory.mktemp("figures") / "xs"
    made = training(drawn, folder, max_epochs=3, patience=9)
    made.run()
    return made


@pytest.fixture(scope="module")
def photo(drawn, tmp_path_factory):
    """The first test image as a file of another size's suffix: PNG, so without loss."""
    path = tmp_path_factory.mktemp("photos") / "first.png"
    cv2.imwrite(str(path), next(records(drawn)).transpose(1, 2, 0))
    return path


@pytest.mark.caffe
def test_cross_weights_are_those_that_pycaffe_reads(run, caffe_tools):
    net = net_of(run.folder)
    (block, curves), *more = cross_weights(net.weights).items()
    assert block == "res5b" and not more and len(curves) == 6
    script = """
import sys, caffe
net = caffe.Net(sys.argv[1], sys.argv[2], caffe.TEST)
print(*net.params[sys.argv[3]][0].data.ravel())
"""
    layer = "res5b_cross_adj-noun"
    printed = pycaffe(caffe_tools, script, net.deploy, net.weights, layer)
    assert np.array([float(v) for v in printed.split()]) == pytest.approx(curves["adj", "noun"])


@pytest.mark.caffe
def test_figure_5_has_a_curve_a_source_and_target(run, tmp_path, capsys):
    out, change = tmp_path / "5.svg", tmp_path / "change.svg"
    arguments = ["--out", str(out), "--change", str(change), "--json"]
    assert main(["figure5", str(run.folder), *arguments]) == 0
    drawn = out.read_text()
    pairs = {"Noun-Adj", "Noun-ANP", "Adj-Noun", "Adj-ANP", "ANP-Noun", "ANP-Adj"}
    assert all(f">{pair}<" in drawn for pair in pairs)
    assert set(json.loads(capsys.readouterr().out)["res5b"]) == pairs
    assert "iteration" in change.read_text()
    figure = figures.figure5(net_of(run.folder).weights)
    for line in figure.axes[0].lines[:6]:
        values = line.get_ydata()
        assert len(values) == 128 and (np.diff(values) >= 0).all(), "sorted by size"


@pytest.mark.caffe
def test_predictions_are_the_scores_best_classes(run, drawn, photo, tmp_path, capsys):
    assert main(["predict", str(run.folder), str(photo), "--top", "3"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["image"] == str(photo)
    for task in ("adj", "anp", "noun"):
        probabilities = [entry["probability"] for entry in found[task]]
        assert len(found[task]) == 3 and probabilities == sorted(probabilities, reverse=True)
    # As evaluation saw the same record.
    assert main(["eval", str(run.folder)]) == 0
    best = np.load(run.folder / "eval.npz")["best_anp"][0]
    assert found["anp"][0]["class"] == run.data.names.anp[best[0]]
    assert main(["figure6", str(run.folder), str(photo.parent), "--out", f"{tmp_path}/6.png"]) == 0
    assert cv2.imread(f"{tmp_path}/6.png").shape[1] > 300
    assert len(keys(drawn)) == len(labels(drawn)["anp"])


@pytest.mark.caffe
def test_curves_are_drawn_as_picture_and_as_page(run, tmp_path):
    assert main(["watch", str(run.folder), "--out", str(tmp_path / "w.svg")]) == 0
    assert "top-1 on the test images" in (tmp_path / "w.svg").read_text()
    assert main(["watch", str(run.folder)]) == 0
    page = (run.folder / "watch.html").read_text()
    assert not re.search(r"(?:src|href)=\"(?!#)", page), "nothing from elsewhere"
    assert "the starting rate" in page


def test_mistakes_have_one_line(tmp_path):
    (tmp_path / "x.caffemodel").write_bytes(b"\xff\xff")
    for wrong, words in (
        (["figure5", str(tmp_path / "x.caffemodel")], "not a .caffemodel"),
        (["figure5", str(tmp_path)], "not a run's folder"),
        (["predict", str(tmp_path), "x.jpg"], "not a run's folder"),
        (["train", "xs_resnet", "--data", "x", "--out", "y"], "did you mean"),
        (["train", "xs_resnet50", "--data", "x", "--out", "y", "--cpu"], "leave it out"),
        (["train", "xs_resnet50", "--data", str(tmp_path), "--out", "y"], "data_prep lmdb"),
        (["eval", str(tmp_path), "--deepsentibank", "x"], "needs --classes"),
        (["grid", str(tmp_path / "none.json"), "--data", "x", "--out", "y"], "cannot read"),
    ):
        with pytest.raises(UserError, match=words):
            main(wrong)
    with pytest.raises(UserError, match="no iteration"):
        watch.watch(tmp_path, tmp_path / "w.png")
    with pytest.raises(UserError, match="svg, not"):
        figures.render(figures.Figure(), ".doc")
