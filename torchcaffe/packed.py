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

from torchcaffe import graph
from torchcaffe.folded import Folded
from torchcaffe.graph import Step, Value
from torchcaffe.layers.pointwise import Eltwise
from torchcaffe.layers.weighted import BatchNorm, Convolution, Scale

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

    def __init__(self, net: Folded) -> None:
        super().__init__()
        self.net = net
        self.inputs, self.outputs = net.inputs, net.outputs
        self.plan: list[tuple[Callable[..., Any], list[Value], list[Value]]] = []
        self.scaled: dict[Value, tuple[Value, Tensor]] = {}  # tops that the sums work out
        done: set[int] = set()
        made: set[Value] = set()
        for step in net.steps:
            if step.param.type not in graph.FED and id(step) not in done:
                self._add(step, made, done)
            made.update(step.tops)
        last = {value: i for i, (_, reads, _) in enumerate(self.plan) for value in reads}
        self.dead = [[v for v, at in last.items() if at == i and v not in net.kept]
                     for i in range(len(self.plan))]  # fmt: skip

    @torch.inference_mode()
    def forward(self, *first: Tensor, **fed: Tensor) -> dict[str, Tensor]:
        """The outputs by name."""
        fed = self.net.named(first, fed)
        found = self.net.planned(fed)
        if found is not None:
            return found
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

    def _add(self, step: Step, made: set[Value], done: set[int]) -> None:
        layer = self.net.layer_named(step.param.name)
        if isinstance(layer, Eltwise) and layer.plain_sum:
            self._add_sum(step, done)
            return
        if isinstance(layer, BatchNorm) and layer.frozen and self._dims(step) == 4:
            self._add_affine(step, done)
            return
        if isinstance(layer, Scale) and self._scales_into_sum(step, layer):
            factor = layer.blobs[0].detach().view(1, -1, *[1] * (self._dims(step) - 2))
            self.scaled[step.tops[0]] = (step.bottoms[0], factor)
            return
        if not isinstance(layer, Convolution) or len(step.tops) > 1 or layer.dims != 2:
            self.plan.append((layer, step.bottoms, step.tops))
            return
        reads, end = list(step.bottoms), step
        sum_ = self.net.reader(step)
        if sum_ is not None and self._adds(sum_, step, made):
            other = [value for value in sum_.bottoms if value != step.tops[0]]
            reads += other
            end = sum_
            done.add(id(sum_))
        relu = self.net.relu_behind(end)
        if relu is not None:
            end = relu
            done.add(id(relu))
        into = sum_ is not None and len(reads) > 1 and self._free(reads[1], step, sum_)
        self.plan.append((self._convolution(layer, relu is not None, into), reads, end.tops))

    def _add_sum(self, step: Step, done: set[int]) -> None:
        """An Eltwise sum, the factors of the scaled bottoms and the ReLU behind."""
        relu = self.net.relu_behind(step)
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
    def _add_affine(self, step: Step, done: set[int]) -> None:
        """A BatchNorm, the Scale and the ReLU behind: a factor and a term a channel."""
        factor, term, end = self.net.affine(step)
        done.add(id(end))
        relu = self.net.relu_behind(end)
        if relu is not None:
            end = relu
            done.add(id(end))
        factor, term = factor.view(1, -1, 1, 1), term.view(1, -1, 1, 1)

        def run(x: Tensor) -> Tensor:
            y = torch.addcmul(term, x, factor)
            return y if relu is None else y.relu_()

        self.plan.append((run, step.bottoms, end.tops))

    def _scales_into_sum(self, step: Step, layer: Scale) -> bool:
        """Whether a Scale is a factor a channel, without bias, of a bottom of a sum."""
        reader = self.net.reader(step)
        if reader is None or not self._sums(reader) or len(set(reader.bottoms)) == 1:
            return False
        return self._dims(step) > 2 and layer.channelwise and not layer.bias

    def _sums(self, step: Step) -> bool:
        layer = self.net.layer_named(step.param.name)
        return isinstance(layer, Eltwise) and layer.plain_sum

    def _dims(self, step: Step) -> int:
        return len(self.net.shapes[step.tops[0].name])

    def _adds(self, step: Step, conv: Step, made: set[Value]) -> bool:
        """Whether it adds to the convolution one thing that is there already."""
        other = [value for value in step.bottoms if value != conv.tops[0]]
        alone = len(step.bottoms) == 2 and len(other) == 1
        return alone and self._sums(step) and other[0] in made and other[0] not in self.scaled

    def _free(self, value: Value, conv: Step, sum_: Step) -> bool:
        """Whether the sum may overwrite `value`: fresh memory that nobody reads again."""
        place = {id(step): i for i, step in enumerate(self.net.steps)}
        maker = next(step for step in self.net.steps if value in step.tops)
        others = [step for step in self.net.readers[value] if step is not sum_]
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
