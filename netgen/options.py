"""What a user can choose about a net and its solver; the defaults are the paper's."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass, field, fields, replace
from enum import Enum, auto
from typing import Any

from xresnet.basics.cli import UserError, near_miss
from xresnet.basics.numbers import (
    COUNT,
    FACTOR,
    FINITE,
    FRACTION,
    NATURAL,
    PIXELS,
    POSITIVE,
    RATE,
    SEED,
    Number,
    at_least,
)

# Section 5.1: 80/20 of 384,258 images, floor(0.8 n) per ANP to train.
TRAIN_IMAGES = 307_185
TEST_IMAGES = 77_073

CLASSES = at_least(1, "classes", most=1_000_000)  # more would not fit Caffe's blobs
BLOCKS = at_least(1, "residual blocks a stage", most=1_000)
WIDTH = at_least(1, "channels", most=4_096)
BATCH = at_least(1, "a batch", most=65_536)
MEAN = Number("a mean of pixels", float, 0, 255)
IGNORED = Number("a label", int, -1, 1_000_000)
SHORTCUTS = replace(FACTOR, word="mean")
MOMENTUM = Number("a momentum", float, 0, 1, open_high=True)


class Family(Enum):
    """Options that belong together. A net takes all of a family, or none of them."""

    ALL = auto()  # every net's
    TASKS = auto()  # whose classes are chosen: all but nets published with their own
    ONE_TASK = auto()  # which task a single-task net does
    TRUNK = auto()  # the shape of a ResNet
    TAIL = auto()  # where a net whose trunk is shared may begin
    BRANCH = auto()  # where and how a multitask ResNet branches
    JOINED = auto()  # which blocks cross-residuals join
    LEARNED = auto()  # how what joins two tasks learns
    SCALED = auto()  # how channelwise cross weights start
    STITCH = auto()  # cross-stitch units
    PRIMARY = auto()  # ROCK's task
    DATA = auto()  # what it learns from and is tested on: every net that is trained
    SOLVER = auto()  # how it learns: the same
    FORM = auto()  # what is written: nothing that a net could refuse


def option(default: Any, family: Family, *, one_of: Any = None) -> Any:
    """A field of `Options` or `SolverOptions`.

    `one_of` says which values there are: a `Number`, which each of several holds to, or the
    words themselves.
    """
    return field(default=default, metadata={"family": family, "one_of": one_of})


def flag(name: str) -> str:
    """`--cross-blocks` of `cross_blocks`."""
    return f"--{name.replace('_', '-')}"


@dataclass(frozen=True)
class Task:
    """One classification task: its name and its number of classes."""

    name: str
    classes: int

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_]+", self.name):
            raise UserError(f"--tasks: {self.name!r} is no name of letters, digits and _")
        CLASSES.check(self.classes, f"--tasks: task {self.name!r}")


# Table 1, in the order of the values in a label record.
TASKS = (Task("adj", 117), Task("anp", 553), Task("noun", 167))


@dataclass(frozen=True)
class SolverOptions:
    """The solver's own choices (section 5.2); None leaves the default argued in docs."""

    lr: float = option(0.001, Family.SOLVER, one_of=RATE)
    momentum: float = option(0.9, Family.SOLVER, one_of=MOMENTUM)
    weight_decay: float = option(0.0001, Family.SOLVER, one_of=FACTOR)
    max_iter: int | None = option(None, Family.SOLVER, one_of=COUNT)  # None: 20 epochs
    # None: one epoch; 0: never
    test_interval: int | None = option(None, Family.SOLVER, one_of=NATURAL)
    snapshot: int | None = option(None, Family.SOLVER, one_of=COUNT)  # None: one epoch
    display: int = option(20, Family.SOLVER, one_of=COUNT)
    seed: int | None = option(None, Family.SOLVER, one_of=SEED)
    cpu: bool = option(False, Family.SOLVER)
    net: str | None = option(None, Family.SOLVER)  # None: prototxt/<short name>.prototxt
    snapshot_prefix: str | None = option(None, Family.SOLVER)  # None: snapshots/<short name>

    def __post_init__(self) -> None:
        _hold(self)


