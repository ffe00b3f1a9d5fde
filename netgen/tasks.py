"""Tasks: their names, classes and loss weights, as values and as command-line text."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from xresnet.basics.cli import UserError, check_known
from xresnet.basics.numbers import FACTOR, Number, at_least

CLASSES = at_least(1, "classes", most=1_000_000)  # more would not fit Caffe's blobs


@dataclass(frozen=True)
class Task:
    """A classification task: its name (letters, digits and underscores) and number of classes."""

    name: str
    classes: int

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not re.fullmatch(r"[A-Za-z0-9_]+", self.name):
            raise UserError(f"--tasks: {self.name!r} must consist of letters, digits and _")
        CLASSES.check(self.classes, f"--tasks: task {self.name!r}")


# Table 1, in the order of the values in a label record.
TASKS = (Task("adj", 117), Task("anp", 553), Task("noun", 167))


def find(tasks: Sequence[Task], name: str, where: str) -> Task:
    """The task called `name`.

    Raises:
        UserError: there is none; `where` names the option that asks for it.
    """
    by_name = {task.name: task for task in tasks}
    check_known(name, by_name, f"{where}: no task", listed=True)
    return by_name[name]


def parse_tasks(text: str) -> tuple[Task, ...]:
    """Convert `adj:117,anp:553,noun:167` to tasks in that order.

    Raises:
        UserError: an entry is not of this form, or two tasks have the same name.
    """
    pairs = _pairs(text, CLASSES, "--tasks", "name:classes, such as adj:117")
    return check_tasks([Task(name, classes) for name, classes in pairs])


def check_tasks(tasks: Any) -> tuple[Task, ...]:
    """Check the tasks of a net.

    Raises:
        UserError: there are no tasks, one is not a `Task`, or two have the same name.
    """
    if isinstance(tasks, (str, Task)) or not isinstance(tasks, Iterable):
        raise UserError(f"--tasks: expected several Task(name, classes), not {tasks!r}")
    tasks = tuple(tasks)
    if not tasks:
        raise UserError("--tasks: a net needs at least one task")
    for task in tasks:
        if not isinstance(task, Task):
            raise UserError(f"--tasks: expected a Task(name, classes), not {task!r}")
    _check_distinct([task.name for task in tasks], "--tasks")
    return tasks


def parse_weights(text: str) -> tuple[tuple[str, float], ...]:
    """Convert `colour:1,article:0.5` to pairs of a task and the weight of its loss.

    Raises:
        UserError: an entry is not of this form, or two are for the same task.
    """
    return check_weights(_pairs(text, FACTOR, "--loss-weights", "task:weight, such as adj:0.5"))


def check_weights(weights: Any) -> tuple[tuple[str, float], ...]:
    """Convert a mapping, or pairs, of tasks and loss weights to pairs.

    Raises:
        UserError: it is neither, a weight is negative, or two are for the same task.
    """
    try:
        pairs = tuple(dict(weights).items())
        if len(pairs) != len(weights):
            _check_distinct([name for name, _ in weights], "--loss-weights")
    except (TypeError, ValueError):
        raise UserError(f"--loss-weights: expected weights by task, not {weights!r}") from None
    for name, weight in pairs:
        FACTOR.check(weight, f"--loss-weights: task {name!r}")
    return pairs


def _pairs(text: str, number: Number, flag: str, form: str) -> list[tuple[str, Any]]:
    """The comma-separated pairs `name:number` of an option."""
    pairs = []
    for entry in text.split(","):
        name, colon, value = entry.strip().rpartition(":")
        if not name or not colon:
            raise UserError(f"{flag}: {entry!r} is not of the form {form}")
        try:
            pairs.append((name, number(value)))
        except argparse.ArgumentTypeError as error:
            raise UserError(f"{flag}: task {name!r}: {error}") from None
    return pairs


def _check_distinct(names: Sequence[str], flag: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{flag}: task {name!r} is named twice")
