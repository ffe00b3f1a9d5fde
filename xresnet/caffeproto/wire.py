"""Protobuf's wire format, read and written without copies on the way.

A message is a sequence of fields: a varint key (field number and wire type),
then a varint, 4 or 8 bytes, or a length and as many bytes. Protobuf's own
messages hold a weight file twice and hand each number out as a Python float;
here a field of a hundred megabytes is a pair of offsets until numpy looks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from xresnet.basics.files import Buffer

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
WIDTHS = {FIXED32: 4, FIXED64: 8}
LARGEST_FIELD = (1 << 29) - 1


class Malformed(ValueError):
    """Bytes that are no message: `at` says where, counted from the buffer's start."""

    def __init__(self, what: str, at: int) -> None:
        super().__init__(what)
        self.at = at


class Truncated(Malformed):
    """A field that goes on behind the end of what there is."""


class File:
    """An open file in a buffer's place: of hundreds of megabytes only what is looked at is read.

    Not a mapped one: cut short while it is read it would kill the process.

    Raises:
        Truncated: on a look behind its end. OSError: it cannot be read.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = os.fstat(file.fileno()).st_size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, at: int | slice) -> Any:
        first, second = (at.start, at.stop) if isinstance(at, slice) else (at, at + 1)
        self._file.seek(first)
        found = self._file.read(second - first)
        if len(found) < second - first:
            raise Truncated("the file has become shorter", first)
        return found if isinstance(at, slice) else found[0]


# ---- Reading -------------------------------------------------------------------

# (field number, wire type, first, second): a VARINT's value is `first`; a
# LENGTH field's bytes are [first, second); of fixed fields, a run of `second`
# values of one key, the first of which lies at `first`, `key` bytes between them.
Field = tuple[int, int, int, int, int]


def fields(data: Buffer | File, start: int = 0, end: int | None = None) -> Iterator[Field]:
    """Each field in data[start:end]: (number, wire type, first, second, length of its key).

    Fixed fields of one key that follow each other come as one, so that an
    array which was not written packed costs no Python a number.

    Raises:
        Malformed: not a message. Truncated: a length that leads out of it.
    """
    at = start
    end = len(data) if end is None else end
    while at < end:
        begin = at
        key, at = varint(data, at, end)
        number, kind = key >> 3, key & 7
        if not 0 < number <= LARGEST_FIELD:
            raise Malformed(f"field number {number}", begin)
        if kind == VARINT:
            value, at = varint(data, at, end)
            yield number, kind, value, 0, 0
        elif kind == LENGTH:
            size, at = varint(data, at, end)
            if size > end - at:
                raise Truncated(f"a field of {size:,} bytes with {end - at:,} left", begin)
            yield number, kind, at, at + size, 0
            at += size
        elif kind in WIDTHS:
            width = WIDTHS[kind]
            if width > end - at:
                raise Truncated(f"a field of {width} bytes with {end - at} left", begin)
            count = _run(data, begin, at - begin, width, end)
            yield number, kind, at, count, at - begin
            at = begin + count * (at - begin + width)
        else:  # groups, long gone from protobuf and never in Caffe
            raise Malformed(f"wire type {kind}", begin)


def varint(data: Buffer | File, at: int, end: int) -> tuple[int, int]:
    """The unsigned varint at `at`, and where it ends."""
    value = shift = 0
    begin = at
    while at < end:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
        shift += 7
        if shift >= 70:
            raise Malformed("a number of more than ten bytes", begin)
    raise Truncated("a number without an end", begin)


def numbers(data: Buffer, field: Field, dtype: str) -> np.ndarray:
    """The values of a fixed or packed field as a 1-D view of `data`: '<f4' or '<f8'."""
    _, kind, first, second, key = field
    width = np.dtype(dtype).itemsize
    if kind == LENGTH:
        if (second - first) % width:
            raise Malformed(f"{second - first} bytes of {width}-byte numbers", first)
        return np.frombuffer(data, dtype, (second - first) // width, first)
    if WIDTHS.get(kind) != width:
        raise Malformed(f"wire type {kind} where numbers of {width} bytes belong", first)
    raw = np.frombuffer(data, np.uint8, second * (key + width) - key, first)
    return (
        np.lib.stride_tricks.as_strided(raw, (second, width), (key + width, 1), writeable=False)
        .copy()
        .view(dtype)[:, 0]
    )


def integers(data: Buffer, field: Field) -> list[int]:
    """The values of a varint field, packed or not, as signed 64-bit integers."""
    _, kind, first, second, _ = field
    if kind == VARINT:
        return [_signed(first)]
    if kind != LENGTH:
        raise Malformed(f"wire type {kind} where integers belong", first)
    found, at = [], first
    while at < second:
        value, at = varint(data, at, second)
        found.append(_signed(value))
    return found


def string(data: Buffer | File, field: Field) -> str:
    """The text of a string field."""
    _, kind, first, second, _ = field
    if kind != LENGTH:
        raise Malformed(f"wire type {kind} where text belongs", first)
    try:
        return bytes(data[first:second]).decode()
    except UnicodeDecodeError:
        raise Malformed("text that is not UTF-8", first) from None


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _run(data: Buffer | File, begin: int, key: int, width: int, end: int) -> int:
    """How many fixed fields with the key at `begin` stand one behind the other."""
    size = key + width
    most = (end - begin) // size
    expected = np.frombuffer(data[begin : begin + key], np.uint8)
    count, step = 1, 16
    while count < most:  # in growing steps: a short run must not look at the whole file
        step = min(2 * step, most - count)
        first = begin + count * size
        keys = np.frombuffer(data[first : first + step * size], np.uint8)
        other = (keys.reshape(step, size)[:, :key] != expected).any(axis=1)
        if other.any():
            return count + int(other.argmax())
        count += step
    return count


# ---- Writing -------------------------------------------------------------------


def key(number: int, kind: int) -> bytes:
    """What announces a field."""
    return encoded(number << 3 | kind)


def encoded(value: int) -> bytes:
    """A non-negative integer as varint."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def length(number: int, size: int) -> bytes:
    """What announces a field of `size` bytes."""
    return key(number, LENGTH) + encoded(size)
