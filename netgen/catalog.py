"""Every net by name: what `python -m netgen --list` shows."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Callable

from basics.cli import UserError, near_miss
from netgen import classics, neighbours, resnet
from netgen.net import Net
from netgen.options import Options


@dataclass(frozen=True)
class Entry:
    """A net that can be asked for by name.

    `short` names its files, prototxt/<short>.prototxt; a single-task net's
    carry the task behind it. `defaults` are the options that a published model
    fixes otherwise than the paper's nets; the command line overrides them.
    """

    name: str
    short: str
    what: str
    build: Callable[[Options], Net]
    single_task: bool = False
    defaults: dict[str, Any] = field(default_factory=dict, compare=False)
    trained: bool = True  # False: there is a deploy net only

    def options(self, **chosen: Any) -> Options:
        """The paper's options, the entry's own instead, and `chosen` instead of both."""
        return replace(
            Options(), **{**self.defaults, **{k: v for k, v in chosen.items() if v is not None}}
        )

    def files(self, options: Options) -> str:
        """The stem of the net's file names: `xs`, `resnet50_noun`."""
        return f"{self.short}_{options.task}" if self.single_task else self.short


def joined(name: str, short: str, prefix: str, joint: resnet.Joint, what: str) -> Entry:
    """A cross-residual ResNet-50 whose tasks `joint` joins."""
    return Entry(name, short, what, partial(resnet.x_resnet, prefix, joint))


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
            single_task=True,
        ),
        Entry(
            "caffenet",
            "caffenet",
            "single-task CaffeNet (Table 2): --task noun|adj|anp",
            classics.caffenet,
            single_task=True,
            defaults={"input_size": 227, "mean": BVLC_MEAN},
        ),
        Entry(
            "inception_v1",
            "inception_v1",
            "single-task GoogLeNet, auxiliary heads in training: --task noun|adj|anp",
            classics.inception_v1,
            single_task=True,
            defaults={"input_size": 224, "mean": BVLC_MEAN},
        ),
        Entry(
            "vggnet16",
            "vggnet16",
            "single-task 16-layer VGG net: --task noun|adj|anp",
            classics.vggnet16,
            single_task=True,
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
            resnet.zero,
            "multitask without cross-residuals (Figure 4, left)",
        ),
        joined("xi_resnet50", "xi", "XI", resnet.identity, "cross-residuals fixed to the identity"),
        joined(
            "xs_resnet50",
            "xs",
            "XS",
            resnet.scale,
            "cross-residuals scaled by channel (Figure 4, centre)",
        ),
        joined(
            "xself_resnet50",
            "xself",
            "XSelf",
            resnet.own_scale,
            "a control: each task's own shortcut scaled by channel, nothing crosses",
        ),
        joined(
            "xp_resnet50",
            "xp",
            "XP",
            resnet.projection,
            "cross-residuals by 1x1 projection (5.2.3)",
        ),
        joined("xg_resnet50", "xg", "XG", resnet.gated, "cross-residuals through carry gates (3)"),
        Entry(
            "cross_stitch_resnet50",
            "cross_stitch",
            "a tower a task, cross-stitch units after each stage",
            neighbours.cross_stitch_resnet,
        ),
        Entry(
            "cross_stitch_caffenet",
            "cross_stitch_caffenet",
            "a CaffeNet a task, cross-stitch units after poolings, fc6 and fc7",
            neighbours.cross_stitch_caffenet,
            defaults={"input_size": 227, "mean": BVLC_MEAN},
        ),
        Entry(
            "rock_resnet50",
            "rock",
            "ROCK: auxiliary tasks feed the primary one (--primary)",
            neighbours.rock_resnet,
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
