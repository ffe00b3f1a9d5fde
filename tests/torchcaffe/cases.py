"""Layers with parameters drawn at random, for the tests that hold them to real Caffe."""

from __future__ import annotations

import random
from typing import Any, Callable

import numpy as np

from tests.torchcaffe.oracle import Case, one_layer
from xresnet.caffeproto import TEST, TRAIN

Draw = random.Random
Made = tuple[dict[str, Any], dict[str, tuple[int, ...]]]  # the layer, its bottoms' shapes

MAKERS: dict[str, Callable[[Draw], Made]] = {}


def maker(function: Callable[[Draw], Made]) -> Callable[[Draw], Made]:
    MAKERS[function.__name__.strip("_")] = function
    return function


def image(d: Draw, channels: int | None = None, least: int = 1) -> tuple[int, ...]:
    return (d.randint(1, 3), channels or d.randint(1, 6), d.randint(least, 9), d.randint(least, 9))


def array(d: Draw, least: int = 1) -> tuple[int, ...]:
    """One to four axes."""
    return tuple(d.randint(1, 5) for _ in range(d.randint(least, 4)))


@maker
def convolution(d: Draw) -> Made:
    group = d.choice([1, 1, 2, 3])
    k, dilation = d.randint(1, 3), d.choice([1, 1, 2])
    param: dict[str, Any] = {"num_output": group * d.randint(1, 3), "group": group}
    if d.random() < 0.3:
        param.update(kernel_h=k, kernel_w=d.randint(1, 3), pad_h=d.randint(0, 2), pad_w=0)
        param.update(stride_h=d.randint(1, 3), stride_w=d.randint(1, 3))
    else:
        param.update(kernel_size=[k], pad=[d.randint(0, 2)], stride=[d.randint(1, 3)])
        param["dilation"] = [dilation]
    param["bias_term"] = d.random() < 0.5
    return {"type": "Convolution", "convolution_param": param}, {
        "x": image(d, group * d.randint(1, 2), 5)
    }


@maker
def convolution_1d_3d(d: Draw) -> Made:
    dims = d.choice([1, 3])
    param = {"num_output": 2, "kernel_size": [2] * dims, "pad": [1], "stride": [d.randint(1, 2)]}
    shape = (2, 2, *(d.randint(3, 5) for _ in range(dims)))
    return {"type": "Convolution", "convolution_param": param}, {"x": shape}


@maker
def deconvolution(d: Draw) -> Made:
    group = d.choice([1, 2])
    param = {"num_output": group * d.randint(1, 3), "group": group, "kernel_size": [4]}
    param.update(stride=[d.randint(1, 3)], pad=[d.randint(0, 1)], bias_term=d.random() < 0.5)
    return {"type": "Deconvolution", "convolution_param": param}, {"x": image(d, 2 * group)}


@maker
def pooling(d: Draw) -> Made:
    kernel = d.randint(1, 4)
    param: dict[str, Any] = {"pool": d.choice(["MAX", "AVE"])}
    kind = d.random()
    if kind < 0.15:
        param["global_pooling"] = True
    elif kind < 0.4:
        param.update(kernel_h=d.randint(2, 4), kernel_w=d.randint(1, 4), pad_h=1, pad_w=0)
        param.update(stride_h=d.randint(1, 2), stride_w=1)
    else:
        param.update(kernel_size=kernel, pad=d.randint(0, kernel - 1))
        param["stride"] = d.randint(1, kernel)
    if d.random() < 0.3:
        param["round_mode"] = "FLOOR"
    return {"type": "Pooling", "pooling_param": param}, {"x": image(d, least=4)}


@maker
def inner_product(d: Draw) -> Made:
    shape = array(d, 2)
    axis = d.choice([1, -1, len(shape) - 1])
    param = {"num_output": d.randint(1, 5), "axis": axis, "transpose": d.random() < 0.4}
    param["bias_term"] = d.random() < 0.6
    return {"type": "InnerProduct", "inner_product_param": param}, {"x": shape}


@maker
def batch_norm(d: Draw) -> Made:
    param: dict[str, Any] = {"eps": d.choice([1e-5, 1e-3])}
    if d.random() < 0.5:
        param["use_global_stats"] = d.random() < 0.5
    if d.random() < 0.5:
        param["moving_average_fraction"] = d.choice([0.9, 0.95])
    return {"type": "BatchNorm", "batch_norm_param": param}, {
        "x": d.choice([image(d, least=2), (d.randint(3, 8), 4)])
    }