@dataclass(frozen=True)
class Options:
    """Every choice that a net function reads; see `python -m netgen --help`."""

    tasks: tuple[Task, ...] = option(TASKS, Family.TASKS)
    task: str | None = option(None, Family.ONE_TASK)

    depth: int = option(50, Family.TRUNK, one_of=COUNT)
    # residual blocks a stage, instead of a depth
    blocks: tuple[int, ...] | None = option(None, Family.TRUNK, one_of=BLOCKS)
    # channels of res2's inner convolutions; every other width is a multiple of it
    width: int = option(64, Family.TRUNK, one_of=WIDTH)
    stem_width: int | None = option(None, Family.TRUNK, one_of=WIDTH)  # of conv1; None: `width`
    # the block whose cached maps are the input, instead of images
    from_block: str | None = option(None, Family.TAIL)
    branch_after: str = option("res5a", Family.BRANCH)
    branch_norm: str = option("both", Family.BRANCH, one_of=("both", "branch2c", "none"))
    # None: every block after the branch
    cross_blocks: int | None = option(None, Family.JOINED, one_of=NATURAL)
    # None: msra with variance_norm AVERAGE
    cross_std: float | None = option(None, Family.SCALED, one_of=POSITIVE)
    # all cross weights' start, instead of a random one
    cross_start: float | None = option(None, Family.SCALED, one_of=FINITE)
    cross_lr: float = option(1.0, Family.LEARNED, one_of=FACTOR)  # lr_mult of the cross weights
    cross_decay: float = option(1.0, Family.LEARNED, one_of=FACTOR)  # decay_mult of them
    # of all shortcuts in equation 2's sum; mean: 1/tasks
    shortcut_factor: float | str = option(1.0, Family.BRANCH, one_of=SHORTCUTS)
    freeze_towers: bool = option(False, Family.LEARNED)  # only what joins two tasks learns
    stride_in: str = option("1x1", Family.TRUNK, one_of=("1x1", "3x3"))
    # or padded, as torchvision and Keras pool
    pool1: str = option("published", Family.TRUNK, one_of=("published", "padded"))
    # an alpha a channel, or one a layer
    stitch: str = option("channel", Family.STITCH, one_of=("channel", "layer"))
    # alpha_S and, if given, alpha_D
    stitch_init: tuple[float, ...] = option((0.9,), Family.STITCH, one_of=FINITE)
    stitch_lr: float = option(100.0, Family.STITCH, one_of=FACTOR)
    primary: str = option("anp", Family.PRIMARY)
    # BatchNorm in training: on the batch's statistics, or on those that it started with
    # (frozen); or published: frozen but for the branching point's own, which start anew
    bn: str = option("batch", Family.TRUNK, one_of=("batch", "frozen", "published"))
    bn_fraction: float = option(0.999, Family.TRUNK, one_of=FRACTION)
    head_lr: float = option(10.0, Family.DATA, one_of=FACTOR)

    input_size: int = option(224, Family.ALL, one_of=PIXELS)
    batch: int = option(24, Family.DATA, one_of=BATCH)
    # None: the largest up to `batch` that divides test_images
    test_batch: int | None = option(None, Family.DATA, one_of=BATCH)
    train_images: int = option(TRAIN_IMAGES, Family.DATA, one_of=COUNT)
    test_images: int = option(TEST_IMAGES, Family.DATA, one_of=COUNT)
    data: str = option("data/vso", Family.DATA)
    mean: tuple[float, ...] = option((103.939, 116.779, 123.68), Family.DATA, one_of=MEAN)
    mean_file: str | None = option(None, Family.DATA)
    # (task, what its loss counts); 1 for those that are not named, as in the paper
    loss_weights: tuple[tuple[str, float], ...] = option((), Family.DATA)
    # a label that says that there is none: no part of losses and accuracies
    ignore_label: int | None = option(None, Family.DATA, one_of=IGNORED)
    # the databases hold larger images than `input_size`
    crop: bool = option(False, Family.DATA)
    deploy: bool = option(False, Family.FORM)

    solver: SolverOptions = field(
        default_factory=SolverOptions, metadata={"family": Family.SOLVER, "one_of": None}
    )

    def __post_init__(self) -> None:
        _hold(self)
        if self.blocks is not None and len(self.blocks) != 4:
            raise UserError("--blocks takes four numbers, for res2, res3, res4 and res5")
        if not self.tasks:
            raise UserError("--tasks: a net needs at least one task")
        if self.test_batch is not None and self.test_images % self.test_batch:
            raise UserError(
                f"--test-batch {self.test_batch} does not divide the {self.test_images:,} test "
                "images: Caffe would test some of them twice; "
                f"{divisor(self.test_images, self.test_batch)} does"
            )
        if len(self.stitch_init) not in (1, 2):
            raise UserError("--stitch-init takes alpha_S, or alpha_S,alpha_D")
        if self.bn == "frozen" and self.bn_fraction != 0.999:
            raise UserError("--bn frozen moves no average: leave out --bn-fraction")
        for name, weight in self.loss_weights:
            names = [task.name for task in self.tasks]
            if name not in names:
                raise UserError(
                    f"--loss-weights: no task {name!r}{near_miss(name, names)}; there are "
                    f"{', '.join(names)}"
                )
            FACTOR.check(weight, f"--loss-weights: task {name!r}")
        if len(self.mean) not in (1, 3):
            raise UserError("--mean takes one value or three (blue, green, red)")

    def chosen_task(self, net: str) -> Task:
        """The task of single-task net `net`.

        Raises:
            UserError: none chosen, or one that is not among the tasks.
        """
        names = [task.name for task in self.tasks]
        if self.task is None:
            raise UserError(f"{net} does one task: choose it with --task {'|'.join(names)}")
        if self.task not in names:
            raise UserError(
                f"unknown task {self.task!r}{near_miss(self.task, names)}; there are "
                f"{', '.join(names)}"
            )
        return self.tasks[names.index(self.task)]

    @property
    def test_pass(self) -> tuple[int, int]:
        """(batch, iterations) that see each test image exactly once: their product is N."""
        batch = self.test_batch or divisor(self.test_images, self.batch)
        return batch, self.test_images // batch


