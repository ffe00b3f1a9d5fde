"""`--engine torch`: the driver, evaluation and prediction with torchcaffe, beside real Caffe."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from netgen.options import words
from tests.reproduce.test_train import ENDLESS, Driver, resumed, training
from xresnet.basics.cli import UserError
from xresnet.reproduce.__main__ import main
from xresnet.reproduce.driver import train
from xresnet.reproduce.engine import Engine, RealCaffe, Torch
from xresnet.reproduce.evaluate import evaluate
from xresnet.reproduce.evaluation import Evaluation
from xresnet.reproduce.folder import RunFolder
from xresnet.reproduce.net import net_of
from xresnet.reproduce.process import is_alive
from xresnet.reproduce.run import Run
from xresnet.reproduce.snapshots import snapshots
from xresnet.reproduce.training import Training

torch = pytest.importorskip("torch", reason="SKIPPED FOR LACK OF PYTORCH: pip install '.[torch]'")


def made_by(engine: Engine, drawn: Path, folder: Path) -> Training:
    made = training(drawn, folder, engine, max_epochs=1)
    train(made)
    return made


@pytest.fixture(autouse=True)
def threads():
    """The process's own number again, for the tests that follow."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def ours(drawn, tmp_path_factory) -> Training:
    """An epoch on torchcaffe."""
    return made_by(Torch(threads=1), drawn, tmp_path_factory.mktemp("torch"))


@pytest.fixture(scope="module")
def caffes(caffe_tools, drawn, tmp_path_factory) -> Training:
    """An epoch in real Caffe."""
    return made_by(RealCaffe(), drawn, tmp_path_factory.mktemp("caffe"))


def ranks_of(folder: Path) -> dict[str, np.ndarray]:
    found = Evaluation.find(folder).arrays()
    return {name: values for name, values in found.items() if name.startswith("rank_")}


@pytest.mark.caffe
@pytest.mark.parametrize("made", ["ours", "caffes"])
def test_both_engines_give_each_image_the_same_rank(made, request, tmp_path):
    net = net_of(request.getfixturevalue(made).folder)
    found = {}
    for engine in (RealCaffe(), Torch(threads=1)):
        # Each holds its test to its scores, to the last image.
        result = evaluate(net, tmp_path / engine.name, engine)
        assert result["agrees"].startswith(f"{engine.typed[-1]} test and {engine.scorer}")
        found[engine.name] = ranks_of(tmp_path / engine.name)
    for name, ranks in found["caffe"].items():
        assert np.array_equal(ranks, found["torch"][name]), name


@pytest.mark.caffe
def test_killed_and_stopped_it_goes_on_from_the_last_snapshot_in_either_engine(
    caffe_tools, drawn, tmp_path
):
    with Driver(drawn, tmp_path, "--engine", "torch", "--threads", "1", *ENDLESS) as driver:
        driver.wait_for(r"Snapshotting solver state(.*\n)*.*Iteration \d+ \(")
        os.kill(driver.caffe(), signal.SIGKILL)
        driver.wait_for(r"Resuming from(.*\n)*.*Iteration \d+ \(", 2)
        assert resumed(tmp_path)[1] >= 9
        engine = driver.caffe()
        os.kill(driver.process.pid, signal.SIGINT)
        stderr = driver.end(130)
    assert "torchcaffe train failed: killed by SIGKILL" in stderr
    assert not is_alive(engine)
    last = snapshots(tmp_path)[-1].iteration
    assert last > resumed(tmp_path)[1], "stopping took a snapshot"
    assert not list(tmp_path.glob(".snapshot_*")), "what the kill left half is gone"
    assert RunFolder(tmp_path).engines() == ["torch"]
    with Driver(drawn, tmp_path, *ENDLESS) as driver:
        driver.wait_for(r"Snapshotting solver state(.*\n)*.*Iteration \d+ \(", 3)
        driver.process.send_signal(signal.SIGINT)
        driver.end(130)
    assert resumed(tmp_path)[2] == last
    assert RunFolder(tmp_path).engines() == ["torch", "caffe"]
    # Old snapshots go with all their files.
    kept = {s.iteration for s in snapshots(tmp_path)}
    assert {int(p.stem.rpartition("_")[2]) for p in tmp_path.glob("*.torchcaffe")} <= kept


