"""Unpack image archives completely, without writing outside the folder.

Python's tarfile takes a damaged header for the end of the archive, stops before gzip's checksum,
and reads names of any length into memory. Compressed archives are therefore opened here and read
to the last byte, and tar's headers are checked by `_Header`.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import os
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from data_prep.decode import MOST_BYTES
from data_prep.folder import LOCK, DataFolder
from xresnet.basics import bars
from xresnet.basics.cli import UserError
from xresnet.basics.files import PathLike, inside, replacing

MOST_GROWTH = 100  # times; images hardly compress, so more is made to fill disks
FREE_GROWTH = 1 << 30  # bytes that any archive may grow to
_MOST_NAME = 1 << 20  # bytes of a member's name or attributes
_PIECE = 1 << 20  # bytes read at a time

_OPENERS = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\0", lzma.open))
_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    NotImplementedError,  # flags in a zip that ask for what Python cannot do
    RuntimeError,
    ValueError,  # numbers in tar's extended headers
)


class _Member(NamedTuple):
    """A file in an archive; `wrong`: why it is left out, "" if it is not."""

    name: str
    size: int
    wrong: str
    open: Callable[[], IO[bytes]]


@dataclass(frozen=True)
class Unpacked:
    """The result of `unpack_all`. `facts`: the number of files, and `ignored` (name, reason)."""

    folder: Path
    facts: dict[str, Any]


def unpack_all(archives: Sequence[PathLike], out: PathLike) -> Unpacked:
    """`unpack` each archive into the same folder."""
    facts: dict[str, Any] = {"files": 0, "ignored": []}
    for archive in archives:
        done, ignored = unpack(archive, out)
        facts = {"files": facts["files"] + done, "ignored": facts["ignored"] + ignored}
    return Unpacked(Path(out), facts)


def unpack(archive: PathLike, out: PathLike) -> tuple[int, list[tuple[str, str]]]:
    """Unpack a tar (compressed or not) or zip; existing files with the same bytes are kept.

    An uncompressed tar has checksums of its headers only: a changed bit in a file is not found.

    Returns:
        the number of unpacked files, and (name, reason) of those left out: links, devices, names
        that lead out of `out`, files too large for images.

    Raises:
        UserError: the file is not an archive, damaged, encrypted or grows too large, another
            `unpack` is running there, or `out` cannot be written.
    """
    archive, out, done, ignored = Path(archive), Path(out), 0, []
    if not archive.is_file():
        raise UserError(f"{archive}: no such file")
    with DataFolder(out).lock():
        try:
            with _Source(archive) as source:
                for member in bars.bar(_members(archive, source, out), "unpack", unit="file"):
                    wrong = member.wrong or _misplaced(member.name) or _too_large(member.size)
                    if wrong:
                        ignored.append((member.name, wrong))
                        continue
                    _write(out / member.name, member, os.path.realpath(out))
                    done += 1
        except _DAMAGE as error:
            raise UserError(
                f"{archive}: damaged, or not to be read, after {done:,} files ({error}); unpack a "
                "whole copy into the same folder: what differs there is written anew"
            ) from error
        except OSError as error:
            raise UserError(f"cannot unpack {archive}: {error.strerror or error}") from error
    if not done and not ignored:
        raise UserError(f"{archive}: it contains no file")
    return done, ignored


class _Damaged(tarfile.ReadError):
    """Compressed data does not match its checksum, or ends early."""


class _Source:
    """An archive's decompressed bytes; `read` tells damage from an error of the disk."""

    def __init__(self, path: Path) -> None:
        self.size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(262)
        opener = next((opener for magic, opener in _OPENERS if start.startswith(magic)), None)
        self.is_zip = start.startswith((b"PK\3\4", b"PK\5\6"))
        self.is_tar = opener is not None or start[257:262] == b"ustar"
        self._file = (opener or open)(path, "rb")

    def read(self, size: int = -1) -> bytes:
        try:
            return self._file.read(size)
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            if getattr(error, "errno", None):
                raise
            raise _Damaged(str(error)) from error

    def __enter__(self) -> _Source:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()


def _members(archive: Path, source: _Source, out: Path) -> Iterator[_Member]:
    is_zip = source.is_zip or (not source.is_tar and zipfile.is_zipfile(archive))
    most = max(FREE_GROWTH, MOST_GROWTH * source.size)
    total = 0
    for member in _zip_members(archive, out) if is_zip else _tar_members(archive, source):
        total += member.size + tarfile.BLOCKSIZE
        if total > most:
            raise UserError(
                f"{archive}: grows to more than {most >> 20:,} MiB, which no archive of images "
                f"does; what is unpacked stays in its folder"
            )
        yield member


