"""The published ImageNet models in Table 2, as single-task nets.

    caffenet        BVLC's reference CaffeNet (`bvlc_reference_caffenet`)
    inception_v1    BVLC's GoogLeNet (`bvlc_googlenet`)
    vggnet16        VGG's 16-layer ILSVRC net (`VGG_ILSVRC_16_layers`)
    deepsentibank   DeepSentiBank, a CaffeNet for 2,089 ANPs (Chen et al., 2014)

Layers have the published names, because Caffe copies weights by name; only the classifiers'
contain the task, so that fine-tuning initialises them. Groups, LRN, dropout, fillers and
multipliers are as published, with two exceptions: classifiers are initialised as in all other nets
here, and the fillers and multipliers of VGG's net, whose training net was not published, are
*inferred* from the other two.
"""

from __future__ import annotations

from typing import Any, Callable

from netgen.layers import classifier, convolution, head, images, labels, relu
from netgen.net import Net
from netgen.options import Options
from netgen.tasks import Task
from xresnet.basics.cli import UserError

# Weights, and biases, which learn twice as fast and without weight decay.
LEARN: list[dict[str, float]] = [
    {"lr_mult": 1, "decay_mult": 1},
    {"lr_mult": 2, "decay_mult": 0},
]

# ---- CaffeNet -----------------------------------------------------------------


def caffenet(options: Options) -> Net:
    """CaffeNet: AlexNet with pooling before normalisation (section 5.2)."""
    net, x, task = begin("caffenet", f"CaffeNet-{options.task}", CAFFENET_INPUT, options)
    for stage in CAFFENET:
        x = stage(net, x)
    net.group(task.name)
    head(net, x, task, options, f"fc8_{task.name}")
    return net


def deepsentibank(options: Options) -> Net:
    """DeepSentiBank with its authors' names of layers, such as `fc8-t`, to evaluate.

    The paper does not retrain it (section 5.2). `netgen.deepsentibank` finds the paper's ANPs
    among its outputs.
    """
    if not options.deploy:
        raise UserError("deepsentibank is evaluated as published, not trained: add --deploy")
    net, x, _ = begin("deepsentibank", "DeepSentiBank", CAFFENET_INPUT, options)
    for stage in CAFFENET:
        x = stage(net, x)
    net.group("2,089 ANPs")
    x = classifier(net, x, "fc8-t", Task("anp", DEEPSENTIBANK_CLASSES), options)
    net.layer("Softmax", "prob", x)
    return net


DEEPSENTIBANK_CLASSES = 2_089
CAFFENET_INPUT = 39  # the smallest input for which pool5 has an output


def caffenet1(net: Net, x: str, tail: str = "") -> str:
    """conv1 to pool1: 96 channels, 27 x 27 for an input of 227 or 224."""
    net.group(f"conv1{tail}")
    x = conv(net, x, f"conv1{tail}", 96, 11, stride=4, filler=gaussian(0.01), bias=0)
    return max_pool(net, relu(net, x, f"relu1{tail}"), f"pool1{tail}", 3)


def caffenet2(net: Net, x: str, tail: str = "") -> str:
    """norm1 to pool2: 256 channels, 13 x 13; conv2 has a group for each of AlexNet's GPUs."""
    net.group(f"conv2{tail}")
    x = lrn(net, x, f"norm1{tail}")
    x = conv(net, x, f"conv2{tail}", 256, 5, pad=2, group=2, filler=gaussian(0.01), bias=1)
    return max_pool(net, relu(net, x, f"relu2{tail}"), f"pool2{tail}", 3)


def caffenet3(net: Net, x: str, tail: str = "") -> str:
    """norm2 to pool5: 256 channels, 6 x 6."""
    net.group(f"conv3 to conv5{tail}")
    x = lrn(net, x, f"norm2{tail}")
    for i, width, group, bias in ((3, 384, 1, 0), (4, 384, 2, 1), (5, 256, 2, 1)):
        name = f"conv{i}{tail}"
        x = conv(net, x, name, width, 3, pad=1, group=group, filler=gaussian(0.01), bias=bias)
        x = relu(net, x, f"relu{i}{tail}")
    return max_pool(net, x, f"pool5{tail}", 3)


def caffenet6(net: Net, x: str, tail: str = "") -> str:
    """fc6: 4,096 units."""
    return dense(net, x, 6, gaussian(0.005), 1, tail)


