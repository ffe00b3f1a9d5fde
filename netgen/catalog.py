"""Every net by name: what `python -m netgen --list` shows."""

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
from xresnet.basics.cli import UserError, near_miss


@dataclass(frozen=True)
class Entry:
    """A net that can be asked for by name.

    `short` names its files, prototxt/<short>.prototxt; a single-task net's
    carry the task behind it. `takes` are the families of options that shape it,
    besides those of every net. `defaults` are the options that a published model
    fixes otherwise than the paper's nets; what a user chooses overrides them.
    """

    name: str
    short: str
    what: str
    build: Callable[[Options], Net]
    takes: tuple[type, ...] = ()
    defaults: dict[str, Any] = field(default_factory=dict, compare=False)
    trained: bool = True  # False: there is a deploy net only

    @property
    def single_task(self) -> bool:
        """Whether it does the one task that is chosen."""
        return OneTask in self.takes

    @property
    def families(self) -> set[type]:
        """Of the options that it takes, its solver's apart."""
        data = (Data,) if self.trained else ()
        tasks = () if "task" in self.defaults else (Tasks,)
        return {Input, *data, *tasks, *self.takes}

    def checked(self, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """`chosen`, options by name, in the form in which `Options` have them.

        Raises:
            UserError: there is no such option, it does not apply to this net, it is out of its
                range, or another that is chosen excludes it.
        """
        for name in chosen:
            if name not in OPTIONS:
                raise UserError(f"no option {name!r}{near_miss(name, OPTIONS)}")
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
        """The paper's options, the entry's own instead, and `chosen` instead of both.

        What is None is not chosen.

        Raises:
            UserError: as `checked`'s; or options that do not go together.
        """
        given = {name: value for name, value in chosen.items() if value is not None}
        return replace(Options(), **{**self.defaults, **self.checked(given)})

    def files(self, options: Options) -> str:
        """The stem of the net's file names: `xs`, `resnet50_noun`, `x_half` of a joint `half`."""
        if options.joint:
            return f"x_{joints.short_name(options.joint)}"
        return f"{self.short}_{options.task}" if self.single_task else self.short


# Of these the first would go unread beside the second.
EXCLUSIVE = (
    *(("depth", "blocks"), ("mean", "mean_file"), ("cross_std", "cross_start")),
    *(("from_block", option) for option in ("mean", "mean_file", "crop")),
)


def joined(
    name: str, short: str, prefix: str, joint: joints.Joint, what: str, *more: type
) -> Entry:
    """A cross-residual ResNet-50 whose tasks `joint` joins; it takes the families `more`, too."""
    families = (Trunk, Tail, Branch, *more)
    if joint is not joints.zero:
        families = (*families, Joined)
    return Entry(name, short, what, partial(resnet.x_resnet, prefix, joint), families)


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
            partial(resnet.imagenet, "resnet50_imagenet"),
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
        joined(
            "x0_resnet50",
            "x0",
            "X0",
            joints.zero,
            "multitask without cross-residuals (Figure 4, left)",
        ),
        joined("xi_resnet50", "xi", "XI", joints.identity, "cross-residuals fixed to the identity"),
        joined(
            "xs_resnet50",
            "xs",
            "XS",
            joints.scale,
            "cross-residuals scaled by channel (Figure 4, centre)",
            Learned,
            Scaled,
        ),
        joined(
            "xself_resnet50",
            "xself",
            "XSelf",
            joints.own_scale,
            "a control: each task's own shortcut scaled by channel, nothing crosses",
            Learned,
            Scaled,
        ),
        joined(
            "xp_resnet50",
            "xp",
            "XP",
            joints.projection,
            "cross-residuals by 1x1 projection (5.2.3)",
            Learned,
        ),
        joined(
            "xg_resnet50",
            "xg",
            "XG",
            joints.gated,
            "cross-residuals through carry gates (3)",
            Learned,
        ),
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
