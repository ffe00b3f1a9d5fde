"""Caffe's weight files, `.caffemodel`, and mean images, read and written without protobuf.

Three generations are read: `layer` (2014 and later), `layers` (V1, where layer types are numbers
and blobs have num, channels, height and width) and the nested layers of 2013 (V0). The newest is
written, byte for byte as protobuf would.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from xresnet.basics import files
from xresnet.basics.cli import UserError
from xresnet.basics.files import Buffer
from xresnet.caffeproto import BlobProto, LayerParameter, NetParameter, wire
from xresnet.caffeproto.wire import Malformed, Truncated

Shape = tuple[int, ...]
MOST_AXES = 32  # Caffe's kMaxBlobAxes


@dataclass(frozen=True)
class Layer:
    """A layer's name, its Caffe type and its blobs, float32, in Caffe's order."""

    name: str
    kind: str
    blobs: tuple[np.ndarray, ...]


def shown(shape: Shape) -> str:
    """A shape for people: `64x3x7x7`, or `scalar`."""
    return "x".join(map(str, shape)) or "scalar"


def fits(shape: Shape, wanted: Shape) -> bool:
    """Whether `shape` equals `wanted`, or is `wanted` padded to four axes, as in old files."""
    padding = len(shape) - len(wanted)
    return shape == wanted or (len(shape) == 4 and shape == (1,) * padding + wanted)


def statistics(layer: Layer) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of a BatchNorm, C doubles each: its blobs over its scale factor.

    Raises:
        UserError: the layer does not have the three blobs of a BatchNorm.
    """
    if len(layer.blobs) != 3 or layer.blobs[2].size != 1:
        raise UserError(f"layer {layer.name!r} does not have the three blobs of a BatchNorm")
    mean, var, factor = (np.asarray(blob, np.float64).reshape(-1) for blob in layer.blobs)
    weight = 1 / factor[0] if factor[0] else 0.0  # as in Caffe
    return mean * weight, var * weight


# ---- Reading -------------------------------------------------------------------


def load(path: files.PathLike) -> list[Layer]:
    """All layers in a `.caffemodel`, including those without weights; arrays are read-only views.

    Raises:
        UserError: the file cannot be read, is of another kind, truncated or damaged, or holds
            no weights.
    """
    data = read(path)
    if foreign := kind_of_file(data):
        raise UserError(f"{path} is {foreign}, not a .caffemodel")
    return loads(data, str(path))


def loads(data: Buffer, where: str) -> list[Layer]:
    """Read a `.caffemodel` from memory; `where` names the file in errors."""
    found: list[Layer] = []
    try:
        found.extend(_layers(data))
    except Truncated as error:
        last = f"after layer {found[-1].name!r}" if found else "in its first layer"
        raise UserError(
            f"{where} is cut short (or not a .caffemodel): it ends {last}, at byte {len(data):,}: "
            f"{error}"
        ) from None
    except Malformed as error:
        raise UserError(
            f"{where} is damaged, or not a .caffemodel: {error} at byte {error.at:,}"
        ) from None
    if not any(layer.blobs for layer in found):
        raise UserError(f"{where} holds no weights")
    return found


def load_mean(path: files.PathLike) -> np.ndarray:
    """The mean image in a `.binaryproto`: C x H x W, float32.

    Raises:
        UserError: the file cannot be read, or is not a single image.
    """
    array = load_array(path)
    if array.ndim < 3 or array.size != prod(array.shape[-3:]):
        raise UserError(f"{path} holds {shown(array.shape)} numbers, not a single image")
    return array.reshape(array.shape[-3:])


def load_array(path: files.PathLike) -> np.ndarray:
    """The array in a `.binaryproto`, float32; a read-only view.

    Raises:
        UserError: the file cannot be read, or is truncated or damaged.
    """
    data = read(path)
    try:
        return _blob(data, (0, wire.LENGTH, 0, len(data), 0), "its array")
    except Malformed as error:
        raise UserError(f"{path} is damaged, or not a .binaryproto: {error}") from None


