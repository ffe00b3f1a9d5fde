"""The paper's Figures 5 and 6, and the curves of a training, as pictures."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np

from data_prep.decode import decode
from netgen.paper import paper
from xresnet.basics import bars
from xresnet.basics.cli import UserError
from xresnet.basics.files import write
from xresnet.basics.fonts import fonts_for
from xresnet.reproduce.history import History
from xresnet.reproduce.plateau import Decision
from xresnet.reproduce.weights import cross_weights

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

plt.rcParams.update(
    {
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.25,
        "svg.fonttype": "none",  # text as text: small, and it can be selected
        "svg.hashsalt": "xresnet",  # the same picture is the same file
        "legend.frameon": False,
        "text.parse_math": False,  # `$` in a run's name is a dollar
    }
)
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # for every eye
MOST_IMAGES = 200  # of a Figure 6: beyond some 320 it is higher than matplotlib can draw
STYLES = ("-", "--", ":", "-.")  # where there are more curves than colours
NEAR = 0.05  # a cross weight within this of zero or one is near it
FORMATS = {".svg", ".png", ".pdf"}


def save(figure: Figure, path: Path) -> Path:
    """Write a picture: .svg, .png or .pdf.

    Raises:
        UserError: another suffix, or the place cannot be written.
    """
    return write(path, render(figure, path.suffix.lower()))


def hold_suffix(suffix: str) -> None:
    """Hold a file's suffix to be a picture's.

    Raises:
        UserError: it is another.
    """
    if suffix not in FORMATS:
        raise UserError(f"a picture is {', '.join(sorted(FORMATS))}, not {suffix or 'nameless'}")


def render(figure: Figure, suffix: str = ".svg") -> bytes:
    """The picture's bytes."""
    hold_suffix(suffix)
    target = io.BytesIO()
    metadata = {"Date": None} if suffix == ".svg" else None
    figure.savefig(target, format=suffix[1:], dpi=150, bbox_inches="tight", metadata=metadata)
    plt.close(figure)
    return target.getvalue()


def figure5(weights: Path, by_channel: bool = False) -> Figure:
    """Cross-residual weights: a plot a layer, a curve a Source-Target, each sorted by value.

    "Learned unnormalized cross-residual weights (sorted) ... Left and right
    plots show cross-residual weights of the first and second (feed-forward
    direction) cross-residual layers" (Figure 5). `by_channel` leaves them in the channels'
    order, as section 5.2.2 may be read (docs/REPRODUCTION.md).
    """
    blocks = cross_weights(weights)
    figure, axes = _side_by_side(len(blocks))
    for axis, (block, curves) in zip(axes, blocks.items()):
        for i, (pair, values) in enumerate(sorted(curves.items())):
            shown = values if by_channel else np.sort(values)
            axis.plot(shown, **_line(i), linewidth=1.2, label=_pair(pair))
        axis.axhline(0, color="black", linewidth=0.6)
        axis.set(title=block, xlabel="channel" if by_channel else "channel, sorted by weight")
        axis.margins(x=0)
    axes[0].set_ylabel("cross-residual weight")
    axes[0].legend(fontsize=8, title="Source-Target", title_fontsize=8)
    figure.tight_layout()
    return figure


def figure5_change(snapshots: Sequence[tuple[int, Path]]) -> Figure:
    """How the cross weights moved: the mean a layer, over (iteration, weights).

    Raises:
        UserError: fewer than two snapshots.
    """
    if len(snapshots) < 2:
        raise UserError("a change needs two snapshots; `train --keep N` keeps more of them")
    found = [(iteration, cross_weights(path)) for iteration, path in snapshots]
    blocks = list(found[0][1])
    iterations = [iteration for iteration, _ in found]
    figure, axes = _side_by_side(len(blocks))
    for axis, block in zip(axes, blocks):
        for i, pair in enumerate(sorted(found[0][1][block])):
            values = np.array([weights[block][pair] for _, weights in found])
            axis.plot(
                iterations, values.mean(axis=1), marker="o", ms=3, **_line(i), label=_pair(pair)
            )
        axis.axhline(0, color="black", linewidth=0.6)
        axis.set(title=block, xlabel="iteration")
    axes[0].set_ylabel("mean weight")
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    return figure


