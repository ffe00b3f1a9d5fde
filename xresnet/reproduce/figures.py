"""The paper's Figures 5 and 6, and the curves of a training, as pictures."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np

from data_prep.decode import decode
from netgen.paper import paper
from xresnet.basics import bars
from xresnet.basics.cli import UserError, printable
from xresnet.basics.files import write
from xresnet.basics.fonts import fonts_for
from xresnet.reproduce.history import History
from xresnet.reproduce.schedule import Decision
from xresnet.reproduce.weights import cross_weights

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.text import Text

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
PANEL = 3.3  # inches: the width of one of many small charts
GROUPS = 60  # points of a smoothed curve
NEAR = 0.05  # a cross weight within this of zero or one is near it
FORMATS = {".svg", ".png", ".pdf"}


def save(figure: Figure, path: Path) -> Path:
    """Write a picture: .svg, .png or .pdf.

    Raises:
        UserError: the suffix is another, or the file cannot be written.
    """
    return write(path, render(figure, path.suffix.lower()))


def hold_suffix(suffix: str) -> None:
    """Check that a file's suffix is a picture's.

    Raises:
        UserError: it is not.
    """
    if suffix not in FORMATS:
        raise UserError(f"a picture is {', '.join(sorted(FORMATS))}, not {suffix or 'nameless'}")


def render(figure: Figure, suffix: str = ".svg", whole: bool = False) -> bytes:
    """The picture's bytes, cropped to what is drawn; `whole` keeps the figure's size."""
    hold_suffix(suffix)
    target = io.BytesIO()
    metadata = {"Date": None} if suffix == ".svg" else None
    box = None if whole else "tight"
    texts = figure.findobj(Text)
    fonts = fonts_for(text.get_text() for text in texts)
    for text in texts if fonts != fonts_for([]) else ():
        text.set_fontfamily(list(fonts.families))
        if suffix != ".svg":
            text.set_text(fonts.shown(text.get_text()))
    if fonts.note and suffix != ".svg":
        bars.say(fonts.note)
    with warnings.catch_warnings():
        if suffix == ".svg":  # whose text is drawn by who shows it, with fonts of their own
            warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from")
        if figure.get_layout_engine() is None:
            figure.tight_layout()
        figure.savefig(target, format=suffix[1:], dpi=150, bbox_inches=box, metadata=metadata)
    plt.close(figure)
    return target.getvalue()


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
        found[block], (axis,) = _panel()
        draw(axis, block, values)
    return found


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
    figure, (axis,) = _panel(height=0.45 + 0.22 * len(found))
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
    figure, (axis,) = _panel()
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


def curves(name: str, history: History, decisions: Sequence[Decision], epoch: int) -> Figure:
    """Losses, test accuracies and drops of the rate over a training."""
    tasks, tests = loss_tasks([history]), bool(_tops(history))
    figure, axes = plt.subplots(1, 1 + tests, figsize=(4.5 * (1 + tests), 2.9), squeeze=False)
    _losses(axes[0][0], history, epoch, tasks, raw=True)
    axes[0][0].set(title=f"{name}: loss", xlabel=_unit(epoch))
    if tasks:
        axes[0][0].legend(fontsize=8)
    if tests:
        _accuracies(axes[0][1], history, epoch, tasks)
        axes[0][1].set(title="top-1 on the test images", xlabel=_unit(epoch), ylabel="%")
        axes[0][1].legend(fontsize=8)
    for axis in axes[0]:
        _drops(axis, decisions, epoch, named=axis is axes[0][0])
    return figure


def small_curves(
    history: History,
    decisions: Sequence[Decision],
    epoch: int | None,
    tasks: Sequence[str],
    top: float | None = None,
) -> Figure:
    """The curves of one of several trainings, without a legend; task i of `tasks` has colour i.

    Args:
        epoch: its iterations; None: the x-axis counts iterations, not epochs.
        top: the upper end of the losses' axis.
    """
    tests = bool(_tops(history))
    figure, axes = _panel(rows=1 + tests, height=1.55 * (1 + tests))
    _losses(axes[0], history, epoch, tasks, top)
    if tests:
        _accuracies(axes[1], history, epoch, tasks)
        axes[1].set_ylabel("top-1, %")
    axes[-1].set_xlabel(_unit(epoch))
    for axis in axes:
        _drops(axis, decisions, epoch, named=axis is axes[0])
    axes[0].set_ylabel("loss")  # what is dashed the page tells
    return figure


def loss_tasks(histories: Iterable[History]) -> list[str]:
    """The tasks with a loss in any of the trainings; "" for a net's only loss, `loss`."""
    keys = {key for h in histories for step in h.steps.values() for key in step.outputs}
    return sorted({_task(key) for key in keys if key.startswith("loss")})


def has_test_losses(history: History) -> bool:
    """Whether the test passes have losses, which are drawn dashed."""
    return any(key.startswith("loss") for test in history.tests.values() for key in test.outputs)


def loss_top(history: History) -> float | None:
    """The upper end of a losses' axis, such that an outlier does not flatten the rest.

    It is the highest loss; or, if this is more than twice the largest 95% quantile of a task's
    losses, a little more than that quantile. None if no loss is finite.
    """
    found = [
        y for loss in _loss_curves(history, None).values() for _, y in (loss.smoothed, loss.tested)
    ]
    found = [y[np.isfinite(y)] for y in found]
    if not any(map(len, found)):
        return None
    most = max(float(y.max()) for y in found if len(y))
    usual = max(float(np.quantile(y, 0.95)) for y in found if len(y))
    return 1.05 * most if most <= 2 * usual else 1.1 * usual


