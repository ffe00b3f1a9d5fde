"""Passes without autograd against those with it: losses, gradients and statistics."""

from __future__ import annotations

import itertools

import pytest

torch = pytest.importorskip("torch", reason="NO PYTORCH HERE: pip install '.[torch]'")

from bench.torchcaffe_step import train_net  # noqa: E402
from torchcaffe import direct, order  # noqa: E402
from torchcaffe.direct.operations import Alone, Every  # noqa: E402
from torchcaffe.direct.plan import OPERATIONS  # noqa: E402
from torchcaffe.direct.products import Pointwise, Product  # noqa: E402
from torchcaffe.net import Net  # noqa: E402
from torchcaffe.solver import Choices, Solver  # noqa: E402
from xresnet.caffeproto import TEST, TRAIN, NetParameter, SolverParameter, text  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _double():
    """Numbers that rounding cannot tip, so that little is allowed between the two."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


# Layers that the nets here do not have, or not so: an input of 4 images, 6 x 5.
LAYERS = """
layer { name: "x" type: "Input" top: "x" top: "label"
        input_param { shape { dim: 4 dim: 3 dim: 6 dim: 5 } shape { dim: 4 } } }
layer { name: "a" type: "Convolution" bottom: "x" top: "a" param { name: "shared" }
        convolution_param { num_output: 3 kernel_size: 1 bias_term: false
                            weight_filler { type: "xavier" } } }
layer { name: "b" type: "Convolution" bottom: "a" top: "b" param { name: "shared" }
        convolution_param { num_output: 3 kernel_size: 1 bias_term: false
                            weight_filler { type: "xavier" } } }
layer { name: "frozen" type: "Convolution" bottom: "b" top: "c" param { lr_mult: 0 } param { }
        convolution_param { num_output: 4 kernel_size: 3 pad: 2 dilation: 2
                            weight_filler { type: "xavier" } } }
layer { name: "bn" type: "BatchNorm" bottom: "c" top: "c" }
layer { name: "relu" type: "ReLU" bottom: "c" top: "c" }
layer { name: "twice" type: "Eltwise" bottom: "c" bottom: "c" bottom: "c" top: "d" }
layer { name: "leaky" type: "ReLU" bottom: "d" top: "d" relu_param { negative_slope: 0.1 } }
layer { name: "largest" type: "Pooling" bottom: "d" top: "dm"
        pooling_param { pool: MAX kernel_size: 3 stride: 1 pad: 1 } }
layer { name: "point" type: "Convolution" bottom: "dm" top: "e"
        convolution_param { num_output: 6 kernel_size: 1 stride: 2
                            weight_filler { type: "xavier" } } }
layer { name: "also" type: "Convolution" bottom: "d" top: "f"
        convolution_param { num_output: 6 kernel_size: 1 stride: 2
                            weight_filler { type: "xavier" } } }
layer { name: "relu f" type: "ReLU" bottom: "f" top: "f" }
layer { name: "unseen" type: "Convolution" bottom: "d" top: "g" propagate_down: false
        convolution_param { num_output: 6 kernel_size: 1 stride: 2
                            weight_filler { type: "xavier" } } }
layer { name: "weighed" type: "Eltwise" bottom: "e" bottom: "f" bottom: "g" top: "h"
        eltwise_param { coeff: 1 coeff: -0.5 coeff: 2 } }
layer { name: "windows" type: "Convolution" bottom: "h" top: "w"
        convolution_param { num_output: 6 kernel_h: 3 kernel_w: 5 pad_h: 1 pad_w: 2
                            weight_filler { type: "xavier" } } }
layer { name: "add" type: "Eltwise" bottom: "w" bottom: "h" top: "v" }
layer { name: "factor" type: "Scale" bottom: "v" top: "i" scale_param { filler { value: 0.7 } } }
layer { name: "given" type: "BatchNorm" bottom: "i" top: "j"
        batch_norm_param { use_global_stats: true } }
layer { name: "both" type: "Eltwise" bottom: "i" bottom: "j" top: "k" }
layer { name: "relu k" type: "ReLU" bottom: "k" top: "k" }
layer { name: "pool" type: "Pooling" bottom: "k" top: "pool"
        pooling_param { pool: AVE global_pooling: true } }
layer { name: "pixel" type: "Convolution" bottom: "pool" top: "l"
        convolution_param { num_output: 5 kernel_size: 3 pad: 1 stride: 2
                            weight_filler { type: "xavier" } } }
layer { name: "bn l" type: "BatchNorm" bottom: "l" top: "m" }
layer { name: "scale l" type: "Scale" bottom: "m" top: "n" scale_param { bias_term: true } }
layer { name: "fc" type: "InnerProduct" bottom: "n" top: "o"
        inner_product_param { num_output: 5 transpose: true weight_filler { type: "xavier" } } }
layer { name: "fc k" type: "InnerProduct" bottom: "k" top: "p"
        inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "sum" type: "Eltwise" bottom: "o" bottom: "p" top: "q" }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "q" bottom: "label" top: "loss"
        loss_weight: 0.5 }
