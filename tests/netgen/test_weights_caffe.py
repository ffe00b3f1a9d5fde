"""Initial weights in real Caffe: they load, and compute what their source computes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from netgen import resnet
from netgen.blocks import Block
from netgen.command import generate
from netgen.net import Net
from netgen.options import Options
from netgen.weights.command import main
from tests.helpers import weights_files as files
from tests.helpers.caffe_nets import pycaffe, run, write_lmdbs
from tests.helpers.weights_files import SMALL
from xresnet.caffeproto import NetParameter, caffemodel

pytestmark = pytest.mark.caffe

# Run by pycaffe: blobs of a net for the images of a file; phase, then names as arguments.
BLOBS = """
import sys, numpy as np, caffe
model, weights, phase, images, out = sys.argv[1:6]
images = np.load(images)
net = caffe.Net(model, weights, getattr(caffe, phase))
net.blobs["data"].reshape(*images.shape)
net.blobs["data"].data[...] = images
net.forward()
np.savez(out, **{name: net.blobs[name].data for name in sys.argv[6:]})
"""


def init(out: Path, net: list[str], source: Path, *more: str) -> Path:
    """Run `python -m netgen.weights init` in this process."""
    assert main(["init", *net, "--from", str(source), "--out", str(out), *more]) == 0
    return out


def blobs(tools, folder: Path, argv: list[str], weights: Path, images, *names, phase="TEST"):
    """Blobs of netgen's inference net in real Caffe, by name."""
    model, data, out = folder / "net.prototxt", folder / "images.npy", folder / "out.npz"
    model.write_text(generate([*argv, "--deploy"]))
    np.save(data, np.asarray(images, np.float32))
    pycaffe(tools, BLOBS, model, weights, phase, data, out, *names)
    return dict(np.load(out))


