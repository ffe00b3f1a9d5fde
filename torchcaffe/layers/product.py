"""A convolution in bfloat16 as a product of matrices, which PyTorch's kernel for it is slower than.

On a CPU the kernel's gradient of the weights takes up to nine times as long as the product where a
large array of weights meets few places, as in res5, and points take up to twice as long at any size
(measured on one core of a Zen 5).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from torchcaffe.layers.base import Shape


class Windows(NamedTuple):
    """Where a convolution reads: its kernel, stride, pad and dilation, and the top's size."""

    kernel: Shape
    stride: Shape
    pad: Shape
    dilation: Shape
    top: Shape

    def gather(self, x: Tensor) -> Tensor:
        """The numbers in each window of N x H x W x C, a row a window: N H W x (h w C)."""
        pieces = list(self._pieces(self._padded(x)))
        rows = pieces[0] if len(pieces) == 1 else torch.cat(pieces, -1)
        return rows.reshape(-1, rows.shape[-1])

    def scatter(self, rows: Tensor, like: Tensor) -> Tensor:
        """The sum of what rows say of each number of N x H x W x C: `gather`'s gradient."""
        if self.kernel == self.stride == (1, 1):
            return rows.view(like.shape)
        padded = self._padded(torch.zeros_like(like))
        parts = rows.view(len(like), *self.top, -1, like.shape[-1]).unbind(3)
        for piece, part in zip(self._pieces(padded), parts):
            piece += part
        (top, left), (height, width) = self.pad, like.shape[1:3]
        return padded[:, top : top + height, left : left + width]

    def _padded(self, x: Tensor) -> Tensor:
        top, left = self.pad
        return F.pad(x, (0, 0, left, left, top, top)) if top or left else x

    def _pieces(self, padded: Tensor) -> Iterator[Tensor]:
        """What the windows' first places read, their second ones, and so on."""
        (over, across), (down, right), (height, width) = self.stride, self.dilation, self.top
        for i in range(0, self.kernel[0] * down, down):
            for j in range(0, self.kernel[1] * right, right):
                rows = slice(i, i + over * (height - 1) + 1, over)
                yield padded[:, rows, j : j + across * (width - 1) + 1 : across]


def product(x: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows) -> Tensor:
    """A convolution of N x C x H x W with O x C x h x w, rounded to bfloat16: N x O x H' x W'.

    `x` is bfloat16, with channels last in memory, and so is the top; weights and their gradients
    keep their precision.
    """
    y: Tensor = _Product.apply(x, weight, bias, windows)  # type: ignore[no-untyped-call]
    return y


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows
    ) -> Tensor:
        image = x.permute(0, 2, 3, 1)
        rows = windows.gather(image)
        matrix = weight.permute(0, 2, 3, 1).reshape(len(weight), -1).to(rows.dtype)
        y = torch.mm(rows, matrix.t())
        if bias is not None:
            y += bias
        ctx.windows, ctx.window, ctx.dtype = windows, weight.shape[1:], weight.dtype
        ctx.save_for_backward(image, matrix)  # rows of windows would take many times as much
        return y.view(len(x), *windows.top, -1).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable  # type: ignore[misc]  # without types
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        image, matrix = ctx.saved_tensors
        g = gradient.permute(0, 2, 3, 1).reshape(-1, len(matrix))
        dx = dweight = dbias = None
        if ctx.needs_input_grad[0]:
            dx = ctx.windows.scatter(torch.mm(g, matrix), image).permute(0, 3, 1, 2)
        if ctx.needs_input_grad[1]:
            channels, *sizes = ctx.window
            found = torch.mm(g.t(), ctx.windows.gather(image)).to(ctx.dtype)
            dweight = found.view(-1, *sizes, channels).permute(0, 3, 1, 2)
        if ctx.needs_input_grad[2]:
            dbias = g.sum(0, dtype=ctx.dtype)
        return dx, dweight, dbias, None
