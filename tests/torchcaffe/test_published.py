"""Nets in the style of the published ones, small, against real Caffe: blobs and gradients.

Written for this test: the idioms are those of the models that people have, old formats among
them, the nets nobody's. `python -m torchcaffe check` and `bench.published` take real files.
"""

from __future__ import annotations

import re
import subprocess

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="NO PYTORCH HERE: pip install '.[torch]'")

from tests.torchcaffe.oracle import Case, ask_caffe, error  # noqa: E402
from torchcaffe import compatible, graph  # noqa: E402
from torchcaffe.layers import LAYERS  # noqa: E402
from torchcaffe.net import Net  # noqa: E402
from xresnet.caffeproto import TRAIN, NetParameter, text  # noqa: E402

torch.set_num_threads(1)

XAVIER = 'weight_filler { type: "xavier" }'
FILL = f'{XAVIER} bias_filler {{ type: "constant" value: 0.1 }}'


def layer(kind: str, name: str, bottoms: str, tops: str, params: str = "") -> str:
    """A line of today's format; bottoms and tops as words."""
    ends = [f'bottom: "{b}"' for b in bottoms.split()] + [f'top: "{t}"' for t in tops.split()]
    return f'layer {{ name: "{name}" type: "{kind}" {" ".join(ends)} {params} }}\n'


def conv(name: str, bottom: str, outputs: int, kernel: int = 1, more: str = "") -> str:
    told = f"num_output: {outputs} kernel_size: {kernel} {FILL} {more}"
    return layer("Convolution", name, bottom, name, f"convolution_param {{ {told} }}")


def relu(blob: str) -> str:
    return layer("ReLU", f"relu_{blob}", blob, blob)


def given(**shapes: list[int]) -> str:
    """Inputs as deploy nets before 2015 began."""
    dims = [d for shape in shapes.values() for d in [*shape, 1, 1, 1][:4]]
    return "".join(f'input: "{name}" ' for name in shapes) + f"input_dim: {dims}\n"


ALEX = (
    given(data=[2, 3, 35, 35], label=[2])
    + f"""
layers {{ name: "conv1" type: CONVOLUTION bottom: "data" top: "conv1" blobs_lr: 1 blobs_lr: 2
  weight_decay: 1 weight_decay: 0
  convolution_param {{ num_output: 8 kernel_size: 7 stride: 2 {FILL} }} }}
layers {{ name: "relu1" type: RELU bottom: "conv1" top: "conv1" }}
layers {{ name: "pool1" type: POOLING bottom: "conv1" top: "pool1"
  pooling_param {{ pool: MAX kernel_size: 3 stride: 2 }} }}
layers {{ name: "norm1" type: LRN bottom: "pool1" top: "norm1"
  lrn_param {{ local_size: 5 alpha: 0.01 beta: 0.75 }} }}
layers {{ name: "conv2" type: CONVOLUTION bottom: "norm1" top: "conv2"
  convolution_param {{ num_output: 8 pad: 2 kernel_size: 5 group: 2 {FILL} }} }}
layers {{ name: "relu2" type: RELU bottom: "conv2" top: "conv2" }}
layers {{ name: "pool2" type: POOLING bottom: "conv2" top: "pool2"
  pooling_param {{ pool: MAX kernel_size: 3 stride: 2 }} }}
layers {{ name: "fc6" type: INNER_PRODUCT bottom: "pool2" top: "fc6"
  inner_product_param {{ num_output: 12 {FILL} }} }}
layers {{ name: "relu6" type: RELU bottom: "fc6" top: "fc6" }}
layers {{ name: "drop6" type: DROPOUT bottom: "fc6" top: "fc6"
  dropout_param {{ dropout_ratio: 0 }} }}
layers {{ name: "fc8" type: INNER_PRODUCT bottom: "fc6" top: "fc8"
  inner_product_param {{ num_output: 5 {FILL} }} }}
layers {{ name: "loss" type: SOFTMAX_LOSS bottom: "fc8" bottom: "label" }}
"""
)

