"""Reorder the training images of a data folder.

Caffe's Data layer reads a database from the first record to the last in each epoch, so a study
whose seeds vary the order of images needs a database per seed. The records stay the same; only
their keys, which contain the line number of the list, change.
"""

from __future__ import annotations

import hashlib
import shutil
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.classes import Classes
from data_prep.folder import DataFolder
from data_prep.lists import read_part, write_list
from data_prep.lmdb_writer import KINDS, MEAN, Writer, describe, made_from, read_crcs
from data_prep.records import key
from data_prep.split import rank
from xresnet.basics.cli import UserError
from xresnet.basics.files import PathLike, sha256, write, write_json
from xresnet.basics.numbers import SEED
from xresnet.caffeproto.databases import reading


@dataclass(frozen=True)
class Reordered:
    """A reordered data folder; `facts`: the manifest's entry `order` with the seed, the original
    folder, and the hashes of its training list and records."""

    folder: DataFolder
    facts: dict[str, Any]


def reorder(data: PathLike, out: PathLike, seed: int) -> Reordered:
    """Write the data folder `data` to `out` with its training images in another order.

    A path's place depends only on a hash of the seed and the path. The test databases are links to
    those of `data`. A complete `out` of the same data and seed is kept.

    Raises:
        UserError: `data` has no finished databases, or `out` holds other data.
        OSError: `out` cannot be written, as on a full disk; the same call then starts again.
    """
    SEED.check(seed, "seed")
    source, target = DataFolder(data), DataFolder(out)
    made = source.read_manifest()
    if "lmdb" not in made:
        raise UserError(
            f"{source.root} has no finished LMDBs: run `python -m data_prep lmdb` first"
        )
    if source.root.resolve() == target.root.resolve():
        raise UserError(f"{target.root}: write the reordered data to another folder")
    order = {
        "seed": seed,
        "of": str(source.root.resolve()),
        "list": sha256(source.list("train")),
        "records": made["lmdb"]["train"]["records"],
    }
    with target.lock():
        there = target.read_manifest()
        if there and there.get("order") != order:
            raise UserError(f"{target.root} holds other data: choose another folder")
        if "lmdb" in there:
            return Reordered(target, order)
        # The order first: it marks a folder that a kill left incomplete as one to write again.
        write_json(target.manifest, {"format": 1, "order": order})
        classes = Classes.read(source.classes)
        classes.write(target.classes)
        for path, same in ((target.list("test"), source.list("test")), (target.mean, source.mean)):
            if same.exists():  # cached maps have no mean
                write(path, same.read_bytes())
        for kind in KINDS:
            link = target.lmdb("test", kind)
            link.unlink(missing_ok=True)
            link.symlink_to(source.lmdb("test", kind).resolve())
        report = _reorder_train(source, target, classes, seed)
        made["split"]["lists"]["train"]["sha256"] = sha256(target.list("train"))
        made["lmdb"]["train"] = report
        write_json(target.manifest, {**made, "order": order})
    return Reordered(target, order)


def _reorder_train(
    source: DataFolder, target: DataFolder, classes: Classes, seed: int
) -> dict[str, Any]:
    entries = read_part(source, "train", classes)
    turned = sorted(range(len(entries)), key=lambda i: rank(seed, "order", entries[i].path))
    write_list(target.list("train"), [entries[i] for i in turned])
    old_crcs = read_crcs(source.lmdb("train", "image"))
    crcs = array("I")
    for kind in KINDS:
        old, new = source.lmdb("train", kind), target.lmdb("train", kind)
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        places = _places(old)
        with reading(old) as records, Writer(new) as writer:
            for line, i in enumerate(turned):
                name = key(i, entries[i].path)
                if name not in places:  # an image that could not be read
                    continue
                writer.put(key(line, entries[i].path), records.get(name))
                if kind == "image":
                    crcs.append(old_crcs[places[name]])
                if writer.full:
                    writer.commit()
            writer.commit(last=True)
    image = source.lmdb("train", "image")
    described = made_from(image)
    assert described is not None  # it was read above
    report = {**described["report"], "records": hashlib.sha256(crcs.tobytes()).hexdigest()}
    job = {**described["job"], "list": sha256(target.list("train")), "order": seed}
    mean = (image / MEAN).read_bytes() if (image / MEAN).exists() else None
    describe({kind: target.lmdb("train", kind) for kind in KINDS}, job, report, crcs, mean)
    return report


def _places(database: Path) -> dict[bytes, int]:
    """Key -> index of each record."""
    with reading(database) as records, records.cursor() as cursor:
        return {bytes(name): i for i, name in enumerate(cursor.iternext(values=False))}
