"""What Caffe's files have no word for: memory order, bfloat16, TF32, torch.compile."""

from __future__ import annotations

import shutil

import pytest

torch = pytest.importorskip("torch", reason="NO PYTORCH HERE: pip install '.[torch]'")

from netgen.command import generate  # noqa: E402
from tests.helpers.caffe_nets import write_lmdbs  # noqa: E402
from torchcaffe import direct, order  # noqa: E402
from torchcaffe.__main__ import main  # noqa: E402
from torchcaffe.layers import base  # noqa: E402
from torchcaffe.net import Net  # noqa: E402
from torchcaffe.solver import Choices, Solver  # noqa: E402
from xresnet.basics.cli import UserError  # noqa: E402
from xresnet.caffeproto import TRAIN, NetParameter, SolverParameter, text  # noqa: E402

torch.set_num_threads(1)

SMALL = ["--tasks", "adj:3,anp:7,noun:5", "--width", "4", "--input-size", "48"]


@pytest.fixture(scope="module")
def solver_file(tmp_path_factory):
    """A solver of a small XS net without flips, fed from databases."""
    folder = tmp_path_factory.mktemp("choices")
    write_lmdbs(folder, (3, 7, 5), count=16, size=48)
    words = ["xs_resnet50", *SMALL, "--blocks", "1,1,1,1", "--batch", "8", "--data", str(folder)]
    net = text.loads(generate(words), NetParameter)
    for layer in net.layer:
        layer.transform_param.mirror = False
    (folder / "net.prototxt").write_text(text.dump(net))
    path = folder / "solver.prototxt"
    path.write_text(
        f'net: "{folder}/net.prototxt" base_lr: 0.001 lr_policy: "fixed" momentum: 0.9 '
        f'max_iter: 2 display: 1 random_seed: 7 snapshot_prefix: "{folder}/s" solver_mode: CPU'
    )
    return path


def trained(path, **choices) -> tuple[list[float], Solver]:
    """Losses of three iterations."""
    solver = Solver(text.load(path, SolverParameter), Choices(**choices))
    losses = []
    for _ in range(3):
        solver.step(1)
        losses.append(solver.losses[-1])
    solver.close()
    return losses, solver


def test_channels_last_gives_the_same_numbers_in_another_order(solver_file):
    plain, _ = trained(solver_file, channels_last=False)
    last, solver = trained(solver_file, channels_last=True)
    assert last == pytest.approx(plain, rel=1e-4)
    weight = solver.net.layer_named("res2a_branch2b").blobs[0]
    assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()


def test_bf16_computes_in_bf16_and_keeps_weights_and_statistics_in_float32(solver_file):
    plain, _ = trained(solver_file)
    half, solver = trained(solver_file, bf16=True)
    assert half != plain
    assert half == pytest.approx(plain, rel=0.03)
    assert {one.blob.dtype for one in solver.net.learned} == {torch.float32}
    seen = []
    conv = solver.net.layer_named("res2a_branch2b")
    conv.register_forward_hook(lambda module, given, made: seen.append(made.dtype))
    tops = solver.runner.next()
    assert seen == [torch.bfloat16]
    assert tops["loss_anp"].dtype == torch.float32


@pytest.mark.skipif(not shutil.which("c++"), reason="torch.compile wants a C++ compiler")
@pytest.mark.slow
@pytest.mark.parametrize("how", ["compile", "cuda_graphs"])  # without a GPU the two are one
def test_a_compiled_net_gives_the_same_numbers(solver_file, how):
    plain, _ = trained(solver_file)
    compiled, _ = trained(solver_file, **{how: True})
    assert compiled == pytest.approx(plain, rel=1e-3)


def test_cuda_graphs_are_refused_where_they_would_lose_gradients(solver_file):
    param = text.load(solver_file, SolverParameter)
    param.iter_size = 2
    with pytest.raises(UserError, match="--cuda-graphs needs iter_size 1"):
        Solver(param, Choices(cuda_graphs=True))
    with pytest.raises(UserError, match="--cuda-graphs is for GPUs: give -gpu"):
        main(["train", "-solver", str(solver_file), "--cuda-graphs"])


