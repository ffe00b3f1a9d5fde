"""Convert ResNets of torchvision, Keras and pynetbuilder to the layers of the published Caffe net.

All consist of units of convolution, normalisation and ReLU. They differ in names, axes and these:

    torchvision   Its input is RGB over its std, which is folded into conv1. It has the stride in
                  the 3x3 convolution (v1.5) and pads pool1; the Caffe net needs the same options.
    Keras         Its input is BGR, as Caffe's. Biases of convolutions and an epsilon of 1.001e-5
                  are folded into the running statistics, since Caffe's epsilon is 1e-5.
    pynetbuilder  Yahoo's generator of Caffe nets, with names of its own. Biases of convolutions
                  and the factor of statistics are folded into the running statistics.

A normalisation is gamma (y - mean) / sqrt(var + epsilon) + beta. A bias b before it equals a mean
smaller by b, and another epsilon e a variance larger by e - 1e-5. Both are exact with running
statistics. In training with the batch's, the bias has no effect, and epsilon is Caffe's.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from netgen.blocks import blocks, deep
from netgen.names import norm_names
from netgen.options import Options
from xresnet.basics.cli import UserError
from xresnet.caffeproto.caffemodel import Layer, shown, statistics

CAFFE_EPSILON = 1e-5
TORCH_EPSILON = 1e-5
KERAS_EPSILON = 1.001e-5  # keras.applications.resnet: all its BatchNormalizations
# Keras's ResNet50 before 2.2.5 had other names (bn2a_branch2a), and BatchNormalization's default.
OLD_KERAS_EPSILON = 1e-3

# The digest of the running statistics of He's published ResNet-50 (`_statistics`). Keras's ResNet50
# has the same statistics, although they were taken with Caffe's epsilon: docs/REPRODUCTION.md has
# the measurement.
HES_STATISTICS = "d8da1c707b505eb699a6a16775bfa6118a0e99c1ec2add4e970b1ce1ed075727"
CLASSIFIER = "fc1000"  # its name in the published Caffe net

# The normalisation by torchvision's transforms, in units of 255: red, green, blue.
TORCH_MEAN = (0.485, 0.456, 0.406)
TORCH_STD = (0.229, 0.224, 0.225)

# The parts that each unit must have.
NEEDED = ("weight", "gamma", "beta", "mean", "var")
BRANCHES = {"0": "branch1", "1": "branch2a", "2": "branch2b", "3": "branch2c"}

# (stage, index of the block, branch): (2, 0, "branch2a") is res2a_branch2a; conv1 is STEM.
Key = tuple[int, int, str]
STEM: Key = (1, 0, "")


@dataclass
class Units:
    """Arrays by unit and part, ImageNet's classifier, and the names of other arrays."""

    found: dict[Key, dict[str, np.ndarray]] = field(default_factory=lambda: defaultdict(dict))
    classifier: list[np.ndarray] = field(default_factory=list)  # K x C weights and K biases
    ignored: list[str] = field(default_factory=list)


# ---- torchvision -----------------------------------------------------------------

TORCH_NAME = re.compile(
    r"layer([1-4])\.(\d{1,3})\.(?:(conv|bn)([123])|(downsample)\.([01]))\.(\w+)"
)
TORCH_PARTS = {"weight": "gamma", "bias": "beta", "running_mean": "mean", "running_var": "var"}


def torchvision(tensors: dict[str, np.ndarray], where: str) -> tuple[dict[str, Layer], list[str]]:
    """The layers of a torchvision ResNet's state dict, and the names of unused tensors.

    Raises:
        UserError: it is not a ResNet of bottlenecks, or a part of a unit is missing.
    """
    units = Units()
    for name, tensor in tensors.items():
        if name.endswith("num_batches_tracked"):  # has no counterpart in Caffe
            continue
        key, part = _torch_part(name)
        if name == "fc.weight" and "fc.bias" in tensors:
            units.classifier = [tensor, tensors["fc.bias"]]
        elif name == "fc.bias" and "fc.weight" in tensors:
            continue  # used with the weights
        elif key is None:
            units.ignored.append(name)
        else:
            units.found[key][part] = tensor
    _needs_stem(units, where, "torchvision's")
    conv1 = units.found[STEM].get("weight")
    if conv1 is not None and conv1.ndim == 4 and conv1.shape[1] == 3:
        scale = 1 / (255 * np.array(TORCH_STD))
        units.found[STEM]["weight"] = (conv1 * scale[:, None, None])[:, ::-1]  # RGB to BGR
    return _layers(units, TORCH_EPSILON, where), units.ignored


