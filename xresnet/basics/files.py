"""Files: written atomically (to a temporary name, synced, renamed), and read with clear errors."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Union

from xresnet.basics.cli import UserError, is_printable

PathLike = Union[str, "os.PathLike[str]"]
Buffer = Union[bytes, bytearray, memoryview]

MOST_TEXT = 1 << 30  # bytes; the project's largest list has some 25 million


def write(path: PathLike, content: str | bytes | Iterable[Buffer]) -> Path:
    """Write `content` to `path` atomically: a reader sees the old file or the new one.

    Large content may be given in pieces, so that it is not copied. Devices and pipes are written
    to directly. Of a symbolic link the target is replaced.

    Raises:
        UserError: the file cannot be written (no permission, disk full).
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
def unnamed(content: str | Iterable[Buffer]) -> Iterator[Path]:
    """A path under which this process and its children can read `content`.

    It leads to an open file without a name on the disk, so that even a kill leaves nothing behind.

    Raises:
        UserError: the disk of the temporary folder is full.
    """
    with tempfile.TemporaryFile() as file:
        try:
            file.writelines([content.encode()] if isinstance(content, str) else content)
            file.flush()
        except OSError as error:
            reason = f"cannot write in {tempfile.gettempdir()}: {error.strerror}"
            raise UserError(reason) from error
        yield Path(f"/proc/{os.getpid()}/fd/{file.fileno()}")


@contextlib.contextmanager
def replacing(path: PathLike, sync: bool = True) -> Iterator[BinaryIO]:
    """A file to write to, which replaces `path` when the block ends without an exception.

    Devices, pipes and the like, such as /dev/stdout, are written to directly.

    Args:
        path: the file to replace or create; its folders are created.
        sync: flush it to the disk before it is renamed. Without, it survives the end of the
            process but not a crash of the machine: for files that can be made again.

    Raises:
        OSError: the file cannot be written; nothing is left behind.
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
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    if sync:
        fsync(path.parent)


def _is_written_through(path: Path) -> bool:
    """Whether `path` is a device, a pipe, or a name of an open file (/dev/stdout, /dev/fd/3)."""
    # /dev/fd leads into /proc; /dev/shm holds regular files.
    parent = os.path.realpath(path.parent)
    if parent == "/dev" or parent.startswith("/proc/"):
        return True
    return path.exists() and not path.is_file() and not path.is_dir()


def write_json(path: PathLike, value: Any) -> Path:
    """Write `value` atomically as indented JSON.

    Letters of any script are written as they are. Characters that cannot be printed, such as
    those of file names that are not UTF-8, are escaped, and are the same when read back.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    return write(path, re.sub(r"[^\n -~]", _json_escaped, text))


def _json_escaped(found: re.Match[str]) -> str:
    return found[0] if is_printable(found[0]) else json.dumps(found[0])[1:-1]


def append_line(path: PathLike, line: str, sync: bool = False) -> int:
    """Append a line to a file, below one that a kill may have cut; returns the file's new size.

    Args:
        sync: sync the file to the disk.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        with open(path, "ab+") as file:
            if end := file.seek(0, os.SEEK_END):
                file.seek(end - 1)
                if file.read(1) != b"\n":
                    file.write(b"\n")
            file.write(line.encode() + b"\n")
            file.flush()
            if sync:
                os.fsync(file.fileno())
            return file.tell()
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def fsync(path: PathLike) -> None:
    """Sync a file, or a folder's entries, to the disk, so that it survives a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_text(path: PathLike) -> str:
    """The text of a UTF-8 file, with line ends as `\\n`.

    Raises:
        UserError: it does not exist, cannot be read, is not UTF-8, or exceeds 1 GiB.
    """
    data = bytearray()
    try:
        with open(path, "rb") as file:
            while piece := file.read(1 << 20):
                data += piece
                if len(data) > MOST_TEXT:
                    raise UserError(
                        f"{path}: over {MOST_TEXT >> 20:,} MiB, too large for a text file"
                    )
        text = data.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start})") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read {path}: {reason}") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: PathLike) -> Any:
    """The value in a JSON file; None if the file does not exist or is incomplete."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def inside(path: PathLike, root: PathLike) -> bool:
    """Whether `path`, with its links resolved, is `root` or lies in it; `root` has no links."""
    real = os.path.realpath(path)
    return real == root or real.startswith(os.path.join(root, ""))


def fingerprint(*texts: str) -> str:
    """The SHA-256 in hex of some texts, by which what they describe is known again."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def sha256(path: PathLike) -> str:
    """The SHA-256 of a file, in hex."""
    return digest(path, "sha256")


def matches(path: PathLike, size: int, digest: str) -> bool:
    """Whether `path` is a file of `size` bytes with this SHA-256, in hex."""
    return os.path.isfile(path) and os.path.getsize(path) == size and sha256(path) == digest


def digest(path: PathLike, algorithm: str) -> str:
    """The digest of a file by one of hashlib's algorithms, in hex."""
    found = hashlib.new(algorithm)
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            found.update(piece)
    return found.hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
