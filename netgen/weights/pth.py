"""Read the state dict in PyTorch's `.pth`, without PyTorch and without running code.

A .pth is a pickle, and a pickle is a program. Here it may call three functions only, all defined
below, so that it results in names and numbers, or an error. Two containers are read: zip files
(data.pkl and a file per storage) and the format before PyTorch 1.6 (pickles and storages in one
stream), which torchvision's oldest weights have.
"""

from __future__ import annotations

import collections
import io
import pickle
import pickletools
import struct
import zipfile
from dataclasses import dataclass
from math import prod
from typing import Any, Callable

import numpy as np

from xresnet.basics.cli import UserError

# dtypes by the class of a storage. NumPy has no bfloat16, which is the upper half of a float32.
STORAGES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "BFloat16Storage": "<u2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of a stream


@dataclass(frozen=True)
class Storage:
    """A storage in a pickle: the class, the name of the file, and the number of elements."""

    kind: str
    key: str
    count: int


@dataclass(frozen=True)
class Tensor:
    """A tensor in a pickle: a strided view of a storage."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def of(self, raw: bytes) -> np.ndarray:
        """The tensor as a copy of bytes of its storage; floats as float32."""
        values = np.frombuffer(raw, STORAGES[self.storage.kind])
        last = self.offset + sum((n - 1) * s for n, s in zip(self.size, self.stride))
        valid = len(self.size) == len(self.stride) and min(self.stride, default=0) >= 0
        if not valid or self.offset < 0 or min(self.size, default=1) < 0:
            raise ValueError(f"a tensor of size {self.size} and stride {self.stride}")
        if prod(self.size) and last >= values.size:
            raise ValueError(f"a tensor of size {self.size} in {values.size} numbers")
        # A stride of 0 would make a terabyte of one number; a state dict has no such tensors.
        if prod(self.size) > values.size:
            raise ValueError(f"a tensor of size {self.size} repeats its {values.size} numbers")
        if not prod(self.size):
            return np.zeros(self.size, np.float32)
        strides = [s * values.itemsize for s in self.stride]
        view = np.lib.stride_tricks.as_strided(values[self.offset :], self.size, strides)
        if self.storage.kind == "BFloat16Storage":
            return (view.astype(np.uint32) << 16).view(np.float32)
        return view.astype(np.float32 if values.dtype.kind == "f" else values.dtype)


def load(data: bytes, where: str) -> dict[str, np.ndarray]:
    """The tensors of a state dict by name; `where` names the file in errors.

    The state dict may be an entry `state_dict` or `model` of a checkpoint. DataParallel's prefix
    `module.` is removed from the names.

    Raises:
        UserError: the file is truncated or damaged, or has no state dict.
    """
    try:
        content, raw = _zip(data) if data.startswith(b"PK") else _stream(data)
        tensors = {name: value.of(raw(value.storage)) for name, value in _state(content).items()}
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    except Exception as error:  # a damaged pickle can raise anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{where} is cut short, damaged or not a PyTorch state dict: {reason}"
        ) from None
    if not tensors:
        raise UserError(f"{where} contains no tensors: save model.state_dict()")
    return {name[7:] if name.startswith("module.") else name: t for name, t in tensors.items()}


def _state(content: Any) -> dict[str, Tensor]:
    for wrapper in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict):
        raise UserError("contains no state dict: save model.state_dict()")
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


Raw = Callable[[Storage], bytes]


def _zip(data: bytes) -> tuple[Any, Raw]:
    archive = zipfile.ZipFile(io.BytesIO(data))
    names = set(archive.namelist())
    if any(info.file_size > len(data) for info in archive.infolist()):  # PyTorch only stores
        raise ValueError("a compressed file that is larger than its archive")
    pickles = [name for name in names if name.endswith("/data.pkl")]
    if not pickles:
        raise UserError("is a zip file, but not one of PyTorch's: it has no data.pkl")
    root = pickles[0][: -len("data.pkl")]
    if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
        raise UserError("was written on a big-endian machine, which we do not read")
    content = _unpickled(io.BytesIO(archive.read(pickles[0])))
    return content, lambda storage: archive.read(f"{root}data/{storage.key}")


def _stream(data: bytes) -> tuple[Any, Raw]:
    stream = io.BytesIO(data)
    if _unpickled(stream) != MAGIC:
        raise UserError("is a pickle, but not one of PyTorch's")
    _unpickled(stream)  # protocol version
    if not _unpickled(stream).get("little_endian", True):
        raise UserError("was written on a big-endian machine, which we do not read")
    storages: dict[str, Storage] = {}
    content = _unpickled(stream, storages)
    found = {}
    for key in _unpickled(stream):
        storage = storages[key]
        (count,) = struct.unpack("<q", stream.read(8))
        raw = stream.read(storage.count * np.dtype(STORAGES[storage.kind]).itemsize)
        if count != storage.count or len(raw) % np.dtype(STORAGES[storage.kind]).itemsize:
            raise ValueError(f"a storage of {count} numbers where {storage.count} belong")
        found[key] = raw
    return content, lambda storage: found[storage.key]


PROTOCOL = 2  # PyTorch's
MOST_MEMORIES = 1 << 20


def _unpickled(stream: io.BytesIO, storages: dict[str, Storage] | None = None) -> Any:
    """Load the next pickle of a stream; its storages are added to `storages`.

    Its opcodes are checked first, since a damaged index would make pickle allocate gigabytes.
    """
    start = stream.tell()
    for code, argument, _ in pickletools.genops(stream):
        if code.proto > PROTOCOL:
            raise ValueError(f"an opcode of pickle protocol {code.proto}")
        if code.name in ("PUT", "LONG_BINPUT") and (argument or 0) > MOST_MEMORIES:
            raise ValueError(f"the memory {argument:,} in a pickle")
    stream.seek(start)
    return _Unpickler(stream, {} if storages is None else storages).load()


class _Unpickler(pickle.Unpickler):
    """An Unpickler that allows the three functions of a state dict, and the names of storages."""

    def __init__(self, stream: io.BytesIO, storages: dict[str, Storage]) -> None:
        super().__init__(stream, encoding="utf-8")
        self.storages = storages

    def find_class(self, module: str, name: str) -> Any:
        known = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
            ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
        }
        if (module, name) in known:
            return known[module, name]
        if module == "torch" and name in STORAGES:
            return name
        raise UserError(
            f"wants to call {module}.{name}: only state dicts are read, "
            "saved as torch.save(model.state_dict(), FILE)"
        )

    def persistent_load(self, pid: Any) -> Storage:
        what, kind, key, _, count, *_ = pid
        if what != "storage" or kind not in STORAGES or not isinstance(count, int) or count < 0:
            raise ValueError(f"a persistent object that is no storage: {what!r}")
        return self.storages.setdefault(str(key), Storage(kind, str(key), count))


def _rebuild_tensor(storage: Storage, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    if not isinstance(storage, Storage):
        raise ValueError("a tensor without a storage")
    return Tensor(storage, int(offset), tuple(map(int, size)), tuple(map(int, stride)))


def _rebuild_parameter(data: Any, *_: Any) -> Any:
    return data
