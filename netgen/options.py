"""What a user can choose about a net and its solver; the defaults are the paper's."""

from __future__ import annotations

from dataclasses import dataclass, field

from basics.cli import UserError, near_miss

# Section 5.1: 80/20 of 384,258 images, floor(0.8 n) per ANP to train.
TRAIN_IMAGES = 307_185
TEST_IMAGES = 77_073


@dataclass(frozen=True)
class Task:
    """One classification task: its name and its number of classes."""

    name: str
    classes: int


# Table 1, in the order of the values in a label record.
TASKS = (Task("adj", 117), Task("anp", 553), Task("noun", 167))


@dataclass(frozen=True)
class Options:
    """Every choice that a net function reads; see `python -m netgen --help`."""

    tasks: tuple[Task, ...] = TASKS
    task: str | None = None  # of a single-task net

    depth: int = 50
    blocks: tuple[int, ...] | None = None  # residual blocks a stage, instead of a depth
    width: int = 64  # channels of conv1; every other width is a multiple of it
    branch_after: str = "res5a"
    branch_norm: str = "both"
    cross_blocks: int | None = None  # None: every block after the branch
    cross_std: float | None = None  # None: msra with variance_norm AVERAGE
    cross_start: float | None = None  # all cross weights' start, instead of a random one
    cross_lr: float = 1.0  # lr_mult of the cross weights
    cross_decay: float = 1.0  # decay_mult of the cross weights
    shortcut_factor: float | str = 1.0  # of all shortcuts in equation 2's sum; mean: 1/tasks
    freeze_towers: bool = False  # only what joins two tasks learns
    stride_in: str = "1x1"
    pool1: str = "published"  # or padded, as torchvision and Keras pool
    stitch: str = "channel"  # an alpha a channel, or one a layer
    stitch_init: tuple[float, ...] = (0.9,)  # alpha_S and, if given, alpha_D
    stitch_lr: float = 100.0
    primary: str = "anp"  # ROCK's
    bn_fraction: float = 0.999
    head_lr: float = 10.0

    input_size: int = 224
    batch: int = 24
    test_batch: int | None = None  # None: the largest up to `batch` that divides test_images
    train_images: int = TRAIN_IMAGES
    test_images: int = TEST_IMAGES
    data: str = "data/vso"
    mean: tuple[float, ...] = (103.939, 116.779, 123.68)
    mean_file: str | None = None
    crop: bool = False  # the databases hold larger images than `input_size`
    deploy: bool = False

    solver: SolverOptions = field(default_factory=lambda: SolverOptions())

    def __post_init__(self) -> None:
        positive = ("depth", "width", "input_size", "batch", "train_images", "test_images")
        for name in positive:
            if getattr(self, name) < 1:
                raise UserError(f"--{name.replace('_', '-')} must be at least 1")
        if self.blocks is not None and (len(self.blocks) != 4 or min(self.blocks) < 1):
            raise UserError("--blocks takes four positive numbers, for res2, res3, res4 and res5")
        if not self.tasks:
            raise UserError("--tasks: a net needs at least one task")
        if self.test_batch is not None and self.test_images % self.test_batch:
            raise UserError(
                f"--test-batch {self.test_batch} does not divide the {self.test_images:,} test "
                "images: Caffe would test some of them twice; "
                f"{divisor(self.test_images, self.test_batch)} does"
            )
        if self.cross_std is not None and self.cross_start is not None:
            raise UserError("--cross-std and --cross-start each say how cross weights start: one")
        if len(self.stitch_init) not in (1, 2):
            raise UserError("--stitch-init takes alpha_S, or alpha_S,alpha_D")
        if not 0 < self.bn_fraction < 1:
            raise UserError("--bn-fraction must lie between 0 and 1")
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


@dataclass(frozen=True)
class SolverOptions:
    """The solver's own choices (section 5.2); None leaves the default argued in docs."""

    lr: float = 0.001
    momentum: float = 0.9
    weight_decay: float = 0.0001
    max_iter: int | None = None  # None: 20 epochs
    test_interval: int | None = None  # None: one epoch; 0: never
    snapshot: int | None = None  # None: one epoch
    display: int = 20
    seed: int | None = None
    cpu: bool = False
    net: str | None = None  # None: prototxt/<short name>.prototxt
    snapshot_prefix: str | None = None  # None: snapshots/<short name>


def parse_tasks(text: str) -> tuple[Task, ...]:
    """`adj:117,anp:553,noun:167` as tasks, in that order.

    Raises:
        UserError: an entry without a name or a positive number of classes, or a name twice.
    """
    tasks = []
    for entry in text.split(","):
        name, _, classes = entry.strip().partition(":")
        if not name or not all(c.isalnum() or c == "_" for c in name):
            raise UserError(f"--tasks: {entry!r} is not name:classes, as in adj:117")
        if not classes.isdigit() or int(classes) < 1:
            raise UserError(f"--tasks: task {name!r} needs at least one class, not {classes!r}")
        if name in (task.name for task in tasks):
            raise UserError(f"--tasks: task {name!r} stands there twice")
        tasks.append(Task(name, int(classes)))
    return tuple(tasks)


def divisor(number: int, limit: int) -> int:
    """The largest divisor of `number` that is at most `limit`."""
    return next(d for d in range(min(number, max(limit, 1)), 0, -1) if number % d == 0)
