"""torchvision's, Keras's and pynetbuilder's ResNets in the layers of the published Caffe net.

All are a convolution, a normalisation and a ReLU over and over, as that one
is; they differ in names, axes and in what stands where:

    torchvision   RGB in units of its std: folded into conv1. Strides in the 3x3 (v1.5),
                  pools from -1: only a net made so computes the same.
    Keras         BGR, as Caffe. Convolutions have biases, epsilon is 1.001e-5: folded
                  into the running statistics, for Caffe's epsilon is 1e-5.
    pynetbuilder  Yahoo's generator of Caffe nets. Names of its own; convolutions have
                  biases, statistics a factor: both folded into the running statistics.

A normalisation is gamma (y - mean) / sqrt(var + epsilon) + beta. A bias b in
front of it is a mean smaller by b; another epsilon e is a variance larger by
e - 1e-5. Both are exact where running statistics count. In training the batch's
do: a bias leaves them as they are, and an epsilon is Caffe's from then on.
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
# Keras before 2.2.5 had its ResNet50 in other words (bn2a_branch2a) and with
# BatchNormalization's own default, under which its .h5 of that layout was used.
OLD_KERAS_EPSILON = 1e-3

# Of all running means and variances of He's published ResNet-50 (`_statistics`). What Keras
# and its descendants call ResNet50 took them over as they were, and they were taken with
# Caffe's epsilon: docs/REPRODUCTION.md has the measurement.
HES_STATISTICS = "d8da1c707b505eb699a6a16775bfa6118a0e99c1ec2add4e970b1ce1ed075727"
CLASSIFIER = "fc1000"  # as the published Caffe net calls it

# torchvision's transforms: what its models expect in units of 255, red, green, blue.
TORCH_MEAN = (0.485, 0.456, 0.406)
TORCH_STD = (0.229, 0.224, 0.225)

# Our parts of a unit, and which of them it cannot do without.
NEEDED = ("weight", "gamma", "beta", "mean", "var")
BRANCHES = {"0": "branch1", "1": "branch2a", "2": "branch2b", "3": "branch2c"}

# (stage, block in it, branch): (2, 0, "branch2a") is res2a_branch2a; conv1 is the empty branch.
Key = tuple[int, int, str]
STEM: Key = (1, 0, "")


@dataclass
class Units:
    """Arrays by unit and part, ImageNet's classifier, and what in the file is neither."""

    found: dict[Key, dict[str, np.ndarray]] = field(default_factory=lambda: defaultdict(dict))
    classifier: list[np.ndarray] = field(default_factory=list)  # K x C weights and K biases
    ignored: list[str] = field(default_factory=list)


# ---- torchvision -----------------------------------------------------------------

TORCH_NAME = re.compile(
    r"layer([1-4])\.(\d{1,3})\.(?:(conv|bn)([123])|(downsample)\.([01]))\.(\w+)"
)
TORCH_PARTS = {"weight": "gamma", "bias": "beta", "running_mean": "mean", "running_var": "var"}


def torchvision(tensors: dict[str, np.ndarray], where: str) -> tuple[dict[str, Layer], list[str]]:
    """The layers of a torchvision ResNet's state dict, and the names of tensors left over.

    Raises:
        UserError: no ResNet of bottlenecks, or a part of a unit is missing.
    """
    units = Units()
    for name, tensor in tensors.items():
        if name.endswith("num_batches_tracked"):  # counts batches for a momentum that Caffe has not
            continue
        key, part = _torch_part(name)
        if name == "fc.weight" and "fc.bias" in tensors:
            units.classifier = [tensor, tensors["fc.bias"]]
        elif name == "fc.bias" and "fc.weight" in tensors:
            continue  # went with them
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
    """The layers of a Keras Applications ResNet (v1), and the names of layers left over.

    `epsilon` is its BatchNorms'. None takes Caffe's where the statistics are those of the
    published Caffe net, else what the file's own description says, `described`, else what
    Keras's code says beside names as these.

    Raises:
        UserError: no ResNet of bottlenecks, or a part of a unit is missing.
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
    if epsilon is None:
        epsilon = described
    if epsilon is None:
        epsilon = OLD_KERAS_EPSILON if old else KERAS_EPSILON
    return _layers(units, epsilon, where), units.ignored


def _statistics(units: Units) -> str:
    """The SHA-256 of all running means and variances, unit by unit."""
    digest = hashlib.sha256()
    for _, parts in sorted(units.found.items()):
        for part in ("mean", "var"):
            digest.update(np.asarray(parts.get(part, ()), "<f4").tobytes())
    return digest.hexdigest()


def _keras_part(name: str) -> tuple[Key | None, bool, bool]:
    """(unit, whether it is the unit's norm, whether the name is of the old layout)."""
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
    """Whether layers of these names are those of one of pynetbuilder's ResNets."""
    return "conv_stage0_block0_branch2a" in layers


def pynetbuilder(layers: dict[str, Layer], where: str) -> tuple[dict[str, Layer], list[str]]:
    """The layers of a pynetbuilder ResNet under published names, and the names of those left over.

    Raises:
        UserError: no ResNet of bottlenecks, or a part of a unit is missing.
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
    """The units as Convolution, BatchNorm and Scale, under the published names."""
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
        # ResNet-50's published conv1 has a bias. The norm behind it takes it out again.
        bias = key == STEM and not deep(shape)
        for layer in _unit(name, parts, epsilon, bias, where):
            made[layer.name] = layer
    if units.classifier:
        made[CLASSIFIER] = Layer(CLASSIFIER, "InnerProduct", _floats(*units.classifier))
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
    yield Layer(name, "Convolution", _floats(weight, *zeros))
    yield Layer(norm, "BatchNorm", _floats(mean, var, np.ones(1)))
    yield Layer(scale, "Scale", _floats(wide["gamma"], wide["beta"]))


def _floats(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    with np.errstate(over="ignore"):  # an infinity is found, and named, where it is used
        return tuple(np.ascontiguousarray(array, np.float32) for array in arrays)


def _needs_stem(units: Units, where: str, whose: str) -> None:
    if STEM not in units.found or len(units.found) == 1:
        some = ", ".join(units.ignored[:3])
        raise UserError(f"{where} is none of {whose} ResNets: it holds {some or 'nothing'}, ...")