# Every choice by name, the solver's among them.
OPTIONS = {
    one.name: one
    for kind in (Options, SolverOptions)
    for one in fields(kind)
    if one.name != "solver"
}


def _hold(options: Options | SolverOptions) -> None:
    """Hold each value to what its field says there is.

    Raises:
        UserError: a number out of range, an unknown word, or a text that no file can hold.
    """
    for one in fields(options):
        value, known = getattr(options, one.name), one.metadata["one_of"]
        for item in value if isinstance(value, tuple) else [value]:
            if item is None:
                continue
            if isinstance(known, Number):
                known.check(item, flag(one.name))
            elif known and item not in known:
                raise UserError(
                    f"{flag(one.name)}: unknown {item!r}{near_miss(str(item), known)}; there are "
                    f"{', '.join(known)}"
                )
            elif isinstance(item, str) and not _is_writable(item):
                raise UserError(f"{flag(one.name)}: {item!r} is no name that a prototxt can hold")


def _is_writable(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # bytes that are not UTF-8, as Python holds them
        return False
    return bool(name) and "\0" not in name


def parse_tasks(text: str) -> tuple[Task, ...]:
    """`adj:117,anp:553,noun:167` as tasks, in that order.

    Raises:
        UserError: an entry without a name or a positive number of classes, or a name twice.
    """
    tasks: list[Task] = []
    for entry in text.split(","):
        name, colon, classes = entry.strip().partition(":")
        if not name or not colon:
            raise UserError(f"--tasks: {entry!r} is not name:classes, as in adj:117")
        try:
            tasks.append(Task(name, CLASSES(classes)))
        except argparse.ArgumentTypeError as error:
            raise UserError(f"--tasks: task {name!r}: {error}") from None
        if name in (task.name for task in tasks[:-1]):
            raise UserError(f"--tasks: task {name!r} stands there twice")
    return tuple(tasks)


def parse_weights(text: str) -> tuple[tuple[str, float], ...]:
    """`colour:1,article:0.5` as tasks with the weights of their losses.

    Raises:
        UserError: an entry without a name or a weight, or a name twice.
    """
    found: dict[str, float] = {}
    for entry in text.split(","):
        name, colon, weight = entry.strip().rpartition(":")
        if not name or not colon:
            raise UserError(f"--loss-weights: {entry!r} is not task:weight, as in adj:0.5")
        if name in found:
            raise UserError(f"--loss-weights: task {name!r} stands there twice")
        try:
            found[name] = FACTOR(weight)
        except argparse.ArgumentTypeError as error:
            raise UserError(f"--loss-weights: task {name!r}: {error}") from None
    return tuple(found.items())


def divisor(number: int, limit: int) -> int:
    """The largest divisor of `number` that is at most `limit`."""
    return next(d for d in range(min(number, max(limit, 1)), 0, -1) if number % d == 0)
