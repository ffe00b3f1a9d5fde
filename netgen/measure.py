"""Shapes, parameters and multiply-adds of a net, computed by Caffe's rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil, floor, prod
from typing import Any, Callable

from xresnet.caffeproto import TRAIN

Shape = tuple[int, ...]
FLOOR = 1  # enum RoundMode


@dataclass(frozen=True)
class Measured:
    """A layer: the shapes of its tops and blobs, and the multiply-adds of a forward pass."""

    name: str
    kind: str
    tops: list[Shape]
    blobs: list[Shape] = field(default_factory=list)
    macs: int = 0

    @property
    def params(self) -> int:
        """The number of its parameters with running statistics, as in Table 2."""
        return sum(map(prod, self.blobs))


def measure(net: Any, inputs: Mapping[str, Shape], phase: int = TRAIN) -> list[Measured]:
    """The layers of a net in `phase`, in order.

    Args:
        net: a NetParameter.
        inputs: the shapes of the tops of Data layers, which the net does not contain.
        phase: TRAIN or TEST.

    Raises:
        ValueError: no layer produces a bottom, there is no rule for a type, or shapes differ.
    """
    shapes = dict(inputs)
    found = []
    for layer in net.layer:
        if not takes_part(layer, phase):
            continue
        try:
            bottoms = [shapes[name] for name in layer.bottom]
        except KeyError as missing:
            raise ValueError(
                f"layer {layer.name!r}: no layer produces its bottom {missing}"
            ) from None
        if layer.type == "Data":
            made: Made = [inputs[top] for top in layer.top], [], 0
        elif layer.type in RULES:
            made = RULES[layer.type](layer, bottoms)
        else:
            raise ValueError(
                f"layer {layer.name!r}: there is no rule for layer type {layer.type!r}"
            )
        shapes.update(zip(layer.top, made[0]))
        found.append(Measured(layer.name, layer.type, *made))
    return found


def takes_part(layer: Any, phase: int) -> bool:
    """Whether a layer's include and exclude rules allow `phase`; other rules are ignored."""
    if layer.include:
        return any(rule.phase == phase for rule in layer.include)
    return not any(rule.phase == phase for rule in layer.exclude)


# ---- A rule for each layer type: (layer, bottoms) to (tops, blobs, multiply-adds) ---

Made = tuple[list[Shape], list[Shape], int]
Rule = Callable[[Any, list[Shape]], Made]


def _same(layer: Any, bottoms: list[Shape]) -> Made:
    return [bottoms[0]], [], 0


def _sum(layer: Any, bottoms: list[Shape]) -> Made:
    if len(set(bottoms)) > 1:
        shown = " and ".join(" x ".join(map(str, shape)) for shape in dict.fromkeys(bottoms))
        raise ValueError(f"layer {layer.name!r}: it adds blobs of {shown}")
    return [bottoms[0]], [], 0


def _prelu(layer: Any, bottoms: list[Shape]) -> Made:
    slopes = () if layer.prelu_param.channel_shared else (bottoms[0][1],)
    return [bottoms[0]], [slopes], prod(bottoms[0])


def _scalar(layer: Any, bottoms: list[Shape]) -> Made:
    return [()], [], 0


def _input(layer: Any, bottoms: list[Shape]) -> Made:
    return [tuple(shape.dim) for shape in layer.input_param.shape], [], 0


def _concat(layer: Any, bottoms: list[Shape]) -> Made:
    axis = layer.concat_param.axis
    joined = sum(shape[axis] for shape in bottoms)
    return [(*bottoms[0][:axis], joined, *bottoms[0][axis + 1 :])], [], 0


def _dummy_data(layer: Any, bottoms: list[Shape]) -> Made:
    return [tuple(shape.dim) for shape in layer.dummy_data_param.shape], [], 0


def _silence(layer: Any, bottoms: list[Shape]) -> Made:
    return [], [], 0


def _slice(layer: Any, bottoms: list[Shape]) -> Made:
    n, channels, *rest = bottoms[0]
    points = [0, *layer.slice_param.slice_point, channels]
    return [(n, b - a, *rest) for a, b in zip(points, points[1:])], [], 0


def _convolution(layer: Any, bottoms: list[Shape]) -> Made:
    n, channels, *size = bottoms[0]
    p = layer.convolution_param
    kernel, stride = p.kernel_size[0], p.stride[0] if p.stride else 1
    pad = p.pad[0] if p.pad else 0
    out = [(s + 2 * pad - kernel) // stride + 1 for s in size]
    weight = (p.num_output, channels // p.group, kernel, kernel)
    blobs: list[Shape] = [weight, *[(p.num_output,)] * p.bias_term]
    return [(n, p.num_output, *out)], blobs, n * prod(out) * prod(weight)


def _pooling(layer: Any, bottoms: list[Shape]) -> Made:
    n, channels, *size = bottoms[0]
    p = layer.pooling_param
    if p.global_pooling:
        return [(n, channels, 1, 1)], [], 0
    out = []
    rounded = floor if p.round_mode == FLOOR else ceil
    for s in size:
        # Caffe rounds up by default, then drops a last window that would start in the padding.
        o = rounded((s + 2 * p.pad - p.kernel_size) / p.stride) + 1
        out.append(o - 1 if p.pad and (o - 1) * p.stride >= s + p.pad else o)
    return [(n, channels, *out)], [], 0


def _batch_norm(layer: Any, bottoms: list[Shape]) -> Made:
    channels = bottoms[0][1]
    return [bottoms[0]], [(channels,), (channels,), (1,)], 0


def _scale(layer: Any, bottoms: list[Shape]) -> Made:
    p = layer.scale_param
    if len(bottoms) > 1:  # the factors come from another layer
        return [bottoms[0]], [], prod(bottoms[0])
    shape = bottoms[0][p.axis : p.axis + p.num_axes]
    return [bottoms[0]], [shape] * (1 + p.bias_term), prod(bottoms[0])


def _inner_product(layer: Any, bottoms: list[Shape]) -> Made:
    n, inputs = bottoms[0][0], prod(bottoms[0][1:])
    p = layer.inner_product_param
    blobs: list[Shape] = [(p.num_output, inputs), *[(p.num_output,)] * p.bias_term]
    return [(n, p.num_output)], blobs, n * inputs * p.num_output


_SAME_SHAPE = (
    *("AbsVal", "BNLL", "Dropout", "ELU", "Exp", "Log", "LRN", "Power", "ReLU", "Sigmoid"),
    *("Softmax", "TanH"),
)
RULES: dict[str, Rule] = {
    **dict.fromkeys(_SAME_SHAPE, _same),
    **dict.fromkeys(("Accuracy", "SoftmaxWithLoss"), _scalar),
    "BatchNorm": _batch_norm,
    "Concat": _concat,
    "Convolution": _convolution,
    "DummyData": _dummy_data,
    "Eltwise": _sum,
    "InnerProduct": _inner_product,
    "Input": _input,
    "Pooling": _pooling,
    "PReLU": _prelu,
    "Scale": _scale,
    "Silence": _silence,
    "Slice": _slice,
}
