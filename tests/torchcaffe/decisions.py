"""A net of ours that takes real Caffe's side wherever a layer chooses.

A ReLU or a maximum chooses. Where two numbers lie closer together than single precision
tells apart, two correct programs choose differently, and from there on a gradient differs
by whole terms, not by rounding: of a share s of choices that differ the gradient keeps an
error of about sqrt(s), which for s = 1e-4 is 1e-2. With the choices given, what remains is
the order of sums.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from torchcaffe import graph
from torchcaffe.graph import Step, Value
from torchcaffe.net import Net


def run(net: Net, fed: dict[str, Tensor], caffe: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """All blobs by name, every ReLU and maximum decided as in Caffe's blobs `top NAME`."""
    values: dict[Value, Tensor] = {}
    for step in net.steps:
        if step.param.type in graph.FED:
            values.update((value, fed[value.name]) for value in step.tops)
            continue
        bottoms = [values[value] for value in step.bottoms]
        tops = _decided(net, step, bottoms, caffe)
        values.update(zip(step.tops, tops if isinstance(tops, tuple) else (tops,)))
    return {value.name: tensor for value, tensor in values.items()}


def _decided(net: Net, step: Step, bottoms: list[Tensor], caffe: dict[str, np.ndarray]):
    layer = net.layer_named(step.param.name)
    if step.param.type == "ReLU":
        assert not layer.param.relu_param.negative_slope
        return bottoms[0] * torch.from_numpy(caffe[f"top {step.tops[0].name}"] > 0)
    if step.param.type == "Pooling" and layer.maximum:
        assert layer.native
        theirs = torch.from_numpy(caffe[f"top {step.bottoms[0].name}"])
        sizes = (layer.kernel, layer.stride, layer.pad)
        _, at = F.max_pool2d(theirs, *sizes, ceil_mode=True, return_indices=True)
        return bottoms[0].flatten(2).gather(2, at.flatten(2)).view(at.shape)
    return layer(*bottoms)
