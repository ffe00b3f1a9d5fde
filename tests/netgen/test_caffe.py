"""netgen's nets in real Caffe, and in OpenCV, the second reader of deploy nets."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from netgen.command import generate
from tests.helpers.caffe_nets import assert_opencv_agrees, run, write_lmdbs
from tests.netgen.test_netgen import EXACT, command

pytestmark = pytest.mark.caffe

# Run by pycaffe: shapes of all blobs of all layers, by layer name.
SHAPES = """
import json, sys, caffe
net = caffe.Net(sys.argv[1], caffe.TEST)
print(json.dumps({name: [list(b.data.shape) for b in bs] for name, bs in net.params.items()}))
"""

# Run by pycaffe: random weights with lively normalisations, saved; outputs for a random image.
FORWARD = """
import sys, numpy as np, caffe
model, weights, blobs = sys.argv[1:]
caffe.set_random_seed(1)
net = caffe.Net(model, caffe.TEST)
rng = np.random.RandomState(1)
for name, params in net.params.items():
    if name.startswith("bn"):
        params[0].data[...] = rng.uniform(-0.2, 0.2, params[0].data.shape)
        params[1].data[...] = rng.uniform(0.5, 2, params[1].data.shape)
        params[2].data[...] = 1
    elif name.startswith("scale"):
        params[0].data[...] = rng.uniform(0.5, 1, params[0].data.shape)
        params[1].data[...] = rng.uniform(-0.2, 0.2, params[1].data.shape)
net.save(weights)
image = rng.uniform(-100, 100, net.blobs["data"].data.shape).astype(np.float32)
net.blobs["data"].data[...] = image
np.savez(blobs, data=image, **net.forward())
"""


@pytest.mark.parametrize(("net", "task"), EXACT)
def test_pycaffe_counts_the_same_parameters(net, task, caffe_tools, tmp_path):
    model = tmp_path / "deploy.prototxt"
    model.write_text(generate(command(net, task, "--deploy")))
    lines = run(caffe_tools["pycaffe"], "-c", SHAPES, model).splitlines()
    shapes = json.loads(next(line for line in lines if line.startswith("{")))
    assert sum(int(np.prod(s)) for blobs in shapes.values() for s in blobs) == EXACT[net, task]
    ours = json.loads(generate(command(net, task, "--params", "--json")))
    assert shapes == {x["name"]: x["blobs"] for x in ours["layers"] if x["blobs"]}


@pytest.mark.parametrize(("net", "task"), EXACT)
def test_opencv_agrees_with_caffe(net, task, caffe_tools, tmp_path):
    model, weights, blobs = (tmp_path / name for name in ("d.prototxt", "w.caffemodel", "b.npz"))
    small = ["--width", "16", "--input-size", "64"] if net != "xs_resnet50" else []
    model.write_text(generate(command(net, task, "--deploy", *small)))
    run(caffe_tools["pycaffe"], "-c", FORWARD, model, weights, blobs)
    assert_opencv_agrees(model, weights, blobs, heads=1 if task else 3)


@pytest.mark.slow
def test_full_size_xs_trains_and_tests_in_real_caffe(caffe_tools, tmp_path):
    """The committed net but for its batch: 224 x 224, 117 + 553 + 167 classes."""
    data = tmp_path / "data"
    data.mkdir()
    write_lmdbs(data, (117, 553, 167), count=4, size=224)
    net, solver = tmp_path / "xs.prototxt", tmp_path / "solver.prototxt"
    sizes = ["--batch", "2", "--test-batch", "2", "--train-images", "4", "--test-images", "4"]
    net.write_text(generate(["xs_resnet50", "--data", str(data), *sizes]))
    more = ["--cpu", "--max-iter", "2", "--display", "1", "--test-interval", "0", "--seed", "1"]
    prefix = ["--net", str(net), "--snapshot-prefix", str(tmp_path / "xs")]
    solver.write_text(generate(["xs_resnet50", "--solver", *sizes, *more, *prefix]))

    log = run(caffe_tools["caffe"], "train", "-solver", solver)
    losses = re.findall(r"Train net output #\d: (loss_\w+) = (\S+)", log)
    assert {name for name, _ in losses} == {"loss_adj", "loss_anp", "loss_noun"}
    assert len(losses) == 3 * 2  # a line each at iterations 0 and 1
    assert np.isfinite([float(value) for _, value in losses]).all()

    weights = tmp_path / "xs_iter_2.caffemodel"
    log = run(caffe_tools["caffe"], "test", "-model", net, "-weights", weights, "-iterations", 2)
    scores = dict(re.findall(r"\] (top\d_\w+) = (\S+)", log))
    assert set(scores) == {f"top{k}_{task}" for k in (1, 5) for task in ("adj", "anp", "noun")}
