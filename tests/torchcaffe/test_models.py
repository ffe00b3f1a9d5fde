"""Models for PyTorch people: scores, losses, BatchNorm's modes, files, exporters, the notebook."""

from __future__ import annotations

import copy
import importlib
import json
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="NO PYTORCH HERE: pip install '.[torch]'")

import torchcaffe  # noqa: E402
from netgen.catalog import CATALOG  # noqa: E402
from netgen.command import generate  # noqa: E402
from netgen.weights.command import main as weights_main  # noqa: E402
from tests.torchcaffe.oracle import Case, ask_caffe, error  # noqa: E402
from torchcaffe import blobs, export  # noqa: E402
from torchcaffe.net import Net  # noqa: E402
from xresnet.basics.cli import UserError  # noqa: E402
from xresnet.caffeproto import TEST, TRAIN, NetParameter, text  # noqa: E402

torch.set_num_threads(1)

TASKS = {"kind": 2, "class": 10}
SMALL = {"width": 4, "input_size": 64, "blocks": (1, 1, 1, 2)}
WORDS = ["--tasks", "kind:2,class:10", "--width", "4", "--input-size", "64", "--blocks", "1,1,1,2"]


@pytest.fixture
def model(root):
    """The one that the README promises, small."""
    torch.manual_seed(0)
    return torch.hub.load(str(root), "xs_resnet50", source="local", tasks=TASKS, **SMALL)


def batch(count: int = 6) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    random = torch.Generator().manual_seed(count)
    images = torch.rand(count, 3, 64, 64, generator=random)
    truth = {name: torch.randint(k, (count,), generator=random) for name, k in TASKS.items()}
    return images, truth


def test_hub_has_every_net(root, monkeypatch):
    monkeypatch.syspath_prepend(str(root))
    hubconf = importlib.import_module("hubconf")
    offered = {n for n, f in vars(hubconf).items() if callable(f) and not n.startswith("_")}
    assert offered == set(CATALOG)
    assert "weights" in hubconf.xs_resnet50.__doc__
    asked = {name.split(".")[0] for name in hubconf.dependencies}
    known = {"cv2", "h5py", "jinja2", "lmdb", "matplotlib", "numpy", "torch", "tqdm"}
    command = [sys.executable, "-c", "import sys, hubconf; print(*sys.modules)"]
    modules = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    assert known & set(modules.split()) <= asked


def test_all_parameters_train_in_a_loop_of_pytorchs(model):
    images, truth = batch()
    optimiser = torch.optim.SGD(model.groups(lr=0.01, weight_decay=1e-4), momentum=0.9)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    losses = []
    for _ in range(8):
        scores = model(model.prepare(images))
        assert {k: v.shape for k, v in scores.items()} == {"kind": (6, 2), "class": (6, 10)}
        loss = model.loss(scores, truth)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad
        assert not torch.equal(parameter, before[name]), name
    metrics = model.metrics(scores, truth)
    assert set(metrics) == {f"{what}_{t}" for what in ("loss", "top1", "top5") for t in TASKS}
    share = (scores["class"].argmax(1) == truth["class"]).float().mean()
    assert metrics["top1_class"] == share
    by_torch = sum(torch.nn.functional.cross_entropy(scores[t], truth[t]) for t in TASKS)
    assert abs(by_torch.item() - losses[-1]) < 1e-6


