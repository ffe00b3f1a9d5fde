"""Read Keras's weight files, `.h5`, of all its versions.

There are three layouts: groups named in the attribute `layer_names`, at the root (`save_weights`
until Keras 2, and Keras Applications' files) or under `model_weights` (`model.save`); and Keras
3's `.weights.h5`, where groups are numbered and a layer's name is an attribute.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from xresnet.basics.cli import UserError
from xresnet.basics.hdf5 import Reader


@dataclass(frozen=True)
class File:
    """A file's arrays by layer, and the epsilon of its BatchNorms if it has that, too."""

    layers: dict[str, list[np.ndarray]]
    epsilon: float | None = None


def load(data: bytes, where: str) -> File:
    """The layers with weights, arrays in Keras's order; `where` names the file in errors.

    Raises:
        UserError: h5py is not installed; or the file is truncated or damaged, has no weights of
            Keras, links to other files, or expands to too large a size.
    """
    try:
        import h5py
    except ImportError:
        raise UserError(
            f"{where} is HDF5, which needs h5py: pip install h5py (or this project's [weights])"
        ) from None
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            found = _layers(file, Reader(file, len(data), where))
            config = file.attrs.get("model_config")
            said = None if config is None else epsilon(json.loads(_text(config)))
    except UserError:
        raise
    except Exception as error:  # HDF5's library raises anything for damaged files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{where} is cut short, damaged or not Keras's: {reason}") from None
    if not found:
        raise UserError(f"{where} is HDF5, but has no weights in any of Keras's layouts")
    return File(found, said)


def _layers(file: Any, reader: Reader) -> dict[str, list[np.ndarray]]:
    found = {}
    if "layers" in file and "layer_names" not in file.attrs:  # Keras 3's .weights.h5
        layers = reader.at("layers")
        for name in layers:
            arrays = reader.at(f"{name}/vars", layers)
            if arrays is not None and len(arrays):
                own = layers[name].attrs.get("name", "")
                title = _text(arrays.attrs.get("name", own))
                each = [reader.at(i, arrays) for i in sorted(arrays, key=int)]
                found[title] = [reader.array(one) for one in each]
        return found
    root = reader.at("model_weights") or file
    for name in map(_text, root.attrs.get("layer_names", [])):
        group = reader.at(name, root)
        arrays = [reader.at(_text(weight), group) for weight in group.attrs["weight_names"]]
        if arrays:
            found[name] = [reader.array(array) for array in arrays]
    return found


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def epsilon(model: dict[str, Any]) -> float | None:
    """The epsilon of the BatchNorms in a model's configuration, if it is the same for all."""
    found = {
        layer["config"].get("epsilon")
        for layer in model["config"]["layers"]
        if layer["class_name"] == "BatchNormalization"
    }
    return found.pop() if len(found) == 1 else None
