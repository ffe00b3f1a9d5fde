"""Losses, and the scores beside them. Labels are floats that hold class numbers, as in Caffe."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from torchcaffe.layers.base import Layer, Shape, count, layer
from xresnet.caffeproto import caffemodel

# No logarithm of less than the smallest normal float.
LOG_TINY = math.log(torch.finfo(torch.float32).tiny)


class _Normalised(Layer):
    """A loss that divides by what loss_param says, and skips ignore_label."""

    bottoms = (2, 2)
    loss = True
    default = "VALID"

    def shapes_of_tops(self, shapes: list[Shape]) -> list[Shape]:
        return [(), shapes[0]][: self.tops]

    def setup(self, shapes: list[Shape]) -> None:
        p = self.param.loss_param
        self.ignore = p.ignore_label if p.HasField("ignore_label") else None
        mode = type(p).DESCRIPTOR.enum_types_by_name["NormalizationMode"].values_by_number
        if p.HasField("normalization"):
            self.mode = mode[p.normalization].name
        elif p.HasField("normalize"):
            self.mode = "VALID" if p.normalize else "BATCH_SIZE"
        else:
            self.mode = self.default

    def divide(self, total: Tensor, valid: Tensor | int, outer: int, inner: int) -> Tensor:
        """`total` by the normaliser, which is at least 1."""
        if self.mode == "VALID" and isinstance(valid, Tensor):
            return total / valid.clamp(min=1)
        by = {"FULL": outer * inner, "VALID": valid, "BATCH_SIZE": outer, "NONE": 1}[self.mode]
        return total / max(by, 1)


@layer("SoftmaxWithLoss")
class SoftmaxWithLoss(_Normalised):
    """Mean of -log(max(p, FLT_MIN)) of the true classes; a second top holds p."""

    def setup(self, shapes: list[Shape]) -> None:
        super().setup(shapes)
        self.classes = self.axis(self.param.softmax_param.axis, len(shapes[0]))
        _check_labels(self, self.classes, shapes)

    def forward(self, x: Tensor, label: Tensor) -> Any:
        x = x if x.dtype == torch.float64 else x.float()
        scores, label = _flat(x, label.detach(), self.classes)
        outer, _, inner = scores.shape
        log_p = scores.log_softmax(1)
        # The floor bounds the value; the gradient stays p - 1 below it.
        floored = log_p.detach().clamp(min=LOG_TINY)
        nll = F.nll_loss(
            log_p + (floored - log_p.detach()),
            label,
            ignore_index=-100 if self.ignore is None else self.ignore,
            reduction="sum",
        )
        valid: Tensor | int = outer * inner
        if self.ignore is not None:
            valid = (label != self.ignore).sum()
        loss = self.divide(nll, valid, outer, inner)
        return (loss, log_p.detach().exp().reshape(x.shape)) if self.tops > 1 else loss


@layer("SigmoidCrossEntropyLoss")
class SigmoidCrossEntropyLoss(_Normalised):
    """Cross-entropy of targets in [0, 1] with the logistic of the scores."""

    default = "BATCH_SIZE"

    def forward(self, x: Tensor, target: Tensor) -> Any:
        target = target.detach().reshape(x.shape)
        loss = F.binary_cross_entropy_with_logits(x, target, reduction="none")
        valid: Tensor | int = x.numel()
        if self.ignore is not None:
            keep = target != self.ignore
            loss, valid = torch.where(keep, loss, 0.0), keep.sum()
        loss = self.divide(loss.sum(), valid, x.shape[0], count(x.shape, 1))
        return (loss, torch.sigmoid(x.detach())) if self.tops > 1 else loss


@layer("EuclideanLoss")
class EuclideanLoss(Layer):
    """Half the mean over images of the squared distance; gradients to both bottoms."""

    bottoms = (2, 2)
    loss = True

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return (x.flatten() - y.flatten()).square().sum() / (2 * x.shape[0])


@layer("HingeLoss")
class HingeLoss(Layer):
    """One-against-all margins, summed plain or squared, mean over images."""

    bottoms = (2, 2)
    loss = True

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        p = self.param.hinge_loss_param
        x = x.flatten(1)
        sign = 1 - 2 * F.one_hot(label.detach().flatten().long(), x.shape[1]).to(x.dtype)
        margin = F.relu(1 + sign * x)
        return (margin.square() if p.norm == p.L2 else margin).sum() / x.shape[0]


@layer("MultinomialLogisticLoss")
class MultinomialLogisticLoss(Layer):
    """-log p of the true class, p given, at least 1e-20; mean over images."""

    bottoms = (2, 2)
    loss = True

    def forward(self, p: Tensor, label: Tensor) -> Tensor:
        true = p.flatten(1).gather(1, label.detach().long().reshape(-1, 1))
        return -true.clamp(min=1e-20).log().sum() / p.shape[0]


@layer("ContrastiveLoss")
class ContrastiveLoss(Layer):
    """Half the mean over pairs: squared distance of like ones, of others what lacks to the margin.

    Caffe adds 1e-4 to the distance that its gradient divides by.
    """

    bottoms = (3, 3)
    loss = True

    def setup(self, shapes: list[Shape]) -> None:
        if shapes[0] != shapes[1] or count(shapes[2]) != shapes[0][0]:
            raise self.mistake(
                f"needs two bottoms of one shape and one label per pair, not {shapes}"
            )

    def forward(self, a: Tensor, b: Tensor, like: Tensor) -> Tensor:
        p = self.param.contrastive_loss_param
        squared = (a - b).flatten(1).square().sum(1)
        if p.legacy_version:
            unlike = F.relu(p.margin - squared)
        else:
            distance = squared.detach().sqrt()
            distance = distance + (squared - squared.detach()) / (2 * (distance + 1e-4))
            unlike = F.relu(p.margin - distance).square()
        alike = like.detach().flatten().int() != 0
        return torch.where(alike, squared, unlike).sum() / (2 * a.shape[0])


@layer("InfogainLoss")
class InfogainLoss(_Normalised):
    """-log p of every class, softmax included, weighed by the true class's row of a matrix.

    The matrix is a third bottom, or the file that `source` names.
    """

    bottoms = (2, 3)
    matrix: Tensor

    def setup(self, shapes: list[Shape]) -> None:
        super().setup(shapes)
        p = self.param.infogain_loss_param
        self.classes = self.axis(p.axis, len(shapes[0]))
        _check_labels(self, self.classes, shapes)
        size = shapes[0][self.classes]
        if len(shapes) < 3:
            if not p.source:
                raise self.mistake("no source and no third bottom: the matrix is missing")
            matrix = torch.from_numpy(caffemodel.load_array(p.source).copy())
            self.register_buffer("matrix", matrix, persistent=False)
        if (count(shapes[2]) if len(shapes) > 2 else self.matrix.numel()) != size * size:
            raise self.mistake(f"the matrix is not {size} x {size}")

    def forward(self, x: Tensor, label: Tensor, matrix: Tensor | None = None) -> Any:
        scores, label = _flat(x.float(), label.detach(), self.classes)
        outer, classes, inner = scores.shape
        log_p = scores.log_softmax(1)
        floored = log_p.detach().clamp(min=math.log(1e-20))
        rows = self.matrix if matrix is None else matrix.detach()
        keep = torch.ones_like(label, dtype=torch.bool)
        if self.ignore is not None:
            keep = label != self.ignore
        weights = rows.reshape(classes, classes)[label * keep].movedim(-1, 1)
        each = -(weights * (log_p + (floored - log_p.detach()))).sum(1)
        valid = outer * inner if self.ignore is None else keep.sum()
        loss = self.divide(torch.where(keep, each, 0.0).sum(), valid, outer, inner)
        return (loss, log_p.detach().exp().reshape(x.shape)) if self.tops > 1 else loss


@layer("Accuracy")
class Accuracy(Layer):
    """The share whose true class has fewer than top_k others scoring as much or more.

    NaN compares with nothing, so that scores which are no numbers count as
    right: Caffe's way. A second top is the accuracy by class, 0 for none.
    """

    bottoms = (2, 2)

    def setup(self, shapes: list[Shape]) -> None:
        p = self.param.accuracy_param
        self.classes = self.axis(p.axis, len(shapes[0]))
        _check_labels(self, self.classes, shapes)
        if p.top_k > shapes[0][self.classes]:
            raise self.mistake(f"top_k {p.top_k} of {shapes[0][self.classes]} classes")

    def shapes_of_tops(self, shapes: list[Shape]) -> list[Shape]:
        return [(), (shapes[0][self.classes],)][: self.tops]

    @torch.no_grad()
    def forward(self, x: Tensor, label: Tensor) -> Any:
        p = self.param.accuracy_param
        classes = x.shape[self.classes]
        scores, label = _flat(x, label, self.classes)
        label = label[:, None]
        keep = torch.ones_like(label, dtype=torch.bool)
        if p.HasField("ignore_label"):
            keep = label != p.ignore_label
        label = label.clamp(0, classes - 1)
        rivals = (scores >= scores.gather(1, label)).sum(1, keepdim=True) - 1
        right = ((rivals < p.top_k) & keep).float()
        share = right.sum() / keep.sum().clamp(min=1)
        if self.tops == 1:
            return share
        seen, hit = (
            torch.zeros(classes, device=x.device).index_add_(0, label.flatten(), flat)
            for flat in (keep.float().flatten(), right.flatten())
        )
        return share, hit / seen.clamp(min=1)


def _check_labels(owner: Layer, classes: int, shapes: list[Shape]) -> None:
    """A label for each place outside the axis of the classes."""
    places = count(shapes[0]) // shapes[0][classes]
    if count(shapes[1]) != places:
        raise owner.mistake(f"{count(shapes[1])} labels for {places} scores")


def _flat(x: Tensor, label: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Scores as outer x classes x inner, and integer labels as outer x inner."""
    shape = (count(x.shape, 0, classes), x.shape[classes], count(x.shape, classes + 1))
    return x.reshape(shape), label.reshape(shape[0], shape[2]).long()