def read(path: files.PathLike) -> bytes:
    """The bytes of a file.

    Raises:
        UserError: the file cannot be read, or is empty.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    if not data:
        raise UserError(f"{path} is empty")
    return data


# The first bytes of other files that are given as weights.
FOREIGN = {
    b"PK\x03\x04": "a zip file (PyTorch's .pth, perhaps)",
    b"\x89HDF\r\n": "HDF5 (Keras's .h5, perhaps)",
    b"\x80\x02": "a pickle (PyTorch's .pth, perhaps)",
    b"\x1f\x8b": "gzipped",
    b"BZh": "bzipped",
    b"\xfd7zXZ": "xz-compressed",
    b"\x93NUMPY": "a NumPy array",
    b"version https://git-lfs": "a Git LFS pointer: fetch the file itself",
}


def kind_of_file(data: Buffer) -> str:
    """The kind of a file that is plainly not a `.caffemodel`; "" if it may be one."""
    head = bytes(data[:512])
    for magic, what in FOREIGN.items():
        if head.startswith(magic):
            return what
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page, perhaps an error saved under the model's name"
    if text.isascii() and all(byte >= 0x20 or byte in b"\t\r\n" for byte in head):
        return "text (a prototxt says what a net is, not what it learned)"
    return ""


def _number(message: Any, field: str) -> int:
    return message.DESCRIPTOR.fields_by_name[field].number


V1 = NetParameter.DESCRIPTOR.fields_by_name["layers"].message_type
V1_TYPES = V1.fields_by_name["type"].enum_type.values_by_number
V1_NAME, V1_TYPE, V1_BLOBS = (V1.fields_by_name[name].number for name in ("name", "type", "blobs"))
# The format of 2013: V1LayerParameter.layer holds a V0LayerParameter with these fields.
V0_LAYER, V0_NAME, V0_TYPE, V0_BLOBS = 1, 1, 2, 50

LAYER, LAYERS = _number(NetParameter, "layer"), _number(NetParameter, "layers")
NAME, TYPE, BLOBS = (_number(LayerParameter, name) for name in ("name", "type", "blobs"))
SHAPE, DATA = _number(BlobProto, "shape"), _number(BlobProto, "data")
DOUBLE_DATA = _number(BlobProto, "double_data")
LEGACY = [_number(BlobProto, axis) for axis in ("num", "channels", "height", "width")]
DIM = BlobProto.DESCRIPTOR.fields_by_name["shape"].message_type.fields_by_name["dim"].number


def _layers(data: Buffer) -> Iterator[Layer]:
    for field in wire.fields(data):
        if field[0] not in (LAYER, LAYERS):
            continue
        if field[1] != wire.LENGTH:
            raise Malformed("a layer that is a number", field[2])
        try:
            read_layer = _layer if field[0] == LAYER else _layer_v1
            layer = read_layer(data, field[2], field[3])
        except Truncated as error:  # within a layer that is complete: the file is not truncated
            raise Malformed(str(error), error.at) from None
        yield layer


def _layer(
    data: Buffer, start: int, end: int, name: int = NAME, kind: int = TYPE, blobs: int = BLOBS
) -> Layer:
    found = {name: "", kind: ""}
    arrays: list[np.ndarray] = []
    for field in wire.fields(data, start, end):
        if field[0] in found:
            found[field[0]] = wire.string(data, field)
        elif field[0] == blobs:
            arrays.append(_blob(data, field, f"layer {found[name]!r} blob {len(arrays)}"))
    return Layer(found[name], found[kind], tuple(arrays))


def _layer_v1(data: Buffer, start: int, end: int) -> Layer:
    name, kind = "", 0
    arrays: list[np.ndarray] = []
    for field in wire.fields(data, start, end):
        if field[0] == V0_LAYER and field[1] == wire.LENGTH:
            return _layer(data, field[2], field[3], V0_NAME, V0_TYPE, V0_BLOBS)
        if field[0] == V1_NAME:
            name = wire.string(data, field)
        elif field[0] == V1_TYPE:
            (kind,) = wire.integers(data, field)[-1:] or (0,)
        elif field[0] == V1_BLOBS:
            arrays.append(_blob(data, field, f"layer {name!r} blob {len(arrays)}"))
    return Layer(name, _type_name(kind), tuple(arrays))


def _type_name(number: int) -> str:
    """V1's INNER_PRODUCT as InnerProduct; for people only, since RELU becomes Relu."""
    value = V1_TYPES.get(number)
    return "".join(map(str.capitalize, value.name.split("_"))) if value else f"type {number}"


