"""Convolutions and classifiers, as products of matrices where that is faster.

Channels last, an image's memory is a matrix of a row a place, and a pointwise convolution its
product with the weights. So is a convolution of windows once their numbers stand in rows.
"""

from __future__ import annotations

from itertools import compress
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torchcaffe.direct.memory import as_rows
from torchcaffe.direct.operations import Op, grad
from torchcaffe.layers.base import Shape, count
from torchcaffe.layers.weighted import Convolution, InnerProduct, seen_as

if TYPE_CHECKING:
    from torchcaffe.direct.plan import Plan

PIXELS = 16  # of an image up to which it pays to gather windows
GATHERED = 1 << 16  # numbers in all up to which it does as well

_convolution_backward = torch.ops.aten.convolution_backward.default


class Conv(Op):
    """A convolution by PyTorch's kernels, and the ReLU behind it."""

    takes_relu = True

    @classmethod
    def fits(cls, made: Convolution, shapes: list[Shape], need: bool) -> bool:
        return len(shapes) == 1 and made.dims == 2

    def prepare(self, plan: Plan) -> None:
        made = self.layer
        arrays = list(made.blobs)
        self.weight, self.bias = arrays[0].data, arrays[1].data if len(arrays) > 1 else None
        self.sizes = ([*made.stride], [*made.pad], [*made.dilation])
        self.mask = [self.needs[0], *(blob.requires_grad for blob in arrays), False][:3]

    def forward(self) -> None:
        x = self.before(self.bottoms[0].x)
        y = torch.conv2d(x, self.weight, self.bias, *self.sizes, self.layer.group)
        self.tops[0].x = self.after(y.relu_() if self.relu else y)

    def backward(self) -> None:
        bottom = self.bottoms[0]
        gradient, x = self.before(self.gradient()), self.before(bottom.x)
        bias = None if self.bias is None else [len(self.bias)]
        dx, *found = _convolution_backward(
            gradient, x, self.weight, bias, *self.sizes, False, [0, 0], self.layer.group,
            self.mask,
        )  # fmt: skip
        if self.needs[0]:
            bottom.take(self.after(dx), self.firsts[0])
        for blob, gradient in zip(self.learned, compress(found, self.mask[1:])):
            grad(blob).copy_(gradient)

    def before(self, x: Tensor) -> Tensor:
        """Images as the kernel shall see them."""
        return x

    def after(self, y: Tensor) -> Tensor:
        """What the kernel made of them as images again."""
        return y


class Pointwise(Conv):
    """A large convolution of one pixel for one, seen as one of other images (see `images`)."""

    @classmethod
    def fits(cls, made: Convolution, shapes: list[Shape], need: bool) -> bool:
        if not super().fits(made, shapes, need) or not made.point:
            return False
        n, _, height, width = made.top_shape(shapes[0])
        return made.images(n * height * width) > 0

    def prepare(self, plan: Plan) -> None:
        super().prepare(plan)
        n, _, height, width = self.tops[0].shape
        self.whole = (n, height, width)
        self.parts = (self.layer.images(n * height * width), -1, 1)
        self.sizes = ([1, 1], [0, 0], [1, 1])  # of what is there of the bottom, see `Every`

    def before(self, x: Tensor) -> Tensor:
        return seen_as(x, self.parts)

    def after(self, y: Tensor) -> Tensor:
        return seen_as(y, self.whole)


