"""The records of a data folder's databases: images, labels and names, in their order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data_prep.classes import Classes
from data_prep.folder import DataFolder
from xresnet.basics.cli import UserError
from xresnet.caffeproto.databases import items, reading
from xresnet.caffeproto.datum import parse_datum


def records(root: Path, part: str = "test") -> Iterator[np.ndarray]:
    """The images of a part, 3 x H x W uint8 BGR, in the database's order; or cached maps.

    Raises:
        UserError: there is no such database, or a record is damaged.
    """
    database = root / f"{part}_image_lmdb"
    for key, value in items(database):
        try:
            yield parse_datum(value).array()
        except ValueError as error:
            raise UserError(f"{database}: {key.decode(errors='replace')}: {error}") from error


def _hold_pair(root: Path, part: str) -> None:
    """Check that a part has as many images as labels: readers, Caffe's too, go by their order.

    Raises:
        UserError: it has not, or a database is damaged.
    """
    counts = {}
    for kind in ("image", "label"):
        with reading(root / f"{part}_{kind}_lmdb") as transaction:
            counts[kind] = transaction.stat()["entries"]
    if counts["image"] != counts["label"]:
        raise UserError(
            f"{root}: {part}_image_lmdb has {counts['image']:,} records, {part}_label_lmdb "
            f"{counts['label']:,}: make both again with python -m data_prep lmdb"
        )


def keys(root: Path, part: str = "test") -> list[str]:
    """The keys of a part's records: `%08d_<path>`."""
    _hold_pair(root, part)
    return [key.decode(errors="replace") for key, _ in items(root / f"{part}_label_lmdb")]


def labels(root: Path, part: str = "test") -> dict[str, np.ndarray]:
    """Task -> the labels of a part, in the database's order."""
    _hold_pair(root, part)
    rows = [parse_datum(value).floats for _, value in items(root / f"{part}_label_lmdb")]
    array = np.array(rows, np.int64)
    tasks = Classes.read(DataFolder(root).classes).tasks
    return {task: array[:, i] for i, task in enumerate(tasks)}