LENET_OF_2013 = (
    given(data=[2, 1, 12, 12], label=[2])
    + f"""
layers {{ layer {{ name: "pad" type: "padding" pad: 2 }} bottom: "data" top: "pad" }}
layers {{ layer {{ name: "conv1" type: "conv" num_output: 6 kernelsize: 5 {FILL}
  blobs_lr: 1 blobs_lr: 2 }} bottom: "pad" top: "conv1" }}
layers {{ layer {{ name: "pool1" type: "pool" pool: MAX kernelsize: 2 stride: 2 }}
  bottom: "conv1" top: "pool1" }}
layers {{ layer {{ name: "norm" type: "lrn" local_size: 3 alpha: 0.1 beta: 0.75 }}
  bottom: "pool1" top: "norm" }}
layers {{ layer {{ name: "ip1" type: "innerproduct" num_output: 10 {FILL} }}
  bottom: "norm" top: "ip1" }}
layers {{ layer {{ name: "relu1" type: "relu" }} bottom: "ip1" top: "ip1" }}
layers {{ layer {{ name: "ip2" type: "innerproduct" num_output: 4 {FILL} }}
  bottom: "ip1" top: "ip2" }}
layers {{ layer {{ name: "loss" type: "softmax_loss" }} bottom: "ip2" bottom: "label" }}
"""
)

CIFAR = given(data=[2, 3, 16, 16], label=[2]) + "".join([
    conv("conv1", "data", 6, 5, "pad: 2"),
    layer("Pooling", "pool1", "conv1", "pool1", "pooling_param { kernel_size: 3 stride: 2 }"),
    relu("pool1"),
    layer("LRN", "norm1", "pool1", "norm1", "lrn_param { local_size: 3 alpha: 0.05 "
          "norm_region: WITHIN_CHANNEL }"),
    conv("conv2", "norm1", 6, 5, "pad: 2"),
    relu("conv2"),
    layer("Pooling", "pool2", "conv2", "pool2",
          "pooling_param { pool: AVE kernel_size: 3 stride: 2 }"),
    layer("InnerProduct", "ip1", "pool2", "ip1", f"inner_product_param {{ num_output: 4 {FILL} }}"),
    layer("SoftmaxWithLoss", "loss", "ip1 label", "loss"),
    layer("Accuracy", "accuracy", "ip1 label", "accuracy"),
])  # fmt: skip

INCEPTION = given(data=[2, 3, 20, 20], label=[2]) + "".join([
    conv("conv1", "data", 8, 7, "stride: 2 pad: 3"), relu("conv1"),
    layer("Pooling", "pool1", "conv1", "pool1", "pooling_param { kernel_size: 3 stride: 2 }"),
    conv("inception/1x1", "pool1", 4), relu("inception/1x1"),
    conv("inception/3x3_reduce", "pool1", 3), relu("inception/3x3_reduce"),
    conv("inception/3x3", "inception/3x3_reduce", 5, 3, "pad: 1"), relu("inception/3x3"),
    layer("Pooling", "inception/pool", "pool1", "inception/pool",
          "pooling_param { kernel_size: 3 stride: 1 pad: 1 }"),
    layer("Concat", "inception/output", "inception/1x1 inception/3x3 inception/pool",
          "inception/output"),
    layer("Pooling", "loss1/pool", "inception/output", "loss1/pool",
          "pooling_param { pool: AVE kernel_size: 3 stride: 3 }"),
    layer("InnerProduct", "loss1/fc", "loss1/pool", "loss1/fc",
          f"inner_product_param {{ num_output: 4 {FILL} }}"),
    layer("SoftmaxWithLoss", "loss1/loss", "loss1/fc label", "loss1/loss", "loss_weight: 0.3"),
    layer("Pooling", "pool5", "inception/output", "pool5",
          "pooling_param { pool: AVE global_pooling: true }"),
    layer("InnerProduct", "fc", "pool5", "fc", f"inner_product_param {{ num_output: 4 {FILL} }}"),
    layer("SoftmaxWithLoss", "loss3", "fc label", "loss3"),
])  # fmt: skip

FIRE = given(data=[2, 3, 21, 21], label=[2]) + "".join([
    conv("conv1", "data", 6, 3, "stride: 2"), relu("conv1"),
    layer("Pooling", "pool1", "conv1", "pool1", "pooling_param { kernel_size: 3 stride: 2 }"),
    conv("fire2/squeeze1x1", "pool1", 3), relu("fire2/squeeze1x1"),
    conv("fire2/expand1x1", "fire2/squeeze1x1", 4), relu("fire2/expand1x1"),
    conv("fire2/expand3x3", "fire2/squeeze1x1", 4, 3, "pad: 1"), relu("fire2/expand3x3"),
    layer("Concat", "fire2/concat", "fire2/expand1x1 fire2/expand3x3", "fire2/concat"),
    layer("Dropout", "drop", "fire2/concat", "fire2/concat",
          "dropout_param { dropout_ratio: 0 }"),
    conv("conv10", "fire2/concat", 5), relu("conv10"),
    layer("Pooling", "pool10", "conv10", "pool10",
          "pooling_param { pool: AVE global_pooling: true }"),
    layer("SoftmaxWithLoss", "loss", "pool10 label", "loss"),
])  # fmt: skip

