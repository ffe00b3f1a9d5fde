"""Each layer type against real Caffe: outputs and gradients over random parameters."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="NO PYTORCH HERE: pip install '.[torch]'")

from tests.torchcaffe.cases import MAKERS, NO_BACKWARD, case  # noqa: E402
from tests.torchcaffe.oracle import Case, ask_caffe, error  # noqa: E402
from torchcaffe import blobs  # noqa: E402
from torchcaffe.net import Net  # noqa: E402
from xresnet.basics.cli import UserError  # noqa: E402
from xresnet.caffeproto import TEST, NetParameter, text  # noqa: E402

EACH = 14  # cases of each kind


def prepare(made: Case, seed: int) -> Net:
    """Our net of the case, with weights drawn; the case gets them and the tops' gradients."""
    rng = np.random.default_rng(seed)
    net = Net(made.net, made.phase)
    for learned in net.learned:
        values = rng.normal(0, 1, learned.blob.shape).astype(np.float32)
        if net.layer_named(learned.name).param.type == "BatchNorm":
            values = np.abs(values) + 0.5
        made.blobs[learned.name, learned.index] = values
        with torch.no_grad():
            learned.blob.copy_(torch.from_numpy(values))
    if not net.losses:
        for top in made.net.layer[-1].top:
            made.diffs[top] = rng.normal(0, 1, net.shapes[top]).astype(np.float32)
    return net


def check(made: Case, net: Net, caffe: dict[str, np.ndarray], limit: float) -> None:
    layer = made.net.layer[-1]
    bottoms = {k: torch.tensor(v, requires_grad=True) for k, v in made.bottoms.items()}
    for learned in net.learned:
        learned.blob.requires_grad_(net.layer_named(learned.name).learns)
    tops = net(**bottoms)
    for name in layer.top:
        assert net.shapes[name] == tuple(tops[name].shape), f"shape of top {name}"
        assert error(tops[name].detach().numpy(), caffe[f"top {name}"]) < limit, f"top {name}"
    for learned in net.learned:  # running statistics
        after = caffe[f"after {learned.name} {learned.index}"]
        assert error(learned.blob.detach().numpy(), after) < limit, "blob after the pass"
    if layer.type in NO_BACKWARD:
        return
    if net.losses:
        total = net.loss(tops)
    else:
        total = sum((tops[k] * torch.from_numpy(v)).sum() for k, v in made.diffs.items())
    total.backward()
    for name, x in bottoms.items():
        if x.grad is not None:
            assert error(x.grad.numpy(), caffe[f"bottomdiff {name}"]) < limit, f"diff of {name}"
    for learned in net.learned:
        if learned.blob.grad is not None:
            wanted = caffe[f"grad {learned.name} {learned.index}"]
            assert error(learned.blob.grad.numpy(), wanted) < limit, f"gradient {learned.index}"


@pytest.mark.caffe
def test_layers_are_caffes(caffe_tools, tmp_path):
    """Outputs, gradients to bottoms and blobs, and running statistics, to 1e-5."""
    named = [(f"{name} {seed}", case(name, seed)) for name in MAKERS for seed in range(EACH)]
    nets = [prepare(made, i) for i, (_, made) in enumerate(named)]
    answers = ask_caffe([made for _, made in named], tmp_path, caffe_tools)
    wrong = []
    for (name, made), net, caffe in zip(named, nets, answers):
        try:
            check(made, net, caffe, 1e-5)
        except (AssertionError, RuntimeError) as problem:
            wrong.append(f"{name}: {str(problem).splitlines()[0]}; {text.dump(made.net.layer[-1])}")
    assert not wrong, f"{len(wrong)} of {len(named)}\n" + "\n".join(wrong)


BEHIND = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: [4, 3] } } }
layer { name: "y" type: "Input" top: "y" input_param { shape { dim: 4 } } }
layer { name: "n" type: "Input" top: "n" input_param { shape { dim: 4 } } }
layer { name: "m" type: "Input" top: "m" input_param { shape { dim: [1, 1, 3, 3] } } }
layer { name: "fc" type: "InnerProduct" bottom: "x" top: "fc"
  inner_product_param { num_output: 3 } }
