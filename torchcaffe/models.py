"""A Caffe net as an ordinary PyTorch model: images in, a dict of scores out, trainable.

    model = torchcaffe.create_model("xs_resnet50", tasks={"kind": 2, "class": 10})
    scores = model(images)                       # {"kind": N x 2, "class": N x 10}
    model.loss(scores, targets).backward()       # targets: {"kind": N, "class": N}
    model.save("mine.caffemodel")

The net is cut in two where its labels come in: `body` computes the scores, `criterion` the losses
and accuracies of scores and labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Union

from torch import Tensor, nn

from torchcaffe import blobs, graph
from torchcaffe.layers.base import Shape
from torchcaffe.layers.weighted import BatchNorm
from torchcaffe.net import Net, fed_shapes
from xresnet.basics import files
from xresnet.basics.cli import UserError
from xresnet.caffeproto import TEST, TRAIN, LayerParameter, NetParameter, text

# Layers that make features of what they read; labels go to none of them.
LEARNING = ("Convolution", "Deconvolution", "InnerProduct", "Embed", "LSTM", "RNN")

Targets = Union[Tensor, Mapping[str, Tensor]]


class Model(nn.Module):
    """The net of a prototxt as an nn.Module that can be trained in PyTorch.

    In `train()` mode BatchNorm normalises by the batch and updates its running statistics, and
    Dropout is active. In `eval()` mode BatchNorm uses its running statistics and Dropout does
    nothing. A BatchNorm with `use_global_stats` in the prototxt follows the prototxt in both.
    All parameters are trainable. Statistics are buffers in Caffe's form: decaying sums, and the
    sum of their weights. Before the first batch they stand for mean 0 and variance 1, as in
    PyTorch (Caffe starts with zeros).

    Args:
        net: the path of a prototxt, deploy or for training, or its NetParameter.
        weights: the path of a .caffemodel to copy by layer name.
        shapes: the shapes of inputs by blob, without the first axis. They replace those of the
            first record, where a prototxt names databases that do not exist here.
        names: names for scores and labels that replace those of their blobs. Scores that are
            renamed are N x K.

    Attributes:
        body: the net that computes the scores.
        criterion: the net that computes losses and accuracies of scores and labels. It is None
            where no layer reads labels.
        inputs: the shapes of what `forward` takes, in order. The first axis may differ.
        outputs: the names of the scores.
        targets: the names of the labels that `loss` takes.

    Raises:
        UserError: a file cannot be read, or the net cannot be run.
    """

    def __init__(
        self,
        net: str | Path | Any,
        weights: str | Path | None = None,
        shapes: Mapping[str, Shape] | None = None,
        names: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        proto = text.load(net, NetParameter) if isinstance(net, (str, Path)) else net
        body, criterion, self._mean = _halves(proto, shapes or {})
        made = {name for layer in body for name in layer.top}
        read = dict.fromkeys(name for layer in criterion for name in layer.bottom)
        self._between = [name for name in read if name in made]
        self.body = Net(NetParameter(name=proto.name, layer=body), TRAIN, more=self._between)
        self.criterion: Net | None = None
        if criterion:
            inputs = [_input(name, self.body.shapes[name]) for name in self._between]
            self.criterion = Net(NetParameter(name=proto.name, layer=[*inputs, *criterion]), TRAIN)
        names = names or {}
        self._named = set(names.values())
        self._names = {blob: names.get(blob, blob) for blob in self.body.outputs}
        fed = self.criterion.inputs if self.criterion else {}
        labels = [name for name in fed if name not in self._between]
        self._labels = {names.get(blob, blob): blob for blob in labels}
        self.name, self.feeds, self.inputs = proto.name, self.body.feeds, self.body.inputs
        self.outputs = list(self._names.values())
        self.targets = list(self._labels)
        self.requires_grad_(True)
        for layer in self.body.layers():
            layer.follows_mode = True
            if isinstance(layer, BatchNorm):
                layer.begin_at_one()
        if weights is not None:
            self.load(weights)

    def forward(self, *images: Tensor) -> dict[str, Tensor]:
        """Computes the scores of images.

        Args:
            images: the inputs in order, N x C x H x W.

        Returns:
            The blobs that losses read, and the other outputs, by name.
        """
        tops = self.body(*images)
        found = {name: tops[blob] for blob, name in self._names.items()}
        return {k: x.flatten(1) if k in self._named else x for k, x in found.items()}

    def prepare(self, images: Tensor) -> Tensor:
        """Converts images from torchvision's form to that of Caffe's nets.

        Args:
            images: N x 3 x H x W, RGB, values from 0 to 1.

        Returns:
            N x 3 x H x W, BGR, values from 0 to 255 minus the mean in the prototxt.
        """
        mean = images.new_tensor(self._mean or [0.0])
        return images.flip(1) * 255 - mean.view(-1, 1, 1)

    def metrics(self, scores: Mapping[str, Tensor], targets: Targets) -> dict[str, Tensor]:
        """Computes every loss and accuracy of the scores that `forward` returned.

        Args:
            scores: the scores by name.
            targets: the class numbers by name, N each. A net with a single target also takes
                the tensor alone.

        Returns:
            Losses and accuracies by the names of their blobs.

        Raises:
            UserError: a target is missing, or the net has no losses.
        """
        if self.criterion is None:
            raise UserError(f"net {self.body.name!r} has no losses: give a prototxt for training")
        if isinstance(targets, Tensor):
            if len(self.targets) != 1:
                raise UserError(f"targets: a dict of {', '.join(self.targets)}, not one tensor")
            targets = {self.targets[0]: targets}
        fed = {blob: scores[self._names[blob]] for blob in self._between}
        for name, blob in self._labels.items():
            if name not in targets:
                raise UserError(f"targets: no {name!r}; wanted: {', '.join(self.targets)}")
            fed[blob] = targets[name].float()
        count = len(next(iter(scores.values())))
        shapes = self.criterion.inputs
        return self.criterion(**{k: x.reshape(count, *shapes[k][1:]) for k, x in fed.items()})

    def loss(self, scores: Mapping[str, Tensor], targets: Targets) -> Tensor:
        """Computes the sum of all losses, weighted as in the prototxt.

        Takes and raises the same as `metrics`.
        """
        loss = self.criterion.loss(self.metrics(scores, targets)) if self.criterion else None
        if loss is None:
            raise UserError(f"net {self.body.name!r} has no losses: give a prototxt for training")
        return loss

    def groups(self, lr: float, weight_decay: float = 0.0) -> list[dict[str, Any]]:
        """Parameter groups for a PyTorch optimiser.

        Args:
            lr: the learning rate, which each group multiplies by lr_mult of the prototxt. A
                layer that is frozen there gets rate 0.
            weight_decay: the weight decay, multiplied by decay_mult likewise.

        Returns:
            A dict with "params", "lr" and "weight_decay" for each group.
        """
        found: dict[tuple[float, float], list[Tensor]] = {}
        for one in self.body.learned:
            if isinstance(one.blob, nn.Parameter):
                found.setdefault((one.lr_mult, one.decay_mult), []).append(one.blob)
        return [
            {"params": several, "lr": lr * rate, "weight_decay": weight_decay * decay}
            for (rate, decay), several in found.items()
        ]

    def load(self, path: str | Path) -> list[str]:
        """Copies the blobs of a .caffemodel by layer name.

        Returns:
            The names of the layers that got blobs.

        Raises:
            UserError: the file cannot be read, or its blobs have other shapes.
        """
        return self.body.copy_from(blobs.read_net(path), str(path))

    def save(self, path: str | Path) -> None:
        """Writes the weights and statistics as a .caffemodel, completely or not at all."""
        files.write(path, self.body.to_proto().SerializeToString())


def create_model(
    name: str,
    tasks: Mapping[str, int] | None = None,
    weights: str | Path | None = None,
    **options: Any,
) -> Model:
    """Creates one of netgen's nets, its scores, targets and losses named after the tasks.

    Args:
        name: the net's name, one of `python -m netgen --list`.
        tasks: the number of classes of each task. The default are the paper's three tasks.
        weights: "imagenet" or the path of a file. A file with all layers of the net is loaded
            as it is. From any other the net is initialised as `python -m netgen.weights init`
            does; the classifiers of new tasks then start from their fillers.
        options: netgen's options, such as input_size=64 or width=8 (`python -m netgen --help`).

    Raises:
        UserError: there is no such net or option, a task or an option has no valid value, or
            the file cannot be used.
    """
    # The engine knows layers, not nets: here alone it asks netgen, and only when called.
    from netgen import Task, build
    from netgen.catalog import find
    from netgen.tasks import TASKS

    entry = find(name)
    if tasks is not None and not isinstance(tasks, Mapping):
        raise UserError(f"create_model: tasks are a dict of names and classes, not {tasks!r}")
    chosen = tuple(Task(*pair) for pair in tasks.items()) if tasks else TASKS
    if entry.single_task and "task" not in options and len(chosen) == 1:
        options["task"] = chosen[0].name
    network = build(name, tasks=chosen, **options)
    proto = network.proto(deploy=not entry.trained)
    proto, names = _with_labels_by_task(proto, network.options.tasks)
    size = network.options.input_size
    model = Model(proto, shapes={"data": (3, size, size)}, names=names)
    if weights is not None:
        _start(model, network, str(weights))
    return model


def _with_labels_by_task(proto: Any, tasks: Iterable[Any]) -> tuple[Any, dict[str, str]]:
    """The net with an Input for each task's labels, not their database; task names by blob."""
    names = {f"label_{task.name}": task.name for task in tasks}
    labels = {"label", *names}
    kept = [x for x in proto.layer if not labels.issuperset([*x.bottom, *x.top])]
    used = dict.fromkeys(blob for layer in kept for blob in layer.bottom if blob in names)
    for layer in kept:
        if layer.type == "SoftmaxWithLoss" and layer.name.startswith("loss_"):
            names[layer.bottom[0]] = names[layer.bottom[1]]
    inputs = [_input(blob, (1,)) for blob in used]
    return NetParameter(name=proto.name, layer=[*inputs, *kept]), names


