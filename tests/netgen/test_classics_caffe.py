"""Table 2's published models in real Caffe, at their real size, and in OpenCV."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from netgen.catalog import CATALOG
from netgen.command import generate
from netgen.measure import measure
from netgen.tasks import TASKS
from tests.helpers.caffe_nets import assert_opencv_agrees, pycaffe, write_lmdbs
from tests.netgen.test_classics import CLASSICS, EXACT, argv_of
from xresnet.caffeproto import TEST, TRAIN, NetParameter, text

pytestmark = pytest.mark.caffe

# Run by pycaffe: shapes, losses and gradients of the train and test nets; with lively
# weights the inference net's, its output for a random image, and those weights.
# Arguments: train/test net or "", inference net, weights, outputs.
MODES = """
import json, sys, numpy as np, caffe
model, deploy, weights, out = sys.argv[1:]
rng = np.random.default_rng(1)

def report(mode, net, outputs):
    learned = [name for name in net.params if np.abs(net.params[name][0].diff).max() > 0]
    finite = all(np.isfinite(b.diff).all() for bs in net.params.values() for b in bs)
    print("NET " + json.dumps({
        "mode": mode,
        "blobs": {name: list(blob.data.shape) for name, blob in net.blobs.items()},
        "params": {name: [list(b.data.shape) for b in bs] for name, bs in net.params.items()},
        "outputs": {name: float(np.mean(value)) for name, value in outputs.items()},
        "learned": learned,
        "finite": bool(finite),
    }))

for mode in ["train", "test"] if model else []:
    net = caffe.Net(model, caffe.TRAIN if mode == "train" else caffe.TEST)
    outputs = net.forward()
    net.backward()
    report(mode, net, outputs)
    del net

net = caffe.Net(deploy, caffe.TEST)
for name, (weight, bias) in net.params.items():
    # Scores of a few units: larger ones would make a softmax of noughts and ones.
    last = name == list(net.params)[-1]
    std = 0.02 if last else np.sqrt(2 / np.prod(weight.data.shape[1:]))
    rng.standard_normal(dtype=np.float32, out=weight.data)
    weight.data[...] *= np.float32(std)
    bias.data[...] = rng.uniform(-0.2, 0.2, bias.data.shape)
net.save(weights)
image = rng.uniform(-100, 100, net.blobs["data"].data.shape).astype(np.float32)
net.blobs["data"].data[...] = image
outputs = {name: value.copy() for name, value in net.forward().items()}
(prob,) = outputs
net.backward(**{prob: rng.uniform(0, 1, outputs[prob].shape).astype(np.float32)})
report("deploy", net, outputs)
np.savez(out, data=image, **outputs)
"""

# Run by pycaffe: shapes of all blobs of the inference nets named.
SHAPES = """
import json, sys, caffe
for path in sys.argv[1:]:
    net = caffe.Net(path, caffe.TEST)
    print("NET " + json.dumps({name: list(blob.data.shape) for name, blob in net.blobs.items()}))
