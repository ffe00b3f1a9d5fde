"""Figures 5 and 6, predictions and curves, from a run of a tiny net."""

from __future__ import annotations

import json
import math
import shutil
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure

from netgen.command import generate
from tests.helpers.caffe_nets import pycaffe
from tests.reproduce.test_train import training
from xresnet.basics.cli import UserError
from xresnet.realcaffe.train_log import TrainStep
from xresnet.reproduce import figures, pictures
from xresnet.reproduce.__main__ import main
from xresnet.reproduce.curves import curves
from xresnet.reproduce.driver import train
from xresnet.reproduce.evaluation import Evaluation
from xresnet.reproduce.forward import Transform
from xresnet.reproduce.history import History
from xresnet.reproduce.net import net_of
from xresnet.reproduce.records import records
from xresnet.reproduce.weights import cross_weights


@pytest.fixture(scope="module")
def run(caffe_tools, drawn, tmp_path_factory):
    """A run of three epochs, all its snapshots kept."""
    folder = tmp_path_factory.mktemp("figures") / "xs"
    made = training(drawn, folder, max_epochs=3, patience=9)
    train(made)
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
    best = Evaluation.find(run.folder).arrays()["best_anp"][0]
    assert found["anp"][0]["class"] == run.data.names.anp[best[0]]
    assert main(["figure6", str(run.folder), str(photo.parent), "--out", f"{tmp_path}/6.png"]) == 0
    assert cv2.imread(f"{tmp_path}/6.png").shape[1] > 300


