"""Whole nets that netgen emits against real Caffe: every blob, every gradient, both phases."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="NO PYTORCH HERE: pip install '.[torch]'")

from caffeproto import TEST, TRAIN, NetParameter, text  # noqa: E402
from netgen.command import generate  # noqa: E402
from tests.torchcaffe_oracle import Case, ask_caffe, error  # noqa: E402
from torchcaffe.net import Net  # noqa: E402

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
    size = int(options.get("--input-size", 227 if "caffenet" in argv[0] else 224))
    told = options.get("--tasks", "adj:117,anp:553,noun:167")
    tasks = [int(task.split(":")[1]) for task in told.split(",")]
    proto = fed(argv, batch, size, tasks)
    rng = np.random.default_rng(len(argv[0]) + phase)
    labels = np.stack([rng.integers(0, k, batch) for k in tasks], 1)
    bottoms = {
        "data": rng.normal(0, 60, (batch, 3, size, size)).astype(np.float32),
        "label": labels.astype(np.float32)[..., None, None],
    }
    return Case(proto, bottoms, phase=phase, backward=phase == TRAIN)


def draw(made: Case, net: Net, seed: int) -> None:
    """Weights that keep signals of every depth alive, the same in both."""
    rng = np.random.default_rng(seed)
    for learned in net.learned:
        blob, kind = learned.blob, net.layer_named(learned.name).param.type
        if kind == "BatchNorm":
            values = np.abs(rng.normal(1, 0.1, blob.shape))
        elif kind == "Scale":
            values = rng.normal(0.7 if learned.index == 0 else 0, 0.2, blob.shape)
        else:
            fan_in = max(1, blob.numel() // blob.shape[0])
            values = rng.normal(0, np.sqrt(2 / fan_in) if blob.dim() > 1 else 0.1, blob.shape)
        made.blobs[learned.name, learned.index] = values.astype(np.float32)
        with torch.no_grad():
            blob.copy_(torch.from_numpy(made.blobs[learned.name, learned.index]))


def check(argv: list[str], made: Case, net: Net, caffe: dict) -> None:
    name = f"{argv[0]}, phase {made.phase}"
    bottoms = {k: torch.from_numpy(v) for k, v in made.bottoms.items()}
    before = [learned.blob.detach().clone() for learned in net.learned]
    with torch.no_grad():
        blobs = net.all_blobs(**bottoms)
        for learned, blob in zip(net.learned, before):  # running statistics moved
            learned.blob.copy_(blob)
    for blob, tensor in blobs.items():
        limit = 1e-5 if blob.startswith("loss") else 1e-4
        found = error(tensor.numpy(), caffe[f"top {blob}"])
        if found >= limit:  # as with the gradients below: is Caffe itself that far off?
            exact = exact_net(made).all_blobs(**doubles(made))[blob].detach().numpy()
            limit = max(limit, 2 * error(exact, caffe[f"top {blob}"]))
        assert found < limit, f"{name}: blob {blob} differs by {found:.1e}"
    if not made.backward:
        return
    exact = exact_gradients(made)
    tops = net(**bottoms)  # with what can be fused, fused
    net.loss(tops).backward()
    gradients = [g for n, g in caffe.items() if n.startswith("grad ")]
    largest = max(np.linalg.norm(g) for g in gradients)
    for learned in net.learned:
        wanted = caffe[f"grad {learned.name} {learned.index}"]
        if learned.blob.grad is None:
            assert not net.layer_named(learned.name).learns or not wanted.any()
            continue
        # A bias before a BatchNorm has no gradient but rounding: compare with the net's largest.
        # Where rounding tips a ReLU or a maximum, Caffe is itself further off the gradient in
        # double precision: nobody can be asked to agree with it more closely than that.
        found = np.linalg.norm(learned.blob.grad.numpy() - wanted)
        rounding = np.linalg.norm(exact[learned.name, learned.index] - wanted)
        limit = max(1e-3 * max(np.linalg.norm(wanted), 1e-4 * largest), 3 * rounding)
        assert found <= limit, f"{name}: {learned.name} {learned.index}: {found:.1e} > {limit:.1e}"
        after = caffe[f"after {learned.name} {learned.index}"]
        assert error(learned.blob.detach().numpy(), after) < 1e-4, learned.name


def doubles(made: Case) -> dict[str, torch.Tensor]:
    return {k: torch.from_numpy(v).double() for k, v in made.bottoms.items()}


def exact_net(made: Case) -> Net:
    """The same net in double precision."""
    net = Net(made.net, made.phase).double()
    with torch.no_grad():
        for learned in net.learned:
            learned.blob.copy_(torch.from_numpy(made.blobs[learned.name, learned.index]))
    return net


def exact_gradients(made: Case) -> dict[tuple[str, int], np.ndarray]:
    """The gradients of the same net in double precision."""
    net = exact_net(made)
    net.loss(net(**doubles(made))).backward()
    return {
        (one.name, one.index): one.blob.grad.numpy()
        for one in net.learned
        if one.blob.grad is not None
    }


def compare(argvs: list[list[str]], caffe_tools, tmp_path, batch: int) -> None:
    cases = [(argv, case(argv, phase, batch)) for argv in argvs for phase in (TRAIN, TEST)]
    nets = [Net(made.net, made.phase) for _, made in cases]
    for seed, ((_, made), net) in enumerate(zip(cases, nets)):
        draw(made, net, seed)
    answers = ask_caffe([made for _, made in cases], tmp_path, caffe_tools)
    for (argv, made), net, caffe in zip(cases, nets, answers):
        check(argv, made, net, caffe)


def test_nets_of_every_kind_are_caffes(caffe_tools, tmp_path):
    compare(NETS, caffe_tools, tmp_path, batch=4)


@pytest.mark.slow
@pytest.mark.parametrize("argv", FULL, ids=lambda argv: argv[0])
def test_nets_at_their_real_size_are_caffes(argv, caffe_tools, tmp_path):
    compare([argv], caffe_tools, tmp_path, batch=2)


def test_the_code_that_runs_can_be_read():
    proto = fed(["xs_resnet50", *SMALL], 2, 64, [3, 7, 5])
    code = Net(proto, TRAIN).source_code()
    assert code.startswith("def forward(layer, data, label):\n")
    assert "F.relu_(layer['bn_conv1'](conv1, *layer['scale_conv1'].blobs))" in code
    assert "F.relu_(layer['res2a'](" in code
    assert max(map(len, code.splitlines())) < 400
