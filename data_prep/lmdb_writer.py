"""Image and label databases from one list, record for record together.

The image database is what `convert_imageset -resize_width S -resize_height S`
makes of the same list, byte for byte. Caffe reads the two databases side by
side and never compares keys, so one record too many in either would give
every image behind it another's labels: both are written in step, aside, and
get their names only when whole.

Threads decode (OpenCV lets go of the interpreter while it works), a bounded
queue keeps order and memory, and the calling thread alone writes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import lmdb
import numpy as np
from tqdm import tqdm

from basics.cli import UserError
from basics.files import read_text, sync_folder, write_json
from data_prep.classes import Classes
from data_prep.datum import image_datum, label_datum
from data_prep.decode import Unreadable, decode, resize
from data_prep.folder import DataFolder
from data_prep.lists import Entry, read_list
from data_prep.parallel import default_threads, ordered

KINDS = ("image", "label")
MAX_KEY = 511  # bytes, LMDB's limit
MAX_DROPPED = 0.01  # share of a list; more is a mistake in the folder, not bad luck
_BATCH = 1000  # records a transaction
_CHUNK = 8  # images a task, so that handing over tasks costs nothing
_JOB = "job.json"  # lies in each database folder: what it was made from


@dataclass
class Report:
    """What became of one list. `dropped` and `damaged` hold (path, reason)."""

    listed: int
    written: int = 0
    dropped: list[tuple[str, str]] = field(default_factory=list)
    damaged: list[tuple[str, str]] = field(default_factory=list)
    reused: bool = False


def key(index: int, path: str) -> bytes:
    """A record's key, as convert_imageset forms it from the line number and the path."""
    return f"{index:08d}_{path}".encode()


