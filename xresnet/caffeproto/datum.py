"""Caffe's Datum message, the record of its databases, written and read without protobuf.

A record is a fixed head, the pixels and a short tail. Writing these directly takes a tenth of the
time of building a message and serialising it, and lets OpenCV split the channels straight into
the record. Field numbers (caffe.proto): channels 1, height 2, width 3, data 4, label 5,
float_data 6, encoded 7. A test compares the bytes with protobuf's and convert_imageset's.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

import cv2
import numpy as np

from xresnet.caffeproto import wire


def image_datum(pixels: np.ndarray, label: int) -> tuple[np.ndarray, np.ndarray]:
    """A raw image record, as convert_imageset writes it.

    Args:
        pixels: H x W x 3, uint8, blue-green-red.
        label: the image's label.

    Returns:
        the record's bytes as a one-dimensional uint8 array, which lmdb accepts, and the view of
        it that holds the pixels, C x H x W.
    """
    height, width, channels = pixels.shape
    plane = height * width
    head = _shape(channels, height, width) + b"\x22" + wire.encoded(channels * plane)
    # `encoded: false` is the default, but convert_imageset writes it.
    tail = b"\x28" + wire.encoded(label) + b"\x38\x00"
    record = np.empty(len(head) + channels * plane + len(tail), np.uint8)
    record[: len(head)] = np.frombuffer(head, np.uint8)
    record[len(record) - len(tail) :] = np.frombuffer(tail, np.uint8)
    planes = record[len(head) : len(head) + channels * plane]
    cv2.split(pixels, list(planes.reshape(channels, height, width)))
    return record, planes


def encoded_datum(jpeg: bytes, label: int) -> bytes:
    """An encoded image record, as `convert_imageset -encoded` writes it: a JPEG without a shape."""
    return b"\x22" + wire.encoded(len(jpeg)) + jpeg + b"\x28" + wire.encoded(label) + b"\x38\x01"


def label_datum(labels: Sequence[int]) -> bytes:
    """A label record: one channel per task, 1 x 1, with the labels as float_data.

    `data` holds uint8 only, too small for 553 ANPs. It must be absent, since Caffe prefers it.
    """
    floats = b"".join(b"\x35" + struct.pack("<f", label) for label in labels)
    return _shape(len(labels), 1, 1) + floats


def maps_datum(maps: np.ndarray, label: int) -> bytes:
    """A record of float maps, C x H x W, and the image's label.

    The numbers are packed, which protobuf's readers accept whatever the schema says: a fifth
    smaller than a tag for each number, and read as one block.
    """
    values = np.ascontiguousarray(maps, "<f4").tobytes()
    tail = b"\x28" + wire.encoded(label) + b"\x32" + wire.encoded(len(values)) + values
    return _shape(*maps.shape) + tail


def _shape(channels: int, height: int, width: int) -> bytes:
    sizes = zip((b"\x08", b"\x10", b"\x18"), (channels, height, width))
    return b"".join(key + wire.encoded(size) for key, size in sizes)


@dataclass
class Datum:
    """A record as read; absent fields have protobuf's defaults."""

    channels: int = 0
    height: int = 0
    width: int = 0
    data: bytes = b""
    label: int = 0
    encoded: bool = False
    floats: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32), compare=False)

    @property
    def float_data(self) -> tuple[float, ...]:
        """`floats` as a tuple, for label records."""
        return tuple(self.floats.tolist())

    def array(self, flag: int = cv2.IMREAD_COLOR) -> np.ndarray:
        """The record as C x H x W: uint8 pixels (blue, green, red) or float32 maps.

        Args:
            flag: how OpenCV decodes an encoded image, such as IMREAD_GRAYSCALE.

        Raises:
            ValueError: it cannot be decoded, or its size is not that of its shape.
        """
        if self.encoded:
            try:
                pixels = cv2.imdecode(np.frombuffer(self.data, np.uint8), flag)
            except cv2.error:  # empty, or more pixels than OpenCV's limit
                pixels = None
            if pixels is None:
                raise ValueError("the image cannot be decoded")
            return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
        shape = (self.channels, self.height, self.width)
        values = np.frombuffer(self.data, np.uint8) if self.data else self.floats
        if values.size != prod(shape):
            what = "bytes of pixels" if self.data else "numbers"
            raise ValueError(f"{values.size} {what} do not fill its shape")
        return values.reshape(shape)


def parse_datum(record: bytes) -> Datum:
    """Read a record. Fields that Caffe does not know are ignored.

    Raises:
        ValueError: the bytes are not a Datum.
    """
    datum = Datum()
    floats: list[np.ndarray] = []
    names = {1: "channels", 2: "height", 3: "width", 5: "label", 7: "encoded"}
    for found in wire.fields(record):
        number, kind, first, second, _ = found
        if number in names and kind == wire.VARINT:
            (value,) = wire.integers(record, found)
            setattr(datum, names[number], bool(value) if number == 7 else value)
        elif number == 4 and kind == wire.LENGTH:
            datum.data = record[first:second]
        elif number == 6 and kind in (wire.FIXED32, wire.LENGTH):  # newer writers may pack them
            floats.append(wire.numbers(record, found, "<f4"))
        elif number <= 7:
            raise ValueError(f"field {number} of wire type {kind} is not a Datum's")
    if floats:
        datum.floats = floats[0] if len(floats) == 1 else np.concatenate(floats)
    return datum
