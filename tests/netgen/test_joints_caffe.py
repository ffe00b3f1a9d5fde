"""What joins two tasks, in real Caffe: shapes of random nets, and the nets that must be equal."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from netgen.catalog import CATALOG
from netgen.command import generate
from netgen.measure import measure, takes_part
from netgen.options import Learned, Scaled
from tests.helpers.caffe_nets import assert_opencv_agrees, pycaffe, run
from tests.netgen.test_caffe import FORWARD
from xresnet.caffeproto import TRAIN, NetParameter, text

pytestmark = pytest.mark.caffe

TASKS = "adj:3,anp:7,noun:5"
SMALL = ["--tasks", TASKS, "--width", "4", "--input-size", "64", "--blocks", "1,1,1,3"]

# Run by pycaffe: shapes of all blobs and parameters of each net named, as JSON lines.
SHAPES = """
import json, sys, caffe
for path in sys.argv[1:]:
    net = caffe.Net(path, caffe.TRAIN)
    blobs = {name: list(blob.data.shape) for name, blob in net.blobs.items()}
    params = {name: [list(b.data.shape) for b in bs] for name, bs in net.params.items()}
    print("NET " + json.dumps([blobs, params]))
"""

# Run by pycaffe: forward and backward of two nets with the same numbers in the
# layers of the same name; cross weights of the first all set to one value.
COMPARE = """
import sys, numpy as np, caffe
first, second, value, out = sys.argv[1:]
nets = [caffe.Net(path, caffe.TRAIN) for path in (first, second)]
rng = np.random.RandomState(0)
for name, blobs in nets[0].params.items():
    for i, blob in enumerate(blobs):
        if "_cross_" in name:
            blob.data[...] = float(value)
        elif not name.startswith("bn"):
            scale = {"scale": 1}.get(name[:5], 0.3 if blob.data.ndim > 1 else 0.1)
            blob.data[...] = rng.normal(0, scale, blob.data.shape)
        if name in nets[1].params:
            nets[1].params[name][i].data[...] = blob.data
found = {}
for k, net in enumerate(nets):
    same = np.random.RandomState(1)
    for name in [n for n in net.blobs if n == "data" or n.startswith("label")]:
        shape = net.blobs[name].data.shape
        drawn = same.randint(0, 3, shape) if name != "data" else same.normal(0, 60, shape)
        net.blobs[name].data[...] = drawn
    for name, value in net.forward().items():
        found["%d out %s" % (k, name)] = value
    net.backward()
    for name, blobs in net.params.items():
        for i, blob in enumerate(blobs):
            found["%d grad %s %d" % (k, name, i)] = blob.diff.copy()
np.savez(out, **found)
"""


def train_net(argv: list[str], batch: int = 2):
    """netgen's train net with Input layers in place of its databases."""
    net = text.loads(generate(argv), NetParameter)
    layers = [layer for layer in net.layer if takes_part(layer, TRAIN)]
    size = int(argv[argv.index("--input-size") + 1]) if "--input-size" in argv else 224
    tasks = argv[argv.index("--tasks") + 1].count(":") if "--tasks" in argv else 3
    del net.layer[:]
    for layer in layers:
        if layer.type == "Data":
            shape = [batch, 3, size, size] if layer.top[0] == "data" else [batch, tasks, 1, 1]
            net.layer.add(
                name=layer.name,
                type="Input",
                top=layer.top,
                input_param={"shape": [{"dim": shape}]},
            )
        else:
            layer.ClearField("include")
            net.layer.append(layer)
    return net


