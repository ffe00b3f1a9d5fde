"""A folded net that runs by a plan: the layers' results, and the layers where they are needed."""

from __future__ import annotations

import copy
import threading

import pytest

torch = pytest.importorskip("torch", reason="NO PYTORCH HERE: pip install '.[torch]'")

from netgen import Task, build  # noqa: E402
from torchcaffe import direct  # noqa: E402
from torchcaffe.folded import Folded  # noqa: E402
from torchcaffe.net import Net  # noqa: E402
from xresnet.caffeproto import TEST  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def plain():
    torch.manual_seed(0)
    tasks = (Task("a", 3), Task("b", 2))
    options = {"input_size": 32, "width": 4, "blocks": (1, 1, 1, 1)}
    net = Net(build("xs_resnet50", tasks=tasks, **options).proto(deploy=True), TEST)
    for layer in net.layers():
        if layer.param.type == "BatchNorm":
            layer.blobs[0].normal_()
            layer.blobs[1].fill_(2)
            layer.blobs[2].fill_(1)
    return net.requires_grad_(False)


@pytest.fixture
def planned(monkeypatch):
    """Counts the passes that a plan makes."""
    forward, passes = direct.Plan.forward, []

    def counted(plan, **fed):
        passes.append(1)
        return forward(plan, **fed)

    monkeypatch.setattr(direct.Plan, "forward", counted)
    return passes


def same(found: dict, wanted: dict) -> bool:
    return found.keys() == wanted.keys() and all(
        torch.allclose(found[name], wanted[name].to(found[name].dtype), atol=1e-5) for name in found
    )


def test_it_runs_by_a_plan_for_each_shape_of_inputs(plain, planned):
    net = Folded(plain)
    for batch in (1, 3, 1):
        x = torch.randn(batch, 3, 32, 32)
        first = net(x)
        assert same(first, plain(x))
        kept = {name: top.clone() for name, top in first.items()}
        net(torch.randn(batch, 3, 32, 32))
        assert same(first, kept)  # its own memory, not the plan's
    assert len(planned) == 6 and len(net._plans) == 2


def test_what_a_plan_rests_on_may_change(plain, planned):
    x = torch.randn(2, 3, 32, 32)
    net = Folded(plain)
    net(x)
    other = Folded(plain)
    for array in other.parameters():
        array.mul_(0.9)
    wanted = other.double()(x.double())
    assert len(planned) == 1  # none for double precision
    net.load_state_dict(other.float().state_dict())
    assert same(net(x), wanted)
    net.load_state_dict(Folded(plain).state_dict(), assign=True)
    assert same(net(x), plain(x))
    again = copy.deepcopy(net)
    for array in again.parameters():
        array.mul_(0.9)
    assert same(again(x), wanted) and same(net(x), plain(x))
    assert len(planned) == 5


def test_layers_run_where_they_are_needed(plain, planned):
    net = Folded(plain)
    x = torch.randn(2, 3, 32, 32)
    image = x.clone().requires_grad_()
    top = next(iter(net(image).values()))
    (gradient,) = torch.autograd.grad(top[:, 0].sum(), image)
    assert gradient.abs().sum() > 0
    seen = []
    handle = net.layer_named("conv1").register_forward_hook(lambda *_: seen.append(1))
    net(x)
    assert seen == [1]
    handle.remove()
    wanted = plain(x)
    found, slope = torch.func.jvp(net, (x,), (torch.ones_like(x),))
    assert same(found, wanted) and all(top.abs().sum() > 0 for top in slope.values())
    traced = torch.jit.trace(lambda x: next(iter(net(x).values())), x, check_trace=False)
    assert torch.allclose(traced(x[:1]), next(iter(wanted.values()))[:1], atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        net(x)
    assert not planned
    net(x)
    assert planned


def test_threads_do_not_share_memory(plain):
    net = Folded(plain)
    images = [torch.randn(1, 3, 32, 32) for _ in range(4)]
    wanted = [plain(x) for x in images]
    wrong = []

    def run(i: int) -> None:
        for _ in range(20):
            wrong.extend([] if same(net(images[i]), wanted[i]) else [i])

    threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
