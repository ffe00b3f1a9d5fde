"""TensorBoard's event files, written by hand.

A file is a list of records, each: length (8 bytes, little endian), its
masked CRC-32C, an Event message, its masked CRC-32C. Of Event we need
wall_time (1), step (2), file_version (3) and summary (5) > value (1) > tag
(1), simple_value (2). So few bytes are no reason to install a package; a
test reads them back with one.
"""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Iterator
from ctypes import c_float
from pathlib import Path
from typing import BinaryIO

from xresnet.basics import bars
from xresnet.caffeproto.wire import encoded, length


class Events:
    """Scalars into `folder`/events.out.tfevents.*: one file, begun afresh, appended to.

    They are a by-product, made anew from the log at each start: where they cannot be written,
    one line says so, and what they show goes on without them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file: BinaryIO | None = None
        with self._told():
            folder.mkdir(parents=True, exist_ok=True)
            for old in folder.glob("events.out.tfevents.*"):
                old.unlink(missing_ok=True)
            path = folder / f"events.out.tfevents.{time.time():.0f}.reproduce"
            self._file = path.open("wb", buffering=0)
        self._write(_head() + _bytes(3, b"brain.Event:2"))

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Add values at iteration `step` by tag, such as `train/loss`."""
        summary = b"".join(
            _bytes(1, _bytes(1, tag.encode()) + b"\x15" + bytes(c_float(value)))
            for tag, value in values.items()
        )
        self._write(_head() + b"\x10" + encoded(step) + _bytes(5, summary))

    def close(self) -> None:
        if self._file:
            self._file.close()

    def _write(self, event: bytes) -> None:
        if self._file:
            length = struct.pack("<Q", len(event))
            with self._told():
                self._file.write(length + _masked(length) + event + _masked(event))

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            bars.say(f"{self.folder}: {error.strerror}: without TensorBoard's files from here on")
            self.close()
            self._file = None


def _head() -> bytes:
    return b"\x09" + struct.pack("<d", time.time())


def _bytes(number: int, content: bytes) -> bytes:
    return length(number, len(content)) + content


def _table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_CRC32C = _table()


def _masked(data: bytes) -> bytes:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC32C[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
