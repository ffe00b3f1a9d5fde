"""Whether a net runs here, layer by layer: what `python -m torchcaffe check` tells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torchcaffe import graph
from torchcaffe.layers import LAYERS, make, top_shapes
from torchcaffe.layers.base import Shape
from torchcaffe.net import fed_shapes
from xresnet.basics.cli import UserError
from xresnet.caffeproto import TRAIN


def check(
    proto: Any, phase: int, level: int = 0, stages: Sequence[str] = ()
) -> tuple[list[Any], list[str]]:
    """The layers of one phase, and a line for each that does not run.

    A layer behind one whose tops are not known, as its database is not here, is held to its
    type alone.

    Raises:
        UserError: the net is invalid: a bottom that no layer produces, for example.
    """
    steps = graph.steps(graph.filtered(proto, graph.state(phase, level, stages)))
    shapes: dict[graph.Value, Shape] = {}
    faults = []
    for step in steps:
        try:
            shapes.update(zip(step.tops, _shapes(step, shapes, phase == TRAIN)))
        except UserError as error:
            faults.append(str(error))
    return [step.param for step in steps], faults


def _shapes(step: graph.Step, shapes: dict[graph.Value, Shape], train: bool) -> list[Shape]:
    """The shapes of the step's tops; none where they cannot be known."""
    if step.param.type in graph.FED:
        try:
            return fed_shapes(step.param, {})
        except UserError:  # the database is elsewhere
            return []
    known = [shapes[value] for value in step.bottoms if value in shapes]
    if len(known) < len(step.bottoms):
        if step.param.type not in LAYERS:
            make(step.param, train, [])  # says what it says of such a type
        return []
    return top_shapes(make(step.param, train, known), known)
