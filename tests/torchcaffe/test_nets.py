"""Whole nets that netgen emits against real Caffe: every blob, every gradient, both phases."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="NO PYTORCH HERE: pip install '.[torch]'")

from netgen.command import generate  # noqa: E402
from tests.torchcaffe import decisions  # noqa: E402
from tests.torchcaffe.oracle import Case, ask_caffe, error  # noqa: E402
from torchcaffe.layers.weighted import BatchNorm  # noqa: E402
from torchcaffe.net import Net  # noqa: E402
from xresnet.caffeproto import TEST, TRAIN, NetParameter, text  # noqa: E402

pytestmark = pytest.mark.caffe
torch.set_num_threads(1)

TASKS = "adj:3,anp:7,noun:5"
SMALL = ["--tasks", TASKS, "--width", "4", "--input-size", "64", "--blocks", "1,1,1,3"]
NETS = [
    ["resnet50", "--task", "noun", *SMALL],
    *([name, *SMALL] for name in ("x0_resnet50", "xi_resnet50", "xs_resnet50", "xp_resnet50")),
    *([name, *SMALL] for name in ("xg_resnet50", "rock_resnet50", "cross_stitch_resnet50")),
]
FULL = [
    *([name] for name in ("x0_resnet50", "xi_resnet50", "xs_resnet50", "xp_resnet50")),
    *([name] for name in ("xg_resnet50", "rock_resnet50", "cross_stitch_resnet50")),
    ["cross_stitch_caffenet"],
    *([name, "--task", "anp"] for name in ("resnet50", "caffenet", "inception_v1", "vggnet16")),
]
CAFFENETS = ("caffenet", "cross_stitch_caffenet", "deepsentibank")


def fed(argv: list[str], batch: int, size: int, tasks: list[int]) -> object:
    """netgen's net with Input layers for its databases, and no dropout to differ by chance."""
    net = text.loads(generate(argv), NetParameter)
    for layer in net.layer:
        if layer.type == "Data":
            images = layer.top[0] == "data"
            shape = [batch, 3, size, size] if images else [batch, len(tasks), 1, 1]
            layer.type = "Input"
            layer.ClearField("data_param")
            layer.ClearField("transform_param")
            layer.input_param.shape.add(dim=shape)
        elif layer.type == "Dropout":
            layer.dropout_param.dropout_ratio = 0
    return net


def case(argv: list[str], phase: int, batch: int = 3) -> Case:
    options = dict(zip(argv[1:], argv[2:]))
    size = int(options.get("--input-size", 227 if argv[0] in CAFFENETS else 224))
    told = options.get("--tasks", "adj:117,anp:553,noun:167")
    tasks = [int(task.split(":")[1]) for task in told.split(",")]
    proto = fed(argv, batch, size, tasks)
    rng = np.random.default_rng(len(argv[0]) + phase)
    labels = np.stack([rng.integers(0, k, batch) for k in tasks], 1)
    # Without a BatchNorm scores grow with the image, until the loss is nothing but its bound.
    spread = 60 if any(layer.type == "BatchNorm" for layer in proto.layer) else 1
    bottoms = {"data": rng.normal(0, spread, (batch, 3, size, size)).astype(np.float32)}
    if "--deploy" in argv:
        proto.layer[0].input_param.shape[0].dim[0] = batch
    else:
        bottoms["label"] = labels.astype(np.float32)[..., None, None]
    return Case(proto, bottoms, phase=phase, backward=phase == TRAIN)