@maker
def scale(d: Draw) -> Made:
    shape = array(d, 2)
    if d.random() < 0.4:  # two bottoms
        axis = d.randint(0, len(shape) - 1)
        second = shape[axis : axis + d.randint(1, len(shape) - axis)]
        param = {"axis": axis, "bias_term": d.random() < 0.3}
        return {"type": "Scale", "scale_param": param}, {"x": shape, "y": second}
    axis = d.choice([0, 1, -1])
    axes = d.choice([1, 0, -1])
    param = {"axis": axis, "num_axes": axes, "bias_term": d.random() < 0.5}
    return {"type": "Scale", "scale_param": param}, {"x": shape}


@maker
def bias(d: Draw) -> Made:
    shape = array(d, 2)
    if d.random() < 0.4:
        return {"type": "Bias", "bias_param": {"axis": 1}}, {"x": shape, "y": shape[1:2]}
    param = {"axis": d.choice([0, 1]), "num_axes": d.choice([1, -1])}
    return {"type": "Bias", "bias_param": param}, {"x": shape}


@maker
def eltwise(d: Draw) -> Made:
    count, shape = d.randint(2, 4), array(d)
    param: dict[str, Any] = {"operation": d.choice(["SUM", "SUM", "PROD", "MAX"])}
    if param["operation"] == "SUM" and d.random() < 0.5:
        param["coeff"] = [d.choice([1, -1, 0.5, 2]) for _ in range(count)]
    if param["operation"] == "PROD":
        param["stable_prod_grad"] = d.random() < 0.5
    return {"type": "Eltwise", "eltwise_param": param}, {f"x{i}": shape for i in range(count)}


@maker
def pointwise(d: Draw) -> Made:
    layer = d.choice(
        [
            {"type": "ReLU"},
            {"type": "ReLU", "relu_param": {"negative_slope": 0.1}},
            {"type": "ELU", "elu_param": {"alpha": 0.5}},
            {"type": "Sigmoid"},
            {"type": "TanH"},
            {"type": "AbsVal"},
            {"type": "BNLL"},
            {"type": "Power", "power_param": {"scale": 0.5, "shift": 3, "power": 2}},
            {"type": "Power", "power_param": {"scale": 2, "shift": -1}},
            {"type": "Power", "power_param": {"power": 0}},
            {"type": "Exp", "exp_param": {"scale": 0.3, "shift": 0.1}},
            {"type": "Exp", "exp_param": {"base": 2, "scale": 0.3}},
            {"type": "Log", "log_param": {"scale": 0.01, "shift": 4}},
            {"type": "Log", "log_param": {"base": 10, "scale": 0.01, "shift": 4}},
            {"type": "Softmax"},
        ]
    )
    return dict(layer), {"x": array(d, 2)}


@maker
def newer_pointwise(d: Draw) -> Made:
    clip = {"min": -1.0, "max": d.choice([0.5, 2.0])}
    swish = {"beta": d.choice([1.0, 0.5])}
    layer = {"type": "Clip", "clip_param": clip} if d.random() < 0.5 else {"type": "Swish"}
    return {"swish_param": swish, **layer}, {"x": array(d, 2)}


@maker
def softmax(d: Draw) -> Made:
    shape = array(d)
    axis = d.randint(-len(shape), len(shape) - 1)
    return {"type": "Softmax", "softmax_param": {"axis": axis}}, {"x": shape}


@maker
def mvn(d: Draw) -> Made:
    # One place a channel has no deviation: 0 / eps magnifies rounding.
    param = {"normalize_variance": d.random() < 0.5, "across_channels": d.random() < 0.5}
    return {"type": "MVN", "mvn_param": param}, {"x": image(d, least=3)}


@maker
def prelu(d: Draw) -> Made:
    return {"type": "PReLU", "prelu_param": {"channel_shared": d.random() < 0.5}}, {"x": image(d)}


@maker
def lrn(d: Draw) -> Made:
    param = {"local_size": d.choice([1, 3, 5]), "alpha": d.choice([1, 1e-2]), "beta": 0.75}
    if d.random() < 0.4:
        param["norm_region"] = "WITHIN_CHANNEL"
    else:
        param["k"] = d.choice([1, 2])
    return {"type": "LRN", "lrn_param": param}, {"x": image(d, least=3)}


@maker
def concat(d: Draw) -> Made:
    shape = list(array(d, 2))
    axis = d.randint(-len(shape), len(shape) - 1)
    shapes = {}
    for i in range(d.randint(1, 4)):
        shape[axis] = d.randint(1, 4)
        shapes[f"x{i}"] = tuple(shape)
    return {"type": "Concat", "concat_param": {"axis": axis}}, shapes


