"""Files that are whole or not there: written aside, synced, renamed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Union

from basics.cli import UserError

PathLike = Union[str, "os.PathLike[str]"]
Buffer = Union[bytes, bytearray, memoryview]


def write(path: PathLike, content: str | bytes | Iterable[Buffer]) -> Path:
    """Write `content` to `path` atomically; a reader sees the old file or the new one.

    Large content may come in pieces, so that it need not be held a second time. A device or
    a pipe is written to as it is, and a link stays a link: what it points to is replaced.

    Raises:
        UserError: the place cannot be written (no such folder, no right, disk full).
    """
    path = Path(path)
    content = content.encode() if isinstance(content, str) else content
    pieces = [content] if isinstance(content, bytes) else content
    try:
        with replacing(path) as file:
            file.writelines(pieces)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot write {path}: {reason}") from error
    return path


@contextlib.contextmanager
def replacing(path: PathLike) -> Iterator[BinaryIO]:
    """A file to write that takes `path`'s place, whole, when the block ends without an error.

    What is no regular file, as /dev/stdout or a pipe, cannot be replaced: it is written to.

    Raises:
        OSError: the place cannot be written; nothing is left there then.
    """
    if _is_written_through(Path(path)):
        with open(path, "wb") as file:
            yield file
        return
    path = Path(os.path.realpath(path))
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync_folder(path.parent)


def _is_written_through(path: Path) -> bool:
    """Whether `path` is a device, a pipe, or a name for an open file (/dev/stdout, /dev/fd/3)."""
    if os.path.realpath(path.parent).startswith(("/dev", "/proc")):
        return True
    return path.exists() and not path.is_file() and not path.is_dir()


def write_json(path: PathLike, value: Any) -> Path:
    """`write` of `value` as indented JSON with a final newline."""
    return write(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def sync_folder(folder: PathLike) -> None:
    """fsync a folder, so that a rename in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_text(path: PathLike) -> str:
    """The file's text.

    Raises:
        UserError: it is not there, not readable, or not UTF-8.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def read_json(path: PathLike) -> Any:
    """The file's JSON; None where there is none, or a half of one from elsewhere."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def sha256(path: PathLike) -> str:
    """The file's SHA-256 in hex, read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
