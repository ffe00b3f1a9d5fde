"""The best settings for a net: memory order of images, by measurement; threads, by size."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from time import perf_counter
from typing import Any, Callable

import torch
from torch import nn

from torchcaffe import graph
from torchcaffe.layers.base import Shape
from torchcaffe.layers.weighted import Convolution, Deconvolution, InnerProduct
from torchcaffe.net import Net

# Multiply-adds a layer, about 100 us of one core: below it threads wait longer for each other
# than they compute, and many times longer beside other work. A weight that is read counts as 4.
WORTH_THREADS = 4e6
LIGHT, BESIDE = 64e6, 4  # numbers in blobs, those in place counted again: in all, a weight
IMAGES = 2  # to time with on a CPU, where more would take long; a GPU gets the whole batch


def threads(net: Net) -> int:
    """The threads worth using for a net's layers: PyTorch's number, or one for small nets."""
    return 1 if small(net) else torch.get_num_threads()


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread, where others would be waited for longer than they help."""
    before = torch.get_num_threads()
    if before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def small(net: Net) -> bool:
    """Whether the layers that learn have little to compute, by the mean."""
    work = []
    for step in net.steps:
        made = None if step.param.type in graph.FED else net.layer_named(step.param.name)
        if isinstance(made, (Convolution, Deconvolution, InnerProduct)):
            places = math.prod(net.shapes[step.tops[0].name]) / made.outputs
            work.append(made.blobs[0].numel() * (places + 4))
    return bool(work) and sum(work) < WORTH_THREADS * len(work)


def light(net: Net) -> bool:
    """Whether a net's blobs are few, as such or beside its weights (of tiny images)."""
    weights = sum(one.blob.numel() for one in net.learned)
    blobs = sum(math.prod(net.shapes[v.name]) for step in net.steps for v in step.tops)
    return blobs < max(LIGHT, BESIDE * weights)


def arrange(module: nn.Module, last: bool) -> None:
    """Lay the blobs of a net out for the order."""
    kind = torch.channels_last if last else torch.contiguous_format
    module.to(memory_format=kind)  # type: ignore[call-overload]  # as PyTorch documents it


def gain(
    net: Net, device: torch.device, precision: Callable[[], AbstractContextManager[object]]
) -> float:
    """How much faster channels last is for the net's convolutions, forward and backward.

    Each distinct one is timed, after a warm-up, and counted as often as the net has it.
    1 where there is none. Random numbers that others draw are not touched.
    """
    counts: dict[tuple[Any, ...], int] = {}
    layers: dict[tuple[Any, ...], Convolution] = {}
    for step in net.steps:
        made = None if step.param.type in graph.FED else net.layer_named(step.param.name)
        if not isinstance(made, Convolution) or made.dims != 2:
            continue
        shape = net.shapes[step.bottoms[0].name]
        key = (shape, made.blobs[0].shape, made.stride, made.pad, made.dilation, made.group)
        counts[key] = counts.get(key, 0) + 1
        layers[key] = made
    spent = {False: 0.0, True: 0.0}
    for key, made in layers.items():
        images, *rest = key[0]
        shape = (images if device.type == "cuda" else min(images, IMAGES), *rest)
        for last in spent:
            with precision():
                spent[last] += counts[key] * _seconds(made, shape, device, last)
    return spent[False] / spent[True] if layers else 1.0


def _seconds(made: Convolution, shape: Shape, device: torch.device, last: bool) -> float:
    kind = torch.channels_last if last else torch.contiguous_format
    weight = made.blobs[0].detach().contiguous(memory_format=kind).requires_grad_()
    x = torch.ones(shape, device=device).contiguous(memory_format=kind).requires_grad_()
    spent = []
    for _ in range(3):
        start = now(device)
        y = made.convolve(x, weight)
        torch.autograd.grad(y, (x, weight), torch.ones_like(y))
        spent.append(now(device) - start)
    return min(spent[1:])  # the first warms up


def now(device: torch.device) -> float:
    """Seconds on a clock, all work that the device was given being done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return perf_counter()
