"""Data-parallel training under torchrun; gradients are averaged as by Caffe's NCCL.

Each rank reads every world-th record and computes on a batch of its own.
BatchNorm's statistics stay a rank's own, as in Caffe, unless `sync_bn`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

_sync_bn = False


def start(gpu: bool, sync: bool = False) -> tuple[int, int]:
    """Join the group that torchrun's environment names; rank and world size, (0, 1) alone."""
    global _sync_bn
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if gpu else "gloo")
    _sync_bn = sync
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def stop() -> None:
    """Leave the group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def sync_bn() -> bool:
    """Whether BatchNorm sees the batch of all ranks."""
    return _sync_bn and dist.is_initialized()


def average(tensors: Iterable[Tensor]) -> None:
    """Replace each tensor by its mean over the ranks, in one exchange."""
    tensors = list(tensors)
    if not dist.is_initialized() or not tensors:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    pieces = flat.split([tensor.numel() for tensor in tensors])
    torch._foreach_copy_(tensors, [p.view_as(t) for p, t in zip(pieces, tensors)])


def copy_from_first(tensors: Iterable[Tensor]) -> None:
    """Give every rank the first one's numbers."""
    if dist.is_initialized():
        for tensor in tensors:
            dist.broadcast(tensor, 0)


class _Sum(torch.autograd.Function):
    """The sum over the ranks; its gradient is the sum of the ranks' gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total


def _sum(x: Tensor) -> Tensor:
    return _Sum.apply(x)  # type: ignore[no-untyped-call]  # PyTorch's


def batch_norm(
    x: Tensor, gamma: Tensor | None, beta: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Batch normalisation over all ranks: result, mean and unbiased variance by channel."""
    axes = [axis for axis in range(x.dim()) if axis != 1]
    samples = x.numel() // x.shape[1] * dist.get_world_size()
    shape = [1, -1] + [1] * (x.dim() - 2)
    wide = x.float()
    mean = _sum(wide.sum(axes)) / samples
    centred = wide - mean.view(shape)
    var = _sum(centred.square().sum(axes)) / samples
    y = centred * (var + eps).rsqrt().view(shape)
    if gamma is not None:
        y = y * gamma.view(shape)
    if beta is not None:
        y = y + beta.view(shape)
    unbiased = var.detach() * (samples / max(samples - 1, 1))
    return y.to(x.dtype), mean.detach(), unbiased
