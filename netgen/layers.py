"""Layers that all nets have: data and labels, classifiers, losses and accuracies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable

from netgen.net import Net
from netgen.options import Options
from netgen.tasks import Task

MSRA = {"type": "msra"}
# For blobs that are not learned, such as BatchNorm's statistics. Without the zeros Caffe would run
# backward for them even in a frozen net.
FROZEN = {"lr_mult": 0, "decay_mult": 0}


def images(net: Net, options: Options, maps: Sequence[int] | None = None) -> str:
    """The image blob `data`, N x 3 x H x W in BGR minus the mean; flipped at random in TRAIN.

    Section 5.2: "We use random flips of the input at training", nothing else. With `maps`
    (C, H, W) the blob holds the cached maps of `from_block`, as they are.
    """
    size = options.input_size
    if options.deploy:
        net.group(f"maps of {options.from_block}" if maps else "image, BGR minus the mean")
        shape = [1, *(maps or (3, size, size))]
        return net.layer("Input", "data", input_param={"shape": [{"dim": shape}]})
    net.group(f"maps of {options.from_block}, cached" if maps else "images")
    transform: dict[str, Any] = {"mean_value": options.mean}
    if options.mean_file:
        transform = {"mean_file": options.mean_file}
    if options.crop:  # at random in TRAIN, from the centre in TEST
        transform["crop_size"] = size
    _data(net, options, "image", "data", None if maps else transform)
    return "data"


def labels(net: Net, options: Options, wanted: list[Task]) -> None:
    """A blob `label_<task>`, N x 1 x 1 x 1, for each task in `wanted`; none in a deploy net.

    Caffe's Data layer has one integer label per record, so the labels are in a database of
    their own: under the key of its image, a record holds one float per task, in their order.
    """
    if options.deploy:
        return
    net.group("labels, one a task")
    names = [f"label_{task.name}" for task in options.tasks]
    top = "label" if len(names) > 1 else names[0]
    _data(net, options, "label", top)
    if len(names) > 1:
        points = list(range(1, len(names)))
        net.layer("Slice", "label_slice", top, top=names, slice_param={"slice_point": points})
    unused = [name for name in names if name not in [f"label_{task.name}" for task in wanted]]
    if unused:
        net.layer("Silence", "label_unused", *unused, top=[])


def _data(
    net: Net, options: Options, kind: str, top: str, transform: dict[str, Any] | None = None
) -> None:
    """The Data layers of TRAIN and TEST on the databases of `kind`; with `transform`, images."""
    name = "data" if kind == "image" else kind
    for phase, batch in (("TRAIN", options.batch), ("TEST", options.test_pass[0])):
        source = f"{options.data}/{phase.lower()}_{kind}_lmdb"
        fields: dict[str, Any] = {
            "data_param": {"source": source, "batch_size": batch, "backend": "LMDB"}
        }
        if transform:
            mirror = {"mirror": True} if phase == "TRAIN" else {}
            fields["transform_param"] = {**transform, **mirror}
        net.layer("Data", name, top=top, phase=phase, **fields)


def head(net: Net, x: str, task: Task, options: Options, name: str | None = None) -> None:
    """A task's classifier on `x`, with its loss and accuracies, or its softmax to deploy."""
    task_outputs(net, classifier(net, x, name or f"fc_{task.name}", task, options), task, options)


def task_outputs(net: Net, scores: str, task: Task, options: Options, weight: float = 1) -> None:
    """Loss and top-1 and top-5 accuracy of a task's scores, or their softmax to deploy.

    Section 4: the net's loss is the sum of the tasks' softmax losses, unweighted but for
    `loss_weights`.
    """
    if options.deploy:
        net.layer("Softmax", f"prob_{task.name}", scores)
        return
    label = f"label_{task.name}"
    ignored = {} if options.ignore_label is None else {"ignore_label": options.ignore_label}
    fields: dict[str, Any] = {"loss_param": ignored} if ignored else {}
    net.layer(
        "SoftmaxWithLoss",
        f"loss_{task.name}",
        scores,
        label,
        loss_weight=[weight * dict(options.loss_weights).get(task.name, 1)],
        **fields,
    )
    for k in (1, 5):
        net.layer(
            "Accuracy",
            f"top{k}_{task.name}",
            scores,
            label,
            phase="TEST",
            accuracy_param={"top_k": min(k, task.classes), **ignored},
        )


