"""A net for inference on a CPU: convolutions packed for the machine, what follows done in them.

oneDNN, which PyTorch brings, lays a convolution's weights out for the machine once and adds
a shortcut and a ReLU while it writes the result. The plan below is that of the net's layers,
with a Convolution, the Eltwise sum that alone reads it and the ReLU behind as one step. A small
net, for which all that is set-up more than work, takes the way of `direct`.

PyTorch's public way to the same kernels is torch.compile with Inductor's `freezing`, and about as
fast; but it wants a C++ compiler, and a minute or more of it for each shape. This wants neither.
"""

from __future__ import annotations

from typing import Any, Callable

import torch
from torch import Tensor, nn

from torchcaffe import direct, graph, order
from torchcaffe.graph import Step, Value
from torchcaffe.layers.base import Shape
from torchcaffe.net import Net

SHAPES = 8  # of inputs that plans are kept for

# Layers whose top is memory of its own, no view of a bottom.
FRESH = ("Convolution", "Pooling", "Eltwise", "Scale", "BatchNorm", "ReLU", "InnerProduct")


def available() -> bool:
    """Whether this PyTorch has what it takes: operators of oneDNN's, of which PyTorch says in
    no documentation that they stay."""
    return torch.backends.mkldnn.is_available() and all(
        hasattr(namespace, name)
        for namespace, name in (
            (torch.ops.mkldnn, "_convolution_pointwise"),
            (torch.ops.mkldnn, "_convolution_pointwise_"),
            (torch.ops.aten, "mkldnn_reorder_conv2d_weight"),
        )
    )