@pytest.mark.caffe
def test_one_unreadable_image_is_named_and_the_rest_go_on(run, photo, tmp_path, capsys):
    (tmp_path / "a\x1b[2J.jpg").write_bytes(b"no image")
    pixels = cv2.imread(str(photo))
    cv2.imwrite(str(tmp_path / "b.tif"), pixels)
    (tmp_path / "huge.png").write_bytes(huge_png())
    assert main(["predict", str(run.folder), str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert [Path(entry["image"]).name for entry in json.loads(said.out)] == ["b.tif"]
    assert "a\\x1b[2J.jpg: not an image" in said.err
    assert "huge.png: too many pixels" in said.err
    assert main(["figure6", str(run.folder), str(tmp_path), "--out", f"{tmp_path}/6.svg"]) == 1
    with pytest.raises(UserError, match="none of the images could be read"):
        main(["predict", str(run.folder), str(tmp_path / "a\x1b[2J.jpg")])
    with pytest.raises(UserError, match="a picture is"):
        main(["figure6", str(run.folder), str(photo), "--out", f"{tmp_path}/6.doc"])


def huge_png(side: int = 30_000) -> bytes:
    """A small PNG file of 30,000 x 30,000 black pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((side // 8 + 1) * side), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.caffe
def test_a_run_keeps_the_names_that_its_net_learned(caffe_tools, drawn, photo, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(drawn, data)
    made = training(data, tmp_path / "run", max_epochs=1)
    train(made)
    predicting = ["predict", str(made.folder), str(photo)]

    def classes() -> list[str]:
        assert main(predicting) == 0
        said = capsys.readouterr()
        found.append(said.err)
        return [entry["class"] for entry in json.loads(said.out)[0]["anp"]]

    found: list[str] = []
    capsys.readouterr()
    learned = classes()
    assert found == [""]
    for task in ("adj", "anp", "noun"):  # another filter: the same numbers, other classes
        path = data / "classes" / f"{task}.txt"
        path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    assert classes() == learned and "has other classes now" in found[-1]
    with pytest.raises(UserError, match="has other classes now"):
        main(["eval", str(made.folder)])
    shutil.rmtree(data / "classes")
    shutil.copytree(drawn / "classes", data / "classes")
    assert main(["eval", str(made.folder)]) == 0
    older = tmp_path / "older"
    shutil.copytree(made.folder, older)
    shutil.rmtree(older / "classes")
    predicting[1] = str(older)
    capsys.readouterr()
    assert classes() == learned, "an older run takes its names from unchanged data"
    (data / "test.txt").write_text("")
    with pytest.raises(UserError, match="the meaning of its labels is unknown"):
        main(predicting)
    predicting[1] = str(made.folder)
    assert classes() == learned and "has other images now" in found[-1]
    shutil.rmtree(data)
    assert classes() == learned and found[-1] == ""
    with pytest.raises(UserError, match="does not exist"):
        main(["eval", str(made.folder)])
    # What it reports shows no pictures of data that are gone, and says so.
    assert main(["report", str(made.folder)]) == 0
    assert "No examples: " in (made.folder / "report.html").read_text()


@pytest.mark.caffe
def test_a_mean_image_is_kept_and_held(caffe_tools, drawn, photo, tmp_path):
    mean = tmp_path / "mean.binaryproto"
    shutil.copy(drawn / "mean.binaryproto", mean)
    made = training(drawn, tmp_path / "run", max_epochs=1)
    made = replace(made, net=made.net.choose(mean_file=str(mean)))
    train(made)
    assert main(["eval", str(made.folder)]) == 0
    scale = Transform.of(made.folder / "net.prototxt").mean
    assert scale.shape == (3, 32, 32)
    mean.write_bytes(mean.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(UserError, match="has changed since"):
        main(["eval", str(made.folder)])
    with pytest.raises(UserError, match="differs from the mean image with which"):
        train(made)
    mean.unlink()
    assert main(["predict", str(made.folder), str(photo)]) == 0
    assert np.array_equal(Transform.of(made.folder / "net.prototxt").mean, scale)


def untrained(caffe_tools, folder: Path, *net: str) -> Path:
    """Weights as real Caffe fills them."""
    small = ("--width", "4", "--blocks", "1,1,1,3", "--input-size", "32")
    deploy, weights = folder / "deploy.prototxt", folder / "w.caffemodel"
    deploy.write_text(generate([*net, *small, "--deploy"]))
    script = "import sys, caffe; caffe.Net(sys.argv[1], caffe.TEST).save(sys.argv[2])"
    pycaffe(caffe_tools, script, deploy, weights)
    return weights


@pytest.mark.caffe
def test_gates_are_drawn_as_what_they_multiply_by(caffe_tools, tmp_path, capsys):
    weights = untrained(caffe_tools, tmp_path, "xg_resnet50")
    blocks = cross_weights(weights)
    assert list(blocks) == ["res5b", "res5c"] and all(len(c) == 6 for c in blocks.values())
    for joints in blocks.values():
        for (source, target), values in joints.items():
            assert {source, target} < {"adj", "anp", "noun"}
            assert values == pytest.approx(1 / (1 + math.exp(3)))
    assert main(["figure5", str(weights), "--out", str(tmp_path / "5.svg")]) == 0
    said = capsys.readouterr().out
    assert "mean +0.047" in said and "near zero 100.0%, near one 0.0%, non-negative 100.0%" in said


@pytest.mark.caffe
def test_projections_are_refused_and_no_curve_is_dropped(caffe_tools, tmp_path, capsys):
    with pytest.raises(UserError, match="joined by projections"):
        cross_weights(untrained(caffe_tools, tmp_path, "xp_resnet50"))
    four = ("--tasks", "a:2,b:2,c:2,d:2")
    weights = untrained(caffe_tools, tmp_path, "xs_resnet50", *four)
    figure = figures.figure5(weights, by_channel=True)
    figure.canvas.draw()
    legend, plot = (one.get_window_extent() for one in (figure.axes[-1].legend_, figure.axes[-1]))
    assert legend.x0 >= plot.x1, "beside the curves, not on them"
    lines = figure.axes[0].lines[:-1]
    assert len(lines) == 12
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 12
    curves = cross_weights(weights)["res5b"]
    for line, pair in zip(lines, sorted(curves)):
        assert np.array_equal(line.get_ydata(), curves[pair]), "unsorted"
    assert len(figures.figure5_change([(1, weights), (2, weights)]).axes[0].lines) == 13
    assert main(["figure5", str(weights), "--out", str(tmp_path / "5.svg"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["res5b"]["a-b"]
    values = curves["a", "b"]
    assert found["near_zero"] == pytest.approx((abs(values) <= 0.05).mean())
    assert found["near_one"] == pytest.approx((abs(values - 1) <= 0.05).mean())
    assert found["non_negative"] == pytest.approx((values >= 0).mean())


def test_a_dollar_in_a_name_is_a_dollar(tmp_path):
    step = TrainStep(iteration=1, lr=0.1, loss=1.0, outputs={"loss_anp": 1.0})
    history = History({1: step, 2: step})
    drawn = pictures.render(curves(r"$\foo$", history, [], epoch=1)).decode()
    assert r"$\foo$: loss" in drawn


@pytest.mark.caffe
def test_curves_are_drawn_as_a_picture(run, tmp_path):
    assert main(["watch", str(run.folder), "--out", str(tmp_path / "w.svg")]) == 0
    assert "top-1 on the test images" in (tmp_path / "w.svg").read_text()


def test_mistakes_have_one_line(tmp_path):
    (tmp_path / "x.caffemodel").write_bytes(b"\xff\xff")
    for wrong, words in (
        (["figure5", str(tmp_path / "x.caffemodel")], "or not a .caffemodel"),
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
    with pytest.raises(UserError, match="not a run's folder"):
        main(["watch", str(tmp_path), "--out", str(tmp_path / "w.png")])
    with pytest.raises(UserError, match="svg, not"):
        pictures.render(Figure(), ".doc")