layer { name: "some" type: "BatchReindex" bottom: "fc" bottom: "n" top: "some" }
layer { name: "loss" type: "InfogainLoss" bottom: "some" bottom: "y" bottom: "m" top: "loss" }
layer { name: "array" type: "Parameter" top: "array" parameter_param { shape { dim: [4, 3] } } }
layer { name: "far" type: "EuclideanLoss" bottom: "array" bottom: "some" top: "far" }
"""


@pytest.mark.caffe
def test_gradients_through_what_takes_no_forced_ones(caffe_tools, tmp_path):
    rng = np.random.default_rng(0)
    bottoms = {
        "x": rng.normal(0, 1, (4, 3)),
        "y": rng.integers(0, 3, 4),
        "n": np.array([0, 2, 2, 1]),
        "m": rng.random((1, 1, 3, 3)),
    }
    bottoms = {name: array.astype(np.float32) for name, array in bottoms.items()}
    made = Case(text.loads(BEHIND, NetParameter), bottoms)
    net = prepare(made, 0)
    (caffe,) = ask_caffe([made], tmp_path, caffe_tools)
    net.loss(net(**{k: torch.from_numpy(v) for k, v in bottoms.items()})).backward()
    for learned in net.learned:
        wanted = caffe[f"grad {learned.name} {learned.index}"]
        assert np.abs(wanted).max() > 1e-3
        assert error(learned.blob.grad.numpy(), wanted) < 1e-5


def net_of(layers: str) -> Net:
    return Net(text.loads(layers, NetParameter))


DATA = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: [2, 3, 8, 8] } } } '


@pytest.mark.parametrize(
    ("layers", "told"),
    [
        ('layer { name: "a" type: "Convolutoin" bottom: "x" top: "y" }', "did you mean 'Convolu"),
        (
            'layer { name: "a" type: "ReLU" bottom: "xx" top: "y" }',
            "no layer produces its bottom 'xx'",
        ),
        ('layer { name: "a" type: "ReLU" bottom: "x" top: "y" relu_parm { } }', "relu_parm"),
        (
            'layer { name: "a" type: "Convolution" bottom: "x" top: "y" convolution_param '
            '{ num_output: 4 kernel_size: 3 weight_filler { type: "msrb" } } }',
            "layer 'a' (Convolution): unknown filler 'msrb'",
        ),
        (
            'layer { name: "a" type: "Pooling" bottom: "x" top: "y" '
            "pooling_param { pool: STOCHASTIC kernel_size: 2 } }",
            "layer 'a' (Pooling): pool: STOCHASTIC",
        ),
        (
            'layer { name: "a" type: "Scale" bottom: "x" top: "y" scale_param { axis: 7 } }',
            "layer 'a' (Scale): axis 7",
        ),
        (
            'layer { name: "a" type: "Concat" bottom: "x" top: "y" } '
            'layer { name: "a" type: "ReLU" bottom: "y" top: "z" }',
            "two layers have the name 'a'",
        ),
        ('layer { name: "a" type: "ReLU" bottom: "x" top: "x" } '
         'layer { name: "b" type: "Split" top: "x" }', "another layer produces its top 'x'"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_that_names_it(layers, told):
    with pytest.raises(UserError) as caught:
        net_of(DATA + layers)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_dropout_keeps_the_expectation():
    layers = 'layer { name: "d" type: "Dropout" bottom: "x" top: "y" '
    layers += "dropout_param { dropout_ratio: 0.25 } }"
    net = Net(text.loads(DATA + layers, NetParameter), 0)
    torch.manual_seed(0)
    x = torch.ones(2000, 3, 8, 8)
    y = net(x=x)["y"]
    assert y.unique().tolist() == pytest.approx([0, 4 / 3])
    assert abs(y.mean().item() - 1) < 0.01


FILLERS = {
    "uniform": ({"min": -1, "max": 3}, 1.0, 4 / 12**0.5),
    "gaussian": ({"mean": 2, "std": 0.5}, 2.0, 0.5),
    "xavier": ({}, 0.0, (1 / 150) ** 0.5),
    "msra": ({"variance_norm": "AVERAGE"}, 0.0, (2 / ((150 + 300) / 2)) ** 0.5),
}


@pytest.mark.parametrize("kind", FILLERS)
def test_fillers_draw_from_caffes_distributions(kind):
    from torchcaffe.fillers import fill
    from xresnet.caffeproto import LayerParameter

    fields, mean, std = FILLERS[kind]
    layer = LayerParameter(inner_product_param={"weight_filler": {"type": kind, **fields}})
    blob = torch.zeros(300, 150)
    fill(blob, layer.inner_product_param.weight_filler)
    assert blob.mean().item() == pytest.approx(mean, abs=0.02)
    assert blob.std().item() == pytest.approx(std, rel=0.02)


def test_a_cross_weight_starts_as_section_5_2_says():
    from torchcaffe.fillers import fill
    from xresnet.caffeproto import LayerParameter

    filler = {"type": "msra", "variance_norm": "AVERAGE"}
    blob = torch.zeros(2048)
    fill(blob, LayerParameter(scale_param={"filler": filler}).scale_param.filler)
    assert blob.std().item() == pytest.approx(0.0442, rel=0.05)


INPUT = 'name: "x" type: "Input" top: "x" input_param { shape { dim: [1, 4, 6, 6] } }'
CONV = (
    'name: "c" type: "Convolution" bottom: "x" top: "c" '
    "convolution_param { num_output: 2 kernel_size: 3 %s }"
)
STRANGE = [
    "fi",
    "ﬁ",
    "a²",
    "a_",
    "a__",
    "ª",
    "a",
    "1",
    "del",
    "None",
    "F",
    "torch",
    "layer",
    "é",
    "\0",
]


def test_blobs_of_any_name_stay_apart():
    """Python takes the ligature for fi and ª for a: a variable each would be one and the same."""
    proto = NetParameter(name="a\0b")
    shape = {"shape": [{"dim": [1]}]}
    for name in STRANGE:
        proto.layer.add(name=f"in {name}", type="Input", top=[name], input_param=shape)
        proto.layer.add(name=f"out {name}", type="Power", bottom=[name], top=[f"{name} out"])
    net = Net(proto, TEST)
    tops = net(**{name: torch.tensor([float(i)]) for i, name in enumerate(STRANGE)})
    assert [tops[f"{name} out"].item() for name in STRANGE] == list(range(len(STRANGE)))


@pytest.mark.parametrize(
    ("layers", "told"),
    [
        (CONV % "stride: 0", "stride (0, 0): at least 1 on each axis"),
        (CONV % "group: 0", "4 channels and 2 outputs in 0 groups"),
        (CONV % "dilation: 0", "dilation (0, 0): at least 1"),
        ('name: "p" type: "Pooling" bottom: "x" top: "p" '
         "pooling_param { kernel_size: 2 stride: 0 }", "stride (0, 0): at least 1 each"),
        ('name: "b" type: "BatchNorm" bottom: "x" bottom: "x" top: "b"', "takes 1 bottoms, not 2"),
        ('name: "e" type: "Eltwise" bottom: "x" top: "e"', "takes 2 or more bottoms, not 1"),
        ('name: "r" type: "ReLU" bottom: "x" top: "r" top: "q"', "makes 1 tops, not 2"),
        ('name: "i" type: "InnerProduct" bottom: "x" top: "i" inner_product_param '
         "{ num_output: 4000000000 }", "Caffe holds up to 2,147,483,647"),
        ('name: "i" type: "Input" top: "i" input_param { shape { dim: [' + "1, " * 64 + '1] } }',
         "layer 'i': a blob of 65 axes; Caffe has at most 32"),
        ('name: "i" type: "Input" top: "i" input_param { shape { dim: -1 } }', "a blob of -1"),
    ],
)  # fmt: skip
def test_numbers_that_no_layer_has_are_named(layers, told):
    net = f"layer {{ {INPUT} }} layer {{ {layers} }}"
    with pytest.raises(UserError) as caught:
        Net(text.loads(net, NetParameter), TEST)
    assert told in str(caught.value)


def test_weights_of_more_axes_than_caffe_has_are_named():
    net = Net(text.loads(f"layer {{ {INPUT} }} layer {{ {CONV % ''} }}", NetParameter), TEST)
    weights = NetParameter()
    blob = weights.layer.add(name="c").blobs.add(data=[1.0])
    blob.shape.dim.extend([1] * 65)
    with pytest.raises(UserError, match="w: layer 'c' has 1 blobs"):
        net.copy_from(weights, "w")
    with pytest.raises(UserError, match="a blob of 65 axes"):
        blobs.from_proto(blob)


def test_an_infogain_matrix_comes_from_a_file_too(tmp_path):
    matrix = torch.rand(3, 3)
    (tmp_path / "h.binaryproto").write_bytes(blobs.to_proto(matrix).SerializeToString())
    inputs = {"x": torch.rand(2, 3), "y": torch.tensor([0.0, 2.0]), "m": matrix}
    shapes = {name: " ".join(f"dim: {n}" for n in value.shape) for name, value in inputs.items()}
    tops = "".join(
        f'layer {{ name: "{name}" type: "Input" top: "{name}" '
        f"input_param {{ shape {{ {shape} }} }} }}\n"
        for name, shape in shapes.items()
    )
    loss = 'layer { name: "l" type: "InfogainLoss" bottom: "x" bottom: "y" top: "l" %s }'
    found = [
        Net(text.loads(tops + loss % given, NetParameter), TEST)(**inputs)["l"]
        for given in (
            'bottom: "m"',
            f'infogain_loss_param {{ source: "{tmp_path / "h.binaryproto"}" }}',
        )
    ]
    assert float(found[0]) == float(found[1]) > 0