ONCE = "param { lr_mult: 1 decay_mult: 0 }"


def norm(blob: str) -> str:
    """In place, with the three multipliers that files from before 2016 have."""
    given = "batch_norm_param { eps: 1e-5 }"
    return (
        layer("BatchNorm", f"{blob}/bn", blob, blob, f"{given} {ONCE} {ONCE} {ONCE}")
        + layer("Scale", f"{blob}/scale", blob, blob, "scale_param { bias_term: true "
                "filler { value: 0.7 } bias_filler { value: 0.1 } }")
    )  # fmt: skip


SEPARABLE = given(data=[3, 3, 16, 16], label=[3]) + "".join([
    conv("conv1", "data", 8, 3, "bias_term: false pad: 1 stride: 2"), norm("conv1"), relu("conv1"),
    conv("conv2/dw", "conv1", 8, 3, "bias_term: false pad: 1 group: 8 engine: CAFFE"),
    norm("conv2/dw"), relu("conv2/dw"),
    conv("conv2/sep", "conv2/dw", 8, 1, "bias_term: false"), norm("conv2/sep"),
    layer("Eltwise", "sum", "conv1 conv2/sep", "sum"),
    layer("Pooling", "pool", "sum", "pool", "pooling_param { pool: AVE global_pooling: true }"),
    conv("fc", "pool", 5),
    layer("Flatten", "flat", "fc", "flat"),
    layer("SoftmaxWithLoss", "loss", "flat label", "loss"),
])  # fmt: skip

FULLY = given(data=[1, 3, 24, 24], label=[1, 1, 24, 24]) + "".join([
    conv("conv1", "data", 6, 3, "pad: 10"), relu("conv1"),
    layer("Pooling", "pool1", "conv1", "pool1", "pooling_param { kernel_size: 2 stride: 2 }"),
    conv("fc", "pool1", 8, 3), relu("fc"), conv("score", "fc", 3),
    conv("score_skip", "conv1", 3),
    layer("Deconvolution", "up", "score", "up", "convolution_param { num_output: 3 group: 3 "
          'kernel_size: 4 stride: 2 bias_term: false weight_filler { type: "bilinear" } }'),
    layer("Crop", "crop", "score_skip up", "crop", "crop_param { axis: 2 offset: 2 }"),
    layer("Eltwise", "fuse", "crop up", "fuse", "eltwise_param { operation: SUM }"),
    layer("Crop", "cut", "fuse data", "cut", "crop_param { axis: 2 offset: 4 }"),
    layer("SoftmaxWithLoss", "loss", "cut label", "loss",
          "loss_param { ignore_label: 2 normalize: false }"),
])  # fmt: skip


def tower(mark: str, image: str) -> str:
    """One half of a siamese net; weights are shared by name."""
    names = [f'param {{ name: "{n}" lr_mult: 1 }}' for n in ("cw", "cb", "fw", "fb")]
    shared = conv(f"conv{mark}", image, 4, 3)
    fc = layer("InnerProduct", f"feat{mark}", f"conv{mark}", f"feat{mark}",
               f"inner_product_param {{ num_output: 3 {FILL} }} {names[2]} {names[3]}")  # fmt: skip
    return shared.replace("} }\n", f"}} {names[0]} {names[1]} }}\n") + relu(f"conv{mark}") + fc


SIAMESE = given(pair=[4, 2, 9, 9], sim=[4]) + "".join([
    layer("Slice", "slice", "pair", "a b", "slice_param { slice_dim: 1 slice_point: 1 }"),
    tower("", "a"), tower("_p", "b"),
    layer("ContrastiveLoss", "loss", "feat feat_p sim", "loss",
          "contrastive_loss_param { margin: 1 }"),
])  # fmt: skip