def test_batch_norm_is_what_pytorch_people_expect(model):
    images, _ = batch()
    x = model.prepare(images)
    norm = model.body.layer_named("bn_conv1")
    torch.testing.assert_close(norm.running()[1], torch.ones(4))  # before the first batch
    state = [b.clone() for b in norm.blobs]
    model.eval()
    one_by_one = torch.cat([model(x[i : i + 1])["kind"] for i in range(6)])
    torch.testing.assert_close(model(x)["kind"], one_by_one, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(state, norm.blobs))
    model.train()
    model(x)
    seen = model.body.layer_named("conv1")(x)
    mean, var = norm.running()
    torch.testing.assert_close(mean, seen.mean((0, 2, 3)), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(var, seen.var((0, 2, 3)), rtol=1e-4, atol=1e-3)
    before = mean
    model(model.prepare(images.flip(0) / 2))
    assert not torch.equal(norm.running()[0], before)
    before = norm.running()[0]
    norm.eval()  # one alone
    model(model.prepare(images))
    assert torch.equal(norm.running()[0], before)
    assert model.body.layer_named("bn2a_branch2a").train_phase


def test_unfreezing_a_loaded_net_trains_it(tmp_path):
    path = tmp_path / "d.prototxt"
    path.write_text(generate(["xs_resnet50", *WORDS, "--deploy"]))
    net = torchcaffe.load(path, fold=False).requires_grad_(True)
    loss = sum(top.sum() for top in net(torch.rand(2, 3, 64, 64)).values())
    loss.backward()
    with pytest.raises(UserError, match="takes data, and no more"):
        net(torch.rand(2, 3, 64, 64), torch.rand(2))


def test_state_dict_deepcopy_and_caffemodel_come_back(model, tmp_path):
    images, _ = batch()
    x = model.prepare(images)
    model(x)  # statistics move
    torch.save(model.state_dict(), tmp_path / "m.pt")
    model.save(tmp_path / "m.caffemodel")
    wanted = model.eval()(x)
    again = torchcaffe.create_model("xs_resnet50", TASKS, **SMALL)
    again.load_state_dict(torch.load(tmp_path / "m.pt"))
    third = torchcaffe.create_model("xs_resnet50", TASKS, tmp_path / "m.caffemodel", **SMALL)
    for other in (again, third, copy.deepcopy(model)):
        found = other.eval()(x)
        assert all(torch.equal(found[task], wanted[task]) for task in TASKS)
    moved = copy.deepcopy(model).double()
    assert moved.body.learned[1].blob.dtype == torch.float64
    assert error(moved(x.double())["class"].detach().numpy(), wanted["class"].detach()) < 1e-4


@pytest.mark.caffe
def test_the_prototxt_in_real_caffe_gives_the_same(model, caffe_tools, tmp_path):
    """Scores in evaluation and the loss in training, from the file that the model wrote."""
    images, truth = batch(4)
    x = model.prepare(images)
    for _ in range(3):
        model(x)
    model.save(tmp_path / "m.caffemodel")
    found = model.eval()(x)
    weights = blobs.read_net(tmp_path / "m.caffemodel")
    arrays = {(one.name, i): blobs.from_proto(blob) for one in weights.layer
              for i, blob in enumerate(one.blobs)}  # fmt: skip
    deploy = text.loads(generate(["xs_resnet50", *WORDS, "--deploy"]), NetParameter)
    deploy.layer[0].input_param.shape[0].dim[0] = 4
    train = text.loads(generate(["xs_resnet50", *WORDS]), NetParameter)
    for layer in train.layer:
        if layer.type == "Data":
            size = [4, 3, 64, 64] if layer.top[0] == "data" else [4, 2, 1, 1]
            layer.type = "Input"
            layer.input_param.shape.add(dim=size)
    labels = np.stack([truth[task].numpy() for task in TASKS], 1)[..., None, None]
    cases = [
        Case(deploy, {"data": x.numpy()}, arrays, phase=TEST, backward=False),
        Case(train, {"data": x.numpy(), "label": labels.astype(np.float32)}, arrays, phase=TRAIN),
    ]
    tested, trained = ask_caffe(cases, tmp_path, caffe_tools)
    for task in TASKS:
        assert error(found[task].detach().numpy(), tested[f"top fc_{task}"]) < 1e-4
    model.train()
    metrics = model.metrics(model(x), truth)
    for task in TASKS:
        assert error(metrics[f"loss_{task}"].item(), trained[f"top loss_{task}"]) < 1e-5
    for i, blob in enumerate(model.body.layer_named("bn_conv1").blobs):
        assert error(blob.numpy(), trained[f"after bn_conv1 {i}"]) < 1e-5


def test_published_weights_start_it_as_netgen_does(tmp_path):
    single = torchcaffe.create_model("resnet50", {"noun": 5}, **SMALL)
    single.save(tmp_path / "resnet50.caffemodel")
    model = torchcaffe.create_model("xs_resnet50", TASKS, tmp_path / "resnet50.caffemodel", **SMALL)
    out = tmp_path / "xs.caffemodel"
    source = ["--from", str(tmp_path / "resnet50.caffemodel"), "--out", str(out)]
    assert weights_main(["init", "xs_resnet50", *WORDS, *source]) == 0
    given = blobs.read_net(out)
    assert len(given.layer) > 20
    for layer in given.layer:
        for mine, theirs in zip(model.body.layer_named(layer.name).blobs, layer.blobs):
            np.testing.assert_array_equal(mine.detach().numpy(), blobs.from_proto(theirs))


def test_a_prototxt_for_training_is_a_model_without_its_databases(tmp_path):
    path = tmp_path / "train.prototxt"
    path.write_text(generate(["inception_v1", "--task", "noun", "--tasks", "noun:4"]))
    model = torchcaffe.Model(path, shapes={"data": (3, 224, 224), "label_noun": (1, 1, 1)})
    assert model.targets == ["label_noun"]
    assert model.outputs[-1] == "loss3/classifier_noun"
    scores = model(torch.rand(2, 3, 224, 224))
    losses = model.metrics(scores, torch.tensor([1, 3]))
    total = 0.3 * (losses["loss1/loss_noun"] + losses["loss2/loss_noun"]) + losses["loss_noun"]
    assert model.loss(scores, {"label_noun": torch.tensor([1, 3])}).item() == total.item()
    model.eval()
    assert torch.equal(model(torch.ones(1, 3, 224, 224))[model.outputs[-1]],
                       model(torch.ones(1, 3, 224, 224))[model.outputs[-1]])  # fmt: skip


@pytest.mark.parametrize("name", ["rock_resnet50", "xg_resnet50", "cross_stitch_resnet50"])
def test_other_nets_are_models_too(name):
    more = {"primary": "kind"} if name.startswith("rock") else {}
    model = torchcaffe.create_model(name, TASKS, **SMALL, **more)
    images, truth = batch(3)
    scores = model(model.prepare(images))
    assert {task: scores[task].shape for task in TASKS} == {"kind": (3, 2), "class": (3, 10)}
    model.loss(scores, truth).backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (lambda: torchcaffe.create_model("xs_resnet5"), "did you mean 'x[as0]_resnet50'"),
        (
            lambda: torchcaffe.create_model("xs_resnet50", {"a b": 2}),
            "'a b' must consist of letters",
        ),
        (lambda: torchcaffe.create_model("xs_resnet50", {"a": 0}), "classes"),
        (lambda: torchcaffe.create_model("xs_resnet50", ["a"]), "tasks are a dict"),
        (lambda: torchcaffe.create_model("xs_resnet50", wdith=3), "no option 'wdith' .*'width'"),
        (lambda: torchcaffe.create_model("xs_resnet50", TASKS, "none.h5", **SMALL), "none.h5"),
        (lambda: torchcaffe.Model("none.prototxt"), "cannot read none.prototxt"),
    ],
)
def test_mistakes_are_told(ask, told):
    with pytest.raises(UserError, match=told):
        ask()