def random_options(seed: int) -> list[str]:
    """A net of the catalog with options drawn at random, all valid."""
    draw = random.Random(seed)
    # Of the published net there is nothing to draw: its tasks are fixed.
    names = [n for n, entry in CATALOG.items() if "resnet50" in n and "tasks" not in entry.defaults]
    name = names[seed % len(names)]
    count = draw.randint(2 if name == "rock_resnet50" else 1, 4)
    tasks = [f"t{i}:{draw.randint(1, 9)}" for i in range(count)]
    size = draw.randint(32, 96)
    argv = [name, "--tasks", ",".join(tasks), "--input-size", str(size)]
    argv += ["--width", str(draw.randint(1, 6))]
    argv += draw.choice([[], ["--stem-width", "5"]])
    argv += draw.choice([[], ["--bn", "frozen"], ["--bn-fraction", "0.9"]])
    stages = [str(draw.randint(1, 3)) for _ in range(4)]
    argv += draw.choice([["--blocks", ",".join(stages)], ["--depth", "50"]])
    if "--depth" in argv:
        stages = ["3", "4", "6", "3"]
    argv += ["--stride-in", draw.choice(["1x1", "3x3"])]
    argv += ["--pool1", draw.choice(["published", "padded"])]
    if CATALOG[name].single_task:
        argv += ["--task", f"t{draw.randrange(count)}"]
    elif name == "rock_resnet50":
        argv += ["--primary", f"t{draw.randrange(count)}"]
    elif name == "cross_stitch_resnet50":
        argv += ["--stitch", draw.choice(["channel", "layer"])]
    else:
        stage = draw.randint(2, 5)
        block = f"res{stage}{'abc'[draw.randrange(min(3, int(stages[stage - 2])))]}"
        after = draw.choice([block, "none"])
        argv += ["--branch-after", after]
        if after != "none":
            argv += ["--branch-norm", draw.choice(["both", "branch2c", "none"])]
        argv += ["--shortcut-factor", draw.choice(["1", "0.5", "mean"])]
        joins = count > 1 and after[3:] != f"5{'abc'[int(stages[3]) - 1]}"
        if joins and Learned in CATALOG[name].families:
            argv += draw.choice([[], ["--cross-lr", "3"], ["--cross-decay", "0"]])
            argv += draw.choice([[], ["--freeze-towers"]])
        if joins and Scaled in CATALOG[name].families:
            argv += draw.choice([[], ["--cross-start", "0.2"]])
    return argv


def test_random_nets_have_the_shapes_that_we_infer(caffe_tools, tmp_path):
    drawn = [random_options(seed) for seed in range(32)]
    paths = [tmp_path / f"{i}.prototxt" for i in range(len(drawn))]
    nets = [train_net(argv) for argv in drawn]
    for path, net in zip(paths, nets):
        path.write_text(text.dump(net))
    lines = pycaffe(caffe_tools, SHAPES, *paths).splitlines()
    reports = [json.loads(line[4:]) for line in lines if line.startswith("NET ")]
    assert len(reports) == len(drawn)
    for argv, net, (blobs, params) in zip(drawn, nets, reports):
        measured = {layer.name: layer for layer in measure(net, {})}
        ours = {
            top: list(shape)
            for layer in net.layer
            for top, shape in zip(layer.top, measured[layer.name].tops)
        }
        # Caffe splits a blob with several readers into copies of other names.
        assert {k: v for k, v in blobs.items() if "_split_" not in k} == ours, argv
        counted = {k: [list(b) for b in v.blobs] for k, v in measured.items() if v.blobs}
        assert params == counted, argv


@pytest.mark.parametrize("branch", ["res5a", "res4a", "none"])
@pytest.mark.parametrize(
    ("net", "weight", "other"),
    [
        ("xs_resnet50", 0, ["x0_resnet50"]),
        ("xs_resnet50", 1, ["xi_resnet50"]),
        # y = F + (1 + a) x
        ("xself_resnet50", 0.5, ["x0_resnet50", "--shortcut-factor", "1.5"]),
    ],
)
def test_constant_weights_make_another_net(net, weight, other, branch, caffe_tools, tmp_path):
    """Forward and gradient; a cross weight's own gradient has no partner."""
    first, second, out = tmp_path / "one.prototxt", tmp_path / "other.prototxt", tmp_path / "o.npz"
    options = [*SMALL, "--branch-after", branch]
    first.write_text(text.dump(train_net([net, *options], batch=8)))
    second.write_text(text.dump(train_net([*other, *options], batch=8)))
    pycaffe(caffe_tools, COMPARE, first, second, weight, out)
    found = np.load(out)
    pairs = [name for name in found.files if name.startswith("1 ")]
    assert sum(" out " in name for name in pairs) == 3
    crosses = [name for name in found.files if "_cross_" in name]
    assert crosses
    assert any(np.abs(found[name]).max() > 1e-6 for name in crosses)
    for name in pairs:
        ours, theirs = found["0" + name[1:]], found[name]
        assert np.abs(ours - theirs).max() <= 1e-4 * max(np.abs(theirs).max(), 1e-3), name