def values(data: Buffer, start: int = 0, end: int | None = None) -> np.ndarray:
    """The numbers of the BlobProto in data[start:end], 1-D, float32; a view where possible.

    Raises:
        Malformed: the bytes are not a message.
    """
    pieces: dict[int, list[np.ndarray]] = {DATA: [], DOUBLE_DATA: []}
    for field in wire.fields(data, start, end):
        if field[0] in pieces:
            dtype = "<f4" if field[0] == DATA else "<f8"
            pieces[field[0]].append(wire.numbers(data, field, dtype))
    found = pieces[DATA] or pieces[DOUBLE_DATA]
    array = found[0] if len(found) == 1 else np.concatenate(found or [np.zeros(0)])
    with np.errstate(over="ignore"):  # a double too large for a float becomes infinite, as in C
        return array.astype(np.float32, copy=False)


def _blob(data: Buffer, field: wire.Field, where: str) -> np.ndarray:
    if field[1] != wire.LENGTH:
        raise Malformed(f"{where} is a number", field[2])
    dims: list[int] | None = None
    legacy: dict[int, int] = {}
    for inner in wire.fields(data, field[2], field[3]):
        number = inner[0]
        if number == SHAPE:
            if inner[1] != wire.LENGTH:
                raise Malformed(f"{where}: a shape that is a number", inner[2])
            dims = dims or []
            for dim in wire.fields(data, inner[2], inner[3]):
                dims += wire.integers(data, dim) if dim[0] == DIM else []
        elif number in LEGACY:
            (legacy[number],) = wire.integers(data, inner)[-1:] or (0,)
    if legacy:  # these take precedence, as in Caffe
        dims = [legacy.get(axis, 0) for axis in LEGACY]
    shape = tuple(dims or ())
    found = values(data, field[2], field[3])
    if len(shape) > MOST_AXES:
        raise Malformed(f"{where}: {len(shape)} axes; Caffe has at most {MOST_AXES}", field[2])
    if min(shape, default=0) < 0 or prod(shape) != found.size:
        raise Malformed(f"{where}: {found.size:,} values for a shape of {shown(shape)}", field[2])
    return found.reshape(shape)


# ---- Writing -------------------------------------------------------------------


def save(path: files.PathLike, name: str, layers: Iterable[Layer]) -> int:
    """Write a `.caffemodel` atomically.

    Args:
        path: the file.
        name: the net's name.
        layers: in the net's order.

    Returns:
        the file's size in bytes.

    Raises:
        UserError: the file cannot be written.
    """
    pieces = list(dumps(name, layers))
    files.write(path, pieces)
    return sum(len(piece) for piece in pieces)


def dumps(name: str, layers: Iterable[Layer]) -> Iterator[Buffer]:
    """A `.caffemodel` in pieces; the arrays are not copied."""
    yield _text(_number(NetParameter, "name"), name)
    for layer in layers:
        head = _text(NAME, layer.name) + _text(TYPE, layer.kind)
        parts = [_blob_parts(blob) for blob in layer.blobs]
        body = sum(len(piece) for part in parts for piece in part)
        yield wire.length(LAYER, len(head) + body) + head
        for part in parts:
            yield from part


def _blob_parts(blob: np.ndarray) -> list[Buffer]:
    dims = b"".join(wire.encoded(size) for size in blob.shape)
    dims = wire.length(DIM, len(dims)) + dims if dims else b""
    shape = wire.length(SHAPE, len(dims)) + dims
    values = np.ascontiguousarray(blob, "<f4").reshape(-1).data.cast("B")
    data = wire.length(DATA, len(values)) if len(values) else b""
    size = len(data) + len(values) + len(shape)
    return [wire.length(BLOBS, size) + data, values, shape]


def _text(number: int, value: str) -> bytes:
    raw = value.encode()
    return wire.length(number, len(raw)) + raw
