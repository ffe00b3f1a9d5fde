"""Make the records of a list's images, in list order, with decoding threads.

OpenCV releases the interpreter's lock while it decodes, so threads use all cores. A task is a
chunk of images, and few chunks are in memory at a time.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from data_prep.classes import Classes
from data_prep.decode import Unreadable, decode, resize
from data_prep.lists import Entry
from data_prep.parallel import ordered
from xresnet.basics import memory
from xresnet.caffeproto.datum import encoded_datum, image_datum, label_datum

MAX_KEY = 511  # bytes, LMDB's limit
_CHUNK = 16  # images per task, so that the cost of handing over tasks does not count
_CHUNK_BYTES = 1 << 22  # of records in a chunk, so that few large ones are in memory
KEPT_BLOCK = 1 << 25  # bytes; allocating an image's blocks anew takes a third of its decoding


@dataclass
class Record:
    """The records of one line of a list in the two databases.

    `number`: the number in the list. `image`: None if the file gives no image; `wrong` then is
    the reason, otherwise what is damaged ("" for nothing). `planes`: the decoded pixels of
    `image`, 3 * S * S uint8. `crc`: the CRC-32 of `image`.
    """

    index: int
    path: str
    number: int
    key: bytes
    label: bytes
    image: Any = None
    planes: np.ndarray | None = None
    crc: int = 0
    wrong: str = ""


def key(index: int, path: str) -> bytes:
    """A record's key as in convert_imageset, from the line number and the path."""
    return f"{index:08d}_{path}".encode()


def records(
    entries: Sequence[Entry],
    root: Path,
    classes: Classes,
    size: int,
    *,
    start: int = 0,
    encoded: bool = False,
    threads: int = 1,
) -> Iterator[Record]:
    """The records of `entries[start:]`.

    Args:
        root: the folder that paths are relative to.
        size: S; images are 3 x S x S.
        encoded: store JPEGs of quality 95 instead of raw pixels.
    """
    labels = [label_datum(combination) for combination in classes.combinations]
    base = os.fspath(root)
    chunk = max(1, min(_CHUNK, _CHUNK_BYTES // (3 * size * size)))

    def make(index: int) -> Record:
        path, label = entries[index]
        record = Record(index, path, label, key(index, path), labels[label])
        try:
            if len(record.key) > MAX_KEY:
                raise Unreadable(f"its path is too long for a key ({len(record.key)} bytes)")
            pixels, record.wrong = decode(f"{base}/{path}")
            pixels = resize(pixels, size)
            if encoded:
                jpeg = cv2.imencode(".jpg", pixels)[1]
                record.image = encoded_datum(jpeg.tobytes(), label)
                again = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)
                assert again is not None  # it was encoded here
                _, record.planes = image_datum(again, label)
            else:
                record.image, record.planes = image_datum(pixels, label)
            record.crc = zlib.crc32(record.image)
        except Unreadable as reason:
            record.wrong = str(reason)
        return record

    def work(first: int) -> list[Record]:
        return [make(index) for index in range(first, min(first + chunk, len(entries)))]

    memory.keep_freed(KEPT_BLOCK)
    # OpenCV's own threads would compete with ours for the same cores.
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        for done in ordered(work, range(start, len(entries), chunk), threads):
            yield from done
    finally:
        cv2.setNumThreads(before)
