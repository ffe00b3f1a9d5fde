"""The curves of a training: losses, test accuracies and drops of the learning rate."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from xresnet.reproduce.history import History
from xresnet.reproduce.pictures import COLOURS, panel, task_title
from xresnet.reproduce.schedule import Decision

GROUPS = 60  # points of a smoothed curve


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
    figure, axes = panel(rows=1 + tests, height=1.55 * (1 + tests))
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
        axis.plot(*loss.smoothed, color=colour, linewidth=1.3, label=task_title(task))
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
        colour, label = _colour(_task(key), tasks), task_title(_task(key))
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