layer { name: "more" type: "EuclideanLoss" bottom: "o" bottom: "p" top: "more" loss_weight: 2 }
layer { name: "right" type: "Accuracy" bottom: "q" bottom: "label" top: "right" }
"""

NETS = [
    ("xs_resnet50", 8, 32, 3),
    ("xs_resnet50", 4, 64, 2),
    ("xi_resnet50", 4, 48, 2),
    ("xself_resnet50", 4, 32, 2),
    ("x0_resnet50", 4, 64, 1),
]


def both(net: Net, fed: dict) -> list[dict[str, torch.Tensor]]:
    """Losses, gradients and statistics of a second pass, with autograd and without."""
    order.arrange(net, True)
    moving = [one for one in net.learned if one.blob.requires_grad]
    before = [one.blob.detach().clone() for one in net.learned]
    found = []
    for with_plan in (False, True):
        with torch.no_grad():
            for one, numbers in zip(net.learned, before):
                one.blob.copy_(numbers)
                one.blob.grad = None
        torch.manual_seed(0)
        if with_plan:
            history = [torch.zeros_like(one.blob) for one in moving]
            flat = direct.Flat(moving, [history])
            plan = direct.Plan(net, learn=True)
        for _ in range(2):
            if with_plan:
                tops = plan.forward(**fed)
                plan.backward()
            else:
                for one in moving:
                    one.blob.grad = None
                tops = net(**fed)
                net.loss(tops).backward()
        seen = {name: top.detach().clone() for name, top in tops.items()}
        for one in net.learned:
            key = f"{one.name} {one.index}"
            seen[key] = one.blob.detach().clone()
            if one in moving:
                grad = torch.zeros_like(one.blob) if one.blob.grad is None else one.blob.grad
                seen[f"{key} gradient"] = grad.clone()

        found.append(seen)
    assert sum(map(torch.numel, flat.gradients)) >= sum(one.blob.numel() for one in moving)
    return found


def compare(found: list[dict[str, torch.Tensor]], zero: tuple[str, ...] = (),
            within: float = 1e-8) -> None:  # fmt: skip
    autograd, plan = found
    assert autograd.keys() == plan.keys()
    for name, wanted in autograd.items():
        size = max(wanted.abs().max().item(), 1e-2)
        apart = (plan[name] - wanted).abs().max().item()
        assert apart <= within * size or name in zero, (name, apart, size)


@pytest.mark.parametrize(("name", "width", "size", "batch"), NETS)
def test_nets_have_the_same_gradients(name, width, size, batch):
    torch.manual_seed(1)
    net = Net(train_net(batch, name, size, width), TRAIN)
    # A bias before a BatchNorm has no gradient but rounding.
    compare(both(net, {}), zero=("conv1 1 gradient",))


def test_every_layer_has_the_same_gradients():
    torch.manual_seed(1)
    net = Net(text.loads(LAYERS, NetParameter), TRAIN)
    for made in net.layer.values():
        if made.param.name == "given":
            made.blobs[1].data.fill_(2)
            made.blobs[2].data.fill_(1)
    fed = {"x": torch.randn(4, 3, 6, 5), "label": torch.tensor([0.0, 3, 1, 4])}
    found = both(net, {k: x.contiguous() for k, x in fed.items()})
    compare(found, zero=("frozen 1 gradient", "pixel 1 gradient"))
    torch.set_default_dtype(torch.float32)  # other kernels
    net = Net(net.proto, TRAIN)
    found = both(net, {k: x.float() for k, x in fed.items()})
    compare(found, zero=("frozen 1 gradient", "pixel 1 gradient"), within=1e-4)
    kinds = {type(op).__name__ for op in direct.Plan(net, learn=True).ops}
    test = Net(net.proto, TEST)
    order.arrange(test, True)
    kinds.update(type(op).__name__ for op in direct.Plan(test, learn=False).ops)
    there = {Alone, Every, *itertools.chain(*OPERATIONS.values())}
    assert kinds == {kind.__name__ for kind in there - {Pointwise}}


@pytest.mark.parametrize("kernel", [1, 3])
def test_large_weights_of_few_images_have_the_same_gradients(kernel):
    torch.manual_seed(1)
    conv = f"""layer {{ name: "x" type: "Input" top: "x" top: "y" input_param {{
        shape {{ dim: [3, 1024, 1, 1] }} shape {{ dim: [3, 1024, 1, 1] }} }} }}
    layer {{ name: "a" type: "Convolution" bottom: "x" top: "a" convolution_param {{
        num_output: 1024 kernel_size: {kernel} pad: {kernel // 2}
        weight_filler {{ type: "xavier" }} }} }}
    layer {{ name: "loss" type: "EuclideanLoss" bottom: "a" bottom: "y" top: "loss" }}"""
    net = Net(text.loads(conv, NetParameter), TRAIN)
    compare(both(net, {name: torch.randn(shape) for name, shape in net.inputs.items()}))
    assert Product in {type(op) for op in direct.Plan(net, learn=True).ops}


@pytest.mark.parametrize("stride", [1, 2])
def test_large_pointwise_convolutions_have_the_same_gradients(stride):
    """Of few images, seen as others: with autograd, without, and as they are."""
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(1)
    conv = f"""layer {{ name: "x" type: "Input" top: "x" top: "y"
        input_param {{ shape {{ dim: [2, 64, 32, 32] }}
                       shape {{ dim: [2, 64, {32 // stride}, {32 // stride}] }} }} }}
    layer {{ name: "a" type: "Convolution" bottom: "x" top: "a" convolution_param {{
        num_output: 64 kernel_size: 1 weight_filler {{ type: "xavier" }} }} }}
    layer {{ name: "b" type: "Convolution" bottom: "a" top: "b" convolution_param {{
        num_output: 64 kernel_size: 1 stride: {stride} weight_filler {{ type: "xavier" }} }} }}
    layer {{ name: "loss" type: "EuclideanLoss" bottom: "b" bottom: "y" top: "loss" }}"""
    net = Net(text.loads(conv, NetParameter), TRAIN)
    fed = {name: torch.randn(shape) for name, shape in net.inputs.items()}
    net(**fed)
    compare(both(net, fed), within=1e-5)
    made = net.layer_named("a")
    x = fed["x"].contiguous(memory_format=torch.channels_last)
    assert {type(op) for op in direct.Plan(net, learn=True).ops} >= {Pointwise}
    assert made._images(x) == 16 and not made._images(fed["x"]) and made.images(17 * 191) == 17
    wanted = torch.nn.functional.conv2d(fed["x"], made.blobs[0], made.blobs[1])
    assert (made(x) - wanted).abs().max() < 1e-5 * wanted.abs().max()
    assert made(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"iter_size": 3},
        {"type": "Adam", "momentum2": 0.999},
        {"clip_gradients": 0.1, "regularization_type": "L1"},
    ],
)
def test_a_solver_takes_the_same_steps(fields, tmp_path, monkeypatch):
    (tmp_path / "net.prototxt").write_text(text.dump(train_net(4, "xs_resnet50", 32, 4)))
    param = SolverParameter(
        net=str(tmp_path / "net.prototxt"), base_lr=0.0001, lr_policy="fixed", momentum=0.9,
        weight_decay=0.001, random_seed=3, snapshot_prefix=str(tmp_path / "s"), **fields,
    )  # fmt: skip
    found = []
    for served in (True, False):
        if not served:
            monkeypatch.setattr(direct, "serves", lambda *_: False)
        solver = Solver(param, Choices(channels_last=True))
        before = [one.blob.detach().clone() for one in solver.net.learned]
        solver.step(3)
        assert (solver.runner.plan is not None) == served
        moved = [one.blob.detach() - old for one, old in zip(solver.net.learned, before)]
        found.append((solver.losses[-1], moved))
        solver.close()
    (loss, moved), (wanted, theirs) = found
    assert loss == pytest.approx(wanted, rel=1e-9)
    assert _norm([a - b for a, b in zip(moved, theirs)]) < 1e-6 * _norm(theirs)


@pytest.mark.parametrize(("name", "width", "size", "batch"), NETS)
def test_test_nets_have_the_same_outputs(name, width, size, batch):
    torch.manual_seed(1)
    train, net = (Net(train_net(batch, name, size, width), phase) for phase in (TRAIN, TEST))
    train()  # for its statistics
    net.share(train)
    order.arrange(net, True)
    found = []
    plan = direct.Plan(net, learn=False)
    for run in (net, plan.forward):
        torch.manual_seed(2)
        with torch.no_grad():
            found.append({name: top.clone() for name, top in run().items()})
    compare(found)


def _norm(arrays: list[torch.Tensor]) -> float:
    return torch.cat([array.flatten() for array in arrays]).norm().item()


@pytest.mark.parametrize(
    ("size", "width", "batch", "served"),
    [(32, 4, 2, True), (96, 8, 32, None), (32, 64, 8, None), (224, 64, 4, False)],
)
def test_small_nets_and_tiny_maps_take_it(size, width, batch, served):
    """A small one always, others if channels last is faster: None here."""
    net = Net(train_net(batch, "xs_resnet50", size, width), TRAIN)
    assert direct.serves(net, Choices()) == bool(served)
    assert direct.serves(net, Choices(channels_last=True)) == (served is not False)


def test_other_choices_keep_autograd():
    small = Net(train_net(2, "xs_resnet50", 32, 4), TRAIN)
    assert direct.serves(small, Choices()) and direct.serves(small, Choices(channels_last=True))
    for choices in (Choices(bf16=True), Choices(compile=True), Choices(channels_last=False),
                    Choices(device="cuda")):  # fmt: skip
        assert not direct.serves(small, choices)