def _torch_part(name: str) -> tuple[Key | None, str]:
    stem = re.fullmatch(r"(conv|bn)1\.(\w+)", name)
    if stem:
        key, norm, part = STEM, stem.group(1) == "bn", stem.group(2)
    elif found := TORCH_NAME.fullmatch(name):
        stage, i, kind, number, downsample, second, part = found.groups()
        branch = BRANCHES["0" if downsample else number]
        key, norm = (
            (int(stage) + 1, int(i), branch),
            (second == "1" if downsample else kind == "bn"),
        )
    else:
        return None, ""
    part = TORCH_PARTS.get(part, "") if norm else part if part in ("weight", "bias") else ""
    return (key, part) if part else (None, "")


# ---- Keras -----------------------------------------------------------------------

KERAS_NAME = re.compile(r"conv([2-5])_block(\d{1,3})_([0-3])_(conv|bn)")
OLD_NAME = re.compile(r"(res|bn)([2-5])([a-z])(\d*)_(branch1|branch2[abc])")
CLASSIFIERS = ("predictions", "fc1000")  # of today, and of before Keras 2.2.5
STEMS = {"conv1_conv": False, "conv1_bn": True, "conv1": False, "bn_conv1": True}


def keras(
    arrays: dict[str, list[np.ndarray]],
    epsilon: float | None,
    where: str,
    described: float | None = None,
) -> tuple[dict[str, Layer], list[str]]:
    """The layers of a Keras Applications ResNet (v1), and the names of unused layers.

    Args:
        arrays: the file's arrays by layer.
        epsilon: that of the BatchNorms. By default it is Caffe's if the statistics are those of
            the published Caffe net, else `described`, else that of Keras's code with such names.
        where: the file, for errors.
        described: the epsilon in the file's configuration, if it has one.

    Raises:
        UserError: it is not a ResNet of bottlenecks, or a part of a unit is missing.
    """
    units = Units()
    old = False
    for name, values in arrays.items():
        key, norm, aged = _keras_part(name)
        if name in CLASSIFIERS and len(values) == 2 and values[0].ndim == 2:
            units.classifier = [values[0].T, values[1]]
            continue
        if key is None:
            units.ignored.append(name)
            continue
        old |= aged
        parts = ("gamma", "beta", "mean", "var") if norm else ("weight", "bias")
        if len(values) > len(parts):
            raise UserError(f"{where}: layer {name!r} has {len(values)} arrays, not {len(parts)}")
        for part, value in zip(parts, values):
            units.found[key][part] = value
        if not norm:
            if values[0].ndim != 4:
                raise UserError(
                    f"{where}: layer {name!r} is not a convolution: {shown(values[0].shape)}"
                )
            units.found[key]["weight"] = values[0].transpose(3, 2, 0, 1)  # HWIO to OIHW
    _needs_stem(units, where, "Keras's")
    if epsilon is None and _statistics(units) == HES_STATISTICS:
        epsilon = CAFFE_EPSILON
    usual = OLD_KERAS_EPSILON if old else KERAS_EPSILON
    epsilon = next(one for one in (epsilon, described, usual) if one is not None)
    return _layers(units, epsilon, where), units.ignored


def _statistics(units: Units) -> str:
    """The SHA-256 of all running means and variances, in the units' order."""
    digest = hashlib.sha256()
    for _, parts in sorted(units.found.items()):
        for part in ("mean", "var"):
            digest.update(np.asarray(parts.get(part, ()), "<f4").tobytes())
    return digest.hexdigest()


def _keras_part(name: str) -> tuple[Key | None, bool, bool]:
    """(unit, whether it is the unit's norm, whether the name is of the old layout) of a layer."""
    if name in STEMS:
        return STEM, STEMS[name], name in ("conv1", "bn_conv1")
    if found := KERAS_NAME.fullmatch(name):
        stage, i, number, kind = found.groups()
        return (int(stage), int(i) - 1, BRANCHES[number]), kind == "bn", False
    if found := OLD_NAME.fullmatch(name):
        kind, stage, letter, number, branch = found.groups()
        i = int(number) if number else ord(letter) - ord("a")
        return (int(stage), i, branch), kind == "bn", True
    return None, False, False