def caffenet7(net: Net, x: str, tail: str = "") -> str:
    """fc7: 4,096 units."""
    return dense(net, x, 7, gaussian(0.005), 1, tail)


# Each stage ends where a cross-stitch net joins its towers: poolings, fc6, fc7.
CAFFENET: list[Callable[..., str]] = [caffenet1, caffenet2, caffenet3, caffenet6, caffenet7]

# ---- VGG ----------------------------------------------------------------------

VGG16 = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # channels, convolutions


def vggnet16(options: Options) -> Net:
    """The 16-layer VGG net: 3x3 convolutions in five stages, each followed by a pooling."""
    net, x, task = begin("vggnet16", f"VGG-16-{options.task}", 1, options)
    for i, (width, count) in enumerate(VGG16, start=1):
        net.group(f"conv{i}")
        for j in range(1, count + 1):
            x = conv(net, x, f"conv{i}_{j}", width, 3, pad=1, filler=gaussian(0.01), bias=0)
            x = relu(net, x, f"relu{i}_{j}")
        x = max_pool(net, x, f"pool{i}", 2)
    x = dense(net, x, 6, gaussian(0.01), 0)
    x = dense(net, x, 7, gaussian(0.01), 0)
    net.group(task.name)
    head(net, x, task, options, f"fc8_{task.name}")
    return net


# ---- Inception-v1 -------------------------------------------------------------

# Channels of 1x1, of the reduction before 3x3, of 3x3, likewise for 5x5, of pooling's projection.
INCEPTION = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
POOLED = {"3b": "pool3/3x3_s2", "4e": "pool4/3x3_s2"}  # poolings after a module
AUXILIARY = {"4a": "loss1", "4d": "loss2"}
AUXILIARY_WEIGHT = 0.3
XAVIER = {"type": "xavier"}


def inception_v1(options: Options) -> Net:
    """GoogLeNet: nine Inception modules, and in training two auxiliary classifiers."""
    net, x, task = begin("inception_v1", f"Inception-v1-{options.task}", 47, options)
    net.group("conv1")
    x = conv(net, x, "conv1/7x7_s2", 64, 7, stride=2, pad=3, filler=XAVIER, bias=0.2)
    x = max_pool(net, relu(net, x, "conv1/relu_7x7"), "pool1/3x3_s2", 3)
    x = lrn(net, x, "pool1/norm1")
    net.group("conv2")
    x = unit(net, x, "conv2", "3x3_reduce", 64)
    x = unit(net, x, "conv2", "3x3", 192, kernel=3)
    x = max_pool(net, lrn(net, x, "conv2/norm2"), "pool2/3x3_s2", 3)
    for module, widths in INCEPTION.items():
        x = inception(net, x, f"inception_{module}", *widths)
        if module in AUXILIARY and not options.deploy:
            auxiliary_head(net, x, AUXILIARY[module], task, options)
        if module in POOLED:
            x = max_pool(net, x, POOLED[module], 3)
    net.group(task.name)
    # 7 x 7 at 224: conv1 halves and rounds up, four poolings halve and round down.
    last_map = (options.input_size + 1) // 2 // 16
    pool = {"pool": "AVE", "kernel_size": last_map, "stride": 1}
    x = net.layer("Pooling", "pool5/7x7_s1", x, pooling_param=pool)
    x = dropout(net, x, "pool5/drop_7x7_s1", 0.4)
    head(net, x, task, options, f"loss3/classifier_{task.name}")
    return net


def inception(
    net: Net, x: str, name: str, w1: int, r3: int, w3: int, r5: int, w5: int, wp: int
) -> str:
    """An Inception module: 1x1, 3x3 and 5x5 convolutions and pooling, concatenated."""
    net.group(name)
    branches = [
        unit(net, x, name, "1x1", w1),
        unit(net, unit(net, x, name, "3x3_reduce", r3), name, "3x3", w3, kernel=3),
        unit(net, unit(net, x, name, "5x5_reduce", r5), name, "5x5", w5, kernel=5),
        unit(net, max_pool(net, x, f"{name}/pool", 3, 1, pad=1), name, "pool_proj", wp),
    ]
    return net.layer("Concat", f"{name}/output", *branches)