def _start(model: Model, network: Any, weights: str) -> None:
    """Load what the net itself wrote, or start it from another net's weights."""
    from netgen.weights import fetch, plan, source

    path = str(fetch.fetch(fetch.find("resnet50"))) if weights == "imagenet" else weights
    found = source.load(path, None)
    layers = list(found.layers.values())
    if not {one.name for one in model.body.learned} <= found.layers.keys():
        _, layers, _ = plan.initial(network.entry, network.options, {None: found})
    copied = NetParameter()
    for one in layers:
        copied.layer.add(name=one.name, blobs=map(blobs.to_proto, one.blobs))
    model.body.copy_from(copied, path)


def _halves(proto: Any, shapes: Mapping[str, Shape]) -> tuple[list[Any], list[Any], list[float]]:
    """The layers that do not depend on labels, those that do, and the images' mean.

    Labels are the fed blobs that reach no layer that learns. Layers are those of training,
    and testing's accuracies.
    """
    train, test = (graph.filtered(proto, graph.state(phase)) for phase in (TRAIN, TEST))
    there = {layer.name for layer in train.layer}
    more = [one for one in test.layer if one.type == "Accuracy" and one.name not in there]
    layers = [*train.layer, *more]
    for layer in layers:
        for rule in ("include", "exclude"):
            layer.ClearField(rule)
    steps = graph.steps(NetParameter(layer=layers))
    fed = [top for step in steps if step.param.type in graph.FED for top in step.tops]
    labels = {top for top in fed if not _learned_from(top, steps)}
    labels = set() if len(labels) == len(fed) else labels
    body: list[Any] = []
    criterion: list[Any] = []
    mean: list[float] = []
    for step in steps:
        if step.param.type in graph.FED:
            sizes = _fed_shapes(step.param, shapes)
            for top, shape in zip(step.tops, sizes):
                (criterion if top in labels else body).append(_input(top.name, shape))
                if top not in labels:
                    mean = list(step.param.transform_param.mean_value) or mean
        elif labels.intersection(step.bottoms):
            labels.update(step.tops)
            criterion.append(step.param)
        else:
            body.append(step.param)
    return body, criterion, mean


def _fed_shapes(param: Any, given: Mapping[str, Shape]) -> list[Shape]:
    """The shapes of a fed layer's tops, one sample where they are given, with its label."""
    known = {name: (1, *shape) for name, shape in given.items()}
    if param.type in ("Data", "ImageData") and param.top[0] in known:
        known = {**dict.fromkeys(param.top, (1,)), **known}
    return fed_shapes(param, known)


def _learned_from(top: graph.Value, steps: list[graph.Step]) -> bool:
    """Whether a layer with weights reads something that comes from `top`."""
    reached = {top}
    for step in steps:
        if reached.intersection(step.bottoms):
            if step.param.type in LEARNING:
                return True
            reached.update(step.tops)
    return False


def _input(name: str, shape: Shape) -> Any:
    """An Input layer of one blob."""
    return LayerParameter(
        name=name, type="Input", top=[name], input_param={"shape": [{"dim": shape}]}
    )
