"""BatchNorms: what several keep as one array, and the operation."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchcaffe.direct.memory import gather, pieces
from torchcaffe.direct.operations import Op, grad
from torchcaffe.layers.base import Shape
from torchcaffe.layers.weighted import BatchNorm, Scale

if TYPE_CHECKING:
    from torchcaffe.direct.plan import Plan

_batch_norm_backward = torch.ops.aten.native_batch_norm_backward.default


class Statistics:
    """What BatchNorms of one moving_average_fraction keep, as one array, and the batch's own."""

    def __init__(self, norms: Sequence[BatchNorm]) -> None:
        kept = [blob for norm in norms for blob in norm.blobs]
        self.fraction = norms[0].fraction
        self.sums = gather(kept)
        self.batch = torch.zeros_like(self.sums)
        found = iter(pieces(self.batch, kept))
        self.of: dict[int, tuple[Tensor, Tensor]] = {}
        for norm, mean, var, weight in zip(norms, found, found, found):
            weight.fill_(1)
            # The unbiased variance of one sample is no number; Caffe has 0.
            self.of[id(norm)] = mean, var if norm.samples > 1 else torch.zeros_like(var)

    def update(self) -> None:
        """Take the batch's in."""
        torch.add(self.batch, self.sums, alpha=self.fraction, out=self.sums)


class Running:
    """The running means and variances of several BatchNorms, reckoned from their sums at once."""

    def __init__(self, norms: Sequence[BatchNorm]) -> None:
        self.sums = [blob for norm in norms for blob in list(norm.blobs)[:2]]
        self.weights = [norm.blobs[2] for norm in norms]
        sizes = [blob.numel() for blob in self.sums]
        self.times = torch.tensor([2 * size for size in sizes[::2]])
        self.values = torch.empty(sum(sizes))
        found = iter(self.values.split(sizes))
        self.of = {id(norm): pair for norm, pair in zip(norms, zip(found, found))}

    def update(self) -> None:
        """Take the sums as they are now; nothing seen is 0."""
        weights = torch.cat(self.weights)
        factors = torch.where(weights == 0, 0.0, 1 / weights)
        factors = factors.repeat_interleave(self.times, output_size=len(self.values))
        torch.mul(torch.cat(self.sums), factors, out=self.values)


class Norm(Op):
    """BatchNorm by the batch's or the running statistics, with the Scale and the ReLU behind it."""

    takes_relu = True

    @classmethod
    def fits(cls, made: BatchNorm, shapes: list[Shape], need: bool) -> bool:
        return len(shapes[0]) in (2, 4)

    def prepare(self, plan: Plan) -> None:
        super().prepare(plan)
        norm = self.layer
        blobs = [blob for made in self.layers if isinstance(made, Scale) for blob in made.blobs]
        self.gamma, self.beta = ([blob.data for blob in blobs] + [None, None])[:2]
        self.mask = [self.needs[0], *(blob.requires_grad for blob in blobs), False, False][:3]
        self.statistics = plan.statistics[id(norm)]
        self.by_batch, self.eps = not norm.frozen, norm.eps
        # PyTorch notes mean and deviation of the batch for the way back.
        self.saved = tuple(torch.empty(len(mean) * self.by_batch) for mean in self.statistics)

    def forward(self) -> None:
        y = self.tops[0].x
        # With momentum 1 PyTorch's running statistics are this batch's own.
        torch.native_batch_norm(
            self.bottoms[0].x, self.gamma, self.beta, *self.statistics, self.by_batch, 1.0,
            self.eps, out=(y, *self.saved),
        )  # fmt: skip
        if self.relu:
            y.relu_()

    def backward(self) -> None:
        bottom = self.bottoms[0]
        dx, *found = _batch_norm_backward(
            self.gradient(), bottom.x, self.gamma, *self.statistics, *self.saved, self.by_batch,
            self.eps, self.mask,
        )  # fmt: skip
        if self.needs[0]:
            bottom.take(dx, self.firsts[0])
        for blob, gradient in zip(self.learned, compress(found, self.mask[1:])):
            grad(blob).copy_(gradient)
