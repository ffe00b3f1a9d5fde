"""Arrays as BlobProto messages and back, through their wire format: fast for millions."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any, Callable

import numpy as np
import torch

from xresnet.basics.cli import UserError
from xresnet.caffeproto import BlobProto, NetParameter, wire
from xresnet.caffeproto.caffemodel import DATA, MOST_AXES, values

MOST_VALUES = 2**31 - 1  # of a blob, as in Caffe


def sound(shape: Sequence[int], mistake: Callable[[str], UserError]) -> None:
    """Hold a blob's shape to Caffe's bounds.

    Raises:
        UserError: made by `mistake`: too many axes, a negative size, or too many values.
    """
    if len(shape) > MOST_AXES:
        raise mistake(f"a blob of {len(shape)} axes; Caffe has at most {MOST_AXES}")
    if min(shape, default=1) < 0 or prod(shape) > MOST_VALUES:
        raise mistake(f"a blob of {'x'.join(map(str, shape))}; Caffe holds up to {MOST_VALUES:,}")


def to_proto(array: torch.Tensor | np.ndarray) -> Any:
    """The array as a BlobProto of floats with its shape."""
    if isinstance(array, torch.Tensor):
        array = array.detach().float().cpu().numpy()
    payload = np.ascontiguousarray(array, "<f4").tobytes()
    blob = BlobProto.FromString(wire.length(DATA, len(payload)) + payload)
    blob.shape.dim.extend(array.shape)
    if not array.ndim:
        blob.shape.SetInParent()  # a scalar: a shape without axes
    return blob


def from_proto(blob: Any) -> np.ndarray:
    """The BlobProto's array, float32, in its shape (four axes where the file is old).

    Raises:
        UserError: a shape that Caffe has not, or that does not fit the numbers.
    """
    shape = shape_of(blob)
    sound(shape, UserError)
    data = np.array(values(blob.SerializeToString()))  # our own, to be written to
    if data.size != prod(shape):
        raise UserError(f"a blob of shape {shape} holds {data.size} numbers")
    return data.reshape(shape)


def shape_of(blob: Any) -> tuple[int, ...]:
    """The shape that a BlobProto tells, of whatever age."""
    if blob.HasField("shape"):
        return tuple(blob.shape.dim)
    return blob.num, blob.channels, blob.height, blob.width


def fits(blob: Any, shape: tuple[int, ...]) -> bool:
    """Whether a BlobProto has this shape; an old file's four axes may lead with ones."""
    told = shape_of(blob)
    old = not blob.HasField("shape") and len(shape) <= 4
    return told == shape or (old and told == (1,) * (4 - len(shape)) + shape)


def read_net(path: str | Path) -> Any:
    """A .caffemodel.

    Raises:
        UserError: it cannot be read, or is not such a file.
    """
    return read(path, NetParameter)


def read(path: str | Path, kind: Any) -> Any:
    """A binary message of class `kind`.

    Raises:
        UserError: no such file, or not such a message; HDF5 files are named as such.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    if data[:8] == b"\x89HDF\r\n\x1a\n":
        raise UserError(f"{path}: HDF5; only BINARYPROTO snapshots can be read")
    try:
        return kind.FromString(data)
    except Exception as error:  # DecodeError has moved between protobuf's releases
        raise UserError(f"{path}: no {kind.DESCRIPTOR.name} in binary form") from error