def test_targets_that_are_missing_are_told(model, tmp_path):
    images, truth = batch()
    scores = model(images)
    with pytest.raises(UserError, match="no 'class'; wanted: kind, class"):
        model.loss(scores, {"kind": truth["kind"]})
    with pytest.raises(UserError, match="a dict of kind, class"):
        model.loss(scores, truth["kind"])
    path = tmp_path / "d.prototxt"
    path.write_text(generate(["xs_resnet50", *WORDS, "--deploy"]))
    deploy = torchcaffe.Model(path)
    with pytest.raises(UserError, match="has no losses"):
        deploy.loss(deploy(images), truth)


def test_onnx_takes_any_batch(model, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="NO ONNXRUNTIME HERE")
    images, _ = batch()
    model(model.prepare(images))
    assert export.onnx(model, tmp_path / "m.onnx") < 1e-4
    assert model.training
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"))
    model.eval()
    for count in (1, 7):
        x = model.prepare(batch(count)[0])
        for name, found in zip(model.outputs, session.run(None, {"data": x.numpy()})):
            assert error(found, model(x)[name].detach().numpy()) < 1e-4
    fixed = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: [2, 6] } } } '
    fixed += 'layer { name: "r" type: "Reshape" bottom: "x" top: "r" '
    fixed += "reshape_param { shape { dim: [2, 2, 3] } } }"
    assert export.onnx(Net(text.loads(fixed, NetParameter), TEST), tmp_path / "f.onnx") == 0
    session = onnxruntime.InferenceSession(str(tmp_path / "f.onnx"))
    assert session.get_inputs()[0].shape == [2, 6]


def test_torch_export_takes_any_batch(model):
    x = model.prepare(batch(4)[0])
    model(x)
    model.eval()
    dynamic = (({0: torch.export.Dim("batch")},),)
    exported = torch.export.export(model, (x,), dynamic_shapes=dynamic).module()
    for count in (1, 7):
        x = model.prepare(batch(count)[0])
        for task in TASKS:
            torch.testing.assert_close(exported(x)[task], model(x)[task], rtol=1e-4, atol=1e-4)


def test_torch_compile_trains_it(model):
    """Traced forward and backward as torch.compile traces them, without its slow C++ compiler."""
    plain = copy.deepcopy(model)
    images, truth = batch(4)
    x = model.prepare(images)
    compiled = torch.compile(model, backend="aot_eager")
    found = []
    for one in (compiled, plain):
        one.loss(one(x), truth).backward()
        found.append([p.grad for p in one.parameters()])
    largest = max(gradient.norm() for gradient in found[1])
    for a, b in zip(*found):
        assert (a - b).norm() < 1e-3 * max(b.norm(), 1e-2 * largest)
    for a, b in zip(model.buffers(), plain.buffers()):  # statistics moved alike
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        model.eval(), plain.eval()
        torch.testing.assert_close(compiled(x)["class"], plain(x)["class"], rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_the_notebook_runs(root, tmp_path, monkeypatch):
    """As it is, but on a thinner net, and a file of such a one for the published weights."""
    pytest.importorskip("onnxruntime", reason="NO ONNXRUNTIME HERE")
    thin = {"width": 8, "input_size": 64}
    torchcaffe.create_model("resnet50", {"noun": 5}, **thin).save(tmp_path / "thin.caffemodel")
    (tmp_path / "docs").mkdir()
    (tmp_path / "hubconf.py").symlink_to(root / "hubconf.py")
    monkeypatch.chdir(tmp_path / "docs")
    notebook = json.loads((root / "docs" / "pytorch.ipynb").read_text())
    cells = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    assert '"weights": "imagenet"' in cells[0]
    cells[0] = cells[0].replace('"imagenet"', '"../thin.caffemodel", "width": 8')
    scope: dict = {}
    for cell in cells:
        exec(cell, scope)
    assert scope["worst"] < 1e-4
    assert scope["one_of_ten"].shape == (7, 10)
    assert (tmp_path / "docs" / "mine.caffemodel").stat().st_size > 100_000
