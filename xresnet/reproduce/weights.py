"""Learned arrays from a .caffemodel, without Caffe."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from netgen.joints import CROSS
from xresnet.basics.cli import UserError
from xresnet.caffeproto import caffemodel
from xresnet.caffeproto.caffemodel import Layer

# res5b_cross_adj-noun: what joins source task adj to target task noun in block res5b.
_CROSS = re.compile(rf"(res\w+?){CROSS}(\w+)-(\w+)$")
_GATE = "_gate"


def cross_weights(path: Path) -> dict[str, dict[tuple[str, str], np.ndarray]]:
    """The factors of each source task's shortcut: block -> (source, target) -> C values.

    XS learns these factors. XG learns g and multiplies by sigmoid(g). Blocks are in the net's
    order.

    Raises:
        UserError: not a .caffemodel, a net without such weights (X0, XI, single-task), or one
            whose joints are not channelwise (XP).
    """
    layers = {layer.name: layer for layer in caffemodel.load(path)}
    found: dict[str, dict[tuple[str, str], np.ndarray]] = {}
    for name, layer in layers.items():
        joint = _CROSS.fullmatch(name)
        if joint and layer.kind == "Convolution":
            raise UserError(
                f"{path}: its tasks are joined by projections ({name}), each a matrix and then "
                "a normalisation: there is no weight a channel to plot"
            )
        if not joint or layer.kind != "Scale":
            continue
        if layer.blobs:
            # A gate's own layer is no joint; XG's joint has no weights, but a gate beside it.
            is_gate = name.endswith(_GATE) and not _learns(layers.get(name[: -len(_GATE)]))
            values = None if is_gate else _values(layer)
        else:
            values = _sigmoid(_values(layers[name + _GATE])) if name + _GATE in layers else None
        if values is not None:
            found.setdefault(joint[1], {})[joint[2], joint[3]] = values
    if not found:
        raise UserError(f"{path}: no cross-residual weights in it; XS-ResNet has them")
    return found


def _learns(layer: Layer | None) -> bool:
    return layer is None or bool(layer.blobs)


def _values(layer: Layer) -> np.ndarray:
    return layer.blobs[0].flatten()  # its own: a view would keep the whole file in memory


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))
