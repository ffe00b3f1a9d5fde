"""Records in Caffe's order, read ahead by threads, as they lie in the file until the device.

A `Feed` is one Data, ImageData or HDF5Data layer: `next()` gives its tops as
tensors, transformed (mean, crop, flip, scale) on the device. Images travel as
uint8. The order is Caffe's: from record 0, round and round; of several ranks
each takes every world-th record. `cursor` counts the records consumed, so
that a resumed run can go on where the snapshot was made.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from math import prod
from time import perf_counter
from typing import Any, Callable

import cv2
import lmdb
import numpy as np
import torch
from torch import Tensor

from data_prep.decode import Unreadable, decode
from xresnet.basics.cli import UserError
from xresnet.basics.files import read_text
from xresnet.basics.hdf5 import Reader
from xresnet.basics.numbers import NATURAL
from xresnet.caffeproto import TRAIN, caffemodel, databases
from xresnet.caffeproto.datum import Datum, parse_datum

Record = tuple[np.ndarray, int]  # C x H x W, uint8 or float32, and its label
Batch = tuple[np.ndarray, ...]  # a layer's tops
SHORT, MANY = 256, 10_000  # bytes of a record, and how many such, that are worth keeping
FAR = 64  # records that a cursor walks rather than looks up
DECODERS = 2  # threads that decode; cv2 leaves the interpreter while it works


def shapes(param: Any) -> list[tuple[int, ...]]:
    """The shapes of the layer's tops, from its first record.

    Raises:
        UserError: no such database or file.
    """
    source = open_source(param)
    if isinstance(source, _Rows):
        first = source.read(0)
        return [(source.batch, *np.shape(first[top])) for top in param.top]
    array, _ = source.read(0)
    crop = param.transform_param.crop_size
    size = (array.shape[0], crop, crop) if crop else array.shape
    return [(source.batch, *size), (source.batch,)][: len(param.top)]


def open_source(param: Any) -> _Database | _Images | _Rows:
    """What a layer reads: `len(source)` records by number."""
    kinds: dict[str, Callable[[Any], _Database | _Images | _Rows]]
    kinds = {"Data": _Database, "ImageData": _Images, "HDF5Data": _Rows}
    source = kinds[param.type](param)
    if not source.batch:
        raise UserError(f"layer {param.name!r}: no batch_size")
    if not len(source):
        raise UserError(f"layer {param.name!r}: {source.path} holds no records")
    return source


class Feed:
    """The batches of one layer.

    Args:
        device: where the tops shall be.
        rank, world: this process among those that share the records.
        shuffle: another order in each epoch, drawn from `seed`; Caffe's Data layer has none.
    """

    def __init__(
        self,
        param: Any,
        device: torch.device | str = "cpu",
        rank: int = 0,
        world: int = 1,
        shuffle: bool = False,
        seed: int = 1,
    ) -> None:
        self.param = param
        self.source = open_source(param)
        self.device = torch.device(device)
        self.rank, self.world = rank, world
        self.shuffle = shuffle or getattr(self.source, "shuffle", False)
        self.seed = seed
        self.train = param.phase == TRAIN
        self.cursor = 0  # records consumed, of this rank's share
        self.random = torch.Generator().manual_seed(seed * 1009 + rank)
        self.transform = _Transform(param)
        self.waited = 0.0  # seconds that `next` waited for records, in all
        depth = param.data_param.prefetch if param.type == "Data" else 4
        self._depth = max(1, depth)
        self._queue: queue.Queue[Batch | BaseException] | None = None
        self._stop = threading.Event()

    def next(self) -> dict[str, Tensor]:
        """The tops of the next batch by name, on the device."""
        ahead = self._queue or self._start()
        start = perf_counter()
        made = ahead.get()
        self.waited += perf_counter() - start
        if isinstance(made, BaseException):
            raise made
        self.cursor += self.source.batch
        if isinstance(self.source, _Rows):
            tensors = [torch.from_numpy(a).to(self.device, non_blocking=True) for a in made]
            return dict(zip(self.param.top, tensors))
        pixels, labels = made
        images = self.transform(self._moved(pixels), self.random if self.train else None)
        tops = [images, self._moved(labels)]
        return dict(zip(self.param.top, tops))

    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on from here."""
        return {"cursor": self.cursor, "random": self.random.get_state(), "seed": self.seed}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state`."""
        self.close()
        self.cursor, self.seed = (NATURAL.check(state[k], k) for k in ("cursor", "seed"))
        self.random.set_state(state["random"])

    def close(self) -> None:
        """Stop reading ahead."""
        if self._queue is not None:
            self._stop.set()
            while self._thread.is_alive():
                while not self._queue.empty():
                    self._queue.get_nowait()
                self._thread.join(0.01)
            self._queue = None

    # ---- reading ahead ------------------------------------------------------

    def _moved(self, array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(array)
        if self.device.type == "cuda":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)

    def _start(self) -> queue.Queue[Batch | BaseException]:
        self._stop = threading.Event()
        self._queue = queue.Queue(self._depth)
        held = (self._stop, self._queue)
        self._thread = threading.Thread(target=self._read_ahead, args=held, daemon=True)
        self._thread.start()
        return self._queue

    def _read_ahead(self, stop: threading.Event, out: queue.Queue[Batch | BaseException]) -> None:
        with ThreadPoolExecutor(DECODERS) as pool:
            numbers = self._numbers()
            while not stop.is_set():
                try:
                    wanted = [next(numbers) for _ in range(self.source.batch)]
                    made: Batch | BaseException = self.source.batch_of(wanted, pool)
                except BaseException as error:  # the consumer's thread shall raise it
                    made = error
                while not stop.is_set():
                    try:
                        out.put(made, timeout=0.1)
                        break
                    except queue.Full:
                        continue
                if isinstance(made, BaseException):
                    return

    def _numbers(self) -> Iterator[int]:
        """The numbers of the records, from the cursor on, for ever."""
        total = len(self.source)
        at = self.cursor * self.world + self.rank + self.source.skip
        orders: dict[int, np.ndarray] = {}
        while True:
            epoch, place = divmod(at, total)
            if self.shuffle:
                if epoch not in orders:
                    rng = np.random.default_rng([self.seed, epoch])
                    orders = {epoch: rng.permutation(total)}
                place = int(orders[epoch][place])
            yield place
            at += self.world


class _Transform:
    """transform_param on the device: minus mean, crop, flip, times scale."""

    def __init__(self, param: Any) -> None:
        self.param = p = param.transform_param
        self.name = param.name
        if p.mean_file and p.mean_value:
            raise UserError(f"layer {param.name!r}: mean_file or mean_value, not both")
        self.mean: Tensor | None = None
        if p.mean_file:
            self.mean = torch.from_numpy(caffemodel.load_mean(p.mean_file).copy())
        elif p.mean_value:
            self.mean = torch.tensor(list(p.mean_value)).view(-1, 1, 1)

    def __call__(self, x: Tensor, random: torch.Generator | None) -> Tensor:
        """N x C x H x W of bytes or floats to floats; chance, where there is, from `random`."""
        p = self.param
        x = x.float()
        if self.mean is not None:
            self.mean = self.mean.to(x.device)
            if self.mean.shape[0] not in (1, x.shape[1]):
                raise UserError(
                    f"layer {self.name!r}: {self.mean.shape[0]} means, {x.shape[1]} channels"
                )
            x = x - self.mean
        if p.crop_size:
            x = self._cropped(x, p.crop_size, random)
        if p.mirror:
            # Caffe flips in TEST too where the file says so; without `random`, as in TRAIN.
            flip = torch.rand(len(x), generator=random) < 0.5
            x = torch.where(flip.to(x.device).view(-1, 1, 1, 1), x.flip(3), x)
        return x * p.scale if p.scale != 1 else x

    def _cropped(self, x: Tensor, size: int, random: torch.Generator | None) -> Tensor:
        height, width = x.shape[2] - size, x.shape[3] - size
        if height < 0 or width < 0:
            raise UserError(f"layer {self.name!r}: crop_size {size} of {tuple(x.shape[2:])}")
        if random is None:
            top, left = height // 2, width // 2
            return x[:, :, top : top + size, left : left + size]
        tops = torch.randint(height + 1, (len(x),), generator=random).tolist()
        lefts = torch.randint(width + 1, (len(x),), generator=random).tolist()
        pieces = [im[:, t : t + size, c : c + size] for im, t, c in zip(x, tops, lefts)]
        return torch.stack(pieces)


def _lines(param: Any, source: str) -> list[str]:
    """The lines of a layer's list that are not blank."""
    try:
        lines = read_text(source).splitlines()
    except UserError as error:
        raise UserError(f"layer {param.name!r}: {error}") from error
    return [line.strip() for line in lines if line.strip()]


class _Stack:
    """What sources of images share: a batch is stacked records and their labels."""

    path: str
    decodes: bool  # so that threads are worth it

    def read(self, number: int) -> Record:
        """Record `number`."""
        raise NotImplementedError

    def batch_of(self, numbers: list[int], pool: ThreadPoolExecutor) -> Batch:
        found = map(self.read, numbers)
        records = iter(list(pool.map(self.read, numbers))) if self.decodes else found
        first, label = next(records)
        images = np.empty((len(numbers), *first.shape), first.dtype)
        labels = np.empty(len(numbers), np.float32)
        images[0], labels[0] = first, label
        for i, (image, label) in enumerate(records, 1):
            if image.shape != first.shape:
                raise UserError(
                    f"{self.path}: record {numbers[i]} is {image.shape}, record {numbers[0]} "
                    f"{first.shape}: a batch needs one size"
                )
            images[i], labels[i] = image, label
        return images, labels


class _Database(_Stack):
    """An LMDB of Datum records, in the order of its keys."""

    def __init__(self, param: Any) -> None:
        p = param.data_param
        self.path, self.batch, self.skip = p.source, p.batch_size, 0
        if p.backend != p.LMDB:
            raise UserError(f"layer {param.name!r}: backend LEVELDB; only LMDB can be read")
        try:
            self.records = databases.acquire(
                self.path
            )  # for good: cursors of any thread read there
        except UserError as error:
            raise UserError(f"layer {param.name!r}: {error}") from error
        with self._damage(), self.records.begin(buffers=True) as look:
            self.count = look.stat()["entries"]
            first = next(iter(look.cursor()), None)
            self._first = bytes(first[0]) if first else b""
            self.decodes, self._head = False, b""
            self._seen: dict[bytes, Record] = {}
            self._tails: dict[bytes, int] = {}
            if first:
                self._learn(bytes(first[1]))
        self._flag = cv2.IMREAD_UNCHANGED
        if p.force_encoded_color or param.transform_param.force_color:
            self._flag = cv2.IMREAD_COLOR
        elif param.transform_param.force_gray:
            self._flag = cv2.IMREAD_GRAYSCALE
        self._local = threading.local()

    def __len__(self) -> int:
        return self.count

    def read(self, number: int) -> Record:
        """Record `number` in the order of keys."""
        with self._damage():
            value = self._value(number)
        if value in self._seen:
            return self._seen[value]
        datum = self._datum(value, number)
        try:
            found = datum.array(self._flag), datum.label
        except ValueError as error:
            raise UserError(f"{self.path}: record {number}: {error}") from error
        if len(value) <= SHORT and len(self._seen) < MANY:  # a row of labels, as many others
            self._seen[value] = found
        return found

    def batch_of(self, numbers: list[int], pool: ThreadPoolExecutor) -> Batch:
        return self._alike(numbers) or super().batch_of(numbers, pool)

    def _alike(self, numbers: list[int]) -> Batch | None:
        """A batch of raw records that differ in pixels and label alone, with no look at each;
        None where they do not."""
        if not self._head:
            return None
        with self._damage():
            values = [self._value(number) for number in numbers]
        start, stop = len(self._head), len(self._head) + prod(self._shape)
        labels = [self._label(value[stop:]) for value in values]
        if None in labels or not all(value.startswith(self._head) for value in values):
            return None
        pixels = bytearray().join([value[start:stop] for value in values])
        images = np.frombuffer(pixels, np.uint8).reshape(len(values), *self._shape)
        return images, np.array(labels, np.float32)

    def _label(self, tail: bytes) -> int | None:
        """The label that stands behind a record's pixels, where nothing else does."""
        if tail in self._tails:
            return self._tails[tail]
        try:
            found = parse_datum(tail)
        except ValueError:
            return None
        plain = tail and found == Datum(label=found.label) and not found.floats.size
        if plain and len(self._tails) < MANY:
            self._tails[tail] = found.label
        return found.label if plain else None

    def _learn(self, record: bytes) -> None:
        """Take the first record's head for that of all, if its pixels come after its shape."""
        datum = self._datum(record, 0)
        self.decodes = datum.encoded
        self._shape = (datum.channels, datum.height, datum.width)
        start = record.find(datum.data) if datum.data else 0
        if start and not self.decodes and len(datum.data) == prod(self._shape):
            # Nothing but the shape and the pixels' length stands before them.
            head = Datum(datum.channels, datum.height, datum.width, datum.data)
            same = parse_datum(record[: start + len(datum.data)]) == head
            self._head = record[:start] if same else b""

    @contextlib.contextmanager
    def _damage(self) -> Iterator[None]:
        try:
            yield
        except lmdb.Error as error:
            raise UserError(f"{self.path}: {error}") from error

    def _datum(self, record: bytes, number: int) -> Datum:
        try:
            return parse_datum(record)
        except ValueError as error:
            raise UserError(f"{self.path}: record {number} is not a Caffe Datum") from error

    def _value(self, number: int) -> bytes:
        """The cursor stands where the last read left it: the next record is one step away."""
        local = self._local
        if not hasattr(local, "cursor"):
            local.cursor = self.records.begin(buffers=True).cursor()
            local.at = -1
        if local.at < 0 or not 0 <= number - local.at <= FAR:
            local.cursor.set_key(self.keys[number] if number else self._first)
            local.at = number
        while local.at < number:
            local.cursor.next()
            local.at += 1
        return bytes(local.cursor.value())

    @cached_property
    def keys(self) -> list[bytes]:
        """All keys in order, for jumps; a pass over the leaves' heads, without the values."""
        with self.records.begin() as look:
            return list(look.cursor().iternext(values=False))


class _Images(_Stack):
    """Image files named in a list: `path label` a line."""

    decodes = True

    def __init__(self, param: Any) -> None:
        p = param.image_data_param
        self.path, self.batch, self.skip = p.source, p.batch_size, 0
        self.shuffle, self.param = p.shuffle, p
        self.files = []
        for line in _lines(param, p.source):
            found = re.fullmatch(r"(.*\S)\s+([+-]?[0-9]+)", line)
            if not found:
                where = f"layer {param.name!r}: {p.source}"
                raise UserError(f"{where}: expected an image and its label, not {line!r}")
            self.files.append((p.root_folder + found[1], int(found[2])))

    def __len__(self) -> int:
        return len(self.files)

    def read(self, number: int) -> Record:
        path, label = self.files[number]
        flag = cv2.IMREAD_COLOR if self.param.is_color else cv2.IMREAD_GRAYSCALE
        try:
            image, _ = decode(path, flag)
        except Unreadable as error:
            raise UserError(f"{self.path}: cannot read image {path}: {error}") from error
        if self.param.new_height and self.param.new_width:
            image = cv2.resize(image, (self.param.new_width, self.param.new_height))
        planes = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
        return np.ascontiguousarray(planes), label


class _Rows:
    """HDF5 files named in a list; each top is a data set of theirs, a row a record."""

    def __init__(self, param: Any) -> None:
        try:
            import h5py
        except ImportError:
            raise UserError("HDF5Data needs h5py: pip install h5py") from None
        p = param.hdf5_data_param
        self.path, self.batch, self.skip, self.shuffle = p.source, p.batch_size, 0, p.shuffle
        self.tops = list(param.top)
        parts: dict[str, list[np.ndarray]] = {top: [] for top in self.tops}
        for name in _lines(param, p.source):
            try:
                with h5py.File(name, "r") as file:
                    reader = Reader(file, os.path.getsize(name), f"layer {param.name!r}: {name}")
                    found = {top: self._read(reader, top) for top in self.tops}
                if len({len(rows) for rows in found.values()}) > 1:
                    raise UserError(f"{reader.where}: its data sets differ in rows")
                for top, rows in found.items():
                    parts[top].append(rows)
            except (OSError, RuntimeError) as error:
                raise UserError(f"layer {param.name!r}: {name}: {error}") from error
        try:
            self.rows = {top: np.concatenate(part or [np.zeros(0)]) for top, part in parts.items()}
        except ValueError as error:
            raise UserError(f"layer {param.name!r}: {p.source}: {error}") from error

    @staticmethod
    def _read(reader: Reader, top: str) -> np.ndarray:
        data = reader.at(top)
        if data is None:
            raise UserError(f"{reader.where} has no data set {top!r}")
        return np.atleast_1d(reader.array(data)).astype(np.float32)

    def __len__(self) -> int:
        return min(len(rows) for rows in self.rows.values())

    def read(self, number: int) -> dict[str, np.ndarray]:
        return {top: rows[number] for top, rows in self.rows.items()}

    def batch_of(self, numbers: list[int], pool: ThreadPoolExecutor) -> Batch:
        return tuple(self.rows[top][numbers] for top in self.tops)
