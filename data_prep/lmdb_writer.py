"""Image and label databases from one list, record for record together.

The image database is what `convert_imageset -resize_width S -resize_height S`
makes of the same list, byte for byte. Caffe reads the two databases side by
side and never compares keys, so one record too many in either would give
every image behind it another's labels: both are written in step, aside, and
get their names only when whole. A run that was killed is taken up where it
was (progress.py).

Threads decode, a bounded queue keeps order and memory, and the calling
thread alone writes.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import stat
import sys
from array import array
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import lmdb

from data_prep.classes import Classes
from data_prep.folder import PARTS, DataFolder
from data_prep.lists import Entry, read_part
from data_prep.parallel import default_threads
from data_prep.progress import Progress, Report
from data_prep.records import Record, records
from data_prep.write_behind import WriteBehind
from xresnet.basics import bars
from xresnet.basics.cli import UserError
from xresnet.basics.files import inside, read_text, sync_folder, write, write_json
from xresnet.basics.numbers import PIXELS, THREADS

KINDS = ("image", "label")
MAX_DROPPED = 0.01  # share of a list; more is a mistake in the folder, not bad luck
MEAN = "mean.binaryproto"  # lies in the image database's folder, with
CRCS = "crc32"  # the CRC-32 of each image record, 4 bytes each, little endian
JOB = "job.json"  # lies in each database folder: what it was made from
MAP_SIZE = 1 << 40  # costs address space only; Caffe's own is as large
# A transaction's pages wait in memory: few enough to stay in the caches, enough to make
# commits cheap.
BATCH_BYTES = 32 << 20
BATCH_RECORDS = 10_000


FORM = ("size", "encoded", "drop_damaged")  # of a job: what its records are like


def check_form(folder: DataFolder, wanted: dict[str, Any]) -> None:
    """See that no finished database would be replaced by one of another size or form.

    Args:
        wanted: an entry for each of `FORM`.

    Raises:
        UserError: one would, or a database of that name was not made by us.
    """
    for part in PARTS:
        for kind in KINDS:
            made = made_from(folder.lmdb(part, kind))
            there = made and {name: made["job"].get(name) for name in FORM}
            if there and there != wanted:
                raise UserError(
                    f"{folder.lmdb(part, kind)} is finished, with {_words(there)}; to replace it "
                    f"by one with {_words(wanted)} add --replace, or choose another --out"
                )


def _words(form: dict[str, Any]) -> str:
    said = ", ".join(f"--{name.replace('_', '-')}" for name in FORM[1:] if form[name])
    return f"--size {form['size']}{' ' if said else ''}{said}"


def write_pair(
    folder: DataFolder,
    part: str,
    root: Path,
    classes: Classes,
    size: int,
    *,
    encoded: bool = False,
    threads: int | None = None,
    allow_dropped: bool = False,
    drop_damaged: bool = False,
    fresh: bool = False,
    say: Callable[[str], None] | None = None,
) -> Report:
    """Write `<part>_image_lmdb` and `<part>_label_lmdb` from `<part>.txt`.

    Databases that were made from the same list, classes, files (by size and
    time) and options are left as they are, and half-written ones are
    finished. The caller holds the folder's lock.

    Args:
        root: the list's paths are relative to it.
        size: S; records are 3 x S x S.
        encoded: records hold JPEGs; a quarter of the size, a sixth of Caffe's reading speed.
        allow_dropped: go on when more than 1% of the list cannot be read.
        drop_damaged: leave out JPEGs that end early instead of keeping what there is.
        fresh: write again even if nothing changed.
        say: gets one line for every image left out or damaged; by default stderr does.

    Raises:
        UserError: the list is wrong, too much of it cannot be read, the disk
            is full, or a database of that name was not made by us.
    """
    PIXELS.check(size, "size")
    threads = THREADS.check(default_threads() if threads is None else threads, "threads")
    entries = read_part(folder, part, classes)
    job = {
        "format": 2,
        "list": hashlib.sha256(folder.list(part).read_bytes()).hexdigest(),
        "classes": hashlib.sha256(repr(list(classes.combinations)).encode()).hexdigest(),
        "images": str(root.resolve()),
        "files": _state(root, entries),
        "size": size,
        "encoded": encoded,
        "drop_damaged": drop_damaged,
    }
    aside = folder.partial / part
    names = {kind: folder.lmdb(part, kind) for kind in KINDS}
    made = [made_from(name) for name in names.values()]
    try:
        if not fresh and all(m and m["job"] == job for m in made):
            _clear(aside)
            return Report(**made[0]["report"], reused=True)
        if fresh:
            _clear(aside)
        places = {kind: aside / kind for kind in KINDS}
        progress = _take_up(
            places, Progress(aside / "progress", job, len(entries), len(classes.combinations))
        )
        if not progress.finished:
            source = records(
                entries,
                root,
                classes,
                size,
                start=progress.next,
                encoded=encoded,
                threads=threads,
            )
            bar = bars.bar(source, part, len(entries), initial=progress.next, unit="img")
            _write(places, bar, progress, allow_dropped, drop_damaged, say or bars.say)
            _describe(places, job, progress)
            progress.finished = True
            progress.save()
        folder.begin("lmdb", {})  # what the manifest tells of is no longer there
        _publish(places, names, aside)
    except (lmdb.Error, OSError) as error:
        raise UserError(
            f"cannot write the {part} databases in {folder.root}: {_cause(error, folder.root)}; "
            "what is written stays, and the same command goes on there"
        ) from error
    return progress.report


def _take_up(places: dict[str, Path], progress: Progress) -> Progress:
    """`progress` as an earlier run of the same job left it, or a fresh start."""
    if progress.load():
        if progress.finished:
            return progress
        with Writer(places["image"]) as image, Writer(places["label"]) as label:
            counts = {writer.cut(progress.next) for writer in (image, label)}
        if counts == {progress.report.written}:
            progress.report.resumed_at = progress.next
            return progress
    shutil.rmtree(places["image"].parent, ignore_errors=True)
    for place in places.values():
        place.mkdir(parents=True)
    return progress


def _write(
    places: dict[str, Path],
    source: Iterable[Record],
    progress: Progress,
    allow_dropped: bool,
    drop_damaged: bool,
    say: Callable[[str], None],
) -> None:
    report = progress.report
    with Writer(places["image"]) as images, Writer(places["label"]) as labels:
        for record in source:
            progress.next = record.index + 1
            if record.wrong and (record.image is None or drop_damaged):
                report.dropped.append((record.path, record.wrong))
                say(f"left out {record.path}: {record.wrong}")
                if len(report.dropped) > MAX_DROPPED * report.listed and not allow_dropped:
                    raise UserError(
                        f"more than {MAX_DROPPED:.0%} of {report.listed} images cannot be read, "
                        f"the last one {record.path}: {record.wrong}; mend the image folder "
                        "or add --allow-dropped"
                    )
                continue
            if record.wrong:
                report.damaged.append((record.path, record.wrong))
                say(f"damaged {record.path}: {record.wrong}")
            images.put(record.key, record.image)
            labels.put(record.key, record.label)
            progress.mean.add(record.planes)
            progress.crcs.append(record.crc)
            report.histogram[record.number] += 1
            report.written += 1
            if images.full:
                images.commit()
                labels.commit()
                progress.save()
        if not report.written:
            raise UserError("no image of the list can be read")
        for writer in (images, labels):
            writer.commit(last=True)


def _describe(places: dict[str, Path], job: dict[str, Any], progress: Progress) -> None:
    """Put what is known about the databases into their folders."""
    progress.summarise()
    for place in places.values():
        write_json(place / JOB, {"job": job, "report": progress.report.facts()})
    write(places["image"] / MEAN, progress.mean.blob(progress.report.written))
    write(places["image"] / CRCS, progress.crcs.tobytes())


class Writer:
    """Appends to one database, many records a transaction."""

    def __init__(self, place: Path) -> None:
        # Commits wait for no sync: the database has no name yet, and what is written
        # survives the death of a process.
        self._env = lmdb.open(os.fspath(place), map_size=MAP_SIZE, mode=0o644, sync=False)
        self._behind = WriteBehind(place / "data.mdb")
        self._begin()

    def _begin(self) -> None:
        self._txn = self._env.begin(write=True)
        self._bytes = self._records = 0

    def cut(self, index: int) -> int:
        """Delete the records from list line `index` on; returns how many are left."""
        with self._txn.cursor() as cursor:
            while cursor.set_range(b"%08d" % index):
                cursor.delete()
        self.commit()
        return self.count

    @property
    def count(self) -> int:
        """Records that are committed."""
        return self._env.stat()["entries"]

    def put(self, name: bytes, value: Any) -> None:
        # Out of order, append returns False and drops the record.
        if not self._txn.put(name, value, append=True):
            raise RuntimeError(f"key out of order: {name!r}")
        self._bytes += len(value)
        self._records += 1

    @property
    def full(self) -> bool:
        return self._bytes >= BATCH_BYTES or self._records >= BATCH_RECORDS

    def commit(self, last: bool = False) -> None:
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


def _state(root: Path, entries: Sequence[Entry]) -> str:
    """A hash of the files' sizes and times: changes when any of them does, and opens none.

    Raises:
        UserError: a link in the list leads out of the image folder.
    """
    digest = hashlib.sha256()
    base = os.fspath(root)
    real = os.path.realpath(root)
    folders: set[str] = set()
    for path, _ in entries:
        full = f"{base}/{path}"
        try:
            found = os.lstat(full)
            parent = path.rpartition("/")[0]
            if stat.S_ISLNK(found.st_mode) or parent not in folders:
                if not inside(full, real):
                    raise UserError(f"{full}: a link that leaves the image folder")
                folders.add(parent)
                found = os.stat(full)
            digest.update(b"%d %d\n" % (found.st_size, found.st_mtime_ns))
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
        made = json.loads(read_text(database / JOB))
        Report(**made["report"])
        if not isinstance(made["job"], dict):
            raise TypeError
        return made
    except (UserError, ValueError, LookupError, TypeError):
        raise UserError(
            f"{database} was not made by data_prep and is left alone; move it away first"
        ) from None


def read_crcs(database: Path) -> array:
    """The CRC-32 of each record of an image database, as they were when written.

    Raises:
        UserError: the file is not there or damaged.
    """
    try:
        crcs = array("I", (database / CRCS).read_bytes())
    except (OSError, ValueError) as error:  # ValueError: not whole numbers of 4 bytes
        raise UserError(
            f"{database / CRCS} is missing or damaged: run `python -m data_prep lmdb --fresh`"
        ) from error
    if sys.byteorder == "big":
        crcs.byteswap()
    return crcs


def _publish(places: dict[str, Path], names: dict[str, Path], aside: Path) -> None:
    """Give the finished databases their names, or go on doing so.

    The image database goes first and comes last, so that at no moment an
    image database stands without the labels that belong to it.
    """
    for kind in ("image", "label"):
        if places[kind].exists() and names[kind].exists():
            names[kind].rename(aside / f"old_{kind}")
    for kind in ("label", "image"):
        if places[kind].exists():
            places[kind].rename(names[kind])
            sync_folder(names[kind].parent)
    _clear(aside)


def _clear(aside: Path) -> None:
    shutil.rmtree(aside, ignore_errors=True)
    with contextlib.suppress(OSError):  # the other part's may lie there
        aside.parent.rmdir()


def _cause(error: Exception, place: Path) -> str:
    text = getattr(error, "strerror", None) or str(error)
    if "Input/output" in text and shutil.disk_usage(place).free < BATCH_BYTES:
        return os.strerror(errno.ENOSPC)  # LMDB calls a write that fits in part an I/O error
    return text.rpartition(": ")[2] or type(error).__name__