class Packed(nn.Module):
    """A folded net, `net(data=images)["prob"]` as before; for inference on a CPU only."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net
        self.inputs, self.outputs = net.inputs, net.outputs
        self.readers: dict[Value, list[Step]] = {}
        for step in net.steps:
            for value in step.bottoms:
                self.readers.setdefault(value, []).append(step)
        self.plan: list[tuple[Callable[..., Any], list[Value], list[Value]]] = []
        self.scaled: dict[Value, tuple[Value, Tensor]] = {}  # tops that the sums work out
        self.plans: dict[tuple[tuple[str, Shape], ...], direct.Plan | None] = {}  # by the inputs'
        done: set[int] = set()
        made: set[Value] = set()
        for step in net.steps:
            if step.param.type not in graph.FED and id(step) not in done:
                self._add(step, made, done)
            made.update(step.tops)
        last = {value: i for i, (_, reads, _) in enumerate(self.plan) for value in reads}
        kept = {step.tops[i] for step in net.steps for i, v in enumerate(step.tops)
                if v.name in self.outputs}  # fmt: skip
        self.dead = [[v for v, at in last.items() if at == i and v not in kept]
                     for i in range(len(self.plan))]  # fmt: skip

    @torch.inference_mode()
    def forward(self, **fed: Tensor) -> dict[str, Tensor]:
        """The outputs by name."""
        small = self._small(fed)
        if small is not None:
            with order.one_thread():
                return {name: x.clone() for name, x in small.forward(**fed).items()}
        values = {
            Value(name, 0): x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x
            for name, x in fed.items()
        }
        for (run, reads, writes), dead in zip(self.plan, self.dead):
            tops = run(*[values[value] for value in reads])
            values.update(zip(writes, tops if isinstance(tops, tuple) else (tops,)))
            for value in dead:
                del values[value]
        return {value.name: x for value, x in values.items() if value.name in self.outputs}

    def _small(self, fed: dict[str, Tensor]) -> direct.Plan | None:
        """The net for inputs of these shapes, where it is a small one."""
        shapes = {name: tuple(x.shape) for name, x in fed.items()}
        key = tuple(shapes.items())
        if key not in self.plans:
            if len(self.plans) == SHAPES:
                self.plans.clear()
            self.plans[key] = None
            if fed.keys() == self.inputs.keys():
                net = Net(self.net.proto, self.net.phase, feed_shapes=shapes)
                net.share(self.net)
                order.arrange(net, True)
                if order.small(net):
                    self.plans[key] = direct.Plan(net, learn=False)
        return self.plans[key]

    def _add(self, step: Step, made: set[Value], done: set[int]) -> None:
        layer = self.net.layer_named(step.param.name)
        if step.param.type == "Eltwise" and _plain_sum(layer):
            self._add_sum(step, done)
            return
        if step.param.type == "BatchNorm" and layer.frozen and self._dims(step) == 4:
            self._add_affine(step, layer, done)
            return
        if step.param.type == "Scale" and self._scales_into_sum(step, layer):
            factor = layer.blobs[0].detach().view(1, -1, *[1] * (self._dims(step) - 2))
            self.scaled[step.tops[0]] = (step.bottoms[0], factor)
            return
        if step.param.type != "Convolution" or len(step.tops) > 1 or layer.dims != 2:
            self.plan.append((layer, step.bottoms, step.tops))
            return
        reads, end = list(step.bottoms), step
        sum_ = self._sole(step)
        if sum_ is not None and self._adds(sum_, step, made):
            other = [value for value in sum_.bottoms if value != step.tops[0]]
            reads += other
            end = sum_
            done.add(id(sum_))
        relu = self._relu(end)
        if relu is not None:
            end = relu
            done.add(id(relu))
        into = sum_ is not None and len(reads) > 1 and self._free(reads[1], step, sum_)
        self.plan.append((self._convolution(layer, relu is not None, into), reads, end.tops))

    def _add_sum(self, step: Step, done: set[int]) -> None:
        """An Eltwise sum, the factors of the scaled bottoms and the ReLU behind."""
        relu = self._relu(step)
        if relu is not None:
            done.add(id(relu))
        # Unscaled bottoms first: the sum of two of them is where the others are added.
        bottoms = sorted(step.bottoms, key=lambda value: value in self.scaled)
        pairs = [self.scaled.get(value, (value, None)) for value in bottoms]
        factors = [factor for _, factor in pairs]

        def run(*xs: Tensor) -> Tensor:
            y = xs[0] if factors[0] is None else xs[0] * factors[0]
            for i, (x, factor) in enumerate(zip(xs[1:], factors[1:])):
                if factor is not None:
                    y = y.addcmul_(x, factor) if i else torch.addcmul(y, x, factor)
                else:
                    y = y.add_(x) if i else y + x
            return y if relu is None else y.relu_()

        self.plan.append((run, [value for value, _ in pairs], (relu or step).tops))

    @torch.no_grad()
    def _add_affine(self, step: Step, norm: Any, done: set[int]) -> None:
        """A BatchNorm, the Scale and the ReLU behind: a factor and a term a channel."""
        mean, var = norm.running()
        factor = (var + norm.eps).rsqrt()
        term, end = -mean * factor, step
        follower = self._sole(end)
        if follower is not None and follower.param.type == "Scale":
            scale = self.net.layer_named(follower.param.name)
            if scale.channelwise:
                factor, term = factor * scale.blobs[0], term * scale.blobs[0]
                term = term + scale.blobs[1] if scale.bias else term
                end = follower
                done.add(id(end))
        relu = self._relu(end)
        if relu is not None:
            end = relu
            done.add(id(end))
        factor, term = factor.view(1, -1, 1, 1), term.view(1, -1, 1, 1)

        def run(x: Tensor) -> Tensor:
            y = torch.addcmul(term, x, factor)
            return y if relu is None else y.relu_()

        self.plan.append((run, step.bottoms, end.tops))

    def _scales_into_sum(self, step: Step, layer: Any) -> bool:
        """Whether a Scale is a factor a channel, without bias, of a bottom of a sum."""
        reader = self._sole(step)
        if reader is None or reader.param.type != "Eltwise" or self._dims(step) < 3:
            return False
        sums = _plain_sum(self.net.layer_named(reader.param.name))
        return sums and layer.channelwise and not layer.bias and len(set(reader.bottoms)) > 1

    def _dims(self, step: Step) -> int:
        return len(self.net.shapes[step.tops[0].name])

    def _sole(self, step: Step) -> Step | None:
        """The one layer that reads the one top of `step`."""
        readers = self.readers.get(step.tops[0], []) if len(step.tops) == 1 else []
        return readers[0] if len(readers) == 1 else None

    def _relu(self, step: Step) -> Step | None:
        """The plain ReLU that alone reads the one top of `step`."""
        found = self._sole(step)
        if found is None or found.param.type != "ReLU" or found.param.relu_param.negative_slope:
            return None
        return found

    def _adds(self, step: Step, conv: Step, made: set[Value]) -> bool:
        """Whether it adds to the convolution one thing that is there already."""
        if step.param.type != "Eltwise" or len(step.bottoms) != 2:
            return False
        other = [value for value in step.bottoms if value != conv.tops[0]]
        plain = _plain_sum(self.net.layer_named(step.param.name))
        return plain and len(other) == 1 and other[0] in made and other[0] not in self.scaled

    def _free(self, value: Value, conv: Step, sum_: Step) -> bool:
        """Whether the sum may overwrite `value`: fresh memory that nobody reads again."""
        place = {id(step): i for i, step in enumerate(self.net.steps)}
        maker = next(step for step in self.net.steps if value in step.tops)
        others = [step for step in self.readers[value] if step is not sum_]
        return (
            maker.param.type in FRESH
            and all(step.param.type in FRESH for step in others)
            and all(place[id(step)] < place[id(conv)] for step in others)
        )

    def _convolution(self, layer: Any, relu: bool, into: bool) -> Callable[..., Tensor]:
        """Its step: of the bottom, and of a shortcut that is added, `into` its own memory."""
        sizes = (layer.pad, layer.stride, layer.dilation, layer.group)
        weight = layer.blobs[0].detach().to_mkldnn()
        bias = layer.blobs[1].detach() if len(layer.blobs) > 1 else None
        after = "relu" if relu else "none"
        packed: dict[tuple[int, ...], Tensor] = {}

        def run(x: Tensor, shortcut: Tensor | None = None) -> Tensor:
            shape = tuple(x.shape)
            if shape not in packed:
                packed[shape] = torch.ops.aten.mkldnn_reorder_conv2d_weight(weight, *sizes, shape)
            mine = packed[shape]
            if shortcut is None:
                return torch.ops.mkldnn._convolution_pointwise(x, mine, bias, *sizes, after, [], "")
            if into:
                return torch.ops.mkldnn._convolution_pointwise_.binary(
                    shortcut, x, mine, bias, *sizes, "add", 1.0, "relu" if relu else None, [], None
                )
            return torch.ops.mkldnn._convolution_pointwise.binary(
                x, shortcut, mine, bias, *sizes, "add", 1.0, "relu" if relu else None, [], None
            )

        return run


def _plain_sum(layer: Any) -> bool:
    return layer.operation == layer.param.eltwise_param.SUM and not layer.coeff