def shared_top(histories: Iterable[History]) -> float | None:
    """One upper end for several trainings: their highest, at most twice their median."""
    tops = [top for history in histories if (top := loss_top(history)) is not None]
    return min(max(tops), 2 * float(np.median(tops))) if tops else None


@dataclass(frozen=True)
class _Loss:
    """A task's losses as (x, losses): displayed ones, their local means, those of tests."""

    raw: tuple[np.ndarray, np.ndarray]
    smoothed: tuple[np.ndarray, np.ndarray]
    tested: tuple[np.ndarray, np.ndarray]


def _loss_curves(history: History, epoch: int | None) -> dict[str, _Loss]:
    """The losses by task; without names of tasks, their sum as the task ""."""
    steps = [history.steps[i] for i in sorted(history.steps)]
    x = np.array([step.iteration / (epoch or 1) for step in steps])
    keys: dict[str | None, str] = {
        f"loss_{task}" if task else "loss": task for task in loss_tasks([history])
    }
    found = {}
    for key, task in (keys or {None: ""}).items():
        losses = [step.outputs.get(key, np.nan) if key else step.loss for step in steps]
        raw = (x, np.array(losses))
        found[task] = _Loss(raw, _smooth(*raw), _tested(history, key, epoch))
    return found


def _losses(
    axis: Any,
    history: History,
    epoch: int | None,
    tasks: Sequence[str],
    top: float | None = None,
    raw: bool = False,
) -> None:
    """Loss curves, those of tests dashed; `raw` draws each displayed loss behind them."""
    highest = (0.0, -np.inf)
    for task, loss in _loss_curves(history, epoch).items():
        colour = _colour(task, tasks)
        if raw:
            axis.plot(*loss.raw, color=colour, linewidth=0.5, alpha=0.25)
        axis.plot(*loss.smoothed, color=colour, linewidth=1.3, label=_title(task))
        axis.plot(*loss.tested, "o--", color=colour, ms=2, linewidth=0.8)
        for x, y in (loss.smoothed, loss.tested):
            if np.isfinite(y).any():
                highest = max(highest, (x[np.nanargmax(y)], np.nanmax(y)), key=lambda p: p[1])
    axis.set_ylabel("loss (dashed: test)" if has_test_losses(history) else "loss")
    end = top if top is not None else loss_top(history)
    axis.set_ylim(0, end or None)
    if end and highest[1] > end:
        axis.annotate(
            f" ↑ {highest[1]:.3g}",
            (highest[0], 1),
            xycoords=("data", "axes fraction"),
            fontsize=7,
            va="top",
        )


def _accuracies(axis: Any, history: History, epoch: int | None, tasks: Sequence[str]) -> None:
    """Top-1 accuracies of the test passes."""
    for key in _tops(history):
        x, values = _tested(history, key, epoch)
        colour, label = _colour(_task(key), tasks), _title(_task(key))
        axis.plot(x, 100 * values, "o-", color=colour, ms=2, linewidth=1.2, label=label)


def _drops(axis: Any, decisions: Sequence[Decision], epoch: int | None, named: bool = True) -> None:
    """A dotted line at each drop of the rate, with the new one if `named`."""
    for decision in decisions:
        if decision.action != "drop":
            continue
        x = decision.iteration / (epoch or 1)
        axis.axvline(x, color="black", linewidth=0.7, linestyle=":")
        if named:
            axis.annotate(
                f"lr {decision.lr:g}",
                (x, 1),
                xycoords=("data", "axes fraction"),
                fontsize=7,
                rotation=90,
                va="top",
                ha="right",
            )


def _tops(history: History) -> list[str]:
    """The test outputs that are accuracies: `top1_TASK`, or a net's `accuracy`."""
    keys = {key for test in history.tests.values() for key in test.outputs}
    return sorted(key for key in keys if key.startswith(("top1", "accuracy")))


def _task(output: str) -> str:
    """The task in an output's name (`loss_adj`, `top1_adj`); "" if it has none."""
    return output.partition("_")[2]


def _tested(history: History, key: str | None, epoch: int | None) -> tuple[np.ndarray, np.ndarray]:
    """An output of the test passes as (x, values)."""
    found = [
        (i / (epoch or 1), test.outputs[key])
        for i, test in sorted(history.tests.items())
        if key in test.outputs
    ]
    x, values = zip(*found) if found else ((), ())
    return np.array(x), np.array(values)


def _smooth(x: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means of groups of points; about `GROUPS` of them."""
    width = max(1, len(values) // GROUPS)
    n = len(values) // width * width
    return x[:n].reshape(-1, width).mean(axis=1), values[:n].reshape(-1, width).mean(axis=1)


def _unit(epoch: int | None) -> str:
    return "epoch" if epoch else "iteration"


def _colour(task: str, tasks: Sequence[str]) -> str:
    """A task's colour: that of its place among all tasks."""
    return COLOURS[list(tasks).index(task) % len(COLOURS)] if task in tasks else "black"


def _panel(rows: int = 1, height: float = 2.1) -> tuple[Figure, tuple[Any, ...]]:
    """A small chart of `rows` plots, one below the other, `height` inches in all."""
    figure, axes = plt.subplots(
        rows, 1, figsize=(PANEL, height), sharex=True, squeeze=False, layout="constrained"
    )
    return figure, tuple(axes[:, 0])


def _line(i: int) -> dict[str, Any]:
    """Colour and style of curve number `i`, different for the first two dozen."""
    style = STYLES[i // len(COLOURS) % len(STYLES)]
    return {"color": COLOURS[i % len(COLOURS)], "linestyle": style}


def _pair(pair: tuple[str, str]) -> str:
    """Source-Target, as in the paper's legend."""
    return "-".join(map(_title, pair))


def _title(task: str) -> str:
    return printable(paper()["tasks"].get(task, task)) or "all"
