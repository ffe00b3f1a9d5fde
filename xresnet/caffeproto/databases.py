"""LMDBs opened for reading: a missing, cut or damaged one is one line, not a crash.

LMDB maps a file into memory: where it ends before its last page, as after a copy that was
broken off, the system would kill whoever reads there. And it lets a process open a database
once: who reads the same at the same time shares it here.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import lmdb

from xresnet.basics.cli import UserError
from xresnet.basics.files import PathLike

_OPEN: dict[str, tuple[lmdb.Environment, int]] = {}  # and by how many each is held
_LOCK = threading.Lock()


@contextlib.contextmanager
def reading(database: PathLike) -> Iterator[lmdb.Transaction]:
    """A database's records, one transaction long.

    Raises:
        UserError: it is not there, cut off, or damaged where the block reads it.
    """
    environment = hold(database)
    try:
        with environment.begin() as records:
            yield records
    except lmdb.Error as error:
        raise UserError(f"{database}: {error}") from error
    finally:
        release(environment)


def items(database: PathLike) -> Iterator[tuple[bytes, bytes]]:
    """A database's records in order, (key, value) each; errors are those of `reading`."""
    with reading(database) as records:
        yield from records.cursor()  # type: ignore[misc]  # no memoryviews were asked for


def hold(database: PathLike) -> lmdb.Environment:
    """The database, open until it was released as often as held.

    Raises:
        UserError: it is not there, no database, or cut off.
    """
    file = Path(database) / "data.mdb"
    if not file.is_file():
        raise UserError(f"{database} does not exist: run `python -m data_prep lmdb` first")
    path = os.path.realpath(database)
    with _LOCK:
        environment, holders = _OPEN.get(path, (None, 0))
        try:
            environment = environment or lmdb.open(path, readonly=True, lock=False)
        except lmdb.Error as error:
            raise UserError(f"{database}: {error}") from error
        size = file.stat().st_size
        whole = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
        if size < whole:
            if not holders:
                environment.close()
            raise UserError(
                f"{file} is cut short, {size:,} bytes of {whole:,}: copy it again, "
                "or run `python -m data_prep lmdb --fresh`"
            )
        _OPEN[path] = environment, holders + 1
    return environment


def release(environment: lmdb.Environment) -> None:
    """Give back what was held: the last one closes it."""
    path = environment.path()
    with _LOCK:
        _, holders = _OPEN.pop(path)
        if holders > 1:
            _OPEN[path] = environment, holders - 1
        else:
            environment.close()
