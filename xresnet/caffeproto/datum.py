"""The bytes of Caffe's Datum message, written and read by hand.

A record is a fixed head, the pixels and a short tail; laying these out
directly costs a tenth of building a message object and serialising it, and
lets OpenCV split the channels straight into the record. Field numbers
(caffe.proto): channels 1, height 2, width 3, data 4, label 5, float_data 6,
encoded 7. A test holds the bytes against the message class and against
convert_imageset's.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

import cv2
import numpy as np

from xresnet.caffeproto import wire


def _shape(channels: int, height: int, width: int) -> bytes:
    return (
        b"\x08"
        + wire.encoded(channels)
        + b"\x10"
        + wire.encoded(height)
        + b"\x18"
        + wire.encoded(width)
    )


def image_datum(pixels: np.ndarray, label: int) -> tuple[np.ndarray, np.ndarray]:
    """A raw image record, as convert_imageset writes it.

    Args:
        pixels: (H, W, 3) uint8, blue-green-red.
        label: the ANP's label.

    Returns:
        the record's bytes as a one-dimensional uint8 array (lmdb takes it as it is),
        and the part of it that holds the pixels, one channel after the other.
    """
    height, width, channels = pixels.shape
    plane = height * width
    head = _shape(channels, height, width) + b"\x22" + wire.encoded(channels * plane)
    tail = (
        b"\x28" + wire.encoded(label) + b"\x38\x00"
    )  # encoded: false, present as convert_imageset's
    record = np.empty(len(head) + channels * plane + len(tail), np.uint8)
    record[: len(head)] = np.frombuffer(head, np.uint8)
    record[len(record) - len(tail) :] = np.frombuffer(tail, np.uint8)
    planes = record[len(head) : len(head) + channels * plane]
    cv2.split(pixels, list(planes.reshape(channels, height, width)))
    return record, planes


def encoded_datum(jpeg: bytes, label: int) -> bytes:
    """An encoded image record, as `convert_imageset -encoded` writes it: no shape, a JPEG."""
    return b"\x22" + wire.encoded(len(jpeg)) + jpeg + b"\x28" + wire.encoded(label) + b"\x38\x01"


def label_datum(labels: Sequence[int]) -> bytes:
    """A label record: channels = number of tasks, 1 x 1, the labels as float_data.

    float_data and not data, because data is uint8 and there are 553 ANPs;
    `data` stays absent because Caffe prefers it.
    """
    floats = b"".join(b"\x35" + struct.pack("<f", label) for label in labels)
    return _shape(len(labels), 1, 1) + floats


def maps_datum(maps: np.ndarray, label: int) -> bytes:
    """A record of float maps, C x H x W, and the ANP's label.

    Packed, as protobuf's readers take it whatever the schema says: a fifth less room than one
    tag a number, and copied instead of parsed.
    """
    values = np.ascontiguousarray(maps, "<f4").tobytes()
    tail = b"\x28" + wire.encoded(label) + b"\x32" + wire.encoded(len(values)) + values
    return _shape(*maps.shape) + tail


@dataclass
class Datum:
    """A Datum as read back; fields that are absent have protobuf's defaults."""

    channels: int = 0
    height: int = 0
    width: int = 0
    data: bytes = b""
    label: int = 0
    encoded: bool = False
    floats: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32), compare=False)

    @property
    def float_data(self) -> tuple[float, ...]:
        """`floats` as a tuple: for the few of a label record."""
        return tuple(self.floats.tolist())

    def array(self, flag: int = cv2.IMREAD_COLOR) -> np.ndarray:
        """C x H x W: uint8 pixels, colours as blue, green, red; or float32 maps.

        `flag` is OpenCV's way to decode an encoded image.

        Raises:
            ValueError: it cannot be decoded, or does not fill its shape.
        """
        if self.encoded:
            try:
                pixels = cv2.imdecode(np.frombuffer(self.data, np.uint8), flag)
            except cv2.error:  # nothing there, or more pixels than any photo has
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
    """Read a record; fields that Caffe does not know are passed over, as it does.

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
