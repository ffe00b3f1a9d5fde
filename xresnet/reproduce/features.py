"""A cached trunk: the maps of a block, computed once over a data folder.

If the shared trunk does not learn, its output for an image never changes. `features` writes
these maps, as records of floats, into a data folder like any other. netgen makes the net that
begins there (`--from-block`, which `Data.choices` sets), so that `train`, `grid` and `eval` take
the folder as it is, and only the blocks after the trunk are computed and learned.

BatchNorms of the trunk use their running statistics, as in the TEST phase.

**Flips.** The maps of a mirrored image are not the mirrored maps, as strides and paddings
begin on one side. Therefore the training list has each image twice, as it is and mirrored
(with a folder `mirrored` in its path): the first half of the list has each image one way,
chosen by a hash of its path, the second half the other way. An epoch is then two passes over
the images, and each is seen mirrored as often as not.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import zlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.folder import PARTS, DataFolder
from data_prep.lists import Entry, read_part, write_list
from data_prep.lmdb_writer import CRCS, JOB, KINDS, Writer, made_from
from data_prep.records import key
from netgen import Network
from netgen.blocks import cached_maps
from netgen.measure import measure
from netgen.weights import plan, source
from netgen.weights.source import Source
from xresnet.basics import bars
from xresnet.basics.cli import UserError
from xresnet.basics.files import fingerprint, sha256, unnamed, write, write_json
from xresnet.caffeproto import caffemodel, databases, text
from xresnet.caffeproto.datum import label_datum, maps_datum
from xresnet.reproduce.data import Data
from xresnet.reproduce.engine import CAFFE, Engine
from xresnet.reproduce.forward import Transform
from xresnet.reproduce.net import weights_of
from xresnet.reproduce.records import keys, records
from xresnet.reproduce.start import Start, is_imagenet

MIRRORED = "mirrored"  # the folder in a mirrored image's path
CHUNK = 64 << 20  # bytes of maps computed, and written, at a time


@dataclass(frozen=True)
class Image:
    """A record to write: its source record's place, its path, and whether it is mirrored."""

    at: int
    path: str
    mirrored: bool


def features(
    data: Data,
    out: Path,
    block: str,
    weights: Path,
    choices: Mapping[str, Any] | None = None,
    flips: bool = True,
    engine: Engine = CAFFE,
) -> dict[str, Any]:
    """Make `out` a data folder of the maps of `block`.

    A call that was stopped is resumed by the next.

    Args:
        block: such as res4f; the maps are its output, after the ReLU.
        weights: what `python -m netgen.weights init --from` takes, a run's folder, or `imagenet`.
        choices: netgen's options of the trunk, such as {"width": 16}.
        flips: write each training image mirrored as well.

    Returns:
        The manifest's entry `features`.

    Raises:
        UserError: there is no such block, the weights lack a layer of the trunk, `out` holds
            other data, or the engine fails.
    """
    if data.features:
        raise UserError(f"{data.folder.root} holds cached maps: start from a folder of images")
    folder = DataFolder(Path(out).resolve())
    if folder.root == data.folder.root:
        raise UserError(f"{out}: give the maps a folder of their own")
    # Any net: up to where the tasks part all are the same.
    task = "anp" if data.names.by_anp else data.names.tasks[0]
    net = Network("resnet50", {"task": task}).choose(**(choices or {}))
    if is_imagenet(weights):
        loaded = Start().source(data.network(net, "DATA"))
    else:
        weights = weights_of(weights)
        loaded = source.load(str(weights))
    trunk = _Trunk.make(data, block, loaded, net, engine)
    named: dict[str, Any] = {"block": block, "maps": list(trunk.shape)}
    named |= {"flips": flips, "of": data.key}
    parts = [json.dumps(named), text.dump(trunk.net), str(trunk.transform.mean.tolist())]
    named["key"] = fingerprint(*parts, trunk.weights_key)
    with folder.lock():
        there = folder.read_manifest()
        if there and there.get("features", {}).get("key") != named["key"]:
            raise UserError(f"{out} holds other data: choose another folder, or remove it")
        if "lmdb" in there:
            return there["features"]
        named |= {"net": net.words(), "weights": weights.name}
        named |= {"computed_by": engine.name, "version": engine.version()}
        write_json(folder.manifest, {"format": 1, "features": named})
        made = data.folder.read_manifest()
        made.pop("order", None)
        data.names.write(folder.classes)
        made["lmdb"] = {"images": str(data.folder.root), "size": data.size, "encoded": False}
        with trunk.on_disk():
            for part in PARTS:
                turned = flips and part == "train"
                report = _write_part(data, folder, part, trunk, turned, named["key"])
                made["lmdb"][part] = report
                facts = {"images": report["written"], "sha256": sha256(folder.list(part))}
                made["split"]["lists"][part] = facts
        write_json(folder.manifest, {**made, "features": named})
    return named


