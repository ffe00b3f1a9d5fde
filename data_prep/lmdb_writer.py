"""Append to an LMDB, and describe it in files of its folder."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import sys
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import lmdb

from data_prep.progress import Report
from data_prep.write_behind import WriteBehind
from xresnet.basics.cli import UserError
from xresnet.basics.files import read_text, write, write_json

KINDS = ("image", "label")
MEAN = "mean.binaryproto"  # in the image database's folder, as is
CRCS = "crc32"  # the CRC-32 of each image record, 4 bytes each, little endian
JOB = "job.json"  # in each database's folder: what it was made from
MAP_SIZE = 1 << 40  # takes address space only; Caffe's own is as large
# A transaction is kept in memory: small enough for the caches, large enough for cheap commits.
BATCH_BYTES = 32 << 20
BATCH_RECORDS = 10_000


class Writer:
    """Appends to one database, many records a transaction.

    Raises:
        OSError: the database cannot be written, as on a full disk.
    """

    def __init__(self, place: Path) -> None:
        self._place = place
        with self._writing():
            # Commits do not sync: the database has no name yet, and what is written survives
            # the end of the process.
            self._env = lmdb.open(os.fspath(place), map_size=MAP_SIZE, mode=0o644, sync=False)
            self._begin()
        self._behind = WriteBehind(place / "data.mdb")

    def _begin(self) -> None:
        self._txn = self._env.begin(write=True)
        self._bytes = self._records = 0

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """LMDB's errors as the system's: who reads another database meanwhile may not take them."""
        try:
            yield
        except lmdb.Error as error:
            text, code = str(error).rpartition(": ")[2], errno.EIO
            if "Input/output" in text and shutil.disk_usage(self._place).free < BATCH_BYTES:
                code = errno.ENOSPC  # LMDB calls a write that fits in part an I/O error
                text = os.strerror(code)
            raise OSError(code, text, str(self._place)) from error

    def cut(self, index: int) -> int:
        """Delete the records from list line `index` on; returns how many are left."""
        with self._writing(), self._txn.cursor() as cursor:
            while cursor.set_range(b"%08d" % index):
                cursor.delete()
        self.commit()
        return self.count

    @property
    def count(self) -> int:
        """Records that are committed."""
        return self._env.stat()["entries"]

    def put(self, name: bytes, value: Any) -> None:
        """Append a record; its name must follow those before it."""
        with self._writing():
            # Out of order, append returns False and drops the record.
            if not self._txn.put(name, value, append=True):
                raise RuntimeError(f"key out of order: {name!r}")
        self._bytes += len(value)
        self._records += 1

    @property
    def full(self) -> bool:
        """Whether a transaction has enough in it to be committed."""
        return self._bytes >= BATCH_BYTES or self._records >= BATCH_RECORDS

    def commit(self, last: bool = False) -> None:
        """End the transaction and begin another; the last one is synced."""
        with self._writing():
            self._txn.commit()
            if last:
                self._env.sync(True)
            else:
                self._behind.tell()
            self._begin()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *exception: object) -> None:
        self._behind.close()
        self._env.close()  # aborts what is not committed


def describe(
    places: Mapping[str, Path],
    job: dict[str, Any],
    report: dict[str, Any],
    crcs: array[int],
    mean: bytes | None,
) -> None:
    """Write what a pair of databases was made from, and the outcome, into their folders.

    Args:
        places: "image" and "label" -> the folder.
        job: what they were made from.
        report: the values of a `Report`.
        crcs: the CRC-32 of each image record.
        mean: the serialised mean of the images; None if they have none.
    """
    for place in places.values():
        write_json(place / JOB, {"job": job, "report": report})
    write(places["image"] / CRCS, crcs.tobytes())
    if mean is not None:
        write(places["image"] / MEAN, mean)


def made_from(database: Path) -> dict[str, Any] | None:
    """The job and the report of a database, from its job.json; None if there is no database.

    Raises:
        UserError: what has its name was not made by this package, or cannot be read.
    """
    if not database.exists():
        return None
    try:
        made = json.loads(read_text(database / JOB) if (database / JOB).exists() else "")
        Report(**made["report"])
        if not isinstance(made["job"], dict):
            raise TypeError
        return made
    except (ValueError, LookupError, TypeError):
        raise UserError(
            f"{database} was not made by data_prep and is left alone; move it away first"
        ) from None


def read_crcs(database: Path) -> array[int]:
    """The CRC-32 of each record of an image database when it was written.

    Raises:
        UserError: their file is missing or damaged.
        OSError: it cannot be read.
    """
    try:
        crcs = array("I", (database / CRCS).read_bytes())
    except (FileNotFoundError, ValueError) as error:  # ValueError: not whole numbers of 4 bytes
        raise UserError(
            f"{database / CRCS} is missing or damaged: run `python -m data_prep lmdb --fresh`"
        ) from error
    if sys.byteorder == "big":
        crcs.byteswap()
    return crcs