def error(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, relative to the largest value."""
    assert np.ptp(expected) > 0.1, "a flat map would prove nothing"
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def photograph(seed: int = 0, size: int = 61) -> np.ndarray:
    """3 x H x W, RGB, 0 to 255, with large areas as well as noise."""
    rng = np.random.default_rng(seed)
    coarse = np.kron(rng.uniform(0, 255, (3, 28, 28)), np.ones((8, 8)))[:, :size, :size]
    return np.clip(coarse + rng.normal(0, 20, coarse.shape), 0, 255)


def channels(*values: float) -> np.ndarray:
    return np.array(values)[:, None, None]


@pytest.fixture
def torch_file(tmp_path) -> Path:
    path = tmp_path / "resnet50.pth"
    path.write_bytes(files.pth_zip(files.state_dict(files.units())))
    return path


# ---- Equality with the source -------------------------------------------------------

TORCH = ["--stride-in", "3x3", "--pool1", "padded", "--mean", "103.53,116.28,123.675"]


def test_torchvisions_forward_and_caffes_agree(torch_file, caffe_tools, tmp_path):
    image = photograph()
    normal = (image / 255 - channels(0.485, 0.456, 0.406)) / channels(0.229, 0.224, 0.225)
    expected = files.forward(files.units(), normal, "3x3", 1e-5)
    bgr = image[::-1] - channels(103.53, 116.28, 123.675)
    net = ["resnet50", "--task", "noun", *SMALL, *TORCH]
    weights = init(tmp_path / "w.caffemodel", net, torch_file)
    found = blobs(caffe_tools, tmp_path, net, weights, bgr[None], "res5c", "pool5")
    assert error(found["res5c"][0], expected) < 1e-4
    assert error(found["pool5"][0, :, 0, 0], expected.mean((1, 2))) < 1e-4
    # The same weights in the net as published: the test would see a wrong window or stride.
    for wrong in (["--stride-in", "3x3"], ["--pool1", "padded"]):
        other = ["resnet50", "--task", "noun", *SMALL, *wrong]
        found = blobs(caffe_tools, tmp_path, other, weights, bgr[None], "pool5")
        assert error(found["pool5"][0, :, 0, 0], expected.mean((1, 2))) > 1e-2


@pytest.mark.parametrize(("old", "epsilon"), [(False, 1.001e-5), (True, 1e-3)])
def test_kerass_forward_and_caffes_agree(old, epsilon, caffe_tools, tmp_path):
    units = files.units(biases=True)
    source = files.write_h5(tmp_path / "k.h5", files.keras_layers(units, old))
    bgr = photograph()[::-1] - channels(103.939, 116.779, 123.68)
    expected = files.forward(units, bgr, "1x1", epsilon)
    net = ["resnet50", "--task", "noun", *SMALL, "--pool1", "padded"]
    weights = init(tmp_path / "w.caffemodel", net, source)
    found = blobs(caffe_tools, tmp_path, net, weights, bgr[None], "res5c")
    assert error(found["res5c"][0], expected) < 1e-4


# ---- The function kept across the branching point -----------------------------------


@pytest.mark.parametrize(
    "branch",
    [
        ["--branch-norm", "both"],
        ["--branch-norm", "branch2c"],
        ["--branch-norm", "none"],
        ["--branch-after", "res5b"],  # an identity shortcut
        ["--branch-after", "res5b", "--branch-norm", "branch2c"],
        ["--branch-after", "res3a"],
        ["--branch-after", "none"],
    ],
)
def test_every_task_starts_with_the_pretrained_function(branch, caffe_tools, tmp_path):
    source = tmp_path / "published.caffemodel"
    caffemodel.save(source, "ResNet-50", files.published())
    images = np.stack([photograph(seed) - 128 for seed in range(4)])
    single = ["resnet50", "--task", "noun", *SMALL]
    before = blobs(caffe_tools, tmp_path, single, source, images, "res5c")["res5c"]
    net = ["x0_resnet50", *SMALL, *branch]
    weights = init(tmp_path / "w.caffemodel", net, source)
    after = blobs(caffe_tools, tmp_path, net, weights, images, "res5c_adj", "res5c_noun")
    for found in after.values():
        assert error(found, before) < 1e-5
    if branch[-1] != "none":  # else there is no norm to start
        fresh = init(tmp_path / "f.caffemodel", net, source, "--branch-init", "fresh")
        after = blobs(caffe_tools, tmp_path, net, fresh, images, "res5c_noun")
        assert error(after["res5c_noun"], before) > 0.1


# ---- Frozen norms ---------------------------------------------------------------------

TRIPLED = """
import sys, numpy as np, caffe
net = caffe.Net(sys.argv[1], caffe.TRAIN)
rng = np.random.RandomState(0)
for name, blobs in net.params.items():
    if name.startswith("bn"):
        blobs[0].data[...] = rng.normal(size=blobs[0].data.shape)
        blobs[1].data[...] = rng.uniform(0.5, 2, blobs[1].data.shape)
        blobs[2].data[...] = 1
x = rng.normal(0, 3, net.blobs["data"].data.shape)
out = []
for factor in (1, 3):
    net.blobs["data"].data[...] = factor * x
    net.forward()
    out.append(net.blobs["scale5b_branch2c"].data.copy())
print(np.abs(out[1] - out[0]).max() / np.abs(out[0]).max())
"""


@pytest.mark.parametrize(("bn", "low", "high"), [("batch", 0, 1e-4), ("frozen", 0.5, 10)])
def test_f_of_three_x_is_f_of_x_unless_norms_are_frozen(bn, low, high, caffe_tools, tmp_path):
    """Batch normalisation takes out what XI's two more shortcuts put in."""
    net, options = Net("F"), Options(width=2, bn=bn)
    net.group("x")
    net.layer("Input", "data", input_param={"shape": [{"dim": [8, 64, 5, 5]}]})
    resnet.residual(net, "data", Block("5b", 16, 1, False), options)
    layers = net.groups[0][1]
    layers[-1].top[0] = layers[-1].name  # not in place, to be seen by its name
    model = tmp_path / "f.prototxt"
    model.write_text(net.prototxt())
    assert low <= float(pycaffe(caffe_tools, TRIPLED, model).split()[-1]) < high


def test_frozen_norms_train_but_keep_their_statistics(caffe_tools, tmp_path):
    source, weights = tmp_path / "published.caffemodel", tmp_path / "w.caffemodel"
    caffemodel.save(source, "ResNet-50", files.published())
    write_lmdbs(tmp_path, (3, 7, 5), count=8, size=61)
    argv = ["xs_resnet50", *SMALL, "--bn", "frozen", "--data", str(tmp_path), "--batch", "4"]
    argv += ["--train-images", "8", "--test-images", "8"]
    model, solver = tmp_path / "net.prototxt", tmp_path / "solver.prototxt"
    model.write_text(generate(argv))
    more = ["--cpu", "--max-iter", "3", "--test-interval", "0", "--seed", "1", "--lr", "0.01"]
    prefix = ["--net", str(model), "--snapshot-prefix", str(tmp_path / "s")]
    solver.write_text(generate([*argv, "--solver", *more, *prefix]))
    init(weights, argv, source)
    run(caffe_tools["caffe"], "train", "-solver", solver, "-weights", weights)
    before = {layer.name: layer.blobs for layer in caffemodel.load(weights)}
    after = {layer.name: layer for layer in caffemodel.load(tmp_path / "s_iter_3.caffemodel")}
    for name, blobs in before.items():
        same = all(np.array_equal(a, b) for a, b in zip(blobs, after[name].blobs))
        assert same is (after[name].kind == "BatchNorm"), name


# ---- Real Caffe takes the files -------------------------------------------------------


@pytest.mark.parametrize(
    "net", ["xs_resnet50", "x0_resnet50", "resnet50 --task noun", "cross_stitch_resnet50"]
)
def test_caffe_trains_and_tests_from_the_weights(net, caffe_tools, tmp_path):
    source, weights = tmp_path / "published.caffemodel", tmp_path / "w.caffemodel"
    caffemodel.save(source, "ResNet-50", files.published())
    data = tmp_path / "data"
    data.mkdir()
    write_lmdbs(data, (3, 7, 5), count=8, size=61)
    argv = [*net.split(), *SMALL, "--data", str(data), "--batch", "4"]
    argv += ["--train-images", "8", "--test-images", "8"]
    model, solver = tmp_path / "net.prototxt", tmp_path / "solver.prototxt"
    model.write_text(generate(argv))
    more = ["--cpu", "--max-iter", "1", "--test-interval", "0", "--seed", "1", "--display", "1"]
    prefix = ["--net", str(model), "--snapshot-prefix", str(tmp_path / "s")]
    still = generate([*argv, "--solver", *more, *prefix]).replace("base_lr: 0.001", "base_lr: 0")
    solver.write_text(still)
    init(weights, argv, source)

    log = run(caffe_tools["caffe"], "train", "-solver", solver, "-weights", weights)
    losses = [float(loss) for loss in re.findall(r"Train net output #\d+: loss_\w+ = (\S+)", log)]
    assert losses
    assert np.isfinite(losses).all()
    log = run(caffe_tools["caffe"], "test", "-model", model, "-weights", weights, "-iterations", 2)
    assert re.search(r"top1_noun = \S+", log)

    # What Caffe wrote after an iteration that learns nothing is what it had read.
    started = {layer.name: layer for layer in caffemodel.load(weights)}
    snapshot = {layer.name: layer for layer in caffemodel.load(tmp_path / "s_iter_1.caffemodel")}
    assert set(started) < set(snapshot)
    for name, layer in started.items():
        assert snapshot[name].kind == layer.kind
        if layer.kind != "BatchNorm":
            assert all(np.array_equal(a, b) for a, b in zip(snapshot[name].blobs, layer.blobs))


@pytest.mark.parametrize("net", ["caffenet", "inception_v1"])
def test_other_published_nets_load_by_name(net, caffe_tools, tmp_path):
    """The old blobs of four axes, as the published files have them."""
    source, weights = tmp_path / "published.caffemodel", tmp_path / "w.caffemodel"
    layers = [
        caffemodel.Layer(
            x.name, x.kind, tuple(b.reshape((1,) * (4 - b.ndim) + b.shape) for b in x.blobs)
        )
        for x in files.published(net)
    ]
    caffemodel.save(source, net, layers)
    argv = [net, "--task", "noun"]
    init(weights, argv, source)
    model = tmp_path / "net.prototxt"
    model.write_text(generate([*argv, "--deploy"]))
    script = "import sys, caffe; net = caffe.Net(sys.argv[1], sys.argv[2], caffe.TEST)\n"
    first = "conv1" if net == "caffenet" else "conv1/7x7_s2"
    script += f"print(abs(net.params[{first!r}][0].data).sum())"
    expected = np.abs(layers[0].blobs[0]).sum()
    assert float(pycaffe(caffe_tools, script, model, weights)) == pytest.approx(expected, rel=1e-4)


def test_caffe_itself_reads_v1_files_as_we_do(caffe_tools, tmp_path):
    """A V1 file in Caffe's own words: its conv layer, upgraded there, equal here."""
    values = np.arange(2 * 3 * 5 * 5, dtype=np.float32)
    old = NetParameter(name="old")
    layer = old.layers.add(name="conv", type=4)  # CONVOLUTION
    layer.blobs.add(num=2, channels=3, height=5, width=5, data=values)
    layer.blobs.add(num=1, channels=1, height=1, width=2, data=[1, 2])
    path, model = tmp_path / "old.caffemodel", tmp_path / "net.prototxt"
    path.write_bytes(old.SerializeToString())
    model.write_text(
        'layer { name: "data" type: "Input" top: "data" '
        "input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }\n"
        'layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" '
        "convolution_param { num_output: 2 kernel_size: 5 } }\n"
    )
    script = (
        "import sys, json, caffe; net = caffe.Net(sys.argv[1], sys.argv[2], caffe.TEST)\n"
        "print(json.dumps([b.data.ravel().tolist() for b in net.params['conv']]))"
    )
    in_caffe = json.loads(pycaffe(caffe_tools, script, model, path))
    (ours,) = caffemodel.load(path)
    assert ours.kind == "Convolution"
    assert [blob.ravel().tolist() for blob in ours.blobs] == in_caffe