@maker
def slice_(d: Draw) -> Made:
    shape = list(array(d, 2))
    axis, parts = d.randint(-len(shape), len(shape) - 1), d.randint(1, 3)
    param: dict[str, Any] = {"axis": axis}
    if d.random() < 0.5 and parts > 1:
        shape[axis] = 7
        param["slice_point"] = sorted(d.sample(range(1, 7), parts - 1))
    else:
        shape[axis] = parts * d.randint(1, 3)
    return {"type": "Slice", "slice_param": param, "top": [f"y{i}" for i in range(parts)]}, {
        "x": tuple(shape)
    }


@maker
def shapes(d: Draw) -> Made:
    layer, shape = d.choice(
        [
            ({"type": "Flatten"}, (2, 3, 4, 5)),
            ({"type": "Flatten", "flatten_param": {"axis": 2}}, (2, 3, 4, 5)),
            ({"type": "Flatten", "flatten_param": {"axis": 0, "end_axis": 1}}, (2, 3, 4)),
            ({"type": "Reshape", "reshape_param": {"shape": {"dim": [0, -1]}}}, (2, 3, 4)),
            ({"type": "Reshape", "reshape_param": {"shape": {"dim": [2, 2]}, "axis": 1,
              "num_axes": 1}}, (3, 4, 5)),
            ({"type": "Reshape", "reshape_param": {"shape": {"dim": [1]}, "axis": -1,
              "num_axes": 0}}, (3, 4)),
            ({"type": "Tile", "tile_param": {"axis": 1, "tiles": 3}}, (2, 3, 2)),
            ({"type": "Split", "top": ["y0", "y1"]}, (2, 3)),
        ]
    )  # fmt: skip
    return dict(layer), {"x": shape}


@maker
def crop(d: Draw) -> Made:
    axis = d.randint(1, 3)
    big = (2, 4, 6, 7)
    small = tuple(n if i < axis else d.randint(1, n - 1) for i, n in enumerate(big))
    free = [big[i] - small[i] for i in range(axis, 4)]
    offset = d.choice([[], [d.randint(0, min(free))], [d.randint(0, f) for f in free]])
    return {"type": "Crop", "crop_param": {"axis": axis, "offset": offset}}, {"x": big, "y": small}


@maker
def reduction(d: Draw) -> Made:
    shape = array(d)
    param = {"operation": d.choice(["SUM", "ASUM", "SUMSQ", "MEAN"]), "coeff": d.choice([1, 0.5])}
    param["axis"] = d.randint(0, len(shape) - 1)
    return {"type": "Reduction", "reduction_param": param}, {"x": shape}


@maker
def argmax(d: Draw) -> Made:
    param: dict[str, Any] = {"top_k": d.randint(1, 2), "out_max_val": d.random() < 0.5}
    if d.random() < 0.5:
        param["axis"] = d.choice([1, -1])
    return {"type": "ArgMax", "argmax_param": param}, {"x": (2, 3, 2, 2)}


@maker
def embed(d: Draw) -> Made:
    param = {"num_output": 3, "input_dim": 5, "bias_term": d.random() < 0.5}
    # Caffe runs no backward pass for what lies under no loss.
    return {"type": "Embed", "embed_param": param, "loss_weight": [0.5]}, {
        "label 5": (d.randint(1, 4), d.randint(1, 3))
    }


def _loss_param(d: Draw, ignore: bool = True) -> dict[str, Any]:
    param: dict[str, Any] = {}
    if d.random() < 0.5:
        param["normalization"] = d.choice(["FULL", "VALID", "BATCH_SIZE", "NONE"])
    elif d.random() < 0.5:
        param["normalize"] = d.random() < 0.5
    if ignore and d.random() < 0.5:
        param["ignore_label"] = d.randint(0, 1)
    return param


@maker
def softmax_with_loss(d: Draw) -> Made:
    classes = d.randint(2, 6)
    scores = d.choice([(d.randint(1, 5), classes), (2, classes, 3, 2)])
    label = (scores[0], 1, 1, 1) if len(scores) == 2 else (2, 1, 3, 2)
    layer = {"type": "SoftmaxWithLoss", "loss_param": _loss_param(d)}
    if d.random() < 0.3:
        layer["loss_weight"] = [0.3]
    return layer, {"x": scores, f"label {classes}": label}


@maker
def other_losses(d: Draw) -> Made:
    n, k = d.randint(1, 4), d.randint(2, 4)
    kind = d.randrange(4)
    if kind == 0:
        return {"type": "EuclideanLoss"}, {"x": (n, k, 2), "y": (n, k, 2)}
    if kind == 1:
        layer = {"type": "SigmoidCrossEntropyLoss", "loss_param": _loss_param(d)}
        return layer, {"x": (n, k), "label 2": (n, k)}
    if kind == 2:
        norm = {"norm": d.choice(["L1", "L2"])}
        return {"type": "HingeLoss", "hinge_loss_param": norm}, {"x": (n, k), f"label {k}": (n,)}
    return {"type": "SoftmaxWithLoss", "loss_weight": [2]}, {"x": (n, k), f"label {k}": (n,)}


