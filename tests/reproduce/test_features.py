"""A cached trunk: its maps are the net's, and the tail behind them learns as the whole net does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import lmdb
import numpy as np
import pytest

from data_prep.__main__ import main as data_prep
from data_prep.folder import DataFolder
from netgen import Network
from netgen.command import generate
from netgen.layers import FROZEN
from netgen.option import spell
from netgen.options import words
from netgen.weights.command import main as weights_main
from xresnet.basics.cli import UserError
from xresnet.caffeproto import NetParameter, caffemodel, text
from xresnet.caffeproto.datum import image_datum
from xresnet.reproduce import features as module
from xresnet.reproduce.__main__ import main
from xresnet.reproduce.caffe import Caffe
from xresnet.reproduce.data import Data
from xresnet.reproduce.driver import train
from xresnet.reproduce.engine import CAFFE, RealCaffe
from xresnet.reproduce.features import features
from xresnet.reproduce.forward import Transform, scores
from xresnet.reproduce.records import keys, labels, records
from xresnet.reproduce.schedule import Stage, Stages
from xresnet.reproduce.start import Start
from xresnet.reproduce.training import Training

CHOICES = {"width": 4, "blocks": (1, 1, 2, 3), "batch": 24}
SMALL = words(CHOICES)
XS = Network("xs_resnet50", CHOICES)
BLOCK = "res4b"
ONE = RealCaffe(threads=1)


@pytest.fixture(scope="module")
def trained(drawn, caffe_tools, tmp_path_factory) -> Path:
    """The weights of a small XS that real Caffe has trained a little, running statistics filled."""
    plan = Stages((Stage(0.02, 40),))
    net, folder = XS.choose(bn_fraction=0.9), tmp_path_factory.mktemp("trained")
    run = Training("xs", net, Data.read(drawn), folder, plan, {"seed": 1}, engine=ONE)
    return train(run).weights


@pytest.fixture(scope="module")
def cached(drawn, trained, tmp_path_factory) -> Path:
    """The maps of BLOCK, each training image in both ways."""
    out = tmp_path_factory.mktemp("cached")
    argv = ["features", BLOCK, "--weights", str(trained), "--data", str(drawn)]
    assert main([*argv, "--out", str(out / "data"), "--threads", "1", *SMALL]) == 0
    return out / "data"


@pytest.fixture(scope="module")
def unflipped(drawn, trained, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("unflipped") / "data"
    features(Data.read(drawn), out, BLOCK, trained, CHOICES, flips=False, engine=ONE)
    return out


def scored(net: Network, data: Path, weights: Path, folder: Path, part: str) -> dict:
    """Every image's scores, of netgen's net on a data folder."""
    folder.mkdir()
    there = Data.read(data).network(net)
    model, deploy = folder / "net.prototxt", folder / "deploy.prototxt"
    model.write_text(there.prototxt())
    deploy.write_text(there.deploy())
    transform = Transform.of(model)
    return scores(deploy, weights, (transform(x) for x in records(data, part)), 24, ONE)


@pytest.mark.caffe
@pytest.mark.parametrize("part", ["train", "test"])
def test_the_tail_scores_as_the_whole_net(part, drawn, trained, unflipped, tmp_path):
    net = Network("xs_resnet50", CHOICES)
    whole = scored(net, drawn, trained, tmp_path / "whole", part)
    tail = scored(net, unflipped, trained, tmp_path / "tail", part)
    for task, values in whole.items():
        assert np.abs(values).max() > 0.1
        assert np.abs(tail[task] - values).max() <= 1e-5 * np.abs(values).max(), task


@pytest.mark.caffe
def test_the_tail_learns_as_the_whole_net_behind_a_frozen_trunk(
    drawn, trained, unflipped, tmp_path
):
    """Real Caffe's own training: 12 iterations, the same order, no flips; all learned weights."""
    made = {}
    for name, data in (("whole", drawn), ("tail", unflipped)):
        folder = tmp_path / name
        folder.mkdir()
        made_of = Data.read(data).network(Network("xs_resnet50", CHOICES))
        net = made_of.proto()
        behind = False
        for layer in net.layer:
            behind |= layer.name.startswith("res5a")
            if layer.type == "Data":
                layer.transform_param.mirror = False
            elif not behind and layer.type in ("BatchNorm", "Convolution", "Scale"):
                del layer.param[:]
                for _ in range({"BatchNorm": 3, "Convolution": 2, "Scale": 2}[layer.type]):
                    layer.param.add(**FROZEN)
                if layer.type == "Convolution" and not layer.convolution_param.bias_term:
                    del layer.param[1]
                if layer.type == "BatchNorm":
                    layer.batch_norm_param.use_global_stats = True
        (folder / "net.prototxt").write_text(text.dump(net))
        files = {"net": str(folder / "net.prototxt"), "snapshot_prefix": str(folder / "s")}
        solver = made_of.solver(**files, cpu=True, seed=3, lr=0.01, max_iter=12, test_interval=0)
        (folder / "solver.prototxt").write_text(solver)
        command = ["train", "-solver", str(folder / "solver.prototxt"), "-weights", str(trained)]
        with Caffe(command, folder / "log", name, ONE) as caffe:
            list(caffe.events())
        layers = caffemodel.load(folder / "s_iter_12.caffemodel")
        made[name] = {layer.name: layer.blobs for layer in layers if layer.blobs}
    before = {layer.name: layer.blobs for layer in caffemodel.load(trained)}
    learned = set(made["tail"])
    assert {"res5a_branch1", "res5b_cross_adj-noun", "fc_noun", "bn5a_adj"} <= learned
    assert not any(name.startswith(("conv1", "res2", "res3", "res4")) for name in learned)
    for name in made["whole"]:
        for whole, old in zip(made["whole"][name], before[name]):
            if name not in learned:
                assert np.array_equal(whole, old), f"{name} should be frozen"
    moved = 0
    for name in learned:
        for ours, whole, old in zip(made["tail"][name], made["whole"][name], before[name]):
            scale = np.abs(whole).max()
            assert np.abs(ours - whole).max() <= 1e-5 * max(scale, 1e-3), name
            moved += np.abs(whole - old).max() > 1e-3 * scale
    assert moved > len(learned) / 2


