"""A trained net to hand on: used elsewhere, without its data, saying the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.reproduce.test_train import training
from xresnet.basics.cli import UserError
from xresnet.reproduce.__main__ import main
from xresnet.reproduce.driver import train
from xresnet.reproduce.net import net_of
from xresnet.reproduce.pack import pack


@pytest.mark.caffe
def test_a_packed_run_says_the_same_elsewhere(caffe_tools, drawn, tmp_path, capsys):
    data, run, packed = tmp_path / "data", tmp_path / "run", tmp_path / "packed"
    shutil.copytree(drawn, data)
    train(training(data, run, max_epochs=1))
    with pytest.raises(UserError, match="not evaluated"):
        pack(net_of(run), packed)
    assert main(["eval", str(run), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    picture = str(next(drawn.parent.joinpath("vso").rglob("*.jpg")))
    assert main(["predict", str(run), picture]) == 0
    before = json.loads(capsys.readouterr().out)

    net = net_of(run)
    weights = net.weights.read_bytes()
    net.weights.write_bytes(weights[:-1000])
    with pytest.raises(UserError):
        pack(net, packed)
    assert {path.name for path in tmp_path.iterdir()} == {"data", "run"}, "nothing half-made"
    net.weights.write_bytes(weights)
    assert main(["pack", str(run), "--out", str(packed)]) == 0
    shutil.rmtree(run)
    shutil.rmtree(data)
    for path in packed.rglob("*"):
        assert path.is_dir() or str(tmp_path).encode() not in path.read_bytes(), path.name
    assert not list(packed.glob("*.solverstate"))
    capsys.readouterr()
    assert main(["predict", str(packed), picture]) == 0
    assert json.loads(capsys.readouterr().out) == before
    card = (packed / "README.md").read_text()
    for values in result["tasks"].values():
        assert f"{values['top1']['percent']:.2f} (" in card
    with pytest.raises(UserError, match="already exists"):
        pack(net_of(packed), packed)


@pytest.mark.caffe
def test_the_net_in_the_repository_answers(caffe_tools, root, tmp_path, capsys):
    """A photograph of a cat: what is known of its colour, at least."""
    skimage = pytest.importorskip("skimage", reason="scikit-image, which has photographs")
    photo = str(Path(skimage.__file__).parent / "data" / "chelsea.png")
    assert main(["predict", str(root / "models/xs_cifar"), photo]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert answer["adj"][0]["class"] == "golden" and answer["adj"][0]["probability"] > 0.9
    assert [len(answer[task]) for task in ("adj", "anp", "noun")] == [5, 5, 5]
