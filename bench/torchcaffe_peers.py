"""The same residual nets by hand in PyTorch, channels last: what the engine is held against."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1; `norm` False where the normalisation stands behind the addition."""

    def __init__(self, inputs: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.a = conv_norm(inputs, width, 1, stride)
        self.b = conv_norm(width, width, 3)
        self.c = conv_norm(width, 4 * width, 1)
        self.project = conv_norm(inputs, 4 * width, 1, stride) if inputs != 4 * width else None

    def residual(self, x: Tensor) -> Tensor:
        return self.c(F.relu_(self.b(F.relu_(self.a(x)))))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.project is None else self.project(x)
        return F.relu_(self.residual(x) + shortcut)


class HandXS(nn.Module):
    """XS-ResNet-50 written by hand: a trunk to res5a, a norm a task, two cross-residual units."""

    def __init__(self, classes: tuple[int, ...] = (117, 553, 167), width: int = 64) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(3, width, 7, 2, 3), nn.BatchNorm2d(width))
        layers, inputs = [], width
        for stage, count in enumerate((3, 4, 6)):
            for i in range(count):
                inner = width << stage
                layers.append(Bottleneck(inputs, inner, 2 if i == 0 and stage else 1))
                inputs = 4 * inner
        self.trunk = nn.Sequential(*layers)
        self.branch = Bottleneck(inputs, 8 * width, 2)
        self.branch.c = self.branch.c[:1]
        self.branch.project = self.branch.project[:1]
        tasks, outputs = range(len(classes)), 32 * width
        self.norms = nn.ModuleList(nn.BatchNorm2d(outputs) for _ in tasks)
        self.units = nn.ModuleList(
            nn.ModuleList(Bottleneck(outputs, 8 * width) for _ in tasks) for _ in range(2)
        )
        self.crosses = nn.ParameterList(
            nn.Parameter(torch.randn(outputs, 1, 1) * 0.0442) for _ in range(2 * len(classes) ** 2)
        )
        self.heads = nn.ModuleList(nn.Linear(outputs, k) for k in classes)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = F.max_pool2d(F.relu_(self.conv1(x)), 3, 2, ceil_mode=True)
        x = self.trunk(x)
        y = self.branch.residual(x) + self.branch.project(x)
        xs = [F.relu_(norm(y)) for norm in self.norms]
        n = len(xs)
        for u, unit in enumerate(self.units):
            made = []
            for t, block in enumerate(unit):
                y = block.residual(xs[t]) + xs[t]
                for j in range(n):
                    if j != t:
                        y = y + self.crosses[(u * n + t) * n + j] * xs[j]
                made.append(F.relu_(y))
            xs = made
        return [head(x.mean((2, 3))) for head, x in zip(self.heads, xs)]


def hand_step(net: nn.Module, optimiser: torch.optim.Optimizer, x: Tensor, labels: Tensor) -> float:
    """One training step of the hand-written net."""
    optimiser.zero_grad(set_to_none=True)
    scores = net(x)
    loss = sum(F.cross_entropy(s.float(), labels[:, i]) for i, s in enumerate(scores))
    loss.backward()
    optimiser.step()
    return loss.item()
