"""Learned arrays out of a .caffemodel, without Caffe."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from basics.cli import UserError
from caffeproto import NetParameter
from netgen.resnet import CROSS

# res5b_cross_adj-noun: what joins source task adj to target task noun in block res5b.
_CROSS = re.compile(rf"(\w+?){CROSS}(\w+)-(\w+)$")


def cross_weights(path: Path) -> dict[str, dict[tuple[str, str], np.ndarray]]:
    """The channelwise cross-residual weights: block -> (source, target) -> C values.

    Blocks come in the net's order.

    Raises:
        UserError: no .caffemodel, or a net without such weights (X0, XI, single-task).
    """
    try:
        net = NetParameter.FromString(path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except Exception as error:  # protobuf's DecodeError, whose home has moved
        raise UserError(f"{path}: not a .caffemodel ({error})") from error
    found: dict[str, dict[tuple[str, str], np.ndarray]] = {}
    for layer in net.layer:
        name = _CROSS.fullmatch(layer.name)
        if name and layer.type == "Scale" and layer.blobs:
            values = np.array(layer.blobs[0].data, np.float32)
            found.setdefault(name[1], {})[name[2], name[3]] = values
    if not found:
        raise UserError(f"{path}: no cross-residual weights in it; XS-ResNet has them")
    return found