@pytest.mark.caffe
def test_each_training_image_is_there_in_both_ways(drawn, trained, cached, unflipped, tmp_path):
    data, source = Data.read(cached), Data.read(drawn)
    assert (data.train, data.test) == (2 * source.train, source.test)
    assert data_prep(["verify", "--out", str(cached)]) == 0
    paths = [name.partition("_")[2] for name in keys(cached, "train")]
    plain = [path.replace("/mirrored/", "/") for path in paths]
    own = [name.partition("_")[2] for name in keys(drawn, "train")]
    assert plain == own + own
    mirrored = ["/mirrored/" in path for path in paths]
    assert sum(mirrored) == source.train
    assert all(a != b for a, b in zip(mirrored, mirrored[source.train :]))
    assert 0.3 < sum(mirrored[: source.train]) / source.train < 0.7
    for task, values in labels(cached, "train").items():
        assert np.array_equal(values, np.tile(labels(drawn, "train")[task], 2))
    # As Caffe's Data layer mirrors: the image, before the mean is taken off.
    found = list(records(cached, "train"))
    as_is = list(records(unflipped, "train"))
    images = list(records(drawn, "train"))
    for i in (0, 1, 2, 3):
        at = i if not mirrored[i] else i + source.train
        assert np.abs(found[at] - as_is[i]).max() <= 1e-5
    turned = DataFolder(shutil.copytree(drawn, tmp_path / "turned"))
    with lmdb.open(str(turned.lmdb("train", "image"))) as env, env.begin(write=True) as txn:
        for name, pixels in zip(keys(drawn, "train")[:4], images):
            flipped = np.ascontiguousarray(pixels[:, :, ::-1].transpose(1, 2, 0))
            txn.put(name.encode(), image_datum(flipped, 0)[0].tobytes())
    out = tmp_path / "out"
    features(Data.read(turned.root), out, BLOCK, trained, CHOICES, flips=False, engine=ONE)
    for i, maps in zip(range(4), records(out, "train")):
        at = i if mirrored[i] else i + source.train
        assert np.abs(found[at] - maps).max() <= 1e-5
        assert np.abs(found[at] - as_is[i]).max() > 1e-3


