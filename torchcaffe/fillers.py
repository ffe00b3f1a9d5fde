"""Initial weights: Caffe's fillers, with its distributions (not its random numbers)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from xresnet.basics.cli import UserError, near_miss


@torch.no_grad()
def fill(blob: Tensor, filler: Any) -> None:
    """Fill `blob` in place as the FillerParameter says, from torch's generator.

    Raises:
        UserError: a filler that is not known, or does not fit the blob's shape.
    """
    draw = _FILLERS.get(filler.type)
    if draw is None:
        raise UserError(f"unknown filler {filler.type!r}{near_miss(filler.type, _FILLERS)}")
    draw(blob, filler)


def _constant(blob: Tensor, filler: Any) -> None:
    blob.fill_(filler.value)


def _uniform(blob: Tensor, filler: Any) -> None:
    blob.uniform_(filler.min, filler.max)


def _gaussian(blob: Tensor, filler: Any) -> None:
    blob.normal_(filler.mean, filler.std)
    if filler.sparse >= 0:  # that many inputs of each output stay, in expectation
        blob.mul_(torch.rand_like(blob) < filler.sparse / blob.shape[0])


def _positive_unitball(blob: Tensor, filler: Any) -> None:
    rows = blob.uniform_(0, 1).view(blob.shape[0], -1)
    rows.div_(rows.sum(1, keepdim=True))


def _xavier(blob: Tensor, filler: Any) -> None:
    bound = math.sqrt(3 / _units(blob, filler))
    blob.uniform_(-bound, bound)


def _msra(blob: Tensor, filler: Any) -> None:
    blob.normal_(0, math.sqrt(2 / _units(blob, filler)))


def _bilinear(blob: Tensor, filler: Any) -> None:
    if blob.dim() != 4 or blob.shape[2] != blob.shape[3]:
        raise UserError("the bilinear filler needs N x C x K x K")
    size = blob.shape[3]
    f = math.ceil(size / 2)
    center = (2 * f - 1 - f % 2) / (2 * f)
    line = 1 - (torch.arange(size) / f - center).abs()
    blob.copy_((line[:, None] * line[None, :]).expand_as(blob))


def _units(blob: Tensor, filler: Any) -> float:
    """n of msra and xavier. A missing axis counts as 1: a Scale's C weights have fan-in 1."""
    if blob.dim() < 1:
        raise UserError(f"the {filler.type} filler crashes Caffe on a scalar; use constant")
    fan_in = blob.numel() / blob.shape[0]
    fan_out = blob.numel() / (blob.shape[1] if blob.dim() > 1 else 1)
    return (fan_in, fan_out, (fan_in + fan_out) / 2)[filler.variance_norm]


_FILLERS = {
    "constant": _constant,
    "uniform": _uniform,
    "gaussian": _gaussian,
    "positive_unitball": _positive_unitball,
    "xavier": _xavier,
    "msra": _msra,
    "bilinear": _bilinear,
}
