"""What an operation is, and those that need little: sums, pooling, the loss, any other layer.

An operation computes one layer, or one with those behind it that are done with it. Its
`prepare` lays memory out, `forward` computes tops from bottoms, and `backward` gradients of
bottoms and of learned arrays from those of tops.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from torchcaffe.direct.memory import Blob, as_rows
from torchcaffe.layers.base import Layer, Shape, count
from torchcaffe.layers.losses import LOG_TINY, SoftmaxWithLoss
from torchcaffe.layers.pointwise import Eltwise, ReLU
from torchcaffe.layers.weighted import Scale
from torchcaffe.layers.windows import Pooling

if TYPE_CHECKING:
    from torchcaffe.direct.plan import Plan

NONE = torch.iinfo(torch.int64).min  # no label

_max_pool = torch.ops.aten.max_pool2d_with_indices.default
_max_pool_backward = torch.ops.aten.max_pool2d_with_indices_backward.default
_relu_backward = torch.ops.aten.threshold_backward.default
_relu_backward_in_place = torch.ops.aten.threshold_backward.grad_input


class Op:
    """An operation.

    Attributes:
        needs: which bottoms want a gradient.
        learned: the arrays that one is wanted for.
        relu: whether a ReLU behind belongs to it.
    """

    layer: Any  # of a kind that `fits` takes
    takes_relu = False

    def __init__(
        self, layers: Sequence[Layer], bottoms: list[Blob], tops: list[Blob], needs: list[bool]
    ) -> None:
        self.layers, self.bottoms, self.tops, self.needs = layers, bottoms, tops, needs
        self.layer = layers[0] if layers else None
        self.relu = len(layers) > 1 and isinstance(layers[-1], ReLU)
        self.learned: list[Tensor] = []

    @classmethod
    def fits(cls, made: Any, shapes: list[Shape], need: bool) -> bool:
        """Whether it computes a layer of its kind, of bottoms that may need a gradient."""
        return True

    def prepare(self, plan: Plan) -> None:
        """Have memory for the tops."""
        self.out = self.tops[0].hold()

    def prepare_backward(self, plan: Plan) -> None:
        """Note, in the order of the backward pass, what is written first and what is added."""
        self.firsts = [need and blob.first() for need, blob in zip(self.needs, self.bottoms)]

    def forward(self) -> None:
        raise NotImplementedError

    def backward(self) -> None:
        raise NotImplementedError

    def gradients(self, weight: Tensor, bias: Tensor | None = None) -> list[Tensor | None]:
        """Where those of a layer's arrays belong; None for what has none."""
        wanted = {id(blob) for blob in self.learned}
        return [None if blob is None or id(blob) not in wanted else blob.grad
                for blob in (weight, bias)]  # fmt: skip

    def gradient(self) -> Tensor:
        """The top's, behind the ReLU where there is one."""
        top = self.tops[0]
        if not self.relu:
            return top.d
        if top.drows is None:
            return _relu_backward(top.d, top.x, 0)
        return _relu_backward_in_place(top.d, top.x, 0, grad_input=top.d)


def grad(blob: Tensor) -> Tensor:
    """Where a learned array's gradient belongs."""
    assert blob.grad is not None  # a `Flat` holds it
    return blob.grad


class Alone(Op):
    """Any layer, through autograd."""

    read: Sequence[Tensor]
    made: Sequence[Tensor]

    def prepare(self, plan: Plan) -> None:
        """Tops are PyTorch's."""

    def prepare_backward(self, plan: Plan) -> None:
        super().prepare_backward(plan)
        self.fresh = [plan.first_gradient(blob) for blob in self.learned]

    def forward(self) -> None:
        self.read = [
            blob.x.detach().requires_grad_(need) for blob, need in zip(self.bottoms, self.needs)
        ]
        with torch.set_grad_enabled(bool(self.learned) or any(self.needs)):
            made = self.layer(*self.read)
        self.made = made if isinstance(made, tuple) else (made,)
        for blob, top in zip(self.tops, self.made):
            blob.x = top.detach()

    def backward(self) -> None:
        reached = [
            (top, blob.d)
            for top, blob in zip(self.made, self.tops)
            if top.requires_grad and blob.d is not None
        ]
        asking = [i for i, need in enumerate(self.needs) if need]
        wanted = [*(self.read[i] for i in asking), *self.learned]
        found: Sequence[Tensor | None] = [None] * len(wanted)
        if reached:
            tops, gradients = zip(*reached)
            found = torch.autograd.grad(tops, wanted, gradients, allow_unused=True)
        self.read = self.made = ()
        full = [torch.zeros_like(x) if g is None else g for x, g in zip(wanted, found)]
        for i, gradient in zip(asking, full):
            self.bottoms[i].take(gradient, self.firsts[i])
        for blob, gradient, first in zip(self.learned, full[len(asking) :], self.fresh):
            grad(blob).copy_(gradient) if first else grad(blob).add_(gradient)


class Sum(Op):
    """An Eltwise sum and the ReLU behind it."""

    takes_relu = True

    @classmethod
    def fits(cls, made: Eltwise, shapes: list[Shape], need: bool) -> bool:
        return made.plain_sum

    def forward(self) -> None:
        first, second, *others = self.bottoms
        y = torch.add(first.x, second.x, out=self.tops[0].x)
        for blob in others:
            y.add_(blob.x)
        if self.relu:
            y.relu_()

    def backward(self) -> None:
        gradient = self.gradient()
        for blob, need, first in zip(self.bottoms, self.needs, self.firsts):
            if need:
                blob.take(gradient, first)