@pytest.mark.caffe
@pytest.mark.parametrize("engine", ["caffe", "torch"])
def test_a_grid_takes_the_folder_as_it_is(engine, drawn, cached, trained, tmp_path):
    """Initial weights, another order a seed, training, both tests: all behind the block."""
    if engine == "torch":
        pytest.importorskip("torch")
    initial = tmp_path / "xs.caffemodel"
    names = ["--tasks", spell(Data.read(cached).tasks), "--input-size", "32"]
    begin = ["init", "xs_resnet50", *SMALL, *names, "--from-block", BLOCK]
    weights_main([*begin, "--from", str(trained), "--out", str(initial)])
    plan = {
        "name": "tail",
        "net": SMALL,
        "stages": [{"lr": 0.01, "epochs": 1}],
        "shuffle": True,
        "weights": [str(initial)],
        "rows": [{"name": "XS", "net": ["xs_resnet50"]}],
    }
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    out = tmp_path / "out"
    argv = ["grid", str(tmp_path / "plan.json"), "--data", str(cached), "--out", str(out)]
    assert main([*argv, "--engine", engine, "--threads", "1"]) == 0
    made = json.loads((out / "grid.json").read_text())
    assert made["finished"] == 1
    assert made["results"][0]["trained_by"] == [engine]
    net = text.loads((out / "runs" / "XS-1" / "net.prototxt").read_text(), NetParameter)
    first = next(layer for layer in net.layer if layer.type == "Convolution")
    assert (first.name, list(first.bottom)) == ("res5a_branch1", ["data"])
    assert net.layer[0].data_param.source == f"{out}/data/order-1/train_image_lmdb"
    # The whole net counts, its trunk included.
    whole = ["xs_resnet50", *SMALL, *names, "--params", "--json"]
    assert made["results"][0]["params"] == json.loads(generate(whole))["total"]
    assert main(["report", str(out)]) == 0
    assert "sees the maps of a cached trunk" in (out / "report.html").read_text()
    image = min((drawn.parent / "vso").rglob("*.jpg"))
    with pytest.raises(UserError, match="it takes 64 maps, not an image"):
        main(["predict", str(out / "runs" / "XS-1"), str(image)])
    with pytest.raises(UserError, match="leave out --sheet"):
        data_prep(["verify", "--out", str(cached), "--sheet", str(tmp_path / "sheet.jpg")])


@pytest.mark.caffe
def test_a_call_that_was_stopped_goes_on(drawn, trained, cached, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 300 * 4 * 64 * 2 * 2)  # of 300 images
    calls = []
    real = module._Trunk.__call__

    def stopping(self, images):
        calls.append(len(images))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, images)

    monkeypatch.setattr(module._Trunk, "__call__", stopping)
    out = tmp_path / "data"
    with pytest.raises(KeyboardInterrupt):
        features(Data.read(drawn), out, BLOCK, trained, CHOICES, engine=ONE)
    with pytest.raises(UserError, match="no finished LMDBs"):
        Data.read(out)
    features(Data.read(drawn), out, BLOCK, trained, CHOICES, engine=ONE)
    source = Data.read(drawn)
    assert sum(calls) == 2 * source.train + source.test + calls[2], "nothing is computed twice"
    for part in ("train", "test"):
        for ours, theirs in zip(records(out, part), records(cached, part)):
            assert np.array_equal(ours, theirs)
    assert data_prep(["verify", "--out", str(out)]) == 0
    before = len(calls)
    features(Data.read(drawn), out, BLOCK, trained, CHOICES, engine=ONE)
    assert len(calls) == before


@pytest.mark.caffe
def test_what_does_not_fit_is_told(drawn, trained, cached, tmp_path):
    data = Data.read(drawn)
    with pytest.raises(UserError, match="no block 'res9a'"):
        features(data, tmp_path / "1", "res9a", trained, CHOICES)
    with pytest.raises(UserError, match="no block 'res9a'"):  # a run is its last weights
        features(data, tmp_path / "1", "res9a", trained.parent, CHOICES)
    with pytest.raises(UserError, match=r"has no net.prototxt: it is not a run's folder"):
        features(data, tmp_path / "1", BLOCK, tmp_path, CHOICES)
    with pytest.raises(UserError, match="make weights and net with --width 4"):
        features(data, tmp_path / "2", BLOCK, trained, {**CHOICES, "width": 8})
    with pytest.raises(UserError, match="not the weights of this trunk"):
        features(data, tmp_path / "3", "res4c", trained, {"width": 4, "blocks": (1, 1, 3, 3)})
    with pytest.raises(UserError, match="holds other data"):
        features(data, cached, "res3a", trained, CHOICES)
    with pytest.raises(UserError, match="holds cached maps"):
        features(Data.read(cached), tmp_path / "4", BLOCK, trained, CHOICES)
    assert Start().weights([trained.parent], data.network(XS), tmp_path) == (trained,)
    wide = XS.choose(width=8)
    plan = Stages((Stage(0.1, 1),))
    with pytest.raises(UserError, match="holds maps of 64 x 2 x 2, the net wants 128 x 2 x 2"):
        train(Training("xs", wide, Data.read(cached), tmp_path, plan, {}, engine=CAFFE))
    with pytest.raises(UserError, match="--from-block is set by the driver"):
        main(["train", "xs_resnet50", "--from-block", BLOCK, "--data", str(drawn), "--out", "x"])