def classifier(net: Net, x: str, name: str, task: Task, options: Options) -> str:
    """A classifier's scores, N x K. It learns faster than the pretrained layers."""
    lr = options.head_lr
    return net.layer(
        "InnerProduct",
        name,
        x,
        param=[{"lr_mult": lr, "decay_mult": 1}, {"lr_mult": 2 * lr, "decay_mult": 0}],
        inner_product_param={
            "num_output": task.classes,
            "weight_filler": {"type": "gaussian", "std": 0.01},
            "bias_filler": {"type": "constant", "value": 0},
        },
    )


def convolution(
    net: Net,
    x: str,
    name: str,
    outputs: int,
    kernel: int,
    stride: int = 1,
    pad: int = 0,
    group: int = 1,
    bias: bool = False,
    param: Sequence[dict[str, float]] = (),
    **fillers: Any,
) -> str:
    """A convolution, N x C x H x W to N x outputs x H' x W'.

    Without `fillers` its weights are initialised as in the paper's [13]. `param` are the
    multipliers of its blobs.
    """
    fields: dict[str, Any] = {"num_output": outputs, "kernel_size": [kernel]}
    fields |= {"pad": [pad]} if pad else {}
    fields |= {"stride": [stride]} if stride != 1 else {}
    fields |= {"group": group} if group != 1 else {}
    fields |= {} if bias else {"bias_term": False}
    fields |= {"weight_filler": MSRA, **fillers}
    return net.layer("Convolution", name, x, param=param, convolution_param=fields)


def norm(
    net: Net, x: str, name: str, options: Options, top: str | None = None, new: bool = False
) -> str:
    """BatchNorm and Scale (gamma, beta), `bn<name>` and `scale<name>`; in place without `top`.

    A `new` one, which no published net has, is never frozen: it has no statistics to start from.
    """
    y = net.layer(
        "BatchNorm",
        f"bn{name}",
        x,
        top=top or x,
        param=[FROZEN] * 3,
        **_batch_norm(options, new),
    )
    return net.layer("Scale", f"scale{name}", y, top=y, scale_param={"bias_term": True})


def relu(net: Net, x: str, name: str) -> str:
    """ReLU in place."""
    return net.layer("ReLU", name, x, top=x)


def add(net: Net, name: str, terms: list[str], coefficients: Sequence[float] = ()) -> str:
    """The elementwise sum of blobs of the same shape, weighted where there are coefficients."""
    if len(terms) == 1:  # Caffe's Eltwise needs two
        return terms[0]
    param = {"operation": "SUM", "coeff": coefficients}
    return net.layer("Eltwise", name, *terms, eltwise_param=param)


# Blobs of a layer, where its parameters do not change their number.
BLOBS = {"BatchNorm": 3, "Convolution": 2, "InnerProduct": 2, "PReLU": 1, "Scale": 2}


def freeze(net: Net, picked: Callable[[Any], bool]) -> None:
    """Stop the layers that `picked` selects from learning, and BatchNorms from averaging."""
    for layer in filter(picked, net.layers()):
        _multiply(layer, **FROZEN)
        if layer.type == "BatchNorm":
            layer.batch_norm_param.use_global_stats = True


def learn(net: Net, picked: Callable[[Any], bool], lr: float, decay: float) -> None:
    """Set lr_mult and decay_mult of the layers that `picked` selects, except BatchNorms."""
    for layer in filter(picked, net.layers()):
        if layer.type != "BatchNorm":
            _multiply(layer, lr_mult=lr, decay_mult=decay)


def _multiply(layer: Any, **multipliers: float) -> None:
    if layer.type in BLOBS:
        del layer.param[:]
        for _ in range(_blobs(layer)):
            layer.param.add(**multipliers)


def _blobs(layer: Any) -> int:
    if layer.type == "Scale":
        return 0 if len(layer.bottom) > 1 else 1 + layer.scale_param.bias_term
    if layer.type == "Convolution":
        return 1 + layer.convolution_param.bias_term
    return BLOBS[layer.type]


def _batch_norm(options: Options, new: bool) -> dict[str, Any]:
    if options.bn != "batch" and not new:
        return {"batch_norm_param": {"use_global_stats": True}}
    # 0.999 is Caffe's default: a file says only what differs from it.
    if options.bn_fraction == 0.999:
        return {}
    return {"batch_norm_param": {"moving_average_fraction": options.bn_fraction}}
