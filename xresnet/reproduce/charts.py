"""Charts of results: accuracies of nets, differences of arms, sizes of classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from xresnet.basics.cli import printable
from xresnet.reproduce.pictures import COLOURS, panel


@dataclass(frozen=True)
class Dot:
    """A net's accuracy in per cent: with an interval, or with the values of its seeds."""

    name: str
    value: float
    interval: tuple[float, float] | None = None
    seeds: tuple[float, ...] = ()


def dots(found: Sequence[Dot]) -> Figure:
    """A dot per net, one below the other; a net far from all others does not set the scale."""
    values = np.array([dot.value for dot in found])
    away = abs(values - np.median(values))
    usual = away <= max(8 * float(np.median(away)), 8)
    near_by = [dot for dot, near in zip(found, usual) if near]
    shown = [v for dot in near_by for v in (dot.value, *(dot.interval or ()), *dot.seeds)]
    low, high = min(shown), max(shown)
    margin = 0.08 * (high - low) or 1
    figure, (axis,) = panel(height=0.45 + 0.22 * len(found))
    for y, (dot, near) in enumerate(zip(found, usual)):
        if not near:
            left = dot.value < low
            words = f"◂ {dot.value:.1f}" if left else f"{dot.value:.1f} ▸"
            axis.annotate(
                words,
                (0.01 if left else 0.99, y),
                xycoords=("axes fraction", "data"),
                ha="left" if left else "right",
                va="center",
                fontsize=8,
            )
            continue
        if dot.interval:
            axis.plot(dot.interval, [y, y], color="black", linewidth=1)
        axis.plot(dot.seeds, [y] * len(dot.seeds), "o", color=COLOURS[5], ms=4, markeredgewidth=0)
        axis.plot(dot.value, y, "d" if dot.seeds else "o", color="black", ms=4.5)
    axis.set_yticks(range(len(found)), [printable(dot.name) for dot in found])
    axis.set(xlabel="top-1, %", xlim=(low - margin, high + margin), ylim=(len(found) - 0.5, -0.5))
    axis.grid(axis="y", visible=False)
    return figure


def sizes(counts: Sequence[int], what: str) -> Figure:
    """Images of each class, the largest first."""
    figure, (axis,) = panel()
    axis.bar(range(len(counts)), sorted(counts, reverse=True), color=COLOURS[0])
    axis.set(xlabel=what, ylabel="images")
    axis.margins(x=0.01)
    return figure


def differences(made: dict[str, Any]) -> Figure:
    """Arm against arm: a panel per comparison, a point per seed, mean and 95% interval.

    `made` is the result of `reproduce.compare.comparison`. Each panel has its own scale; the grey
    band is one point to either side of zero.
    """
    found = made["comparisons"]
    columns = min(2, len(found))
    rows = -(-len(found) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(3.9 * columns, 0.7 + 1.5 * rows), squeeze=False
    )
    for axis in axes.flat[len(found) :]:
        axis.set_visible(False)
    for axis, c in zip(axes.flat, found):
        measures = list(c["measures"])
        for y, measure in enumerate(measures):
            values = c["measures"][measure]
            axis.plot(values["differences"], [y] * len(c["seeds"]), "o", ms=3.5, alpha=0.45,
                      color=COLOURS[0], markeredgewidth=0)  # fmt: skip
            if "interval" in values:
                axis.plot(values["interval"], [y, y], color="black", linewidth=1.2)
            axis.plot(values["mean"], y, "d", color="black", ms=5)
        axis.axvspan(-1, 1, color="0.5", alpha=0.12, linewidth=0)
        axis.axvline(0, color="black", linewidth=0.8)
        axis.set_yticks(range(len(measures)), [m.replace("anp", "ANP") for m in measures])
        axis.set_ylim(len(measures) - 0.5, -0.5)
        axis.grid(axis="y", visible=False)
        weight = "bold" if c["kind"] == "primary" else "normal"
        seeds = f"{len(c['seeds'])} seeds" if len(c["seeds"]) > 1 else "1 seed"
        axis.set_title(f"{c['a']} − {c['b']}  ({seeds})", fontsize=9, fontweight=weight)
    for column in range(columns):
        last = [axis for axis in axes[:, column] if axis.get_visible()][-1]
        last.set_xlabel("difference in top-1, points")
    return figure