class Factor(Op):
    """A Scale by a factor a channel, without bias."""

    @classmethod
    def fits(cls, made: Scale, shapes: list[Shape], need: bool) -> bool:
        return made.channelwise and not made.bias and len(shapes[0]) in (2, 4)

    def prepare(self, plan: Plan) -> None:
        super().prepare(plan)
        factor = self.layer.blobs[0]
        self.factor = factor.data.view(1, -1, *[1] * (len(self.tops[0].shape) - 2))
        self.dfactor, _ = self.gradients(factor)

    def forward(self) -> None:
        torch.mul(self.bottoms[0].x, self.factor, out=self.tops[0].x)

    def backward(self) -> None:
        bottom, gradient = self.bottoms[0], self.tops[0].d
        if self.dfactor is not None:
            torch.sum(as_rows(gradient * bottom.x), 0, out=self.dfactor)
        if self.needs[0]:
            if bottom.drows is None:
                bottom.d = gradient * self.factor
            elif self.firsts[0]:
                torch.mul(gradient, self.factor, out=bottom.d)
            else:
                bottom.d.addcmul_(gradient, self.factor)


class Largest(Op):
    """The largest of each window, where PyTorch's sizes are Caffe's."""

    @classmethod
    def fits(cls, made: Pooling, shapes: list[Shape], need: bool) -> bool:
        return made.maximum and made.plain

    def prepare(self, plan: Plan) -> None:
        made = self.layer
        self.sizes = ([*made.kernel], [*made.stride], [*made.pad], [1, 1], True)

    def forward(self) -> None:
        self.tops[0].x, self.places = _max_pool(self.bottoms[0].x, *self.sizes)

    def backward(self) -> None:
        bottom = self.bottoms[0]
        gradient = _max_pool_backward(self.tops[0].d, bottom.x, *self.sizes, self.places)
        bottom.take(gradient, self.firsts[0])


class Mean(Op):
    """The mean of each channel of an image."""

    @classmethod
    def fits(cls, made: Pooling, shapes: list[Shape], need: bool) -> bool:
        return not made.maximum and made.kernel == shapes[0][2:] and made.pad == (0, 0)

    def prepare(self, plan: Plan) -> None:
        super().prepare(plan)
        self.places = count(self.bottoms[0].shape, 2)

    def forward(self) -> None:
        rows, out = as_rows(self.bottoms[0].x), self.out
        if self.places == 1:
            out.copy_(rows)
        else:
            torch.mean(rows.view(len(out), self.places, -1), 1, out=out)

    def backward(self) -> None:
        bottom, gradient = self.bottoms[0], self.tops[0].d
        if self.places > 1:
            gradient = (gradient / self.places).expand(bottom.shape)
            if bottom.drows is None:
                gradient = gradient.contiguous(memory_format=torch.channels_last)
        bottom.take(gradient, self.firsts[0])


class Loss(Op):
    """SoftmaxWithLoss of N x K scores without ignore_label, and no second top."""

    @classmethod
    def fits(cls, made: SoftmaxWithLoss, shapes: list[Shape], need: bool) -> bool:
        of_rows = made.classes == 1 and count(shapes[0], 2) == 1
        return of_rows and made.ignore is None and made.tops == 1

    def prepare(self, plan: Plan) -> None:
        self.images = self.bottoms[0].shape[0]
        self.minus = torch.full((self.images, 1), -1.0)
        self.share = float(self._divided(torch.ones(())))

    def _divided(self, total: Tensor) -> Tensor:
        return self.layer.divide(total, self.images, self.images, 1)

    def forward(self) -> None:
        scores, label = self.bottoms
        self.log_p = torch.log_softmax(scores.x.flatten(1), 1)
        self.label = label.x.flatten().long()
        floored = self.log_p.clamp(min=LOG_TINY)
        # No label is ignored: what is no class shall be an error, as for other numbers.
        nll = F.nll_loss(floored, self.label, ignore_index=NONE, reduction="sum")
        self.tops[0].x = self._divided(nll)

    def backward(self) -> None:
        bottom = self.bottoms[0]
        gradient = self.log_p.exp_().scatter_add_(1, self.label[:, None], self.minus)
        gradient.mul_(self.tops[0].d * self.share)
        bottom.take(gradient.view(bottom.shape), self.firsts[0])


class Every(Op):
    """Every n-th place on both axes: what a pointwise convolution with a stride reads.

    It stands for no layer: several convolutions may read it.
    """

    def __init__(self, bottom: Blob, need: bool, stride: Shape) -> None:
        self.stride = stride
        n, c, *size = bottom.shape
        top = Blob((n, c, *(-(-a // s) for a, s in zip(size, stride))))
        super().__init__([], [bottom], [top], [need])

    def prepare_backward(self, plan: Plan) -> None:
        super().prepare_backward(plan)
        self.bottoms[0].hold_gradient()

    def forward(self) -> None:
        self.tops[0].x.copy_(self._places(self.bottoms[0].x))

    def backward(self) -> None:
        d = self.bottoms[0].d
        if self.firsts[0]:
            d.zero_()
        self._places(d).add_(self.tops[0].d)

    def _places(self, x: Tensor) -> Tensor:
        return x[:, :, :: self.stride[0], :: self.stride[1]]
