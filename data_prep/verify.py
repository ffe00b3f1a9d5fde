"""Check the databases against the lists, the classes, the manifest and each other."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.classes import Classes
from data_prep.folder import PARTS, DataFolder
from data_prep.lists import read_classes, read_part
from data_prep.lmdb_writer import CRCS, KINDS, made_from, read_crcs
from data_prep.progress import Report
from data_prep.records import key
from data_prep.sheet import write_sheet
from xresnet.basics import bars
from xresnet.basics.cli import UserError
from xresnet.basics.files import PathLike
from xresnet.caffeproto.databases import reading
from xresnet.caffeproto.datum import parse_datum

_WINDOW = 100 << 20  # bytes of records


@dataclass(frozen=True)
class Verified:
    """The result of `verify`. `facts`: part -> number of records; `shown`: records on the sheet."""

    facts: dict[str, int]
    sheet: PathLike | None
    shown: int


def verify(out: PathLike, *, sheet: PathLike | None = None) -> Verified:
    """Read all records of a data folder and check them.

    Args:
        out: the data folder.
        sheet: a JPEG to write, with 40 training records and their labels.

    Raises:
        UserError: the first three errors found, or the sheet cannot be written.
    """
    folder = DataFolder(out)
    classes = read_classes(folder)
    counts, wrong = {}, []
    for part in PARTS:
        counts[part], problems = verify_pair(folder, part, classes)
        wrong += [f"{folder.lmdb(part, 'image').name}: {problem}" for problem in problems]
    if wrong and "lmdb" not in folder.read_manifest():
        raise UserError(
            f"{folder.root}: the databases were made of other lists: run `python -m data_prep lmdb`"
        )
    if wrong:
        raise UserError("; ".join(wrong[:3]) + (f"; and {len(wrong) - 3} more" * (len(wrong) > 3)))
    return Verified(counts, sheet, write_sheet(folder, "train", classes, sheet) if sheet else 0)


def verify_pair(
    folder: DataFolder, part: str, classes: Classes, limit: int = 20
) -> tuple[int, list[str]]:
    """Read every record of a part's two databases and check them.

    Both must have the keys of the list, in its order, with the labels of the list and the classes.
    Images must have one size and be decodable. The records' bytes (CRC-32) and the number of each
    class must be as when they were written, and the manifest must describe them.

    Returns:
        the number of records, and the errors, one line each: at most `limit`, and none after a
        place where the keys of the two databases differ.

    Raises:
        UserError: the list was made for other classes or has an image in the folder of another
            class, or a database is missing or cannot be opened.
    """
    entries = read_part(folder, part, classes)
    images, labels = (_records(folder.lmdb(part, kind)) for kind in KINDS)
    with reading(folder.lmdb(part, "image")):
        made = made_from(folder.lmdb(part, "image"))
    assert made is not None  # it is there
    crcs = read_crcs(folder.lmdb(part, "image"))
    job, report = made["job"], Report(**made["report"]).facts()
    dropped = {path for path, _ in report["dropped"]}
    expected = [
        (key(number, path), label)
        for number, (path, label) in enumerate(entries)
        if path not in dropped
    ]
    shape = tuple(job.get("maps", ())) or (3, job.get("size"), job.get("size"))
    histogram = [0] * len(classes.combinations)
    wrong: list[str] = []
    count, at = 0, 0  # records read; the place in `expected` of the next one
    for image_key, image in bars.bar(images, f"verify {part}", len(entries), unit="img"):
        count += 1
        name = _text(image_key)
        label_key, label = next(labels, (b"nothing", b""))
        if label_key != image_key:
            return count, [*wrong, f"{name}: the label database has {_text(label_key)}"]
        while at < len(expected) and expected[at][0][:8] < image_key[:8]:
            wrong.append(f"{_text(expected[at][0])} is missing")
            at += 1
        if at == len(expected) or expected[at][0] != image_key:
            wrong.append(f"{name}: differs from {folder.list(part).name} at this place")
        else:
            listed, crc = expected[at][1], crcs[at] if at < len(crcs) else None
            at += 1
            histogram[listed] += 1
            problems = list(_problems(image, label, listed, classes, shape))
            if not problems and crc is not None and zlib.crc32(image) != crc:
                problems.append("its bytes are not those that were written")
            wrong += [f"{name}: {problem}" for problem in problems]
        if len(wrong) >= limit:
            return count, wrong[:limit]
    if left := next(labels, None):
        wrong.append(f"{_text(left[0])}: only in the label database")
    totals = _totals(folder, part, classes, report, count, len(crcs), histogram)
    return count, wrong + list(totals)


def _totals(
    folder: DataFolder,
    part: str,
    classes: Classes,
    report: dict[str, Any],
    count: int,
    checksums: int,
    histogram: list[int],
) -> Iterator[str]:
    if report["written"] != count:
        yield f"{count} records, {report['written']} were written"
    if checksums != count:
        yield f"{checksums} checksums of {count} records in {CRCS}"
    for number, (n, expected) in enumerate(zip(histogram, report["histogram"])):
        if n != expected:
            yield f"{n} records of {classes.title(number)}, {expected} were written"
    if folder.read_manifest().get("lmdb", {}).get(part, report) != report:
        yield f"{folder.manifest.name} describes other databases; run `lmdb` again"


def _problems(
    image: bytes, label: bytes, listed: int, classes: Classes, shape: tuple[int, ...]
) -> Iterator[str]:
    try:
        datum, values = parse_datum(image), parse_datum(label)
    except ValueError as error:
        yield f"not a Datum: {error}"
        return
    if datum.label != listed:
        yield f"label {datum.label}, the list has {listed}"
    own = (datum.channels, datum.height, datum.width)
    try:
        own = datum.array().shape
    except ValueError as error:
        yield str(error)
    if not np.isfinite(datum.floats).all():
        yield "contains NaN or infinite numbers"
    if own != shape and own[0]:
        yield f"{' x '.join(map(str, own))}, not {' x '.join(map(str, shape))}"
    expected = tuple(map(float, classes.combinations[listed]))
    own = (values.channels, values.height, values.width)
    if values.float_data != expected or own != (len(expected), 1, 1):
        yield f"labels {values.float_data}, the classes have {expected}"
    elif values.data:
        yield "the label record has `data`, which Caffe prefers to its labels"


def _text(name: bytes) -> str:
    return name.decode(errors="replace")


def _records(database: Path) -> Iterator[tuple[bytes, bytes]]:
    name = None
    more = True
    while more:
        # What was read stays in memory until the database is closed: close it now and then.
        read = 0
        with reading(database) as records, records.cursor() as cursor:
            more = cursor.first() if name is None else cursor.set_key(name) and cursor.next()
            while more and read < _WINDOW:
                name, value = cursor.item()
                yield name, value  # type: ignore[misc]  # no memoryviews were asked for
                read += len(value)
                more = cursor.next()
