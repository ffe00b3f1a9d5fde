"""Write the image and label databases of a list.

The image database equals that of `convert_imageset -resize_width S -resize_height S`, byte for
byte. Caffe reads the two databases side by side and never compares keys, so one record too many
in either would give every later image the labels of another. Both are therefore written together,
in a hidden folder, and get their names only when they are complete. An interrupted run is resumed
(progress.py).

Threads decode, a bounded queue keeps order and limits memory, and only the calling thread writes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from data_prep.classes import Classes
from data_prep.folder import PARTS, DataFolder
from data_prep.images import find_root
from data_prep.lists import Entry, read_classes, read_part
from data_prep.lmdb_writer import KINDS, MEAN, Writer, describe, made_from
from data_prep.parallel import default_threads
from data_prep.progress import Progress, Report
from data_prep.records import Record, records
from xresnet.basics import bars
from xresnet.basics.cli import UserError
from xresnet.basics.files import PathLike, fsync, inside, write
from xresnet.basics.numbers import PIXELS, THREADS

MAX_DROPPED = 0.01  # share of a list; more points to a mistake in the folder


@dataclass(frozen=True)
class Form:
    """The form of records: pixels per side, whether they hold JPEGs, and whether truncated JPEGs
    are left out."""

    size: int
    encoded: bool
    drop_damaged: bool

    def __str__(self) -> str:
        flags = [f"--{name.replace('_', '-')}" for name, on in asdict(self).items() if on is True]
        return f"--size {self.size}{' ' if flags else ''}{', '.join(flags)}"


@dataclass(frozen=True)
class Written:
    """The result of `write_databases`: part -> its report, and the manifest's entry."""

    folder: DataFolder
    reports: dict[str, Report] = field(repr=False)
    facts: dict[str, Any] = field(repr=False)


def write_databases(
    out: PathLike,
    images: PathLike,
    *,
    size: int = 224,
    encoded: bool = False,
    threads: int | None = None,
    allow_dropped: bool = False,
    drop_damaged: bool = False,
    replace: bool = False,
    fresh: bool = False,
) -> Written:
    """Write the image and label databases of both lists, and the mean of the training images.

    Databases made from the same list, classes, image files (by size and time) and form are kept,
    and half-written ones are completed. A line on stderr names each image that is left out or
    damaged.

    Args:
        out: the data folder, with its classes and lists.
        images: the folder that the lists' paths are relative to; for VSO's images, the one
            above it will do.
        size: S, the height and width of an image in pixels; records are 3 x S x S.
        encoded: store JPEGs: a quarter of the size, read by Caffe at a sixth of the speed.
        threads: decoding threads; the number of usable cores plus one by default.
        allow_dropped: continue if more than 1% of a list cannot be read.
        drop_damaged: leave out truncated JPEGs, which are kept otherwise.
        replace: replace finished databases of another size or form.
        fresh: write all databases again.

    Raises:
        UserError: a list is invalid, too many of its images cannot be read, the disk is full,
            or there are finished databases of another form or not made by this package.
    """
    PIXELS.check(size, "size")
    threads = THREADS.check(default_threads() if threads is None else threads, "threads")
    folder, form = DataFolder(out), Form(size, encoded, drop_damaged)
    if not (replace or fresh):
        check_form(folder, form)
    classes = read_classes(folder)
    root = find_root(images, classes.by_anp)
    with folder.lock():
        reports = {
            part: _write_pair(folder, part, root, classes, form, threads, allow_dropped, fresh)
            for part in PARTS
        }
        write(folder.mean, (folder.lmdb("train", "image") / MEAN).read_bytes())
        told = {part: report.facts() for part, report in reports.items()}
        facts = {"images": str(root), "size": size, "encoded": encoded, **told}
        folder.record("lmdb", facts)
    return Written(folder, reports, facts)


def check_form(folder: DataFolder, form: Form) -> None:
    """Check that finished databases have this form, so that none is replaced unasked.

    Raises:
        UserError: one has another form, or was not made by this package.
    """
    for part in PARTS:
        for kind in KINDS:
            made = made_from(folder.lmdb(part, kind))
            there = made and Form(**{name: made["job"].get(name) for name in asdict(form)})
            if there and there != form:
                raise UserError(
                    f"{folder.lmdb(part, kind)} is finished, with {there}; to replace it "
                    f"by one with {form} add --replace, or choose another --out"
                )


