"""Finished databases opened for reading: a missing, cut or damaged one is one line, not a crash."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import lmdb

from basics.cli import UserError


@contextlib.contextmanager
def reading(database: Path) -> Iterator[lmdb.Transaction]:
    """A database's records, one transaction long.

    LMDB maps the file into memory: where it ends before its last page, as after a copy that
    was broken off, the system would kill whoever reads there.

    Raises:
        UserError: it is not there, cut off, or damaged where the block reads it.
    """
    file = database / "data.mdb"
    if not file.is_file():
        raise UserError(f"{database} is not there: run `python -m data_prep lmdb` first")
    try:
        with lmdb.open(os.fspath(database), readonly=True, lock=False) as env:
            size, whole = file.stat().st_size, (env.info()["last_pgno"] + 1) * env.stat()["psize"]
            if size < whole:
                raise UserError(
                    f"{file} is cut off, {size:,} bytes of {whole:,}: copy it again, "
                    "or run `python -m data_prep lmdb --fresh`"
                )
            with env.begin() as records:
                yield records
    except lmdb.Error as error:
        raise UserError(f"{database}: {error}") from error