def test_the_measured_order_is_kept_in_the_snapshot(solver_file, capsys, monkeypatch):
    monkeypatch.setattr(direct, "serves", lambda *_: False)  # as for larger nets
    for gain in (2.0, 0.5):
        monkeypatch.setattr(order, "gain", lambda *_, gain=gain: gain)
        assert main(["train", "-solver", str(solver_file)]) == 0
        assert f"channels-last: {'yes' if gain > 1 else 'no'}" in capsys.readouterr().err
        again = Solver(text.load(solver_file, SolverParameter), Choices())
        again.restore(str(solver_file.parent / "s_iter_2.solverstate"))
        assert again.choices.channels_last == (gain > 1)
        assert again.history[0].stride() == again.net.learned[0].blob.stride()
        again.close()


def test_the_order_is_measured_without_touching_the_net(solver_file):
    solver = Solver(text.load(solver_file, SolverParameter))
    before = [one.blob.detach().clone() for one in solver.net.learned]
    state = torch.get_rng_state()
    assert 0.01 < order.gain(solver.net, torch.device("cpu"), solver.runner.precision) < 100
    assert torch.equal(state, torch.get_rng_state())
    for one, blob in zip(solver.net.learned, before):
        assert torch.equal(one.blob, blob) and one.blob.grad is None
    solver.close()


def test_without_a_gpu_its_flags_say_so(solver_file):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(UserError, match="PyTorch sees no GPU here"):
        main(["train", "-solver", str(solver_file), "-gpu", "0"])
    with pytest.raises(UserError, match="--tf32 is for GPUs: give -gpu"):
        main(["train", "-solver", str(solver_file), "--tf32"])


def test_a_torn_file_beside_the_snapshot_is_one_line(solver_file):
    solver = Solver(text.load(solver_file, SolverParameter), Choices(channels_last=False))
    solver.step(1)
    solver.snapshot()
    (beside,) = solver_file.parent.glob("s_iter_1.torchcaffe")
    beside.write_bytes(beside.read_bytes()[:100])
    state = str(beside.with_suffix(".solverstate"))
    with pytest.raises(UserError, match=r"s_iter_1\.torchcaffe: damaged"):
        solver.restore(state)
    held = {"channels_last": None, "feeds": [], "tests": [], "losses": []}
    for foreign in ({}, [], {"epoch": 3}, {**held, "random": 1}, {**held, "feeds": [{}]},
                    {**held, "feeds": [{"cursor": -1, "seed": 1, "random": None}]},
                    {**held, "losses": ["x"]}):  # fmt: skip
        torch.save(foreign, beside)
        with pytest.raises(UserError, match=r"s_iter_1\.torchcaffe: not ours"):
            solver.restore(state)
    solver.close()


@pytest.mark.parametrize(
    ("width", "size", "batch", "wanted"), [(8, 32, 32, 1), (8, 32, 1, 1), (64, 224, 2, 16)]
)
def test_small_nets_take_one_thread(width, size, batch, wanted, monkeypatch):
    """By size alone, so that runs repeat."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 16)
    words = ["xs_resnet50", "--width", str(width), "--input-size", str(size)]
    proto = text.loads(generate(words), NetParameter)
    fed = {"data": (batch, 3, size, size), "label": (batch, 3, 1, 1)}
    assert order.threads(Net(proto, TRAIN, feed_shapes=fed)) == wanted


def test_the_number_of_threads_that_is_said_stands(solver_file, monkeypatch):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        assert main(["train", "-solver", str(solver_file)]) == 0
        assert torch.get_num_threads() == 2
        monkeypatch.delenv("OMP_NUM_THREADS")
        assert main(["train", "-solver", str(solver_file)]) == 0
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_a_norm_of_one_sample_can_be_traced():
    """As torch.compile does it, without memory; PyTorch's own reckons with 1 / 0 there."""
    net = Net(
        text.loads(
            'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: [1, 4, 1, 1] } } }'
            'layer { name: "b" type: "BatchNorm" bottom: "x" top: "b" }',
            NetParameter,
        ),
        TRAIN,
    )
    assert base._run_without_memory(net.layer_named("b"), [(1, 4, 1, 1)]) == [(1, 4, 1, 1)]
