"""Tasks, their names, classes and loss weights, as values and as command-line text."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from xresnet.basics.cli import UserError
from xresnet.basics.numbers import FACTOR, at_least

CLASSES = at_least(1, "classes", most=1_000_000)  # more would not fit Caffe's blobs


@dataclass(frozen=True)
class Task:
    """One classification task: its name and its number of classes."""

    name: str
    classes: int

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not re.fullmatch(r"[A-Za-z0-9_]+", self.name):
            raise UserError(f"--tasks: {self.name!r} must consist of letters, digits and _")
        CLASSES.check(self.classes, f"--tasks: task {self.name!r}")


# Table 1, in the order of the values in a label record.
TASKS = (Task("adj", 117), Task("anp", 553), Task("noun", 167))


def parse_tasks(text: str) -> tuple[Task, ...]:
    """`adj:117,anp:553,noun:167` as tasks, in that order.

    Raises:
        UserError: an entry without a name or a positive number of classes, or a name twice.
    """
    tasks: list[Task] = []
    for entry in text.split(","):
        name, colon, classes = entry.strip().partition(":")
        if not name or not colon:
            raise UserError(f"--tasks: {entry!r} is not of the form name:classes, such as adj:117")
        try:
            tasks.append(Task(name, CLASSES(classes)))
        except argparse.ArgumentTypeError as error:
            raise UserError(f"--tasks: task {name!r}: {error}") from None
    return check_tasks(tasks)


def check_tasks(tasks: Any) -> tuple[Task, ...]:
    """`tasks` as a net takes them.

    Raises:
        UserError: there are no tasks, one is not a `Task`, or two have the same name.
    """
    if isinstance(tasks, (str, Task)) or not isinstance(tasks, Iterable):
        raise UserError(f"--tasks: expected several Task(name, classes), not {tasks!r}")
    tasks = tuple(tasks)
    if not tasks:
        raise UserError("--tasks: a net needs at least one task")
    for i, task in enumerate(tasks):
        if not isinstance(task, Task):
            raise UserError(f"--tasks: expected a Task(name, classes), not {task!r}")
        if task.name in (other.name for other in tasks[:i]):
            raise UserError(f"--tasks: task {task.name!r} is named twice")
    return tasks


def parse_weights(text: str) -> tuple[tuple[str, float], ...]:
    """`colour:1,article:0.5` as tasks with the weights of their losses.

    Raises:
        UserError: an entry without a name or a weight, or a name twice.
    """
    found: dict[str, float] = {}
    for entry in text.split(","):
        name, colon, weight = entry.strip().rpartition(":")
        if not name or not colon:
            raise UserError(
                f"--loss-weights: {entry!r} is not of the form task:weight, such as adj:0.5"
            )
        if name in found:
            raise UserError(f"--loss-weights: task {name!r} is named twice")
        try:
            found[name] = FACTOR(weight)
        except argparse.ArgumentTypeError as error:
            raise UserError(f"--loss-weights: task {name!r}: {error}") from None
    return tuple(found.items())


def check_weights(weights: Any) -> tuple[tuple[str, float], ...]:
    """A mapping, or pairs, of tasks and the weights of their losses.

    Raises:
        UserError: it is neither, a weight below zero, or a name twice.
    """
    try:
        pairs = tuple((name, weight) for name, weight in dict(weights).items())
        if len(pairs) != len(weights):
            raise UserError(f"--loss-weights: a task is named twice in {weights!r}")
    except (TypeError, ValueError):
        raise UserError(f"--loss-weights: expected weights by task, not {weights!r}") from None
    for name, weight in pairs:
        FACTOR.check(weight, f"--loss-weights: task {name!r}")
    return pairs