# ---- pynetbuilder ----------------------------------------------------------------

BUILT_NAME = re.compile(
    r"(conv|bn|scale)_(?:1|stage([0-3])_block(\d{1,3})_(?:(proj_shortcut)|(branch2[abc])))"
)
BUILT_PARTS = {"conv": ("weight", "bias"), "bn": ("mean", "var"), "scale": ("gamma", "beta")}


def is_pynetbuilder(layers: Iterable[str]) -> bool:
    """Whether layers with these names are of a pynetbuilder ResNet."""
    return "conv_stage0_block0_branch2a" in layers


def pynetbuilder(layers: dict[str, Layer], where: str) -> tuple[dict[str, Layer], list[str]]:
    """The layers of a pynetbuilder ResNet with published names, and the names of unused layers.

    Raises:
        UserError: it is not a ResNet of bottlenecks, or a part of a unit is missing.
    """
    units = Units()
    for name, layer in layers.items():
        found = BUILT_NAME.fullmatch(name)
        if not found:
            units.ignored.append(name)
            continue
        kind, stage, i, projection, branch = found.groups()
        key = (int(stage) + 2, int(i), "branch1" if projection else branch) if stage else STEM
        blobs = statistics(layer) if kind == "bn" else layer.blobs
        for part, blob in zip(BUILT_PARTS[kind], blobs):
            units.found[key][part] = blob
    _needs_stem(units, where, "pynetbuilder's")
    return _layers(units, CAFFE_EPSILON, where), units.ignored


# ---- Caffe -----------------------------------------------------------------------


def _layers(units: Units, epsilon: float, where: str) -> dict[str, Layer]:
    """The units as Convolution, BatchNorm and Scale, by their published names."""
    stages = [
        1 + max((i for s, i, _ in units.found if s == stage), default=-1) for stage in range(2, 6)
    ]
    if not all(stages):
        raise UserError(f"{where}: not a ResNet: res{stages.index(0) + 2} is missing")
    shape = Options(blocks=tuple(stages))
    every = iter(blocks(shape))
    names = {(s, i): next(every).title for s, count in enumerate(stages, 2) for i in range(count)}
    made = {}
    for key, parts in sorted(units.found.items()):
        stage, i, branch = key
        name = f"{names[stage, i]}_{branch}" if branch else "conv1"
        missing = [part for part in NEEDED if part not in parts]
        if missing:
            raise UserError(f"{where}: {name} lacks its {' and '.join(missing)}")
        # ResNet-50's published conv1 has a bias, which the norm after it removes.
        bias = key == STEM and not deep(shape)
        for layer in _unit(name, parts, epsilon, bias, where):
            made[layer.name] = layer
    if units.classifier:
        made[CLASSIFIER] = Layer(CLASSIFIER, "InnerProduct", floats(*units.classifier))
    return made


def _unit(
    name: str, parts: dict[str, np.ndarray], epsilon: float, bias: bool, where: str
) -> Iterable[Layer]:
    weight = parts["weight"]
    wide = {part: np.asarray(parts[part], np.float64) for part in parts if part != "weight"}
    for part, values in wide.items():
        if weight.ndim != 4 or values.shape != weight.shape[:1]:
            raise UserError(
                f"{where}: {name} has weights of {shown(weight.shape)} "
                f"and a {part} of {shown(values.shape)}"
            )
    mean = wide["mean"] - wide.get("bias", 0)
    var = wide["var"] + (epsilon - CAFFE_EPSILON)
    norm, scale = norm_names(name)
    zeros = [np.zeros(len(weight))] if bias else []
    yield Layer(name, "Convolution", floats(weight, *zeros))
    yield Layer(norm, "BatchNorm", floats(mean, var, np.ones(1)))
    yield Layer(scale, "Scale", floats(wide["gamma"], wide["beta"]))


def floats(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    """The arrays as float32."""
    with np.errstate(over="ignore"):  # infinite values are reported where they are used
        return tuple(np.ascontiguousarray(array, np.float32) for array in arrays)


def _needs_stem(units: Units, where: str, whose: str) -> None:
    if STEM not in units.found or len(units.found) == 1:
        some = ", ".join(units.ignored[:3])
        raise UserError(f"{where} is not one of {whose} ResNets: it holds {some or 'nothing'}, ...")