def unit(net: Net, x: str, name: str, part: str, outputs: int, kernel: int = 1) -> str:
    """A convolution and its ReLU, such as `inception_3a/1x1` and `inception_3a/relu_1x1`."""
    x = conv(net, x, f"{name}/{part}", outputs, kernel, pad=kernel // 2, filler=XAVIER, bias=0.2)
    return relu(net, x, f"{name}/relu_{part}")


def auxiliary_head(net: Net, x: str, name: str, task: Task, options: Options) -> None:
    """An auxiliary classifier with the task's classes; its loss has the weight 0.3.

    The paper says that Table 2 leaves these out, but its numbers of parameters include them.
    """
    net.group(f"{name}: auxiliary head")
    pool = {"pool": "AVE", "kernel_size": 5, "stride": 3}
    x = net.layer("Pooling", f"{name}/ave_pool", x, pooling_param=pool)
    x = unit(net, x, name, "conv", 128)
    x = full(net, x, f"{name}/fc", 1_024, XAVIER, bias=0.2)
    x = dropout(net, relu(net, x, f"{name}/relu_fc"), f"{name}/drop_fc", 0.7)
    x = classifier(net, x, f"{name}/classifier_{task.name}", task, options)
    label, weight = f"label_{task.name}", [AUXILIARY_WEIGHT]
    net.layer("SoftmaxWithLoss", f"{name}/loss_{task.name}", x, label, loss_weight=weight)


# ---- Parts of all of them --------------------------------------------------------


def begin(name: str, title: str, smallest: int, options: Options) -> tuple[Net, str, Task]:
    """A net with images and labels; returns it, the image blob and the task.

    Raises:
        UserError: there is no such task, or the input size is below `smallest`.
    """
    task = options.chosen_task(name)
    if options.input_size < smallest:
        raise UserError(
            f"--input-size {options.input_size} is too small: {name} needs at least {smallest}"
        )
    net = Net(title)
    x = images(net, options)
    labels(net, options, [task])
    return net, x, task


def conv(
    net: Net,
    x: str,
    name: str,
    outputs: int,
    kernel: int,
    *,
    stride: int = 1,
    pad: int = 0,
    group: int = 1,
    filler: dict[str, Any],
    bias: float,
) -> str:
    """A convolution with a bias, N x C x H x W to N x outputs x H' x W'."""
    fillers = {"weight_filler": filler, "bias_filler": constant(bias)}
    return convolution(
        net, x, name, outputs, kernel, stride, pad, group, bias=True, param=LEARN, **fillers
    )


def dense(net: Net, x: str, i: int, filler: dict[str, Any], bias: float, tail: str = "") -> str:
    """fc6 or fc7 of CaffeNet and VGG: 4,096 units, ReLU, dropout of 0.5."""
    net.group(f"fc{i}{tail}")
    x = full(net, x, f"fc{i}{tail}", 4_096, filler, bias)
    return dropout(net, relu(net, x, f"relu{i}{tail}"), f"drop{i}{tail}", 0.5)


def full(net: Net, x: str, name: str, outputs: int, filler: dict[str, Any], bias: float) -> str:
    """A fully connected layer, N x C x H x W to N x outputs."""
    fillers = {"weight_filler": filler, "bias_filler": constant(bias)}
    param = {"num_output": outputs, **fillers}
    return net.layer("InnerProduct", name, x, param=LEARN, inner_product_param=param)


def max_pool(net: Net, x: str, name: str, kernel: int, stride: int = 2, pad: int = 0) -> str:
    """Max pooling; Caffe rounds the number of windows up."""
    param = {"pool": "MAX", "kernel_size": kernel, "stride": stride}
    return net.layer("Pooling", name, x, pooling_param={**param, **({"pad": pad} if pad else {})})


def lrn(net: Net, x: str, name: str) -> str:
    """Local response normalisation across five channels."""
    return net.layer("LRN", name, x, lrn_param={"local_size": 5, "alpha": 0.0001, "beta": 0.75})


def dropout(net: Net, x: str, name: str, ratio: float) -> str:
    """Dropout in place; without effect in TEST."""
    return net.layer("Dropout", name, x, top=x, dropout_param={"dropout_ratio": ratio})


def gaussian(std: float) -> dict[str, Any]:
    """A Gaussian filler."""
    return {"type": "gaussian", "std": std}


def constant(value: float) -> dict[str, Any]:
    """A constant filler."""
    return {"type": "constant", "value": value}
