"""Caffe's learning rate policies, and `plateau` as intel/caffe has it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Callable

from xresnet.basics.cli import UserError, near_miss


@dataclass
class Schedule:
    """The learning rate of each iteration, asked in order.

    Attributes:
        step: how many drops have been made (multistep, plateau).
        minimum_loss, last_event: plateau's smallest smoothed loss, and the
            iteration of the last smaller loss or drop.
    """

    param: Any  # a SolverParameter
    step: int = 0
    minimum_loss: float = math.inf
    last_event: int = 0

    def __post_init__(self) -> None:
        policy = self.param.lr_policy
        if policy not in POLICIES:
            raise UserError(f"unknown lr_policy {policy!r}{near_miss(policy, POLICIES)}")
        _, needed = POLICIES[policy]
        for name in ("base_lr", *needed):
            field = self.param.DESCRIPTOR.fields_by_name[name]
            there = (
                bool(getattr(self.param, name))
                if name in ("stepvalue", "plateau_winsize")
                else self.param.HasField(field.name)
            )
            if not there:
                raise UserError(f"lr_policy {policy!r} needs {name}")
        if policy == "step" and self.param.stepsize <= 0:
            raise UserError("lr_policy 'step' needs a positive stepsize")

    def rate(self, iteration: int, smoothed_loss: float = 0.0) -> float:
        """The rate of `iteration`, the loss being that just computed."""
        rule, _ = POLICIES[self.param.lr_policy]
        return rule(self, iteration, smoothed_loss)


def _fixed(s: Schedule, iteration: int, loss: float) -> float:
    return s.param.base_lr


def _step(s: Schedule, iteration: int, loss: float) -> float:
    s.step = iteration // s.param.stepsize
    return s.param.base_lr * s.param.gamma**s.step


def _exp(s: Schedule, iteration: int, loss: float) -> float:
    return s.param.base_lr * s.param.gamma**iteration


def _inv(s: Schedule, iteration: int, loss: float) -> float:
    return s.param.base_lr * (1 + s.param.gamma * iteration) ** -s.param.power


def _multistep(s: Schedule, iteration: int, loss: float) -> float:
    values = s.param.stepvalue
    if s.step < len(values) and iteration >= values[s.step]:  # one drop an iteration at most
        s.step += 1
    return s.param.base_lr * s.param.gamma**s.step


def _poly(s: Schedule, iteration: int, loss: float) -> float:
    return s.param.base_lr * (1 - iteration / s.param.max_iter) ** s.param.power


def _sigmoid(s: Schedule, iteration: int, loss: float) -> float:
    return s.param.base_lr / (1 + math.exp(-s.param.gamma * (iteration - s.param.stepsize)))


def _plateau(s: Schedule, iteration: int, loss: float) -> float:
    """A drop once the smoothed loss has had no new minimum for the window that is on."""
    if loss < s.minimum_loss:
        s.minimum_loss, s.last_event = loss, iteration
    windows = s.param.plateau_winsize
    if s.step < len(windows) and iteration >= s.last_event + windows[s.step]:
        s.step += 1
        s.last_event = iteration
    return s.param.base_lr * s.param.gamma**s.step


POLICIES: dict[str, tuple[Callable[[Schedule, int, float], float], tuple[str, ...]]] = {
    "fixed": (_fixed, ()),
    "step": (_step, ("gamma", "stepsize")),
    "exp": (_exp, ("gamma",)),
    "inv": (_inv, ("gamma", "power")),
    "multistep": (_multistep, ("gamma", "stepvalue")),
    "poly": (_poly, ("power", "max_iter")),
    "sigmoid": (_sigmoid, ("gamma", "stepsize")),
    "plateau": (_plateau, ("gamma", "plateau_winsize")),
}