# --- tar ----------------------------------------------------------------------------------------


_NAMING = (  # types whose contents tarfile reads into memory
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)


class _Header(tarfile.TarInfo):
    """A header that refuses the damage which tarfile takes for the end of the archive."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> _Header:
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # has no type; a tar's end
            raise
        except tarfile.EmptyHeaderError:  # type: ignore[attr-defined]  # nor this
            raise tarfile.ReadError("cut off: the blocks that end a tar are missing") from None
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"a header in it: {error}") from error

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        header = super().frombuf(buf, encoding, errors)
        if header.type in _NAMING and header.size > _MOST_NAME:
            raise tarfile.ReadError(f"a name in it has {header.size:,} bytes")
        return header


def _tar_members(archive: Path, source: _Source) -> Iterator[_Member]:
    try:
        # A stream takes no more than `read` of what a file has.
        tar = tarfile.open(  # type: ignore[call-overload]  # noqa: SIM115
            fileobj=source, mode="r|", bufsize=_PIECE, tarinfo=_Header
        )
    except _Damaged:
        raise
    except tarfile.ReadError as error:
        raise UserError(
            f"{archive}: neither a tar nor a zip archive, or damaged where it begins ({error})"
        ) from None
    with tar:
        while member := tar.next():
            tar.members = []  # or every member stays in memory
            if member.size < 0:
                raise tarfile.ReadError(f"{member.name} has {member.size} bytes")
            if not member.isdir():
                wrong = "" if member.isreg() else "a link or a device, not a file"
                yield _Member(member.name, member.size, wrong, partial(_opened, tar, member))
        _read_to_the_end(tar)


def _opened(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    file = tar.extractfile(member)
    if file is None:
        raise tarfile.ReadError(f"{member.name} cannot be read")
    return file


def _read_to_the_end(tar: tarfile.TarFile) -> None:
    """Only zeros follow a tar's end; reading them checks the checksums of gzip, bzip2 and xz."""
    while piece := tar.fileobj.read(_PIECE):
        if piece.count(0) != len(piece):
            raise tarfile.ReadError("data other than zeros follows its end")


# --- zip ----------------------------------------------------------------------------------------


def _zip_members(archive: Path, out: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as file:
        infos = [info for info in file.infolist() if not info.is_dir()]
        for info in infos:
            if info.flag_bits & 1:
                raise UserError(f"{archive}: {info.filename} is encrypted; decrypt it first")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise UserError(
                    f"{archive}: {info.filename} is compressed by method {info.compress_type}; "
                    "only those that every program writes are read (stored, deflated)"
                )
        needed = sum(info.file_size for info in infos if not _is_there(out, info))
        free = shutil.disk_usage(out).free
        if needed > free:
            raise UserError(f"{archive}: {needed:,} bytes to unpack, {free:,} are free in {out}")
        for info in infos:
            wrong = "a link" if info.external_attr >> 16 & 0o170000 == 0o120000 else ""
            yield _Member(info.filename, info.file_size, wrong, partial(file.open, info))


def _is_there(out: Path, info: zipfile.ZipInfo) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return os.stat(out / info.filename).st_size == info.file_size
    return False


# --- files --------------------------------------------------------------------------------------


def _misplaced(name: str) -> str:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        return "its name leads out of the folder"
    if not path.parts or path.parts == (LOCK,):
        return "its name is taken"
    return ""


def _too_large(size: int) -> str:
    return f"{size:,} bytes, too large for an image ({MOST_BYTES:,})" if size > MOST_BYTES else ""


def _write(path: Path, member: _Member, root: str) -> None:
    """Write a member's bytes to `path`, unless it has them.

    The size alone does not tell: a damaged archive may have left wrong bytes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    real = os.path.realpath(path.parent)
    if not inside(real, root):
        raise UserError(f"{path.parent} is a link out of {root}; nothing is written through it")
    if path.is_symlink():
        raise UserError(f"{path} is a link; nothing is written through it")
    with member.open() as source:
        data = source.read(member.size + 1)
    if len(data) != member.size:
        raise tarfile.ReadError(f"{member.name} has {len(data):,} bytes, not {member.size:,}")
    if path.is_file() and path.stat().st_size == member.size and path.read_bytes() == data:
        return
    with replacing(path, sync=False) as file:
        file.write(data)