def write_pair(
    folder: DataFolder,
    part: str,
    root: Path,
    classes: Classes,
    size: int,
    *,
    threads: int | None = None,
    allow_dropped: bool = False,
    drop_damaged: bool = False,
    fresh: bool = False,
    say: Callable[[str], None] | None = None,
) -> Report:
    """Write `<part>_image_lmdb` and `<part>_label_lmdb` from `<part>.txt`.

    Databases that were made from the same list, classes, files (by size and
    time) and options are left as they are. The caller holds the folder's lock.

    Args:
        root: the list's paths are relative to it.
        size: S; records are 3 x S x S.
        allow_dropped: go on when more than 1% of the list cannot be read.
        drop_damaged: leave out JPEGs that end early instead of keeping what there is.
        fresh: write again even if nothing changed.
        say: gets one line for every image left out or damaged; by default stderr does.

    Raises:
        UserError: the list is wrong, too much of it cannot be read, the disk
            is full, or a database of that name was not made by us.
    """
    entries = read_list(folder.list(part), classes)
    job = {
        "list": hashlib.sha256(folder.list(part).read_bytes()).hexdigest(),
        "classes": hashlib.sha256(repr(classes.triples).encode()).hexdigest(),
        "images": str(root.resolve()),
        "files": _state(root, entries),
        "size": size,
        "drop_damaged": drop_damaged,
    }
    made = [made_from(folder.lmdb(part, kind)) for kind in KINDS]
    if not fresh and all(m and m["job"] == job for m in made):
        return Report(**made[0]["report"], reused=True)

    aside = folder.root / ".partial"
    try:
        shutil.rmtree(aside, ignore_errors=True)
        places = {kind: aside / kind for kind in KINDS}
        for place in places.values():
            place.mkdir(parents=True)
        report = Report(len(entries))
        records = _records(entries, root, classes, size, threads or default_threads())
        _write(
            places,
            tqdm(records, part, len(entries), unit="img", disable=None),
            report,
            allow_dropped,
            drop_damaged,
            say or _say,
        )
        facts = {k: v for k, v in vars(report).items() if k != "reused"}
        for place in places.values():
            write_json(place / _JOB, {"job": job, "report": facts})
        _publish(places, {kind: folder.lmdb(part, kind) for kind in KINDS}, aside)
    except (lmdb.Error, OSError) as error:
        raise UserError(
            f"cannot write the {part} databases in {folder.root}: {_cause(error)}"
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return report


def _records(
    entries: Sequence[Entry], root: Path, classes: Classes, size: int, threads: int
) -> Iterator[tuple[str, bytes, Any, bytes, str]]:
    """(path, key, image record or None, label record, what is wrong), in list order."""
    labels = [label_datum(triple) for triple in classes.triples]
    base = os.fspath(root)

    def work(start: int) -> list[tuple[str, bytes, Any, bytes, str]]:
        done = []
        for index in range(start, min(start + _CHUNK, len(entries))):
            path, label = entries[index]
            name = key(index, path)
            record = None
            try:
                if len(name) > MAX_KEY:
                    raise Unreadable(f"its path is too long for a key ({len(name)} bytes)")
                pixels, wrong = decode(f"{base}/{path}")
                record = image_datum(resize(pixels, size), label)
            except Unreadable as reason:
                wrong = str(reason)
            done.append((path, name, record, labels[label], wrong))
        return done

    # OpenCV's own threads would fight ours over the same cores.
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        for chunk in ordered(work, range(0, len(entries), _CHUNK), threads):
            yield from chunk
    finally:
        cv2.setNumThreads(before)


def _write(
    places: dict[str, Path],
    records: Iterable[tuple[str, bytes, np.ndarray | None, bytes, str]],
    report: Report,
    allow_dropped: bool,
    drop_damaged: bool,
    say: Callable[[str], None],
) -> None:
    writers = [_Writer(places[kind]) for kind in KINDS]
    try:
        for path, name, image, label, wrong in records:
            if wrong and (image is None or drop_damaged):
                report.dropped.append((path, wrong))
                say(f"left out {path}: {wrong}")
                if len(report.dropped) > MAX_DROPPED * report.listed and not allow_dropped:
                    raise UserError(
                        f"more than {MAX_DROPPED:.0%} of {report.listed} images cannot be read, "
                        f"the last one {path}: {wrong}; mend the image folder "
                        "or add --allow-dropped"
                    )
                continue
            if wrong:
                report.damaged.append((path, wrong))
                say(f"damaged {path}: {wrong}")
            for writer, value in zip(writers, (image, label)):
                writer.put(name, value)
            report.written += 1
        if not report.written:
            raise UserError("no image of the list can be read")
        for writer in writers:
            writer.finish()
    finally:
        for writer in writers:
            writer.close()


class _Writer:
    """Appends to one database, 1,000 records a transaction."""

    def __init__(self, place: Path) -> None:
        # A map of 1 TiB, as Caffe's own, costs address space only. Nothing is synced until
        # the end: the database has no name yet, and pages survive the death of a process.
        self._env = lmdb.open(os.fspath(place), map_size=1 << 40, mode=0o644, sync=False)
        self._txn = self._env.begin(write=True)
        self._pending = 0

    def put(self, name: bytes, value: bytes | np.ndarray) -> None:
        # Out of order, append returns False and drops the record.
        if not self._txn.put(name, value, append=True):
            raise RuntimeError(f"key out of order: {name!r}")
        self._pending += 1
        if self._pending == _BATCH:
            self._txn.commit()
            self._txn = self._env.begin(write=True)
            self._pending = 0

    def finish(self) -> None:
        self._txn.commit()
        self._env.sync(True)

    def close(self) -> None:
        self._env.close()  # aborts what is not committed


def _say(line: str) -> None:
    tqdm.write(line, file=sys.stderr)


def _state(root: Path, entries: Sequence[Entry]) -> str:
    """A hash of the files' sizes and times: changes when any of them does, and opens none."""
    digest = hashlib.sha256()
    base = os.fspath(root)
    for entry in entries:
        try:
            stat = os.stat(f"{base}/{entry.path}")
            digest.update(b"%d %d\n" % (stat.st_size, stat.st_mtime_ns))
        except OSError:
            digest.update(b"missing\n")
    return digest.hexdigest()


def made_from(database: Path) -> dict[str, Any] | None:
    """What a database says it was made from; None where there is none.

    Raises:
        UserError: something else has its name.
    """
    if not database.exists():
        return None
    try:
        return json.loads(read_text(database / _JOB))
    except (UserError, json.JSONDecodeError):
        raise UserError(
            f"{database} was not made by data_prep and is left alone; move it away first"
        ) from None


def _publish(places: dict[str, Path], names: dict[str, Path], aside: Path) -> None:
    """Give the finished databases their names.

    The image database goes first and comes last, so that at no moment an
    image database stands without the labels that belong to it.
    """
    for kind in ("image", "label"):
        if names[kind].exists():
            names[kind].rename(aside / f"old_{kind}")
    for kind in ("label", "image"):
        places[kind].rename(names[kind])
        sync_folder(names[kind].parent)


def _cause(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return text.rpartition(": ")[2] or type(error).__name__