class Product(Op):
    """A convolution or classifier that is a product of matrices, and the ReLU behind it."""

    takes_relu = True

    @classmethod
    def fits(cls, made: Any, shapes: list[Shape], need: bool) -> bool:
        (shape, *others) = shapes
        if isinstance(made, InnerProduct):
            return made.first == 1 and count(shape, 2) == 1
        if others or made.dims != 2:
            return False
        pixel = shape[2:] == (1, 1) and made.group == max(made.dilation) == 1
        return made.point or (pixel and _keeps_size(made))

    def prepare(self, plan: Plan) -> None:
        super().prepare(plan)
        weight, *bias = self.layer.blobs
        self.weight = self.matrix(weight.data)
        self.by = self.weight.t()
        self.bias = bias[0].data if bias else None
        dweight, self.dbias = self.gradients(weight, *bias)
        self.dweight = None if dweight is None else self.matrix(dweight)

    def matrix(self, weight: Tensor) -> Tensor:
        """Outputs x inputs: of a window, the place that falls on an image of one pixel."""
        made = self.layer
        if isinstance(made, InnerProduct):
            return weight.t() if made.transposed else weight
        return weight[:, :, made.pad[0], made.pad[1]]

    def read(self) -> Tensor:
        """The bottom's rows."""
        bottom = self.bottoms[0]
        return as_rows(bottom.x) if bottom.rows is None else bottom.rows

    def back(self, gradient: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The matrices whose product is the bottom's gradient, of the top's and its rows."""
        return rows, self.weight

    def prepare_backward(self, plan: Plan) -> None:
        super().prepare_backward(plan)
        if self.needs[0]:
            self.into = self.bottoms[0].hold_gradient()

    def forward(self) -> None:
        self.rows = self.read()
        if self.bias is None:
            torch.mm(self.rows, self.by, out=self.out)
        else:
            torch.addmm(self.bias, self.rows, self.by, out=self.out)
        if self.relu:
            self.out.relu_()

    def backward(self) -> None:
        gradient, drows = self.gradient(), self.tops[0].drows
        rows = as_rows(gradient) if drows is None else drows
        if self.dweight is not None:
            torch.mm(rows.t(), self.rows, out=self.dweight)
        if self.dbias is not None:
            torch.sum(rows, 0, out=self.dbias)
        if self.needs[0]:
            rows, by = self.back(gradient, rows)
            if self.firsts[0]:
                torch.mm(rows, by, out=self.into)
            else:
                self.into.addmm_(rows, by)


class Windows(Product):
    """A convolution of few or small images whose windows' numbers are gathered: a product too.

    Channels last, a row of all windows' numbers has the weights' own order; and the gradient
    of the image, where windows are odd and the size is kept, is the same convolution of the
    top's, with the window turned round.
    """

    @classmethod
    def fits(cls, made: Convolution, shapes: list[Shape], need: bool) -> bool:
        if len(shapes) > 1 or made.dims != 2 or made.group > 1 or max(made.dilation) > 1:
            return False
        numbers = count(made.top_shape(shapes[0])) // made.outputs * made.blobs[0][0].numel()
        small = count(shapes[0], 2) <= PIXELS or numbers <= GATHERED
        return small and (not need or (_keeps_size(made) and max(made.stride) == 1))

    def prepare(self, plan: Plan) -> None:
        super().prepare(plan)
        self.gather = _Gather(self.bottoms[0].shape, self.layer)
        if self.needs[0]:
            self.gather_back = _Gather(self.tops[0].shape, self.layer)
            weight = self.layer.blobs[0].data
            self.places = weight.permute(2, 3, 0, 1).flatten(0, 1)  # of the window, each O x C
            self.turned = torch.empty(self.places.shape)
            self.last_first = torch.arange(len(self.places)).flip(0)

    def matrix(self, weight: Tensor) -> Tensor:
        """O x C x h x w, channels last, as O x h w C."""
        return weight.permute(0, 2, 3, 1).view(len(weight), -1)

    def read(self) -> Tensor:
        return self.gather(self.bottoms[0].x)

    def back(self, gradient: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        torch.index_select(self.places, 0, self.last_first, out=self.turned)
        return self.gather_back(gradient), self.turned.flatten(0, 1)


def _keeps_size(made: Convolution) -> bool:
    """Whether windows are odd, and padded so that without a stride an image keeps its size."""
    return all(kernel == 2 * pad + 1 for kernel, pad in zip(made.kernel, made.pad))


class _Gather:
    """The numbers in each window of an image, a row a window: N H W x h w C."""

    def __init__(self, shape: Shape, made: Convolution) -> None:
        n, c, height, width = shape
        (top, left), window = made.pad, made.kernel
        padded = torch.zeros(n, height + 2 * top, width + 2 * left, c)
        self.inside = padded[:, top : top + height, left : left + width].permute(0, 3, 1, 2)
        image, line, place, _ = padded.stride()
        down, right = made.stride
        self.windows = padded.as_strided(
            (n, *made.top_shape(shape)[2:], *window, c),
            (image, down * line, right * place, line, place, 1),
        )
        self.held = torch.empty(self.windows.shape)
        self.rows = self.held.view(-1, c * count(window))

    def __call__(self, x: Tensor) -> Tensor:
        self.inside.copy_(x)
        self.held.copy_(self.windows)
        return self.rows
