"""Protobuf's wire format, read and written without copies.

A message is a sequence of fields: a varint key (field number and wire type), then a varint, 4 or
8 bytes, or a length and as many bytes. Protobuf's own messages hold a weight file twice and
return each number as a Python float; here a field of 100 MB is a pair of offsets for NumPy.
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
    """The bytes are not a message; `at` is the offset from the buffer's start."""

    def __init__(self, what: str, at: int) -> None:
        super().__init__(what)
        self.at = at


class Truncated(Malformed):
    """A field extends beyond the end of the data."""


class File:
    """An open file with the interface of a buffer, which reads only what is indexed.

    It is not mapped into memory: if a mapped file is truncated meanwhile, the process is killed.

    Raises:
        Truncated: on an index beyond its end.
        OSError: it cannot be read.
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

# (number, wire type, first, second, length of the key). A VARINT's value is `first`. A LENGTH
# field's bytes are [first, second). Fixed fields are a run of `second` values, of which the first
# is at `first`, with a key between each two.
Field = tuple[int, int, int, int, int]


def fields(data: Buffer | File, start: int = 0, end: int | None = None) -> Iterator[Field]:
    """The fields in data[start:end], in order.

    Consecutive fixed fields with the same key are returned as one, so that an array which was
    not packed is not read number by number.

    Raises:
        Malformed: the bytes are not a message.
        Truncated: a field extends beyond `end`.
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
        else:  # groups, which protobuf has given up and Caffe never had
            raise Malformed(f"wire type {kind}", begin)


def varint(data: Buffer | File, at: int, end: int) -> tuple[int, int]:
    """The unsigned varint at offset `at`, and the offset of its end."""
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
    """The values of a fixed or packed field, 1-D, of dtype '<f4' or '<f8'; a view if packed."""
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
    """The number of consecutive fixed fields with the key at `begin`."""
    size = key + width
    most = (end - begin) // size
    expected = np.frombuffer(data[begin : begin + key], np.uint8)
    count, step = 1, 16
    while count < most:  # in growing steps, so that a short run does not read the whole file
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
    """The key of a field."""
    return encoded(number << 3 | kind)


def encoded(value: int) -> bytes:
    """A non-negative integer as a varint."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def length(number: int, size: int) -> bytes:
    """The key and the length of a field of `size` bytes."""
    return key(number, LENGTH) + encoded(size)