@maker
def pairs(d: Draw) -> Made:
    n, shape = d.randint(1, 5), (d.randint(1, 4), *d.choice([(), (1, 1)]))
    param = {"margin": d.choice([1.0, 4.0]), "legacy_version": d.random() < 0.5}
    layer = {"type": "ContrastiveLoss", "contrastive_loss_param": param}
    return layer, {"x": (n, *shape), "y": (n, *shape), "label 2": (n,)}


@maker
def infogain_loss(d: Draw) -> Made:
    classes = d.randint(2, 5)
    scores = d.choice([(d.randint(1, 5), classes), (2, classes, 3, 2)])
    label = (scores[0], 1, 1, 1) if len(scores) == 2 else (2, 1, 3, 2)
    given = _loss_param(d)
    given.pop("normalize", None)  # Caffe refuses it here
    layer = {"type": "InfogainLoss", "loss_param": given}
    return layer, {"x": scores, f"label {classes}": label, "matrix": (1, 1, classes, classes)}


@maker
def spatial_pyramid(d: Draw) -> Made:
    param = {"pyramid_height": d.randint(1, 3), "pool": d.choice(["MAX", "AVE"])}
    # Of 5 pixels, say, Caffe too makes no windows of a third level.
    return {"type": "SPP", "spp_param": param}, {"x": image(d, least=6)}


@maker
def over_time(d: Draw) -> Made:
    t, n, static = d.randint(1, 4), d.randint(1, 3), d.random() < 0.4
    fillers = {"weight_filler": {"type": "xavier"}, "bias_filler": {"type": "constant"}}
    param = {"num_output": d.randint(1, 4), **fillers}
    layer = {"type": d.choice(["LSTM", "RNN"]), "recurrent_param": param}
    shapes = {"x": (t, n, d.randint(1, 3), *d.choice([(), (2,)])), "label 2": (t, n)}
    return layer, {**shapes, **({"constant": (n, 3)} if static else {})}


@maker
def reindex(d: Draw) -> Made:
    n = d.randint(1, 4)
    return {"type": "BatchReindex"}, {"x": (n, *array(d)), f"label {n}": (d.randint(1, 6),)}


@maker
def accuracy(d: Draw) -> Made:
    classes = d.randint(2, 6)
    param: dict[str, Any] = {"top_k": d.randint(1, classes)}
    if d.random() < 0.5:
        param["ignore_label"] = 0
    layer = {"type": "Accuracy", "accuracy_param": param}
    if d.random() < 0.4:
        layer["top"] = ["y0", "y1"]
        param["top_k"] = 1
    scores = d.choice([(6, classes), (2, classes, 3, 2)])
    return layer, {"ties": scores, f"label {classes}": (scores[0], *scores[2:])}


# The last two have their gradients tested behind a layer that learns.
NO_BACKWARD = {"Accuracy", "ArgMax", "Threshold", "InfogainLoss", "BatchReindex"}


def _may_tie(layer: dict[str, Any]) -> bool:
    # Not a product: Caffe's unstable gradient divides by its bottoms.
    product = layer.get("eltwise_param", {}).get("operation") == "PROD"
    return layer["type"] in ("Pooling", "Eltwise") and not product


def case(name: str, seed: int) -> Case:
    """A layer of the maker `name` with random parameters, weights, inputs and gradients."""
    d, rng = Draw(f"{name} {seed}"), np.random.default_rng(seed)
    layer, given = MAKERS[name](d)
    layer.setdefault("top", ["y0"])
    bottoms = {}
    for told, shape in given.items():
        kind, _, classes = told.partition(" ")
        if classes:
            bottoms[kind] = rng.integers(0, int(classes), shape).astype(np.float32)
        elif kind == "ties" or (d.random() < 0.2 and _may_tie(layer)):
            bottoms[kind] = rng.integers(-2, 3, shape).astype(np.float32)  # equals among them
        else:
            bottoms[kind] = rng.normal(0, 2, shape).astype(np.float32)
    net = one_layer({"name": "layer", **layer}, {k: v.shape for k, v in bottoms.items()})
    phase = TRAIN if d.random() < 0.7 else TEST
    return Case(net, bottoms, phase=phase, backward=layer["type"] not in NO_BACKWARD)
