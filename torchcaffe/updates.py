"""Caffe's update rules: what is taken from the weights, and the history that remains.

Each takes all learned arrays at once. `gradients` come clipped, divided by
iter_size and with the decay added; they and the histories are changed in place.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, Callable, Union

import torch
from torch import Tensor

from xresnet.basics.cli import UserError, near_miss

Tensors = list[Tensor]


def sgd(
    p: Any, gradients: Tensors, history: Tensors, rates: list[float], iteration: int
) -> Tensors:
    """V = momentum V + lr g; W -= V."""
    torch._foreach_mul_(gradients, rates)
    torch._foreach_mul_(history, p.momentum)
    torch._foreach_add_(history, gradients)
    return history


def fused_sgd(
    p: Any, weights: Tensors, gradients: Tensors, history: Tensors,
    rates: list[float], decays: list[float],
) -> bool:  # fmt: skip
    """SGD with L2 decay in one pass over memory, on a CPU; False where it cannot be done so.

    PyTorch's kernel computes V = momentum V + (1 - dampening) (g + decay W); W -= lr V:
    with dampening 1 - rate and lr 1 that is Caffe's rule. It walks all four arrays alike,
    so they must lie alike.
    """
    alike = all(
        w.device.type == "cpu" and w.dtype == g.dtype and w.stride() == g.stride() == h.stride()
        for w, g, h in zip(weights, gradients, history)
    )
    if not (alike and p.momentum and _kernel()):
        return False
    groups: dict[tuple[float, float], list[int]] = {}
    for i, kind in enumerate(zip(rates, decays)):
        groups.setdefault(kind, []).append(i)
    for (rate, decay), chosen in groups.items():
        w, g, h = ([_row(tensors[i]) for i in chosen] for tensors in (weights, gradients, history))
        _fused(w, g, h, rate, decay, p.momentum)
    return True


def _row(x: Tensor) -> Tensor:
    """An array in the order of its memory, where it has no gaps: the kernel copies others."""
    dense = x.is_contiguous(memory_format=torch.channels_last) if x.dim() == 4 else False
    return x.permute(0, 2, 3, 1).view(-1) if dense else x


def _fused(
    weights: Tensors, gradients: Tensors, history: Tensors,
    rate: float, decay: float, momentum: float,
) -> None:  # fmt: skip
    torch._fused_sgd_(
        weights, gradients, history, weight_decay=decay, momentum=momentum, lr=1.0,
        dampening=1 - rate, nesterov=False, maximize=False, is_first_step=False,
    )  # fmt: skip


@cache
def _kernel() -> bool:
    """Whether this PyTorch has the kernel, which is no public function, and as described."""
    w, g, v = ([torch.full([2], x)] for x in (1.0, 2.0, 4.0))
    try:
        _fused(w, g, v, rate=0.5, decay=0.25, momentum=0.5)
    except (AttributeError, TypeError, RuntimeError):
        return False
    return v[0].tolist() == [3.125] * 2 and w[0].tolist() == [-2.125] * 2


def nesterov(
    p: Any, gradients: Tensors, history: Tensors, rates: list[float], iteration: int
) -> tuple[Tensor, ...]:
    """V as in SGD; W -= (1 + momentum) V - momentum V_before."""
    before = torch._foreach_mul(history, -p.momentum)
    sgd(p, gradients, history, rates, iteration)
    torch._foreach_add_(before, history, alpha=1 + p.momentum)
    return before


def adagrad(
    p: Any, gradients: Tensors, history: Tensors, rates: list[float], iteration: int
) -> Tensors:
    """H += g^2; W -= lr g / (sqrt(H) + delta)."""
    torch._foreach_addcmul_(history, gradients, gradients)
    return _over_root(gradients, history, p.delta, rates)


def rmsprop(
    p: Any, gradients: Tensors, history: Tensors, rates: list[float], iteration: int
) -> Tensors:
    """H = decay H + (1 - decay) g^2; W -= lr g / (sqrt(H) + delta)."""
    torch._foreach_mul_(history, p.rms_decay)
    torch._foreach_addcmul_(history, gradients, gradients, 1 - p.rms_decay)
    return _over_root(gradients, history, p.delta, rates)


def adadelta(
    p: Any, gradients: Tensors, history: Tensors, rates: list[float], iteration: int
) -> Tensors:
    """g times the root of the mean squared update over that of the mean squared gradient."""
    squares, updates = history[: len(gradients)], history[len(gradients) :]
    torch._foreach_mul_(squares, p.momentum)
    torch._foreach_addcmul_(squares, gradients, gradients, 1 - p.momentum)
    ratio = torch._foreach_div(
        torch._foreach_add(updates, p.delta), torch._foreach_add(squares, p.delta)
    )
    torch._foreach_sqrt_(ratio)
    torch._foreach_mul_(gradients, ratio)
    torch._foreach_mul_(updates, p.momentum)
    torch._foreach_addcmul_(updates, gradients, gradients, 1 - p.momentum)
    torch._foreach_mul_(gradients, rates)
    return gradients


def adam(
    p: Any, gradients: Tensors, history: Tensors, rates: list[float], iteration: int
) -> tuple[Tensor, ...]:
    """First and second moments, their bias corrected in the rate."""
    means, squares = history[: len(gradients)], history[len(gradients) :]
    torch._foreach_mul_(means, p.momentum)
    torch._foreach_add_(means, gradients, alpha=1 - p.momentum)
    torch._foreach_mul_(squares, p.momentum2)
    torch._foreach_addcmul_(squares, gradients, gradients, 1 - p.momentum2)
    t = iteration + 1
    correction = math.sqrt(1 - p.momentum2**t) / (1 - p.momentum**t)
    root = torch._foreach_sqrt(squares)
    torch._foreach_add_(root, p.delta)
    update = torch._foreach_div(means, root)
    torch._foreach_mul_(update, [rate * correction for rate in rates])
    return update


def _over_root(gradients: Tensors, history: Tensors, delta: float, rates: list[float]) -> Tensors:
    root = torch._foreach_sqrt(history)
    torch._foreach_add_(root, delta)
    torch._foreach_div_(gradients, root)
    torch._foreach_mul_(gradients, rates)
    return gradients


Rule = Callable[[Any, Tensors, Tensors, list[float], int], Union[Tensors, tuple[Tensor, ...]]]
RULES: dict[str, tuple[Rule, int]] = {  # and how many histories an array has
    "SGD": (sgd, 1),
    "Nesterov": (nesterov, 1),
    "AdaGrad": (adagrad, 1),
    "RMSProp": (rmsprop, 1),
    "AdaDelta": (adadelta, 2),
    "Adam": (adam, 2),
}
OLD = ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam")  # enum SolverType


def rule(param: Any) -> tuple[Rule, int]:
    """The rule that a SolverParameter names, by `type` or the older `solver_type`."""
    name = OLD[param.solver_type] if param.HasField("solver_type") else param.type
    if name not in RULES:
        raise UserError(f"unknown solver type {name!r}{near_miss(name, RULES)}")
    if name == "AdaGrad" and param.momentum:
        raise UserError("AdaGrad has no momentum: leave it out")
    if name == "RMSProp" and param.momentum:
        raise UserError("RMSProp has no momentum: leave it out")
    return RULES[name]