def test_the_same_commands_take_the_engine(ours, drawn, tmp_path, capsys):
    image = min((drawn.parent / "vso").rglob("*.jpg"))
    found = {}
    for engine in ("caffe", "torch"):
        assert main(["predict", str(ours.folder), str(image), "--engine", engine]) == 0
        (found[engine],) = json.loads(capsys.readouterr().out)
    for task in ("adj", "noun", "anp"):
        first, second = ([c["probability"] for c in found[e][task]] for e in ("caffe", "torch"))
        assert first == pytest.approx(second, abs=2e-5)
    plan = {
        "name": "a test",
        "net": words(ours.net.choices),
        "plateau": {"lr": 0.01, "max_epochs": 1},
        "solver": ["--display", "5"],
        "rows": [{"name": "XS", "net": ["xs_resnet50"]}],
    }
    path, engine = tmp_path / "plan.json", ["--engine", "torch", "--threads", "1"]
    for name in ("grid.json", "plan.json"):
        (tmp_path / name).write_text(json.dumps(plan))
    command = ["grid", "--data", str(drawn), "--out", str(tmp_path), *engine]
    with pytest.raises(UserError, match="its results take that name"):
        main([*command, str(tmp_path / "grid.json")])
    with pytest.raises(UserError, match=r"is missing: not a grid\.json that `xresnet grid` wrote"):
        main([*command, str(path)])
    assert json.loads((tmp_path / "grid.json").read_text()) == plan
    (tmp_path / "grid.json").unlink()
    assert main([*command, str(path)]) == 0
    assert re.search(r"\| XS \| 0\.\d+ \| 1 \| \d", capsys.readouterr().out)
    (result,) = json.loads((tmp_path / "grid.json").read_text())["results"]
    assert result["trained_by"] == ["torch"] and result["tested_by"] == "torch"
    assert result["commands"][0].startswith("python -m torchcaffe train")


def test_bf16_is_trained_in_told_and_another_run(drawn, tmp_path):
    plain, ours = (training(drawn, tmp_path, Torch(threads=1, bf16=b)) for b in (False, True))
    assert "--bf16" in ours.command(tmp_path, None) and "--bf16" not in plain.command(
        tmp_path, None
    )
    assert ours.engine.version().endswith(", trained in bf16")
    assert Run(plain).key != Run(ours).key
    train(ours)
    first = re.search(r"reproduce\.py:1\] .*", ours.files.log.read_text())[0]
    assert "torchcaffe train" in first and "--bf16" in first
    command = ["train", "xs_resnet50", "--data", str(drawn), "--out", str(tmp_path / "no")]
    with pytest.raises(UserError, match="--bf16 needs --engine torch"):
        main([*command, "--bf16"])


def test_what_the_engine_says_last_is_quoted(drawn, tmp_path):
    mean = tmp_path / "damaged.binaryproto"
    mean.write_bytes(b"damaged")
    broken = training(drawn, tmp_path, Torch())
    broken = replace(broken, net=broken.net.choose(mean_file=str(mean)))
    with pytest.raises(UserError, match=r"torchcaffe train failed: .*damaged.binaryproto"):
        train(broken)
    assert resumed(tmp_path) == [0]


def test_several_gpus_are_torchruns():
    with pytest.raises(UserError, match="takes one GPU"):
        Torch(gpu="0,1").program()


def test_without_pytorch_one_line_says_what_to_install(drawn, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    command = ["train", "xs_resnet50", "--data", str(drawn), "--out", str(tmp_path)]
    with pytest.raises(UserError, match=r"PyTorch is not installed here: pip install '.\[torch\]'"):
        main([*command, "--engine", "torch"])
    assert not list(tmp_path.iterdir())


TINY = """
layer { name: "x" type: "DummyData" top: "x" top: "y" dummy_data_param {
  shape { dim: [2, 3] } shape { dim: [2, 1] } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip"
  inner_product_param { num_output: 1 } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "y" top: "loss" }
"""


def test_the_solverstate_comes_last_and_proves_the_rest_whole(tmp_path, monkeypatch):
    """A kill within a snapshot must leave nothing that a later run trips over."""
    from torchcaffe.solver import Solver
    from xresnet.basics import files
    from xresnet.caffeproto import NetParameter, SolverParameter, text

    param = SolverParameter(base_lr=0.1, lr_policy="fixed", snapshot_prefix=str(tmp_path / "s"))
    param.net_param.CopyFrom(text.loads(TINY, NetParameter))
    solver, write, seen = Solver(param), files.write, []

    def watched(path, content):
        assert not Path(path).exists()
        seen.append(Path(path).suffix)
        return write(path, content)

    monkeypatch.setattr("torchcaffe.solver.files.write", watched)
    solver.snapshot()
    solver.close()
    assert sorted(seen) == [".caffemodel", ".solverstate", ".torchcaffe"], "whole files, or none"
    assert seen[-1] == ".solverstate"


def test_a_copied_snapshot_has_its_own_weights(tmp_path):
    """The state names the original's file; what lies beside it counts, wherever that is now."""
    from torchcaffe.solver import Solver
    from xresnet.caffeproto import NetParameter, SolverParameter, text

    def solver(folder: Path) -> Solver:
        prefix = str(folder / "s")
        param = SolverParameter(base_lr=0.1, lr_policy="fixed", snapshot_prefix=prefix)
        param.net_param.CopyFrom(text.loads(TINY, NetParameter))
        return Solver(param)

    original, copied = tmp_path / "original", tmp_path / "copied"
    original.mkdir()
    first = solver(original)
    first.snapshot()
    shutil.copytree(original, copied)
    with torch.no_grad():
        for learned in first.net.learned:
            learned.blob.add_(1)
    first.snapshot()  # the original trains on, and writes over what was copied
    second = solver(copied)
    second.restore(str(copied / "s_iter_0.solverstate"))
    for mine, theirs in zip(second.net.learned, first.net.learned):
        assert torch.equal(mine.blob + 1, theirs.blob)
    for each in (first, second):
        each.close()
