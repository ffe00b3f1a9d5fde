"""Memory that is laid out once: a blob's numbers and gradients, and many arrays as one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from torchcaffe.layers.base import Shape
from torchcaffe.net import Learned

LINE = 16  # floats of a line of the cache, where each array starts


class Blob:
    """A value of the net: its numbers `x`, and their gradient `d` on the way back.

    `rows` and `drows` are the same memory as N H W x C, where it is held from the beginning.
    Memory that is not held is its maker's, and nobody changes it.
    """

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.x: Tensor = None  # type: ignore[assignment]  # written before it is read
        self.rows: Tensor | None = None
        self.d: Tensor = None  # type: ignore[assignment]  # likewise, where one comes
        self.drows: Tensor | None = None
        self.readers = 0  # that have a gradient for it
        self.asked = 0  # of them, while the backward pass is laid out

    def hold(self) -> Tensor:
        """Have memory for the numbers from now on; the rows."""
        self.x, self.rows = _held(self.shape)
        return self.rows

    def hold_gradient(self) -> Tensor:
        """Have memory for the gradient from now on; its rows."""
        if self.drows is None:
            self.d, self.drows = _held(self.shape)
        return self.drows

    def first(self) -> bool:
        """Whether the reader that asks, in the order of the backward pass, is the first."""
        self.asked += 1
        return self.asked == 1

    def take(self, gradient: Tensor, first: bool) -> None:
        """A reader's gradient."""
        if self.drows is None:
            self.d = gradient
        elif first:
            self.d.copy_(gradient)
        else:
            self.d.add_(gradient)


def _held(shape: Shape) -> tuple[Tensor, Tensor]:
    order = torch.channels_last if len(shape) == 4 else torch.contiguous_format
    x = torch.zeros(shape).contiguous(memory_format=order)
    return x, as_rows(x)


def as_rows(x: Tensor) -> Tensor:
    """N x C x H x W as N H W x C; without a copy where channels come last in memory."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1]) if x.dim() == 4 else x.flatten(1)


class Flat:
    """Learned arrays as one: the weights, their gradients and histories, each group in a row.

    A group is what shares lr_mult and decay_mult. The arrays themselves become views, in the
    memory order that they have, and so does each one's `grad`.

    Attributes:
        mults: lr_mult and decay_mult of each group.
        weights, gradients: a tensor a group.
        histories: of each group, for each history that the solver keeps.
    """

    def __init__(self, learned: Sequence[Learned], histories: Sequence[Sequence[Tensor]]) -> None:
        groups: dict[tuple[float, float], list[int]] = {}
        for i, one in enumerate(learned):
            groups.setdefault((one.lr_mult, one.decay_mult), []).append(i)
        self.mults = list(groups)
        self.weights: list[Tensor] = []
        self.gradients: list[Tensor] = []
        self.histories: list[list[Tensor]] = [[] for _ in histories]
        for members in groups.values():
            blobs = [learned[i].blob for i in members]
            self.weights.append(gather(blobs))
            self.gradients.append(torch.zeros_like(self.weights[-1]))
            for blob, piece in zip(blobs, pieces(self.gradients[-1], blobs)):
                blob.grad = piece
            for held, history in zip(self.histories, histories):
                held.append(gather([history[i] for i in members]))


@torch.no_grad()
def gather(arrays: Sequence[Tensor]) -> Tensor:
    """One flat array that holds all of `arrays`, which become views of it."""
    flat = torch.zeros(_offsets(arrays)[-1])
    for array, piece in zip(arrays, pieces(flat, arrays)):
        piece.copy_(array)
        array.data = piece
    return flat


def pieces(flat: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """The parts of a flat array that `gather` made, shaped and strided as `like`."""
    return [
        flat.as_strided(array.shape, array.stride(), start)
        for array, start in zip(like, _offsets(like))
    ]


def _offsets(arrays: Sequence[Tensor]) -> list[int]:
    """Where each starts, at a line of the cache, and the end."""
    return [0, *accumulate(-(-array.numel() // LINE) * LINE for array in arrays)]