def draw(made: Case, net: Net, seed: int) -> None:
    """Weights that keep signals of every depth alive, the same in both."""
    rng = np.random.default_rng(seed)
    types = {step.param.type for step in net.steps}
    gain = 0.7 if "BatchNorm" in types else 0.3  # of three towers that are added up
    for learned in net.learned:
        blob, kind = learned.blob, net.layer_named(learned.name).param.type
        if kind == "BatchNorm":
            values = np.abs(rng.normal(1, 0.1, blob.shape))
        elif kind == "Scale":
            values = rng.normal(gain if learned.index == 0 else 0, 0.2, blob.shape)
        else:
            fan_in = max(1, blob.numel() // blob.shape[0])
            values = rng.normal(0, np.sqrt(2 / fan_in) if blob.dim() > 1 else 0.1, blob.shape)
        with torch.no_grad():
            blob.copy_(torch.from_numpy(values.astype(np.float32)))
    if made.phase == TEST:
        settle(net, made)
    for learned in net.learned:
        made.blobs[learned.name, learned.index] = learned.blob.detach().numpy().copy()


@torch.no_grad()
def settle(net: Net, made: Case) -> None:
    """Running statistics of the very images, so that no signal grows with depth."""
    norms = [one for one in net.layer.values() if isinstance(one, BatchNorm)]
    for norm in norms:
        norm.train_phase, norm.fraction = True, 0.0
    net.all_blobs(**{k: torch.from_numpy(v) for k, v in made.bottoms.items()})
    for norm in norms:
        norm.train_phase, norm.fraction = False, norm.param.batch_norm_param.moving_average_fraction


def check(argv: list[str], made: Case, net: Net, caffe: dict) -> None:
    """Blobs, statistics and gradients; prints the worst, which docs/ENGINE.md reports."""
    name = f"{argv[0]}, phase {made.phase}"
    bottoms = {k: torch.from_numpy(v) for k, v in made.bottoms.items()}
    before = [learned.blob.detach().clone() for learned in net.learned]
    with torch.no_grad():
        blobs = net.all_blobs(**bottoms)
    for learned, blob in zip(net.learned, before):
        after = caffe[f"after {learned.name} {learned.index}"]
        assert error(learned.blob.detach().numpy(), after) < 1e-4, learned.name
        with torch.no_grad():  # running statistics moved
            learned.blob.copy_(blob)
    exact, worst = None, {}
    for blob, tensor in blobs.items():
        kind = "loss" if blob in net.losses else "blob"
        limit = 1e-5 if kind == "loss" else 1e-4
        theirs = caffe[f"top {blob}"]
        found = error(tensor.numpy(), theirs)
        assert kind == "blob" or 0 < theirs < 80, f"{name}: no use: {theirs}"
        worst[kind] = max(worst.get(kind, (0.0,)), (found, blob))
        if found < limit:
            continue
        # Deep nets magnify rounding, Caffe's too: then be no further than Caffe from the truth.
        exact = exact or exact_blobs(made)
        off = [np.linalg.norm(x - exact[blob]) for x in (tensor.numpy(), theirs)]
        told = (
            f"{name}: blob {blob} differs by {found:.1e}, off by {off[0]:.2e}, Caffe {off[1]:.2e}"
        )
        worst["off"] = max(worst.get("off", (0.0,)), (off[0] / off[1], blob))
        assert kind == "blob" and found < 3 * limit and off[0] < 1.25 * off[1], told
    del blobs, exact
    if not made.backward:
        print(name, worst)
        return
    net.loss(decisions.run(net, bottoms, caffe)).backward()
    largest = max(np.linalg.norm(g) for n, g in caffe.items() if n.startswith("grad "))
    for learned in net.learned:
        wanted = caffe[f"grad {learned.name} {learned.index}"]
        if learned.blob.grad is None:
            assert not net.layer_named(learned.name).learns or not wanted.any()
            continue
        # A bias before a BatchNorm has no gradient but rounding: compare with the net's largest.
        found = np.linalg.norm(learned.blob.grad.numpy() - wanted)
        found /= max(np.linalg.norm(wanted), 1e-4 * largest)
        worst["gradient"] = max(worst.get("gradient", (0.0,)), (found, learned.name))
        assert found < 1e-3, f"{name}: gradient {learned.name} {learned.index}: {found:.1e}"
    print(name, worst)


def exact_blobs(made: Case) -> dict[str, np.ndarray]:
    """All blobs of the same net in double precision."""
    net = Net(made.net, made.phase).double()
    with torch.no_grad():
        for learned in net.learned:
            learned.blob.copy_(torch.from_numpy(made.blobs[learned.name, learned.index]))
        fed = {k: torch.from_numpy(v).double() for k, v in made.bottoms.items()}
        return {k: x.numpy() for k, x in net.all_blobs(**fed).items()}


def compare(argvs: list[list[str]], phases, caffe_tools, tmp_path, batch: int) -> None:
    cases = [(argv, case(argv, phase, batch)) for argv in argvs for phase in phases]
    nets = [Net(made.net, made.phase) for _, made in cases]
    for seed, ((_, made), net) in enumerate(zip(cases, nets)):
        draw(made, net, seed)
    answers = ask_caffe([made for _, made in cases], tmp_path, caffe_tools)
    for (argv, made), net, caffe in zip(cases, nets, answers):
        check(argv, made, net, caffe)


def test_nets_of_every_kind_are_caffes(caffe_tools, tmp_path):
    compare(NETS, (TRAIN, TEST), caffe_tools, tmp_path, batch=4)


@pytest.mark.slow
@pytest.mark.parametrize("argv", FULL, ids=lambda argv: argv[0])
def test_nets_at_their_real_size_are_caffes(argv, caffe_tools, tmp_path):
    compare([argv], (TRAIN,), caffe_tools, tmp_path, batch=2)


@pytest.mark.slow
@pytest.mark.parametrize("net", ["xs_resnet50", "cross_stitch_caffenet"])
def test_nets_at_their_real_size_test_as_caffes(net, caffe_tools, tmp_path):
    """One with BatchNorms and one without; at small size every kind is tested in both phases."""
    compare([[net]], (TEST,), caffe_tools, tmp_path, batch=2)


@pytest.mark.slow
def test_deepsentibank_at_its_real_size_is_caffes(caffe_tools, tmp_path):
    """Netgen has it as a deploy net only."""
    compare([["deepsentibank", "--deploy"]], (TEST,), caffe_tools, tmp_path, batch=2)


@pytest.mark.parametrize("argv", NETS, ids=lambda argv: argv[0])
def test_what_is_fused_is_exact(argv):
    """In double precision, where rounding tips nothing."""
    made = case(argv, TRAIN)
    found = []
    for fuse in (True, False):
        torch.manual_seed(0)
        net = Net(made.net, TRAIN, fuse=fuse)
        draw(made, net, 1)
        net.double()
        tops = net(**{k: torch.from_numpy(v).double() for k, v in made.bottoms.items()})
        net.loss(tops).backward()
        found.append([one.blob.grad for one in net.learned if one.blob.grad is not None])
    largest = max(g.norm() for g in found[0])
    assert len(found[0]) == len(found[1]) > 0
    for a, b in zip(*found):
        assert (a - b).norm() <= 1e-9 * max(b.norm(), 1e-4 * largest)


def test_the_code_that_runs_can_be_read():
    proto = fed(["xs_resnet50", *SMALL], 2, 64, [3, 7, 5])
    code = Net(proto, TRAIN).source_code()
    assert code.startswith("def forward(layer, data, label):\n")
    assert "F.relu_(layer['bn_conv1'](conv1, *layer['scale_conv1'].blobs))" in code
    assert "F.relu_(layer['res2a'](" in code
    assert max(map(len, code.splitlines())) < 400
