"""The options of nets and solvers, declared once; the defaults are the paper's.

Options are grouped in families, frozen dataclasses, of which a net takes all options or none. Each
option is declared with its default, its range and its help, from which `netgen.command` makes
the command lines. `Options` has the families of all nets, `Solver` the options of a solver.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from netgen.option import Option, option
from netgen.tasks import TASKS, Task, check_tasks, check_weights, find, parse_tasks, parse_weights
from xresnet.basics.cli import UserError, check_known
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

# Section 5.1: 384,258 images, of which floor(0.8 n) of each ANP's n are for training.
TRAIN_IMAGES = 307_185
TEST_IMAGES = 77_073

BLOCKS = at_least(1, "residual blocks per stage", most=1_000)
WIDTH = at_least(1, "channels", most=4_096)
BATCH = at_least(1, "a batch", most=65_536)
MEAN = Number("a pixel mean", float, 0, 255)
IGNORED = Number("a label", int, -1, 1_000_000)
SHORTCUTS = replace(FACTOR, word="mean")
MOMENTUM = Number("a momentum", float, 0, 1, open_high=True)


@dataclass(frozen=True)
class Input:
    """every net"""

    input_size: int = option(224, "height and width of the input", "S", of=PIXELS)


@dataclass(frozen=True)
class Tasks:
    """nets whose classes are yours"""

    tasks: tuple[Task, ...] = option(
        TASKS,
        "the tasks and their classes, in the order of a label record's values",
        "NAME:K,...",
        parse=parse_tasks,
        check=check_tasks,
    )


@dataclass(frozen=True)
class OneTask:
    """single-task nets"""

    task: str | None = option(None, "the task of the net", "NAME")


@dataclass(frozen=True)
class Trunk:
    """ResNets"""

    depth: int = option(50, "ResNet-50, -101 or -152", "N", of=COUNT)
    blocks: tuple[int, ...] | None = option(
        None,
        "number of blocks in res2 to res5, in place of --depth",
        "A,B,C,D",
        of=BLOCKS,
        many=True,
    )
    width: int = option(
        64,
        "channels of conv1 and of res2's inner convolutions; the other layers scale with it",
        "C",
        of=WIDTH,
    )
    stem_width: int | None = option(
        None, "channels of conv1, if different", "C", of=WIDTH, unset="the width"
    )
    stride_in: str = option(
        "1x1",
        "the convolution that strides: 1x1, as published, or 3x3, as in torchvision",
        of=("1x1", "3x3"),
    )
    pool1: str = option(
        "published",
        "pool1's windows: from 0, their number rounded up; or from -1, rounded down, as in "
        "torchvision and Keras",
        of=("published", "padded"),
    )
    bn: str = option(
        "batch",
        "BatchNorm in training: statistics of the batch; frozen initial statistics; or published: "
        "frozen, except after the branching point's addition, which no published net has",
        of=("batch", "frozen", "published"),
    )
    bn_fraction: float = option(0.999, "fraction of BatchNorm's moving average", "F", of=FRACTION)


@dataclass(frozen=True)
class Tail:
    """ResNets whose trunk is shared"""

    from_block: str | None = option(
        None,
        "begin after this block; the data are its maps, cached by `xresnet features`",
        "BLOCK",
    )


@dataclass(frozen=True)
class Branch:
    """multitask ResNets: where and how they branch"""

    branch_after: str = option("res5a", "the branching block, or none for separate towers", "BLOCK")
    branch_norm: str = option(
        "both",
        "whose BatchNorm moves behind the branching block's addition: both summands'",
        of=("both", "branch2c", "none"),
    )
    shortcut_factor: float | str = option(
        1.0,
        "factor of all shortcuts in equation 2's sum, or mean: 1 / number of tasks",
        "F",
        of=SHORTCUTS,
    )


@dataclass(frozen=True)
class Joined:
    """nets with cross-residuals"""

    cross_blocks: int | None = option(
        None, "number of cross-residual blocks", "N", of=NATURAL, unset="all after the branch"
    )
    joint: str | None = option(
        None,
        "your own function that joins two tasks (docs/NETWORKS.md)",
        "MODULE:FUNCTION",
        unset="the net's",
    )


@dataclass(frozen=True)
class Learned:
    """nets with cross-residuals that learn"""

    cross_lr: float = option(1.0, "lr_mult of the cross weights", "M", of=FACTOR)
    cross_decay: float = option(1.0, "decay_mult of the cross weights", "M", of=FACTOR)
    freeze_towers: bool = option(False, "train only the layers that join two tasks")


@dataclass(frozen=True)
class Scaled:
    """nets with cross-residuals scaled by channel"""

    cross_std: float | None = option(
        None,
        "standard deviation of the cross weights' initial values",
        "STD",
        of=POSITIVE,
        unset="msra's, 0.0442",
    )
    cross_start: float | None = option(
        None, "one initial value of all cross weights, instead of random ones", "A", of=FINITE
    )


@dataclass(frozen=True)
class Stitch:
    """cross-stitch nets"""

    stitch: str = option("channel", "one alpha per channel or per layer", of=("channel", "layer"))
    stitch_init: tuple[float, ...] = option(
        (0.9,),
        "initial values of alpha; they sum to 1 unless D is given",
        "S[,D]",
        of=FINITE,
        many=True,
    )
    stitch_lr: float = option(100.0, "lr_mult of alpha", "M", of=FACTOR)


@dataclass(frozen=True)
class Rock:
    """ROCK"""

    primary: str = option("anp", "the primary task, which the others feed", "TASK")


@dataclass(frozen=True)
class Data:
    """nets that are trained: their data"""

    data: str = option("data/vso", "folder of the LMDBs", "DIR")
    batch: int = option(24, "batch size: images per iteration", "N", of=BATCH)
    test_batch: int | None = option(
        None,
        "batch size of a test",
        "N",
        of=BATCH,
        unset="the largest up to --batch that divides the test images",
    )
    train_images: int = option(TRAIN_IMAGES, "number of training images", "N", of=COUNT)
    test_images: int = option(TEST_IMAGES, "number of test images", "N", of=COUNT)
    mean: tuple[float, ...] = option(
        (103.939, 116.779, 123.68),
        "the mean to subtract from the images",
        "B,G,R",
        of=MEAN,
        many=True,
    )
    mean_file: str | None = option(None, "a .binaryproto in place of --mean", "FILE")
    loss_weights: tuple[tuple[str, float], ...] = option(
        (),
        "loss weights of these tasks",
        "TASK:W,...",
        unset="1, as in the paper",
        parse=parse_weights,
        check=check_weights,
    )
    ignore_label: int | None = option(
        None,
        "label of images without one; losses and accuracies ignore it (data_prep table writes -1)",
        "N",
        of=IGNORED,
    )
    crop: bool = option(False, "crop the input from the LMDBs' larger images")
    head_lr: float = option(10.0, "lr_mult of the classifiers", "M", of=FACTOR)


@dataclass(frozen=True)
class Solver:
    """the solver (section 5.2)"""

    lr: float = option(0.001, "base_lr", "LR", of=RATE)
    momentum: float = option(0.9, "momentum of SGD", "M", of=MOMENTUM)
    weight_decay: float = option(0.0001, "weight decay of all weights", "D", of=FACTOR)
    max_iter: int | None = option(None, "number of iterations", "N", of=COUNT, unset="20 epochs")
    test_interval: int | None = option(
        None, "iterations between tests; 0: never", "N", of=NATURAL, unset="one epoch"
    )
    snapshot: int | None = option(
        None, "iterations between snapshots", "N", of=COUNT, unset="one epoch"
    )
    display: int = option(20, "iterations between lines in the log", "N", of=COUNT)
    seed: int | None = option(None, "random_seed", "N", of=SEED)
    cpu: bool = option(False, "solver_mode CPU, not GPU")
    net: str | None = option(
        None, "the prototxt to train", "FILE", unset="prototxt/<name>.prototxt"
    )
    snapshot_prefix: str | None = option(
        None, "prefix of the snapshots", "PATH", unset="snapshots/<name>"
    )

    def __post_init__(self) -> None:
        _check_all(self)


@dataclass(frozen=True)
class Options(
    Data, Rock, Stitch, Scaled, Learned, Joined, Branch, Tail, Trunk, Input, OneTask, Tasks
):
    """All options of a net; `python -m netgen --help` explains them."""

    deploy: bool = False  # the inference net, without data, losses and accuracies

    def __post_init__(self) -> None:
        _check_all(self)
        if self.blocks is not None and len(self.blocks) != 4:
            raise UserError("--blocks takes four numbers, for res2, res3, res4 and res5")
        if self.test_batch is not None and self.test_images % self.test_batch:
            raise UserError(
                f"--test-batch {self.test_batch} does not divide the {self.test_images:,} test "
                "images: Caffe would test some of them twice; "
                f"{divisor(self.test_images, self.test_batch)} does"
            )
        if len(self.stitch_init) not in (1, 2):
            raise UserError("--stitch-init takes alpha_S, or alpha_S,alpha_D")
        if self.bn == "frozen" and self.bn_fraction != 0.999:
            raise UserError("--bn frozen uses no moving average: leave out --bn-fraction")
        for name, _ in self.loss_weights:
            find(self.tasks, name, "--loss-weights")
        if len(self.mean) not in (1, 3):
            raise UserError("--mean takes one value or three (blue, green, red)")

    def chosen_task(self, net: str) -> Task:
        """The task of the single-task net `net`.

        Raises:
            UserError: no task is chosen, or it is not among the tasks.
        """
        if self.task is None:
            names = "|".join(task.name for task in self.tasks)
            raise UserError(f"{net} has one task: choose it with --task {names}")
        return find(self.tasks, self.task, "--task")

    @property
    def test_pass(self) -> tuple[int, int]:
        """The test pass's batch size and iterations, whose product is the number of images."""
        batch = self.test_batch or divisor(self.test_images, self.batch)
        return batch, self.test_images // batch


