"""The pretrained function kept across the branching point (section 4).

In the published block two normalised summands are added, res5a's

    y = g1 (z1 - m1)/s1 + b1  +  g2 (z2 - m2)/s2 + b2,        s = sqrt(v + epsilon),

where z are the outputs of the convolutions. In ours both summands lack their norms, and each task
has one after the addition. So each g/s is multiplied into its convolution, and

    u = (g1/s1) z1 + (g2/s2) z2,       y = u + c,       c = sum of b - g m/s.

The new norm must add c and do nothing else. G (u - M)/sqrt(V + epsilon) + B with B = E[y],
M = B - c and sqrt(V + epsilon) = G does so exactly, for any G and B, with running statistics
(TEST). With the batch's statistics (TRAIN) it does so as closely as B and G approximate the
batch's mean and standard deviation of y. By the published norms a summand has mean b and standard
deviation g, so B = b1 + b2 and, if the summands are uncorrelated, G = sqrt(g1^2 + g2^2).

A summand that keeps its norm contributes b and g^2 as well. An identity shortcut (as when
branching after res5b) is ReLU(y) of the block before; its moments are those of a rectified
Gaussian.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Callable, Optional

import numpy as np

from netgen.names import norm_names
from netgen.weights.published import CAFFE_EPSILON, floats
from xresnet.basics.cli import UserError
from xresnet.caffeproto.caffemodel import Layer, statistics

Find = Callable[[str], Optional[Layer]]


def fold(net: Any, find: Find) -> dict[str, Layer]:
    """The convolutions and norms of the branching points, by name.

    A branching point is left out if a published layer that it needs is missing, or if the file
    has its norms, since that file's net has branched already.

    Args:
        net: a NetParameter.
        find: returns the published layer of a name, or None.

    Raises:
        UserError: a published norm has a negative variance.
    """
    made: dict[str, Layer] = {}
    for addition, norms in branching_points(net):
        bare = _bare(net, addition)
        norms = [(bn, scale) for bn, scale in norms if find(bn) is None and find(scale) is None]
        if not bare or not norms:
            continue
        try:
            shift = np.zeros(())
            folded = {}
            for layer in bare:
                factor, constant = _norm(layer.name, find)
                weight = _needed(find, layer.name).blobs[0]
                shape = (-1,) + (1,) * (weight.ndim - 1)
                scaled = (weight * factor.reshape(shape)).astype(np.float32)
                folded[layer.name] = Layer(layer.name, layer.type, (scaled,))
                shift = shift + constant
            mean, var = moments(net, addition.top[0], find)
        except LookupError:
            continue
        # The variance of a nearly constant channel is below epsilon: then V is 0, G sqrt(epsilon).
        var = np.maximum(var - CAFFE_EPSILON, 0).astype(np.float32)
        gamma = np.sqrt(var.astype(np.float64) + np.float32(CAFFE_EPSILON))
        running = floats(mean - shift, var, np.ones(1))
        made.update(folded)
        for bn, scale in norms:
            made[bn] = Layer(bn, "BatchNorm", running)
            made[scale] = Layer(scale, "Scale", floats(gamma, mean))
    return made


def branching_points(net: Any) -> Iterator[tuple[Any, list[tuple[str, str]]]]:
    """The additions that norms follow, each with these, (BatchNorm, Scale) per task."""
    for addition in net.layer:
        if addition.type != "Eltwise":
            continue
        behind = [n for n in net.layer if n.type == "BatchNorm" and n.bottom[0] == addition.top[0]]
        pairs = [
            (norm.name, scale.name)
            for norm in behind
            for scale in net.layer
            if scale.type == "Scale" and list(scale.bottom) == list(scale.top) == list(norm.top)
        ]
        if pairs:
            yield addition, pairs


def moments(net: Any, blob: str, find: Find) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of each channel of a blob, by the parameters of the published norms.

    Raises:
        LookupError: the norms do not determine them.
    """
    found = None
    for layer in net.layer:
        if blob not in layer.top:
            continue
        if layer.type == "Eltwise":
            means, variances = zip(*(moments(net, bottom, find) for bottom in layer.bottom))
            found = np.sum(means, axis=0), np.sum(variances, axis=0)
        elif layer.type == "Convolution":  # its norm was moved, or follows in place
            gamma, beta = _gamma_and_beta(norm_names(layer.name)[1], find)
            found = beta, gamma**2
        elif layer.type == "ReLU" and found:
            found = rectified(*found)
    if found is None:
        raise LookupError(blob)
    return found


def rectified(mean: np.ndarray, var: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of max(0, x) for a Gaussian x."""
    std = np.sqrt(np.maximum(var, 1e-30))
    a = mean / std
    below = np.array([(1 + math.erf(x / math.sqrt(2))) / 2 for x in a])
    density = np.exp(-(a**2) / 2) / math.sqrt(2 * math.pi)
    first = mean * below + std * density
    second = (mean**2 + std**2) * below + mean * std * density
    return first, np.maximum(second - first**2, 0)


def unnormed(net: Any) -> set[str]:
    """The convolutions whose published norms were moved after a branching point's addition."""
    return {layer.name for addition, _ in branching_points(net) for layer in _bare(net, addition)}


def _bare(net: Any, addition: Any) -> list[Any]:
    """The convolutions whose output is added without a norm and a ReLU."""
    makers = [[layer for layer in net.layer if blob in layer.top] for blob in addition.bottom]
    return [made[0] for made in makers if len(made) == 1 and made[0].type == "Convolution"]


def _norm(convolution: str, find: Find) -> tuple[np.ndarray, np.ndarray]:
    """g/s and b - g m/s of the published norm after a convolution."""
    name, scale = norm_names(convolution)
    mean, var = statistics(_needed(find, name))
    gamma, beta = _gamma_and_beta(scale, find)
    if (var + CAFFE_EPSILON <= 0).any():
        raise UserError(f"layer {name!r} has a negative variance and cannot be folded")
    factor = gamma / np.sqrt(var + CAFFE_EPSILON)
    return factor, beta - factor * mean


def _gamma_and_beta(scale: str, find: Find) -> Iterator[np.ndarray]:
    return (np.asarray(blob, np.float64).reshape(-1) for blob in _needed(find, scale).blobs)


def _needed(find: Find, name: str) -> Layer:
    layer = find(name)
    if layer is None:
        raise LookupError(name)
    return layer
