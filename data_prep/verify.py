"""The databases read back and held against lists, classes and each other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import lmdb
from tqdm import tqdm

from basics.cli import UserError
from data_prep.classes import Classes
from data_prep.datum import Datum, parse_datum
from data_prep.folder import DataFolder
from data_prep.lists import read_list
from data_prep.lmdb_writer import KINDS, key, made_from


def verify_pair(
    folder: DataFolder, part: str, classes: Classes, limit: int = 20
) -> tuple[int, list[str]]:
    """Read every record of a part's two databases.

    Held against each other and the rest: same keys in the same order, the
    list's keys with the list's labels, the classes' label triple, pixels of
    one size, as many records as were written.

    Returns:
        the number of records, and what is wrong with them, one line each
        (no more than `limit`; nothing behind the point where keys differ).

    Raises:
        UserError: a database is not there or cannot be opened.
    """
    entries = read_list(folder.list(part), classes)
    images, labels = (_records(folder.lmdb(part, kind)) for kind in KINDS)
    wrong: list[str] = []
    shape = None
    count, index = 0, -1
    for image_key, image in tqdm(images, f"verify {part}", len(entries), unit="img", disable=None):
        count += 1
        name = _text(image_key)
        label_key, label = next(labels, (b"nothing", b""))
        if label_key != image_key:
            return count, [*wrong, f"{name}: the label database has {_text(label_key)}"]
        number = int(image_key[:8]) if image_key[:8].isdigit() else -1
        listed = index < number < len(entries) and key(number, entries[number].path) == image_key
        if not listed:
            wrong.append(f"{name}: not what {folder.list(part).name} has at this place")
        else:
            index = number
            try:
                datum, triple = parse_datum(image), parse_datum(label)
            except ValueError as error:
                wrong.append(f"{name}: not a Datum: {error}")
                continue
            shape = shape or (datum.channels, datum.height, datum.width)
            wrong += [
                f"{name}: {problem}"
                for problem in _problems(datum, triple, entries[number].label, classes, shape)
            ]
        if len(wrong) >= limit:
            return count, wrong[:limit]
    left = next(labels, None)
    if left:
        wrong.append(f"{_text(left[0])}: only in the label database")
    made = made_from(folder.lmdb(part, "image"))
    if made and made["report"]["written"] != count:
        wrong.append(f"{count} records, {made['report']['written']} were written")
    return count, wrong


def _problems(
    image: Datum, label: Datum, anp: int, classes: Classes, shape: tuple[int, int, int]
) -> Iterator[str]:
    if image.label != anp:
        yield f"label {image.label}, the list has {anp}"
    if (image.channels, image.height, image.width) != shape:
        yield f"{image.channels} x {image.height} x {image.width}, others are {shape}"
    if image.encoded or len(image.data) != image.channels * image.height * image.width:
        yield f"{len(image.data)} bytes of pixels do not fill its shape"
    expected = tuple(map(float, classes.triples[anp]))
    if label.float_data != expected or (label.channels, label.height, label.width) != (3, 1, 1):
        yield f"labels {label.float_data}, the classes have {expected}"
    elif label.data:
        yield "the label record has `data`, which Caffe prefers to its labels"


def _text(name: bytes) -> str:
    return name.decode(errors="replace")


def _records(path: Path) -> Iterator[tuple[bytes, bytes]]:
    if not (path / "data.mdb").is_file():
        raise UserError(f"{path} is not there: run `python -m data_prep lmdb` first")
    try:
        with (
            lmdb.open(os.fspath(path), readonly=True, lock=False, readahead=True) as env,
            env.begin() as txn,
        ):
            yield from txn.cursor()
    except lmdb.Error as error:
        raise UserError(f"{path}: {error}") from error
