"""LMDBs opened for reading. A missing, truncated or damaged one raises a UserError.

LMDB maps its file into memory, so reading a page beyond the end of a truncated file would kill
the process; the size is checked first. A process may open a database only once; all that read
the same one here share it.
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

_OPEN: dict[str, tuple[lmdb.Environment, int]] = {}  # by path, with the number of users
_LOCK = threading.Lock()


@contextlib.contextmanager
def reading(database: PathLike) -> Iterator[lmdb.Transaction]:
    """A transaction that reads a database.

    Raises:
        UserError: the database is missing or truncated, or damaged where the block reads it.
    """
    environment = acquire(database)
    try:
        with environment.begin() as records:
            yield records
    except lmdb.Error as error:
        raise UserError(f"{database}: {error}") from error
    finally:
        release(environment)


def items(database: PathLike) -> Iterator[tuple[bytes, bytes]]:
    """The (key, value) pairs of a database, in order; raises what `reading` raises."""
    with reading(database) as records:
        yield from records.cursor()  # type: ignore[misc]  # bytes, not memoryviews


def acquire(database: PathLike) -> lmdb.Environment:
    """Open a database, or share it if it is open; each call needs its `release`.

    Raises:
        UserError: the database is missing or truncated, or is not a database.
    """
    file = Path(database) / "data.mdb"
    if not file.is_file():
        raise UserError(f"{database} does not exist: run `python -m data_prep lmdb` first")
    path = os.path.realpath(database)
    with _LOCK:
        environment, users = _OPEN.get(path, (None, 0))
        try:
            environment = environment or lmdb.open(path, readonly=True, lock=False)
        except lmdb.Error as error:
            raise UserError(f"{database}: {error}") from error
        size = file.stat().st_size
        whole = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
        if size < whole:
            if not users:
                environment.close()
            raise UserError(
                f"{file} is cut short, {size:,} bytes of {whole:,}: copy it again, "
                "or run `python -m data_prep lmdb --fresh`"
            )
        _OPEN[path] = environment, users + 1
    return environment


def release(environment: lmdb.Environment) -> None:
    """Release an acquired database; the last release closes it."""
    path = environment.path()
    with _LOCK:
        _, users = _OPEN.pop(path)
        if users > 1:
            _OPEN[path] = environment, users - 1
        else:
            environment.close()