CAPTION = given(data=[3, 2, 6, 6], words=[4, 3], cont=[4, 3], target=[4, 3]).replace(
    "4, 3, 1, 1", "4, 3, 1, 1") + "".join([
    conv("conv1", "data", 4, 3), relu("conv1"),
    layer("InnerProduct", "fc8", "conv1", "fc8", f"inner_product_param {{ num_output: 5 {FILL} }}"),
    layer("Reshape", "w", "words", "w", "reshape_param { shape { dim: [4, 3] } }"),
    layer("Reshape", "c", "cont", "c", "reshape_param { shape { dim: [4, 3] } }"),
    layer("Embed", "embedding", "w", "embedding", "embed_param { input_dim: 6 num_output: 4 "
          f'bias_term: false {XAVIER} }} propagate_down: false'),
    layer("LSTM", "lstm1", "embedding c fc8", "lstm1",
          f"recurrent_param {{ num_output: 5 {FILL} }}"),
    layer("InnerProduct", "predict", "lstm1", "predict",
          f"inner_product_param {{ num_output: 6 axis: 2 {FILL} }}"),
    layer("SoftmaxWithLoss", "loss", "predict target", "loss",
          "softmax_param { axis: 2 } loss_weight: 4 loss_param { ignore_label: 1 }"),
])  # fmt: skip

NETS = {
    "alex": ALEX,
    "lenet of 2013": LENET_OF_2013,
    "cifar": CIFAR,
    "inception": INCEPTION,
    "fire": FIRE,
    "separable": SEPARABLE,
    "fully": FULLY,
    "siamese": SIAMESE,
    "caption": CAPTION,
}
CLASSES = {"label": 2, "sim": 2, "cont": 2, "words": 6, "target": 6}


def case(name: str) -> tuple[Case, Net]:
    proto = text.loads(NETS[name], NetParameter, name)
    rng = np.random.default_rng(len(name))
    torch.manual_seed(len(name))
    net = Net(proto, TRAIN)
    bottoms = {}
    for blob, shape in net.inputs.items():
        k = CLASSES.get(blob)
        array = rng.integers(0, k, shape) if k else rng.normal(0, 1, shape)
        bottoms[blob] = array.astype(np.float32)
    made = Case(proto, bottoms)
    for one in net.learned:
        made.blobs[one.name, one.index] = one.blob.detach().numpy().copy()
    return made, net


@pytest.mark.caffe
def test_nets_of_every_style_are_caffes(caffe_tools, tmp_path):
    pairs = {name: case(name) for name in NETS}
    answers = ask_caffe([made for made, _ in pairs.values()], tmp_path, caffe_tools)
    for (name, (made, net)), caffe in zip(pairs.items(), answers):
        fed = {k: torch.from_numpy(v) for k, v in made.bottoms.items()}
        tops = net(**fed)
        net.loss(tops).backward()
        for blob, found in tops.items():
            wanted = caffe[f"top {blob}"]
            assert error(found.detach().numpy(), wanted) < 1e-4, f"{name}: {blob}"
        largest = max(np.abs(g).max() for key, g in caffe.items() if key.startswith("grad"))
        assert largest > 1e-3, name
        moved = 0
        for one in net.learned:
            if one.blob.grad is None:
                continue
            off = np.abs(one.blob.grad.numpy() - caffe[f"grad {one.name} {one.index}"]).max()
            assert off < 1e-3 * largest, f"{name}: gradient {one.name} {one.index}"
            moved += 1
        assert moved > 3, name


def test_all_of_them_run_as_check_tells():
    for name, told in NETS.items():
        layers, faults = compatible.check(text.loads(told, NetParameter), TRAIN)
        assert not faults and len(layers) > 5, name


@pytest.mark.caffe
def test_the_table_names_each_of_caffes_types_and_what_becomes_of_it(caffe_tools, root):
    ask = "import caffe; print(' '.join(caffe.layer_type_list()))"
    ran = subprocess.run([caffe_tools["pycaffe"], "-c", ask], capture_output=True, text=True)
    caffes = set(ran.stdout.split())
    assert len(caffes) > 50
    document = (root / "docs" / "ENGINE.md").read_text()
    section = document[document.index("## Run any Caffe model") :]
    rows = dict(re.findall(r"^\| (served|refused)[^|]* \| (.*) \|$", section, re.M))
    served, refused = (set(re.findall(r"`(\w+)`", rows[word])) for word in ("served", "refused"))
    assert served | refused == caffes
    assert served == {*LAYERS, *graph.FED} & caffes
    assert {*LAYERS, *graph.FED} <= caffes