# In the order of the help.
FAMILIES = (
    *(Tasks, OneTask, Input, Trunk, Tail, Branch, Joined, Learned, Scaled),
    *(Stitch, Rock, Data, Solver),
)

# Every option by name, the solver's among them.
OPTIONS = {
    one.name: Option(name=one.name, family=family, default=one.default, **one.metadata)
    for family in FAMILIES
    for one in fields(family)
}


def solver_choices(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Check options of the solver, given by name; those that are None are left out.

    Raises:
        UserError: the solver has no such option, or a value is out of range.
    """
    known = [one.name for one in fields(Solver)]
    for name in chosen:
        check_known(name, known, "the solver has no option")
    given = {name: value for name, value in chosen.items() if value is not None}
    return {name: OPTIONS[name].checked(value) for name, value in given.items()}


def words(choices: Mapping[str, Any]) -> list[str]:
    """The command-line arguments that choose these options, in order: `["--width", "16"]`."""
    return [word for name, value in choices.items() for word in OPTIONS[name].words(value)]


def _check_all(values: Options | Solver) -> None:
    """Check each value against the range of its option; a list becomes a tuple.

    Raises:
        UserError: a value is out of range.
    """
    for one in fields(values):
        if one.name in OPTIONS:
            value = OPTIONS[one.name].checked(getattr(values, one.name))
            object.__setattr__(values, one.name, value)


def divisor(number: int, limit: int) -> int:
    """The largest divisor of `number` that is at most `limit`."""
    return next(d for d in range(min(number, max(limit, 1)), 0, -1) if number % d == 0)