def _write_pair(
    folder: DataFolder,
    part: str,
    root: Path,
    classes: Classes,
    form: Form,
    threads: int,
    allow_dropped: bool,
    fresh: bool,
) -> Report:
    """Write `<part>_image_lmdb` and `<part>_label_lmdb` from `<part>.txt`."""
    entries = read_part(folder, part, classes)
    job = {
        "format": 2,
        "list": hashlib.sha256(folder.list(part).read_bytes()).hexdigest(),
        "classes": hashlib.sha256(repr(list(classes.combinations)).encode()).hexdigest(),
        "images": str(root.resolve()),
        "files": _state(root, entries),
        **asdict(form),
    }
    aside = folder.partial / part
    names = {kind: folder.lmdb(part, kind) for kind in KINDS}
    image, label = map(made_from, names.values())
    try:
        if not fresh and image and label and image["job"] == label["job"] == job:
            _clear(aside)
            return Report(**image["report"], reused=True)
        if fresh:
            _clear(aside)
        places = {kind: aside / kind for kind in KINDS}
        progress = _take_up(
            places, Progress(aside / "progress", job, len(entries), len(classes.combinations))
        )
        if not progress.finished:
            begin = progress.next
            source = records(
                *(entries, root, classes, form.size),
                start=begin,
                encoded=form.encoded,
                threads=threads,
            )
            bar = bars.bar(source, part, len(entries), initial=begin, unit="img")
            _write(places, bar, progress, allow_dropped, form.drop_damaged)
            progress.summarise()
            report, mean = progress.report, progress.mean.blob(progress.report.written)
            describe(places, job, report.facts(), progress.crcs, mean)
            progress.finished = True
            progress.save()
        folder.begin("lmdb", {})  # what the manifest tells of is no longer there
        _publish(places, names, aside)
    except OSError as error:
        raise UserError(
            f"cannot write the {part} databases in {folder.root}: {error.strerror or error}; "
            "what is written stays, and the same command goes on there"
        ) from error
    return progress.report


def _take_up(places: dict[str, Path], progress: Progress) -> Progress:
    """Resume what an earlier run of the same job left, or start anew."""
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
) -> None:
    report = progress.report
    with Writer(places["image"]) as images, Writer(places["label"]) as labels:
        for record in source:
            progress.next = record.index + 1
            if record.planes is None or (record.wrong and drop_damaged):
                report.dropped.append((record.path, record.wrong))
                bars.say(f"left out {record.path}: {record.wrong}")
                if len(report.dropped) > MAX_DROPPED * report.listed and not allow_dropped:
                    raise UserError(
                        f"more than {MAX_DROPPED:.0%} of {report.listed} images cannot be read, "
                        f"the last one {record.path}: {record.wrong}; repair the image "
                        "folder or add --allow-dropped"
                    )
                continue
            if record.wrong:
                report.damaged.append((record.path, record.wrong))
                bars.say(f"damaged {record.path}: {record.wrong}")
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


def _state(root: Path, entries: Sequence[Entry]) -> str:
    """A hash of the files' sizes and modification times; no file is opened.

    Raises:
        UserError: a listed file is a link that leads out of the image folder.
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
                    raise UserError(
                        f"{full}: a link that leaves the image folder; copy the file there, or "
                        "take it out of the list"
                    )
                folders.add(parent)
                found = os.stat(full)
            digest.update(b"%d %d\n" % (found.st_size, found.st_mtime_ns))
        except OSError:
            digest.update(b"missing\n")
    return digest.hexdigest()


def _publish(places: dict[str, Path], names: dict[str, Path], aside: Path) -> None:
    """Give the finished databases their names, also if an earlier run had begun to.

    The old image database is removed first and the new one comes last, so that an image
    database never stands beside labels of another.
    """
    for kind in ("image", "label"):
        if places[kind].exists() and names[kind].exists():
            names[kind].rename(aside / f"old_{kind}")
    for kind in ("label", "image"):
        if places[kind].exists():
            places[kind].rename(names[kind])
            fsync(names[kind].parent)
    _clear(aside)


def _clear(aside: Path) -> None:
    shutil.rmtree(aside, ignore_errors=True)
    with contextlib.suppress(OSError):  # the other part's databases may be there
        aside.parent.rmdir()