def differences(made: dict[str, Any]) -> Figure:
    """Arm against arm: a panel a comparison, a point a seed, mean and 95% interval, a zero line.

    `made` is what `reproduce.compare.comparison` tells. Panels have their own scales; the grey
    band is a point to either side of zero.
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
    figure.tight_layout()
    return figure


def cross_statistics(weights: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Figure 5 in numbers: block -> Source-Target -> mean, deviation, extremes, and shares.

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
    """`cross_statistics` for people."""
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
    """Hold Figure 6 to what can be drawn, before anything is computed.

    Raises:
        UserError: another suffix than a picture's, or too many images.
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
    fonts = fonts_for(entry["class"] for found in predictions for t in tasks for entry in found[t])
    if fonts.note:
        bars.say(fonts.note)
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
            words = fonts.shown("\n".join(entry["class"] for entry in prediction[task]))
            axis.text(
                *(0, 0.95, words.replace("_", " ")),
                va="top",
                family=list(fonts.families),
                transform=axis.transAxes,
            )
        for axis in row:
            axis.axis("off")
    for axis, task in zip(axes[0][1:], tasks):
        axis.set_title(heads.get(task, task), loc="left", fontweight="bold", fontsize=9)
    figure.tight_layout()
    return figure


def curves(name: str, history: History, decisions: Sequence[Decision], epoch: int) -> Figure:
    """Losses, test accuracies and the rate's drops over a training's iterations."""
    tops = sorted({k for test in history.tests.values() for k in test.outputs if k[:4] == "top1"})
    figure, axes = plt.subplots(1, 1 + bool(tops), figsize=(4.5 * (1 + bool(tops)), 2.9))
    axes = np.atleast_1d(axes)
    steps = [history.steps[i] for i in sorted(history.steps)]
    x = np.array([step.iteration / epoch for step in steps])
    tasks = sorted({key for step in steps for key in step.outputs if key.startswith("loss")})
    colours = {key: COLOURS[i % len(COLOURS)] for i, key in enumerate(tasks)}
    for key, colour in colours.items():
        values = np.array([step.outputs.get(key, np.nan) for step in steps])
        axes[0].plot(x, values, color=colour, linewidth=0.5, alpha=0.25)
        axes[0].plot(*_smooth(x, values), color=colour, linewidth=1.3, label=_title(key[5:]))
        tests = [
            (i / epoch, t.outputs[key])
            for i, t in sorted(history.tests.items())
            if key in t.outputs
        ]
        if tests:
            axes[0].plot(*zip(*tests), "o--", color=colour, ms=2.5, linewidth=0.8)
    axes[0].set(title=f"{name}: loss", xlabel="epoch", ylabel="loss (dashed: test)")
    axes[0].set_ylim(bottom=0)
    if tasks:
        axes[0].legend(fontsize=8)
    for key in tops:
        colour = colours.get(f"loss{key[4:]}")
        tests = [
            (i / epoch, 100 * t.outputs[key])
            for i, t in sorted(history.tests.items())
            if key in t.outputs
        ]
        axes[1].plot(*zip(*tests), "o-", color=colour, ms=2.5, linewidth=1.2, label=_title(key[5:]))
    if tops:
        axes[1].set(title="top-1 on the test images", xlabel="epoch", ylabel="%")
        axes[1].legend(fontsize=8)
    for axis in axes:
        for decision in decisions:
            if decision.action == "drop":
                axis.axvline(
                    decision.iteration / epoch, color="black", linewidth=0.7, linestyle=":"
                )
                axis.annotate(
                    f"lr {decision.lr:g}",
                    (decision.iteration / epoch, 1),
                    xycoords=("data", "axes fraction"),
                    fontsize=7,
                    rotation=90,
                    va="top",
                    ha="right",
                )
    figure.tight_layout()
    return figure


def _smooth(x: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means of groups of points, so that at most some sixty are left."""
    width = max(1, len(values) // 60)
    n = len(values) // width * width
    return x[:n].reshape(-1, width).mean(axis=1), values[:n].reshape(-1, width).mean(axis=1)


def _side_by_side(plots: int) -> tuple[Figure, list[Any]]:
    """A row of plots on one scale."""
    figure, axes = plt.subplots(1, plots, figsize=(4 * plots, 3), sharey=True, squeeze=False)
    return figure, list(axes[0])


def _line(i: int) -> dict[str, Any]:
    """Colour and style of curve number `i`, no two alike among the first two dozen."""
    style = STYLES[i // len(COLOURS) % len(STYLES)]
    return {"color": COLOURS[i % len(COLOURS)], "linestyle": style}


def _pair(pair: tuple[str, str]) -> str:
    """Source-Target, as the paper's legend has it."""
    return "-".join(map(_title, pair))


def _title(task: str) -> str:
    return paper()["tasks"].get(task, task)
