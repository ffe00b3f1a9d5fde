"""The paper's Figures 5 (cross-residual weights) and 6 (predictions)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from data_prep.decode import decode
from xresnet.basics.cli import UserError
from xresnet.reproduce.pictures import COLOURS, hold_suffix, panel, task_title
from xresnet.reproduce.weights import cross_weights

MOST_IMAGES = 200  # of a Figure 6: beyond some 320 it is higher than matplotlib can draw
STYLES = ("-", "--", ":", "-.")  # where there are more curves than colours
NEAR = 0.05  # a cross weight within this of zero or one is near it


def figure5(weights: Path, by_channel: bool = False) -> Figure:
    """Cross-residual weights: a plot per layer, a curve per Source-Target, each sorted by value.

    "Learned unnormalized cross-residual weights (sorted) ... Left and right
    plots show cross-residual weights of the first and second (feed-forward
    direction) cross-residual layers" (Figure 5). `by_channel` keeps them in the channels'
    order, as section 5.2.2 may be read (docs/REPRODUCTION.md).
    """
    draw = partial(_cross, by_channel=by_channel)
    return _side_by_side(cross_weights(weights), draw, "cross-residual weight")


def figure5_panels(weights: Path) -> dict[str, Figure]:
    """Figure 5 as a small chart per layer, all on one scale; `pairs` is their legend."""
    blocks = cross_weights(weights)
    values = np.concatenate([v for curves in blocks.values() for v in curves.values()])
    margin = 0.05 * (np.ptp(values) or 1)

    def draw(axis: Any, block: str, curves: Mapping[tuple[str, str], np.ndarray]) -> None:
        _cross(axis, block, curves)
        axis.set_ylim(min(values.min(), 0) - margin, values.max() + margin)

    return _panels(blocks, draw)


def pairs(weights: Path) -> dict[str, dict[str, Any]]:
    """The legend of Figure 5: Source-Target -> colour and line style, as matplotlib has them."""
    names = sorted(next(iter(cross_weights(weights).values())))
    return {_pair(pair): _line(i) for i, pair in enumerate(names)}


def figure5_change(snapshots: Sequence[tuple[int, Path]]) -> Figure:
    """The mean cross weights of each layer over snapshots, (iteration, weights).

    Raises:
        UserError: fewer than two snapshots.
    """
    return _side_by_side(_moved(snapshots), _change, "mean weight")


def figure5_change_panels(snapshots: Sequence[tuple[int, Path]]) -> dict[str, Figure]:
    """`figure5_change` as a small chart per layer, without a legend.

    Raises:
        UserError: fewer than two snapshots.
    """
    return _panels(_moved(snapshots), _change)


def _moved(
    snapshots: Sequence[tuple[int, Path]],
) -> dict[str, dict[tuple[str, str], list[tuple[int, float]]]]:
    """Block -> Source-Target -> (iteration, mean weight)."""
    if len(snapshots) < 2:
        raise UserError("a change needs two snapshots; `train --keep N` keeps more of them")
    read = [(iteration, cross_weights(path)) for iteration, path in snapshots]
    return {
        block: {
            pair: [(iteration, float(weights[block][pair].mean())) for iteration, weights in read]
            for pair in curves
        }
        for block, curves in read[0][1].items()
    }


def _cross(
    axis: Any,
    block: str,
    curves: Mapping[tuple[str, str], np.ndarray],
    by_channel: bool = False,
) -> None:
    """One layer's cross weights."""
    for i, (pair, values) in enumerate(sorted(curves.items())):
        shown = values if by_channel else np.sort(values)
        axis.plot(shown, **_line(i), linewidth=1.2, label=_pair(pair))
    axis.axhline(0, color="black", linewidth=0.6)
    axis.set(title=block, xlabel="channel" if by_channel else "channel, sorted by weight")
    axis.margins(x=0)


def _change(
    axis: Any, block: str, moved: Mapping[tuple[str, str], Sequence[tuple[int, float]]]
) -> None:
    """One layer's mean cross weights over the iterations."""
    for i, (pair, means) in enumerate(sorted(moved.items())):
        axis.plot(*zip(*means), marker="o", ms=3, **_line(i), label=_pair(pair))
    axis.axhline(0, color="black", linewidth=0.6)
    axis.set(title=block, xlabel="iteration")


