"""The catalogue: every net by name, as `python -m netgen --list` shows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Callable

from netgen import classics, joints, neighbours, resnet
from netgen.net import Net
from netgen.option import flag
from netgen.options import (
    OPTIONS,
    Branch,
    Data,
    Input,
    Joined,
    Learned,
    OneTask,
    Options,
    Rock,
    Scaled,
    Solver,
    Stitch,
    Tail,
    Tasks,
    Trunk,
)
from xresnet.basics.cli import UserError, check_known, near_miss


@dataclass(frozen=True)
class Entry:
    """A net of the catalogue.

    Args:
        name: its name.
        short: the stem of its file names, prototxt/<short>.prototxt; a single-task net's have
            the task appended.
        what: a description of one line.
        build: makes the net from its options.
        takes: the families of options that it has, besides those of every net.
        defaults: the options whose defaults differ from the paper's, as in a published model.
        trained: False if there is a deploy net only.
    """

    name: str
    short: str
    what: str
    build: Callable[[Options], Net]
    takes: tuple[type, ...] = ()
    defaults: dict[str, Any] = field(default_factory=dict, compare=False)
    trained: bool = True

    @property
    def single_task(self) -> bool:
        """Whether the net has one task, which is chosen by --task."""
        return OneTask in self.takes

    @property
    def families(self) -> set[type]:
        """The families of all options that it takes, except its solver's."""
        data = (Data,) if self.trained else ()
        tasks = () if "task" in self.defaults else (Tasks,)
        return {Input, *data, *tasks, *self.takes}

    def checked(self, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """Check options, given by name, and convert lists to tuples.

        Raises:
            UserError: there is no such option, or it does not apply to this net, is out of
                range, or excludes another that is given.
        """
        for name in chosen:
            check_known(name, OPTIONS, "no option")
            family = OPTIONS[name].family
            if family is Solver:
                raise UserError(
                    f"{flag(name)} is the solver's and changes no net: it goes with --solver"
                )
            if family not in self.families:
                nets = ", ".join(e.name for e in CATALOG.values() if family in e.families)
                raise UserError(f"{flag(name)} does not apply to {self.name}; it is for {nets}")
        for one, other in EXCLUSIVE:
            if one in chosen and other in chosen:
                raise UserError(f"{flag(one)} and {flag(other)} exclude each other: give one")
        return {name: OPTIONS[name].checked(value) for name, value in chosen.items()}

    def options(self, **chosen: Any) -> Options:
        """All options of the net: `chosen`, else the entry's defaults, else the paper's.

        Options that are None count as not chosen.

        Raises:
            UserError: as `checked`, or the options cannot be combined.
        """
        given = {name: value for name, value in chosen.items() if value is not None}
        return replace(Options(), **{**self.defaults, **self.checked(given)})

    def files(self, options: Options) -> str:
        """The stem of the net's file names: `xs`, `resnet50_noun`; `x_half` with a joint `half`."""
        if options.joint:
            return f"x_{joints.short_name(options.joint)}"
        return f"{self.short}_{options.task}" if self.single_task else self.short


# Pairs of options of which the second would override the first.
EXCLUSIVE = (
    *(("depth", "blocks"), ("mean", "mean_file"), ("cross_std", "cross_start")),
    *(("from_block", option) for option in ("mean", "mean_file", "crop")),
)


def _multitask(short: str, prefix: str, joint: joints.Joint, what: str, *more: type) -> Entry:
    """The entry of a multitask ResNet-50 joined by `joint`; `more` are families that it takes."""
    families = (Trunk, Tail, Branch, *more)
    if joint is not joints.zero:
        families = (*families, Joined)
    build = partial(resnet.x_resnet, prefix, joint)
    return Entry(f"{short}_resnet50", short, what, build, families)


# What BVLC's published models subtract: blue, green and red of ImageNet's mean image.
BVLC_MEAN = (104.0, 117.0, 123.0)

CATALOG = {
    entry.name: entry
    for entry in [
        Entry(
            "resnet50",
            "resnet50",
            "single-task ResNet-50 (Figure 4, right): --task noun|adj|anp",
            partial(resnet.resnet, "resnet50"),
            (Trunk, Tail, OneTask),
        ),
        Entry(
            "resnet50_imagenet",
            "resnet50_imagenet",
            "ResNet-50 as published, with ImageNet's 1,000 classes: where the others start",
            partial(resnet.resnet, "resnet50_imagenet", classifier="fc1000"),
            (Trunk,),
            defaults={"tasks": (resnet.IMAGENET,), "task": resnet.IMAGENET.name},
        ),
        Entry(
            "caffenet",
            "caffenet",
            "single-task CaffeNet (Table 2): --task noun|adj|anp",
            classics.caffenet,
            (OneTask,),
            defaults={"input_size": 227, "mean": BVLC_MEAN},
        ),
        Entry(
            "inception_v1",
            "inception_v1",
            "single-task GoogLeNet, auxiliary heads in training: --task noun|adj|anp",
            classics.inception_v1,
            (OneTask,),
            defaults={"input_size": 224, "mean": BVLC_MEAN},
        ),
        Entry(
            "vggnet16",
            "vggnet16",
            "single-task 16-layer VGG net: --task noun|adj|anp",
            classics.vggnet16,
            (OneTask,),
            defaults={"input_size": 224, "mean": (103.939, 116.779, 123.68)},
        ),
        Entry(
            "deepsentibank",
            "deepsentibank",
            "DeepSentiBank's 2,089 ANPs, as published: --deploy",
            classics.deepsentibank,
            defaults={"input_size": 227, "mean": BVLC_MEAN, "task": "anp"},
            trained=False,
        ),
        _multitask("x0", "X0", joints.zero, "multitask without cross-residuals (Figure 4, left)"),
        _multitask("xi", "XI", joints.identity, "cross-residuals fixed to the identity"),
        _multitask(
            *("xs", "XS", joints.scale, "cross-residuals scaled by channel (Figure 4, centre)"),
            *(Learned, Scaled),
        ),
        _multitask(
            *("xself", "XSelf", joints.own_scale),
            "a control: each task's own shortcut scaled by channel, nothing crosses",
            *(Learned, Scaled),
        ),
        _multitask(
            "xp", "XP", joints.projection, "cross-residuals by 1x1 projection (5.2.3)", Learned
        ),
        _multitask("xg", "XG", joints.gated, "cross-residuals through carry gates (3)", Learned),
        Entry(
            "cross_stitch_resnet50",
            "cross_stitch",
            "a tower a task, cross-stitch units after each stage",
            neighbours.cross_stitch_resnet,
            (Trunk, Stitch),
        ),
        Entry(
            "cross_stitch_caffenet",
            "cross_stitch_caffenet",
            "a CaffeNet a task, cross-stitch units after poolings, fc6 and fc7",
            neighbours.cross_stitch_caffenet,
            (Stitch,),
            defaults={"input_size": 227, "mean": BVLC_MEAN},
        ),
        Entry(
            "rock_resnet50",
            "rock",
            "ROCK: auxiliary tasks feed the primary one (--primary)",
            neighbours.rock_resnet,
            (Trunk, Tail, Rock),
        ),
    ]
}


def find(name: str) -> Entry:
    """The entry called `name`.

    Raises:
        UserError: there is none; with the near miss.
    """
    if name not in CATALOG:
        hint = near_miss(name, CATALOG) or f"; there are {', '.join(CATALOG)}"
        raise UserError(f"unknown net {name!r}{hint}")
    return CATALOG[name]