@dataclass
class _Trunk:
    """The net from an image to the block's maps, its weights, and the image's transform."""

    block: str
    net: Any  # NetParameter
    layers: list[caffemodel.Layer]
    weights_key: str
    transform: Transform
    shape: tuple[int, int, int]
    engine: Engine
    batch: int
    files: tuple[Path, Path] = field(init=False)  # of net and weights, while they are on the disk

    @classmethod
    def make(cls, data: Data, block: str, loaded: Source, net: Network, engine: Engine) -> _Trunk:
        network = data.network(net)
        options = network.options
        shape = cached_maps(replace(options, from_block=block))
        assert shape is not None  # it is of a net that begins with no block
        proto = network.proto(deploy=True)
        last = max(i for i, layer in enumerate(proto.layer) if block in layer.top)
        del proto.layer[last + 1 :]
        _, found, report = plan.initial(network.entry, options, {None: loaded})
        wanted = [layer.name for layer in measure(proto, {}) if layer.blobs]
        fresh = [name for name in wanted if name in report.fresh]
        if fresh:
            raise UserError(f"{loaded.path} has no {fresh[0]!r}: not the weights of this trunk")
        layers = [layer for layer in found if layer.name in wanted]
        digest = hashlib.sha256()
        for layer in layers:
            for blob in layer.blobs:
                digest.update(np.ascontiguousarray(blob, np.float32).tobytes())
        with unnamed(network.prototxt()) as whole:
            transform = Transform.of(whole)
        return cls(
            *(block, proto, layers, digest.hexdigest(), transform, shape, engine),
            batch=options.batch,
        )

    @contextlib.contextmanager
    def on_disk(self) -> Iterator[None]:
        """Write net and weights to where the engine reads them."""
        learned = caffemodel.dumps(self.net.name, self.layers)
        with unnamed(text.dump(self.net)) as net, unnamed(learned) as weights:
            self.files = net, weights
            yield

    def __call__(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Images, 3 x H x W uint8, to their maps, N x C x H x W float32."""
        batches = (
            np.stack([self.transform(image) for image in images[i : i + self.batch]])
            for i in range(0, len(images), self.batch)
        )
        rows = self.engine.scores(*self.files, batches, [self.block])
        if not np.isfinite(rows).all():
            raise UserError(f"maps of {self.block} that are no numbers: not this trunk's weights?")
        return rows.reshape(-1, *self.shape)


def _write_part(
    data: Data, folder: DataFolder, part: str, trunk: _Trunk, flips: bool, made: str
) -> dict[str, Any]:
    """Write both databases and the list of a part; returns the manifest's entry of the part."""
    first, second = (made_from(folder.lmdb(part, kind)) for kind in KINDS)
    if first and second and first["job"].get("made") == second["job"].get("made") == made:
        return first["report"]
    root = data.folder.root
    paths = [name.partition("_")[2] for name in keys(root, part)]
    numbers = dict(read_part(data.folder, part, data.names))
    truth = [numbers[path] for path in paths]
    images = _listed(paths, flips)
    write_list(folder.list(part), [Entry(image.path, truth[image.at]) for image in images])
    aside = folder.partial / part
    aside.mkdir(parents=True, exist_ok=True)
    crcs = _there(aside / CRCS)
    places = {kind: aside / kind for kind in KINDS}
    with Writer(_made(places["image"])) as maps_, Writer(_made(places["label"])) as labels_:
        # A stop may come between two commits: go on behind what all three hold.
        begin = min(writer.count for writer in (maps_, labels_))
        begin = min(begin, len(crcs))
        for writer in (maps_, labels_):
            writer.cut(begin)
        del crcs[begin:]
        bar: Any = bars.bar(
            what=f"{trunk.block} {part}", total=len(images), initial=begin, unit="img"
        )
        for start, pixels in _chunks(root, part, images, begin, trunk.shape):
            found = trunk(pixels)
            for line, (image, values) in enumerate(zip(images[start:], found), start):
                label = truth[image.at]
                record = maps_datum(values, label)
                name = key(line, image.path)
                maps_.put(name, record)
                labels_.put(name, label_datum(data.names.combinations[label]))
                crcs.append(zlib.crc32(record))
            write(aside / CRCS, crcs.tobytes())
            for writer in (maps_, labels_):
                writer.commit()
            bar.update(len(found))
        bar.close()
        for writer in (maps_, labels_):
            writer.commit(last=True)
    histogram = np.bincount(
        [truth[image.at] for image in images], minlength=len(data.names.combinations)
    )
    report = {
        "listed": len(images),
        "written": len(images),
        "dropped": [],
        "damaged": [],
        "histogram": histogram.tolist(),
        "mean_values": [],
        "records": hashlib.sha256(crcs.tobytes()).hexdigest(),
    }
    job = {"list": sha256(folder.list(part)), "maps": list(trunk.shape), "block": trunk.block}
    job["made"] = made
    for place in places.values():
        write_json(place / JOB, {"job": job, "report": report})
    (aside / CRCS).replace(places["image"] / CRCS)
    for kind in KINDS:
        shutil.rmtree(folder.lmdb(part, kind), ignore_errors=True)
        places[kind].rename(folder.lmdb(part, kind))
    shutil.rmtree(aside)
    return report


def _listed(paths: Sequence[str], flips: bool) -> list[Image]:
    """The records of a part in order; with flips each image as it is and mirrored."""
    if not flips:
        return [Image(i, path, False) for i, path in enumerate(paths)]
    first = [hashlib.sha256(path.encode()).digest()[0] % 2 == 1 for path in paths]
    return [
        Image(i, _mirrored(path) if turned else path, turned)
        for half in (False, True)
        for i, path in enumerate(paths)
        for turned in [first[i] != half]
    ]


def _mirrored(path: str) -> str:
    folder, _, rest = path.partition("/")  # of VSO's the ANP's, which must stay the first
    return f"{folder}/{MIRRORED}/{rest}" if rest else f"{MIRRORED}/{folder}"


def _chunks(
    root: Path, part: str, images: Sequence[Image], begin: int, shape: tuple[int, ...]
) -> Iterator[tuple[int, list[np.ndarray]]]:
    """(place of the first, pixels) of chunks of the images from `begin` on."""
    most = max(1, CHUNK // (4 * int(np.prod(shape))))
    chunk: list[np.ndarray] = []
    at = begin
    while at + len(chunk) < len(images):
        # The images' sources stand in the database's order, once or, with flips, twice.
        start = images[at + len(chunk)].at
        for place, pixels in enumerate(records(root, part)):
            if place < start:
                continue
            image = images[at + len(chunk)]
            chunk.append(pixels[:, :, ::-1] if image.mirrored else pixels)
            if len(chunk) == most:
                yield at, chunk
                at, chunk = at + len(chunk), []
    if chunk:
        yield at, chunk


def _there(path: Path) -> array[int]:
    numbers = array("I")
    held = path.read_bytes() if path.exists() else b""
    numbers.frombytes(held[: len(held) // 4 * 4])
    return numbers


def _made(place: Path) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    try:
        databases.release(databases.acquire(place))
    except UserError:  # none there, or a kill left it unreadable
        shutil.rmtree(place)
        place.mkdir()
    return place