# Run by pycaffe: weights of each task's layers made those of the first task, then all blobs.
TOWERS = """
import sys, numpy as np, caffe
path, out = sys.argv[1:]
caffe.set_random_seed(1)
net = caffe.Net(path, caffe.TRAIN)
for name, blobs in net.params.items():
    for task in ("anp", "noun"):
        if name.endswith("_" + task) and "_cross_" not in name and not name.startswith("fc_"):
            source = net.params[name[: -len(task)] + "adj"]
            for mine, first in zip(blobs, source):
                mine.data[...] = first.data
    if "_cross_" in name:
        blobs[0].data[...] = 0
net.blobs["data"].data[...] = np.random.RandomState(1).normal(0, 60, net.blobs["data"].data.shape)
net.forward()
np.savez(out, **{name: net.blobs[name].data for name in net.blobs if name.startswith("pool5_")})
"""


def test_identical_weights_and_no_crossing_make_identical_towers(caffe_tools, tmp_path):
    path, out = tmp_path / "xs.prototxt", tmp_path / "o.npz"
    path.write_text(text.dump(train_net(["xs_resnet50", *SMALL])))
    pycaffe(caffe_tools, TOWERS, path, out)
    found = np.load(out)
    assert found["pool5_adj"].std() > 0
    assert np.array_equal(found["pool5_adj"], found["pool5_anp"])
    assert np.array_equal(found["pool5_adj"], found["pool5_noun"])


# Run by pycaffe: one solver step; which parameters have moved.
STEP = """
import sys, json, numpy as np, caffe
solver = caffe.SGDSolver(sys.argv[1])
net = solver.net
rng = np.random.RandomState(1)
net.blobs["data"].data[...] = rng.normal(0, 60, net.blobs["data"].data.shape)
before = {n: [b.data.copy() for b in bs] for n, bs in net.params.items()}
solver.step(1)
moved = [n for n, bs in net.params.items()
         if any((b.data != old).any() for b, old in zip(bs, before[n]))]
print("MOVED " + json.dumps(moved))
"""


@pytest.mark.parametrize("net", ["xs_resnet50", "xself_resnet50", "xp_resnet50", "xg_resnet50"])
def test_frozen_towers_learn_their_cross_weights_only(net, caffe_tools, tmp_path):
    model, solver = tmp_path / "net.prototxt", tmp_path / "solver.prototxt"
    model.write_text(text.dump(train_net([net, *SMALL, "--freeze-towers"], batch=4)))
    more = ["--net", str(model), "--cpu", "--test-interval", "0"]
    solver.write_text(generate([net, "--solver", *more]))
    printed = pycaffe(caffe_tools, STEP, solver)
    (line,) = [line for line in printed.splitlines() if line.startswith("MOVED ")]
    moved = json.loads(line[6:])
    assert moved
    assert all("_cross_" in name for name in moved), moved


# Run by pycaffe: forward and backward; the losses and the gradients' sizes.
STEP_BACK = """
import sys, json, numpy as np, caffe
net = caffe.Net(sys.argv[1], int(sys.argv[2]))
rng = np.random.RandomState(1)
for name in [n for n in net.blobs if n == "data" or n == "label"]:
    shape = net.blobs[name].data.shape
    net.blobs[name].data[...] = rng.normal(0, 60, shape) if name == "data" else 1
out = {name: float(value.mean()) for name, value in net.forward().items()}
net.backward()
grads = [float(np.abs(b.diff).sum()) for bs in net.params.values() for b in bs]
print("OUT " + json.dumps([out, grads]))
"""

