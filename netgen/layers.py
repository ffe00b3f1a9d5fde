"""The few layers that every net is made of: data and labels at one end, heads at the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable

from netgen.net import Net
from netgen.options import Options
from netgen.tasks import Task

MSRA = {"type": "msra"}
# Caffe keeps mean, variance and their weight as blobs but must not descend on
# them. Without the zeros a frozen net would still run backward for them.
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
    mean = {"mean_file": options.mean_file} if options.mean_file else {"mean_value": options.mean}
    for phase, batch in _batches(options):
        transform = {"mirror": True, **mean} if phase == "TRAIN" else mean
        if options.crop:  # at random in TRAIN, from the centre in TEST
            transform = {**transform, "crop_size": size}
        fields: dict[str, Any] = {} if maps else {"transform_param": transform}
        source = f"{options.data}/{phase.lower()}_image_lmdb"
        net.layer(
            "Data",
            "data",
            phase=phase,
            **fields,
            data_param={"source": source, "batch_size": batch, "backend": "LMDB"},
        )
    return "data"


def labels(net: Net, options: Options, wanted: list[Task]) -> None:
    """A blob `label_<task>`, N x 1 x 1 x 1, for each task in `wanted`; none in a deploy net.

    Caffe's Data layer gives one integer a record, so the labels are a database
    of their own: a record holds one float for each task, in the tasks' order,
    under the key of its image.
    """
    if options.deploy:
        return
    net.group("labels, one a task")
    names = [f"label_{task.name}" for task in options.tasks]
    top = "label" if len(names) > 1 else names[0]
    for phase, batch in _batches(options):
        source = f"{options.data}/{phase.lower()}_label_lmdb"
        net.layer(
            "Data",
            "label",
            top=top,
            phase=phase,
            data_param={"source": source, "batch_size": batch, "backend": "LMDB"},
        )
    if len(names) > 1:
        points = list(range(1, len(names)))
        net.layer("Slice", "label_slice", top, top=names, slice_param={"slice_point": points})
    unused = [name for name in names if name not in [f"label_{task.name}" for task in wanted]]
    if unused:
        net.layer("Silence", "label_unused", *unused, top=[])


def head(net: Net, x: str, task: Task, options: Options, name: str | None = None) -> None:
    """A task's classifier on `x` and what hangs on it."""
    task_outputs(net, classifier(net, x, name or f"fc_{task.name}", task, options), task, options)


def task_outputs(net: Net, scores: str, task: Task, options: Options, weight: float = 1) -> None:
    """What hangs on a task's scores: loss and top-k, or softmax to deploy.

    Section 4: the loss is the unweighted sum of the heads' softmax losses; `loss_weights`
    weigh them.
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
    """N x K scores; learns faster than the pretrained layers, for it starts afresh."""
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
    bias: bool = False,
) -> str:
    """A convolution, N x C x H x W to N x outputs x H' x W'; msra as in the paper's [13]."""
    param: dict[str, Any] = {"num_output": outputs, "kernel_size": [kernel]}
    if pad:
        param["pad"] = [pad]
    if stride != 1:
        param["stride"] = [stride]
    if not bias:
        param["bias_term"] = False
    return net.layer("Convolution", name, x, convolution_param={**param, "weight_filler": MSRA})


def norm(
    net: Net, x: str, name: str, options: Options, top: str | None = None, new: bool = False
) -> str:
    """BatchNorm and Scale (gamma, beta), `bn<name>` and `scale<name>`; in place unless `top`.

    A `new` one, that no published net has, starts without statistics: nothing freezes it.
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
    """The elementwise sum of blobs of one shape, each times its coefficient where there are any."""
    if len(terms) == 1:  # Caffe's Eltwise wants two; one task has none to join
        return terms[0]
    param = {"operation": "SUM", "coeff": coefficients}
    return net.layer("Eltwise", name, *terms, eltwise_param=param)


# Learned arrays of a layer, where the layer's own parameters say nothing of them.
BLOBS = {"BatchNorm": 3, "Convolution": 2, "InnerProduct": 2, "PReLU": 1, "Scale": 2}


def freeze(net: Net, frozen: Callable[[Any], bool]) -> None:
    """Stop the layers that `frozen` picks from learning, their BatchNorms' statistics too."""
    for layer in (layer for _, group in net.groups for layer in group if frozen(layer)):
        if layer.type in BLOBS:
            del layer.param[:]
            for _ in range(_blobs(layer)):
                layer.param.add(**FROZEN)
        if layer.type == "BatchNorm":
            layer.batch_norm_param.use_global_stats = True


def learn(net: Net, picked: Callable[[Any], bool], lr: float, decay: float) -> None:
    """Give the weights of the layers that `picked` picks these multipliers of rate and decay."""
    for layer in (layer for _, group in net.groups for layer in group if picked(layer)):
        if layer.type in BLOBS and layer.type != "BatchNorm":
            del layer.param[:]
            for _ in range(_blobs(layer)):
                layer.param.add(lr_mult=lr, decay_mult=decay)


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


def _batches(options: Options) -> list[tuple[str, int]]:
    return [("TRAIN", options.batch), ("TEST", options.test_pass[0])]
