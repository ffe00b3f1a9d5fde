"""From a NetParameter to the layers that one phase has, in order, with what they read and make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from xresnet.basics.cli import UserError, near_miss
from xresnet.caffeproto import NetParameter, NetState, upgrade

# Layers whose tops come from outside the net.
FED = ("Input", "Data", "ImageData", "HDF5Data", "MemoryData")
# Layers that need not name their top.
LOSSES = (
    "ContrastiveLoss",
    "EuclideanLoss",
    "HingeLoss",
    "InfogainLoss",
    "MultinomialLogisticLoss",
    "SigmoidCrossEntropyLoss",
    "SoftmaxWithLoss",
)


@dataclass(frozen=True)
class Value:
    """What a blob's name stands for between one layer that writes it and the next that does."""

    name: str
    version: int


@dataclass
class Step:
    """One layer at its place: the values it reads and makes."""

    param: Any
    bottoms: list[Value]
    tops: list[Value]


def state(phase: int, level: int = 0, stages: Sequence[str] = ()) -> Any:
    """A NetState message."""
    return NetState(phase=phase, level=level, stage=stages)


def filtered(net: Any, wanted: Any) -> Any:
    """The net without the layers that its include and exclude rules keep from state `wanted`.

    Formats before 1.0 are upgraded, and losses without a top get one, as in Caffe.

    Raises:
        UserError: a layer with both kinds of rule, or one that cannot be upgraded.
    """
    net = upgrade.upgraded(net)
    kept = NetParameter(name=net.name, force_backward=net.force_backward, state=wanted)
    for layer in net.layer:
        if layer.include and layer.exclude:
            raise UserError(f"layer {layer.name!r}: give include rules or exclude rules, not both")
        rules = layer.include or layer.exclude
        met = any(_meets(wanted, rule) for rule in rules)
        if met if layer.include else not met:
            kept.layer.add().CopyFrom(layer)
            kept.layer[-1].phase = wanted.phase
    unnamed = [layer for layer in kept.layer if layer.type in LOSSES and not layer.top]
    for layer in unnamed:
        layer.top.append("(automatic)" if len(unnamed) == 1 else f"(automatic) {layer.name}")
    return kept


def steps(net: Any) -> list[Step]:
    """The net's layers with their blobs told apart by version; a layer in place makes a new one.

    Raises:
        UserError: a bottom that no layer produces, a top of two layers, a name used twice.
    """
    current: dict[str, Value] = {}
    found: list[Step] = []
    names: set[str] = set()
    for layer in net.layer:
        if layer.name in names:
            raise UserError(f"two layers have the name {layer.name!r}")
        names.add(layer.name)
        for bottom in layer.bottom:
            if bottom not in current:
                hint = near_miss(bottom, current)
                raise UserError(
                    f"layer {layer.name!r}: no layer produces its bottom {bottom!r}{hint}"
                )
        bottoms = [current[name] for name in layer.bottom]
        tops = []
        for i, top in enumerate(layer.top):
            in_place = i < len(layer.bottom) and layer.bottom[i] == top
            if top in current and not in_place:
                raise UserError(f"layer {layer.name!r}: another layer produces its top {top!r} too")
            tops.append(Value(top, current[top].version + 1 if in_place else 0))
        current.update((value.name, value) for value in tops)
        found.append(Step(layer, bottoms, tops))
    return found


def stopped(step: Step) -> list[bool]:
    """For each bottom, whether propagate_down forbids its gradient."""
    given = list(step.param.propagate_down)
    if given and len(given) != len(step.bottoms):
        raise UserError(
            f"layer {step.param.name!r}: {len(given)} propagate_down "
            f"for {len(step.bottoms)} bottoms"
        )
    return [not go for go in given] or [False] * len(step.bottoms)


def _meets(wanted: Any, rule: Any) -> bool:
    stages = set(wanted.stage)
    return (
        (not rule.HasField("phase") or rule.phase == wanted.phase)
        and (not rule.HasField("min_level") or wanted.level >= rule.min_level)
        and (not rule.HasField("max_level") or wanted.level <= rule.max_level)
        and stages.issuperset(rule.stage)
        and stages.isdisjoint(rule.not_stage)
    )