def _side_by_side(blocks: Mapping[str, Any], draw: Callable[..., None], label: str) -> Figure:
    """A row of plots on one scale, each drawn by `draw(axis, block, values)`."""
    n = len(blocks)
    figure, axes = plt.subplots(1, n, figsize=(4 * n, 3), sharey=True, squeeze=False)
    for axis, (block, values) in zip(axes[0], blocks.items()):
        draw(axis, block, values)
    axes[0][0].set_ylabel(label)
    axes[0][-1].legend(  # to the right of the last plot, over none of its curves
        fontsize=8,
        title="Source-Target",
        title_fontsize=8,
        loc="upper left",
        bbox_to_anchor=(1.02, 1),
    )
    return figure


def _panels(blocks: Mapping[str, Any], draw: Callable[..., None]) -> dict[str, Figure]:
    """A small chart for each block, drawn by `draw(axis, block, values)`."""
    found = {}
    for block, values in blocks.items():
        found[block], (axis,) = panel()
        draw(axis, block, values)
    return found


def cross_statistics(weights: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Figure 5 in numbers: block -> Source-Target -> mean, deviation, extremes and shares.

    The paper observes "mostly non-negative" weights, few near zero or one; near is within `NEAR`.
    """
    return {
        block: {
            _pair(pair): {
                "mean": float(v.mean()),
                "sd": float(v.std()),
                "min": float(v.min()),
                "max": float(v.max()),
                "near_zero": float((abs(v) <= NEAR).mean()),
                "near_one": float((abs(v - 1) <= NEAR).mean()),
                "non_negative": float((v >= 0).mean()),
                "channels": len(v),
            }
            for pair, v in sorted(curves.items())
        }
        for block, curves in cross_weights(weights).items()
    }


def statistics_text(statistics: dict[str, dict[str, dict[str, float]]]) -> str:
    """`cross_statistics` as text."""
    pairs = [(block, pair, v) for block, found in statistics.items() for pair, v in found.items()]
    width = max(len(f"{block} {pair}") for block, pair, _ in pairs)
    lines = [
        f"{f'{block} {pair}':{width}}  mean {v['mean']:+.3f}, deviation {v['sd']:.3f}; "
        f"near zero {v['near_zero']:.1%}, near one {v['near_one']:.1%}, "
        f"non-negative {v['non_negative']:.1%} of {v['channels']:,}"
        for block, pair, v in pairs
    ]
    return "\n".join([*lines, f"near: within {NEAR:g}"])


def hold_figure6(out: Path, images: int) -> None:
    """Check that Figure 6 can be drawn, before anything is computed.

    Raises:
        UserError: the suffix is not a picture's, or there are too many images.
    """
    hold_suffix(out.suffix.lower())
    if images > MOST_IMAGES:
        raise UserError(
            f"figure6 draws at most {MOST_IMAGES} images, not {images:,}: name fewer (predict "
            "takes any number)"
        )


def figure6(predictions: Sequence[dict[str, Any]]) -> Figure:
    """Images beside their five best adjectives, ANPs and nouns, as in Figure 6."""
    tasks = [name for name in predictions[0] if name != "image"]
    heads = {"adj": "Adjectives", "anp": "Adj-Noun Pairs", "noun": "Nouns"}
    n = len(predictions)
    figure, axes = plt.subplots(
        n,
        1 + len(tasks),
        figsize=(2 + 1.7 * len(tasks), 1.35 * n + 0.3),
        squeeze=False,
        gridspec_kw={"width_ratios": [1.3] + [1] * len(tasks)},
    )
    for row, prediction in zip(axes, predictions):
        pixels, _ = decode(prediction["image"])
        row[0].imshow(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))
        for axis, task in zip(row[1:], tasks):
            words = [entry["class"] for entry in prediction[task]]
            axis.text(0, 0.95, "\n".join(words), va="top", transform=axis.transAxes)
        for axis in row:
            axis.axis("off")
    for axis, task in zip(axes[0][1:], tasks):
        axis.set_title(heads.get(task, task), loc="left", fontweight="bold", fontsize=9)
    return figure


def _line(i: int) -> dict[str, Any]:
    """Colour and style of curve number `i`, different for the first two dozen."""
    style = STYLES[i // len(COLOURS) % len(STYLES)]
    return {"color": COLOURS[i % len(COLOURS)], "linestyle": style}


def _pair(pair: tuple[str, str]) -> str:
    """Source-Target, as in the paper's legend."""
    return "-".join(map(task_title, pair))