WHOLE = [
    ["x0_resnet50"],
    ["xi_resnet50"],
    ["xself_resnet50"],
    ["xp_resnet50"],
    ["xg_resnet50"],
    ["rock_resnet50"],
    ["cross_stitch_resnet50"],
    ["cross_stitch_caffenet", "--input-size", "227"],
    ["resnet50", "--task", "anp"],
]


@pytest.mark.slow
@pytest.mark.parametrize("argv", WHOLE, ids=lambda argv: argv[0])
def test_every_net_runs_at_its_real_size(argv, caffe_tools, tmp_path):
    """Forward and backward in TRAIN; the test phase's nets are parsed and run forward."""
    path = tmp_path / "net.prototxt"
    path.write_text(text.dump(train_net(argv, batch=2)))
    for phase in ("0", "1"):
        printed = pycaffe(caffe_tools, STEP_BACK, path, phase)
        (line,) = [line for line in printed.splitlines() if line.startswith("OUT ")]
        out, grads = json.loads(line[4:])
        losses = [value for name, value in out.items() if name.startswith("loss_")]
        assert len(losses) == (1 if "--task" in argv else 3)
        if phase == "0":
            assert np.isfinite([*losses, *grads]).all()
            assert sum(g > 0 for g in grads) > len(grads) / 3


# OpenCV has no DummyData, and no Scale by a second blob without batch axis: not XG.
@pytest.mark.parametrize(
    "argv", [["xp_resnet50"], ["rock_resnet50"], ["cross_stitch_resnet50"]], ids=lambda a: a[0]
)
def test_opencv_agrees_on_the_other_joints(argv, caffe_tools, tmp_path):
    model, weights, blobs = (tmp_path / name for name in ("d.prototxt", "w.caffemodel", "b.npz"))
    model.write_text(generate([*argv, "--deploy", *SMALL]))
    run(caffe_tools["pycaffe"], "-c", FORWARD, model, weights, blobs)
    assert_opencv_agrees(model, weights, blobs, heads=3)


# Run by pycaffe: one image through each inference net; the softmaxes' shapes and sums.
INFER = """
import sys, json, numpy as np, caffe
for path in sys.argv[1:]:
    net = caffe.Net(path, caffe.TEST)
    for name, blobs in net.params.items():
        if name.startswith("bn"):
            blobs[1].data[...] = blobs[2].data[...] = 1
    net.blobs["data"].data[...] = np.random.RandomState(1).normal(0, 60, net.blobs["data"].shape)
    out = {name: [list(value.shape), float(value.sum())] for name, value in net.forward().items()}
    print("OUT " + json.dumps(out))
    del net
"""


@pytest.mark.slow
def test_every_inference_net_answers_at_its_real_size(caffe_tools, tmp_path):
    nets = [(name, "anp" if entry.single_task else None) for name, entry in CATALOG.items()]
    paths = []
    for name, task in nets:
        paths.append(tmp_path / f"{name}.prototxt")
        choice = ["--task", task] if task else []
        paths[-1].write_text(generate([name, *choice, "--deploy"]))
    lines = pycaffe(caffe_tools, INFER, *paths).splitlines()
    answers = [json.loads(line[4:]) for line in lines if line.startswith("OUT ")]
    assert len(answers) == len(nets)
    tasks = {"prob_adj": 117, "prob_anp": 553, "prob_noun": 167}
    one_of_its_own = {"deepsentibank": {"prob"}, "resnet50_imagenet": {"prob_imagenet"}}
    classes = {**tasks, "prob": 2089, "prob_imagenet": 1000}
    for (name, task), answer in zip(nets, answers):
        heads = one_of_its_own.get(name, set(tasks))
        assert set(answer) == ({f"prob_{task}"} if task else heads), name
        for head, (shape, total) in answer.items():
            assert (shape[0], np.prod(shape)) == (1, classes[head]), name
            assert total == pytest.approx(1, abs=1e-3), name
