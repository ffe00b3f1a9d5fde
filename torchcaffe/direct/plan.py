"""The operations of a net, and both passes through them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torchcaffe import graph, order
from torchcaffe.direct.memory import Blob
from torchcaffe.direct.norms import Norm, Running, Statistics
from torchcaffe.direct.operations import Alone, Every, Factor, Largest, Loss, Mean, Op, Sum
from torchcaffe.direct.products import Conv, Pointwise, Product, Windows
from torchcaffe.layers.base import Layer, Shape
from torchcaffe.layers.losses import SoftmaxWithLoss
from torchcaffe.layers.pointwise import Eltwise
from torchcaffe.layers.weighted import BatchNorm, Convolution, InnerProduct, Scale
from torchcaffe.layers.windows import Pooling
from torchcaffe.net import Net

# What may compute a layer, the best first; Alone where none of them fits.
OPERATIONS: dict[type[Layer], Sequence[type[Op]]] = {
    BatchNorm: (Norm,),
    Convolution: (Pointwise, Product, Windows, Conv),
    Eltwise: (Sum,),
    InnerProduct: (Product,),
    Pooling: (Largest, Mean),
    Scale: (Factor,),
    SoftmaxWithLoss: (Loss,),
}


def serves(net: Net, choices: Any) -> bool:
    """Whether a net is to be run so: a small one where nothing else was chosen, or one with
    channels last whose blobs are few (all are held at once here, and gradients of many)."""
    if torch.device(choices.device).type != "cpu" or choices.bf16 or choices.compile:
        return False
    if choices.sync_bn or choices.channels_last is False:
        return False
    return order.small(net) or (bool(choices.channels_last) and order.light(net))


class Plan:
    """Both passes of a net on a CPU; gradients go into each blob's `grad`.

    Args:
        net: its weights' channels last in memory.
        learn: whether there is a pass backward; then learned arrays are views of a `Flat`.
    """

    def __init__(self, net: Net, learn: bool) -> None:
        self.net, self._learn = net, learn
        self._blobs: dict[graph.Value, Blob] = {}
        self._needed: set[graph.Value] = set()
        self._begun: set[int] = set()  # the learned arrays whose gradient somebody writes, by id
        self._every: dict[tuple[int, bool, Shape], Blob] = {}
        users = Counter(id(blob) for made in net.layers() for blob in made.blobs)
        self._shared = {id(made) for made in net.layers()
                        if any(users[id(blob)] > 1 for blob in made.blobs)}  # fmt: skip
        self.ops: list[Op] = []
        done: set[int] = set()
        for step in net.steps:
            if step.param.type not in graph.FED and id(step) not in done:
                done.update(map(id, self._add(step)))
        last = {value.name: value for step in net.steps for value in step.tops}
        self.fed = {name: self._blob(last[name]) for name in net.inputs}
        self.wanted = {name: self._blob(last[name]) for name in [*net.outputs, *net.losses]}
        self._gather_statistics()
        self.back = self._reached()
        for op in self.ops:
            op.prepare(self)
        for op in self.back:
            op.prepare_backward(self)
        for name, weight in net.losses.items():
            self.wanted[name].d = torch.full(self.wanted[name].shape, weight)

    @torch.no_grad()
    def forward(self, **fed: Tensor) -> dict[str, Tensor]:
        """The net's outputs and losses by name, good until the next pass."""
        for name, blob in self.fed.items():
            x = fed[name]
            blob.x = x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x
        if self._running is not None:
            self._running.update()
        for op in self.ops:
            op.forward()
        for one in self._of_batch:
            one.update()
        return {name: blob.x for name, blob in self.wanted.items()}

    @torch.no_grad()
    def backward(self) -> None:
        """The gradients of the pass before, in place of those there were."""
        for op in self.back:
            op.backward()

    def first_gradient(self, blob: Tensor) -> bool:
        """Whether who asks, in the order of the backward pass, is the first to have one."""
        first = id(blob) not in self._begun
        self._begun.add(id(blob))
        return first

    def _gather_statistics(self) -> None:
        """What the norms read or write, by their ids: the batch's statistics or the running."""
        norms = [op.layer for op in self.ops if isinstance(op, Norm)]
        frozen = [norm for norm in norms if norm.frozen]
        moving: dict[float, list[BatchNorm]] = {}
        for norm in norms:
            if not norm.frozen:
                moving.setdefault(norm.fraction, []).append(norm)
        self._of_batch = [Statistics(several) for several in moving.values()]
        self._running = Running(frozen) if frozen else None
        self.statistics = dict(self._running.of) if self._running else {}
        for one in self._of_batch:
            self.statistics.update(one.of)

    def _reached(self) -> list[Op]:
        """The operations that have a gradient to compute, last first."""
        reached = {id(self.wanted[name]) for name in self.net.losses}
        back = []
        for op in reversed(self.ops):
            if (op.learned or any(op.needs)) and not reached.isdisjoint(map(id, op.tops)):
                back.append(op)
                for blob, need in zip(op.bottoms, op.needs):
                    if need:
                        blob.readers += 1
                        reached.add(id(blob))
        for op in back:
            for blob in op.bottoms:
                if blob.readers > 1:
                    blob.hold_gradient()
        return back

    # ---- from layers to operations ------------------------------------------

    def _blob(self, value: graph.Value) -> Blob:
        if value not in self._blobs:
            self._blobs[value] = Blob(self.net.shapes[value.name])
        return self._blobs[value]

    def _add(self, step: graph.Step) -> list[graph.Step]:
        """Add the operation that begins with `step`; the steps that it computes."""
        kind = self._kind(step)
        steps = self._chain(step, kind)
        layers = [self.net.layer_named(one.param.name) for one in steps]
        needs = [value in self._needed and not stopped
                 for value, stopped in zip(step.bottoms, graph.stopped(step))]  # fmt: skip
        bottoms = [self._blob(value) for value in step.bottoms]
        if kind in (Product, Pointwise) and isinstance(layers[0], Convolution):
            bottoms = [self._sampled(bottoms[0], needs[0], layers[0])]
        op = kind(layers, bottoms, [self._blob(value) for value in steps[-1].tops], needs)
        if self._learn:
            op.learned = [blob for made in layers for blob in made.blobs if blob.requires_grad]
        self.ops.append(op)
        if op.learned or any(needs):
            self._needed.update(steps[-1].tops)
        return steps

    def _sampled(self, bottom: Blob, need: bool, made: Convolution) -> Blob:
        """What a convolution of one place reads of `bottom`."""
        if max(made.stride) == 1 or bottom.shape[2:] == (1, 1):
            return bottom
        key = (id(bottom), need, made.stride)
        if key not in self._every:
            op = Every(bottom, need, made.stride)
            self.ops.append(op)
            self._every[key] = op.tops[0]
        return self._every[key]

    def _kind(self, step: graph.Step) -> type[Op]:
        """What computes a layer."""
        made = self.net.layer_named(step.param.name)
        if id(made) in self._shared:
            return Alone
        shapes = [self.net.shapes[value.name] for value in step.bottoms]
        need = not self._needed.isdisjoint(step.bottoms)
        kinds = OPERATIONS.get(type(made), ())
        return next((kind for kind in kinds if kind.fits(made, shapes, need)), Alone)

    def _chain(self, step: graph.Step, kind: type[Op]) -> list[graph.Step]:
        """The steps that an operation of this kind computes, from `step` on."""
        steps = [step]
        scale = self.net.scale_behind(step) if kind is Norm else None
        if scale is not None and id(self.net.layer_named(scale.param.name)) not in self._shared:
            steps.append(scale)
        relu = self.net.relu_behind(steps[-1]) if kind.takes_relu else None
        return steps if relu is None else [*steps, relu]