"""

LARGER = 256  # of the databases' images: the nets cut their input out of them


@dataclass
class Ran:
    """A net's modes as real Caffe reports them, and the files that it read and wrote."""

    net: str
    task: str | None
    model: Path
    deploy: Path
    weights: Path
    outputs: Path
    modes: dict[str, dict]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Databases of images as the published models were trained on: larger than the input."""
    folder = tmp_path_factory.mktemp("data")
    write_lmdbs(folder, tuple(task.classes for task in TASKS), count=2, size=LARGER)
    return folder


NETS = [
    pytest.param(
        key, id="_".join(filter(None, key)), marks=[pytest.mark.slow] * (key[0] == "vggnet16")
    )
    for key in EXACT
]


@pytest.fixture(scope="module", params=NETS)
def ran(request, caffe_tools, data, tmp_path_factory) -> Ran:
    """The net after a forward and a backward pass in each mode."""
    net, task = request.param
    folder = tmp_path_factory.mktemp(net)
    model, deploy = folder / "net.prototxt", folder / "deploy.prototxt"
    weights, outputs = folder / "net.caffemodel", folder / "outputs.npz"
    sizes = ["--batch", "2", "--test-batch", "1", "--test-images", "2"]
    trained = CATALOG[net].trained
    if trained:
        model.write_text(generate(argv_of(net, task, "--crop", "--data", str(data), *sizes)))
    deploy.write_text(generate(argv_of(net, task, "--deploy")))
    # A net without a loss runs backward only where it is told to.
    backward = folder / "backward.prototxt"
    backward.write_text("force_backward: true\n" + deploy.read_text())
    printed = pycaffe(caffe_tools, MODES, model if trained else "", backward, weights, outputs)
    reports = [json.loads(line[4:]) for line in printed.splitlines() if line[:4] == "NET "]
    modes = {report["mode"]: report for report in reports}
    yield Ran(net, task, model, deploy, weights, outputs, modes)
    weights.unlink()  # half a gigabyte, and pytest keeps its folders for three runs


def test_every_mode_runs_forward_and_backward(ran):
    expected = ["train", "test", "deploy"] if CATALOG[ran.net].trained else ["deploy"]
    assert list(ran.modes) == expected
    for mode, report in ran.modes.items():
        assert report["finite"], mode
        assert report["learned"] == list(report["params"]), "a gradient for every layer"
    if "train" in ran.modes:
        assert f"loss_{ran.task}" in ran.modes["train"]["outputs"]
        scores = {f"top1_{ran.task}", f"top5_{ran.task}", f"loss_{ran.task}"}
        assert scores <= set(ran.modes["test"]["outputs"])


def test_caffe_infers_our_shapes(ran):
    size = CATALOG[ran.net].defaults["input_size"]
    for mode, report in ran.modes.items():
        batch = 2 if mode == "train" else 1
        net = text.load(ran.deploy if mode == "deploy" else ran.model, NetParameter)
        inputs = {"data": (batch, 3, size, size), "label": (batch, len(TASKS), 1, 1)}
        phase = TRAIN if mode == "train" else TEST
        ours, params = {}, {}
        tops = {layer.name: layer.top for layer in net.layer}  # both phases' Data have the same
        for layer in measure(net, inputs, phase):
            ours.update(zip(tops[layer.name], map(list, layer.tops)))
            if layer.blobs:
                params[layer.name] = [list(blob) for blob in layer.blobs]
        # Caffe splits a blob with several readers into copies of other names.
        theirs = {name: shape for name, shape in report["blobs"].items() if "_split_" not in name}
        assert theirs == ours, mode
        assert report["params"] == params, mode


def test_caffe_counts_table_2s_parameters(ran):
    counted = {
        mode: sum(map(_size, (blob for blobs in report["params"].values() for blob in blobs)))
        for mode, report in ran.modes.items()
    }
    assert counted.get("train", counted["deploy"]) == EXACT[ran.net, ran.task]
    ours = json.loads(generate(argv_of(ran.net, ran.task, "--params", "--json")))
    assert counted["deploy"] == ours["inference_total"]


def test_opencv_agrees_with_caffe(ran):
    assert_opencv_agrees(ran.deploy, ran.weights, ran.outputs)


def test_caffe_infers_our_shapes_at_any_size(caffe_tools, tmp_path):
    """From the smallest input on, odd sizes included."""
    cases = [(net, size) for net, least in CLASSICS.items() for size in (least, least + 30, 97)]
    paths = [tmp_path / f"{net}_{size}.prototxt" for net, size in cases]
    for path, (net, size) in zip(paths, cases):
        path.write_text(generate(argv_of(net, "adj", "--deploy", "--input-size", str(size))))
    printed = pycaffe(caffe_tools, SHAPES, *paths)
    reports = [json.loads(line[4:]) for line in printed.splitlines() if line[:4] == "NET "]
    assert len(reports) == len(cases)
    for path, report in zip(paths, reports):
        net = text.load(path, NetParameter)
        ours = {
            top: list(shape)
            for layer, found in zip(net.layer, measure(net, {}))
            for top, shape in zip(layer.top, found.tops)
        }
        assert {k: v for k, v in report.items() if "_split_" not in k} == ours, path.name


def _size(shape: list[int]) -> int:
    size = 1
    for n in shape:
        size *= n
    return size
