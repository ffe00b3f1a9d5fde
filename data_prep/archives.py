"""Archives of images unpacked, and nothing outside the folder touched."""

from __future__ import annotations

import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from basics import bars
from basics.cli import UserError
from basics.files import PathLike

_Member = tuple  # (name, size in bytes, what is wrong with it or "", function that opens it)


def unpack(archive: PathLike, out: PathLike) -> tuple[int, list[tuple[str, str]]]:
    """Unpack a tar (compressed or not) or zip; files already there in their size stay.

    Returns:
        the number of files there now, and (name, reason) of what was left
        out: links, devices, names that lead out of `out`.

    Raises:
        UserError: no archive, a damaged one, or the place cannot be written.
    """
    out, done, ignored = Path(out), 0, []
    try:
        members = bars.bar(_members(Path(archive)), "unpack", unit="file")
        for name, size, wrong, opened in members:
            wrong = wrong or _misplaced(name)
            if wrong:
                ignored.append((name, wrong))
                continue
            path = out / name
            if not (path.is_file() and path.stat().st_size == size):
                _write(path, opened, out)
            done += 1
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise UserError(f"{archive}: damaged after {done:,} files ({error})") from error
    except OSError as error:
        raise UserError(f"cannot unpack {archive}: {error.strerror or error}") from error
    return done, ignored


def _members(archive: Path) -> Iterator[_Member]:
    if not archive.is_file():
        raise UserError(f"{archive}: no such file")
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            for info in file.infolist():
                mode = info.external_attr >> 16
                if not info.is_dir():
                    wrong = "a link" if mode & 0o170000 == 0o120000 else ""
                    yield info.filename, info.file_size, wrong, lambda i=info: file.open(i)
        return
    try:
        file = tarfile.open(archive, "r|*")  # noqa: SIM115 (closed below)
    except tarfile.ReadError:
        raise UserError(f"{archive}: neither a tar nor a zip archive") from None
    with file:
        for member in file:
            if not member.isdir():
                wrong = "" if member.isreg() else "a link or a device, not a file"
                yield member.name, member.size, wrong, lambda m=member: file.extractfile(m)


def _misplaced(name: str) -> str:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        return "its name leads out of the folder"
    return ""


def _write(path: Path, opened: Callable[[], IO[bytes]], out: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if out.resolve() not in path.parent.resolve().parents and path.parent.resolve() != (
        out.resolve()
    ):
        raise UserError(f"{path.parent} is a link that leaves {out}; nothing is written through it")
    aside = path.with_name(".unpacking")
    with opened() as source, aside.open("wb") as target:
        shutil.copyfileobj(source, target)
    os.replace(aside, path)
