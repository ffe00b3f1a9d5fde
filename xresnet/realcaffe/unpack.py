"""Unpack Debian packages without dpkg: an `ar` archive that holds a tar archive."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Callable

from xresnet.basics import cores
from xresnet.basics.cli import UserError
from xresnet.basics.files import inside

THREADS = max(2, cores.usable())  # lzma and file writing release Python's global lock

# What no program reads. A package's copyright file is kept, as its licence requires.
_SKIPPED = (
    *(f"usr/share/{name}/" for name in ("doc", "man", "info", "locale", "lintian")),
    *("usr/share/bash-completion/", "var/"),
)


def unpack_all(
    debs: Iterable[Path], root: Path, on_package: Callable[[int], object] = lambda n: None
) -> None:
    """Unpack all packages into `root`, which is created; `on_package(1)` is called after each."""
    root.mkdir(parents=True)
    with ThreadPoolExecutor(THREADS) as pool:
        tasks = [pool.submit(unpack, deb, root) for deb in debs]
        try:
            for task in tasks:
                task.result()
                on_package(1)
        except BaseException:
            for task in tasks:
                task.cancel()
            raise


def unpack(deb: Path, root: Path) -> None:
    """Unpack one package's files into `root`.

    Raises:
        UserError: it is not a Debian package, is damaged, or would write outside `root`.
    """
    checked: set[Path] = set()  # folders known to lie inside root
    try:
        with tarfile.open(fileobj=io.BytesIO(_tar_bytes(deb)), mode="r:") as archive:
            for member in archive:
                name = PurePosixPath(member.name)
                if not _is_wanted(name):
                    continue
                if name.is_absolute() or ".." in name.parts:
                    raise UserError(f"{deb.name}: {member.name} would be written outside")
                _extract(archive, member, root, root / name, checked)
    except (tarfile.TarError, lzma.LZMAError, EOFError) as error:
        raise UserError(f"{deb}: damaged package ({error})") from error


def _extract(
    archive: tarfile.TarFile, member: tarfile.TarInfo, root: Path, target: Path, checked: set[Path]
) -> None:
    if target.parent not in checked:
        # An earlier member may have been a link to elsewhere: resolve the folder.
        _inside(root, target.parent, member.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        checked.add(target.parent)
    if member.isdir():
        target.mkdir(exist_ok=True)
    elif member.isfile():
        # 755 or 644 whatever the package says: nothing becomes setuid, or unreadable to others.
        mode = 0o755 if member.mode & 0o111 else 0o644
        source = archive.extractfile(member)
        assert source is not None  # only None for what is no file
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with source, os.fdopen(descriptor, "wb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
    elif member.issym():
        link = PurePosixPath(member.linkname)
        if link.is_absolute():  # from the root of a Debian system, which is our prefix
            link = PurePosixPath(os.path.relpath(root / link.relative_to("/"), target.parent))
        _inside(root, target.parent / link, member.name)
        target.symlink_to(link)
    elif member.islnk():
        source_path = root / PurePosixPath(member.linkname)
        _inside(root, source_path, member.name)
        os.link(source_path, target)
    # Devices and pipes are in none of the packages.


def _inside(root: Path, path: Path, name: str) -> None:
    if not inside(path, os.path.realpath(root)):
        raise UserError(f"{name} leads out of the prefix: this is not Debian's package")


def _is_wanted(name: PurePosixPath) -> bool:
    if not name.parts:  # the archive's own top, "./"
        return False
    return name.name == "copyright" or not str(name).startswith(_SKIPPED)


def _tar_bytes(deb: Path) -> bytes:
    """The package's `data.tar`, uncompressed."""
    name, data = _data_member(deb)
    if name == "data.tar.xz":
        return lzma.decompress(data)
    if name == "data.tar.gz":
        return gzip.decompress(data)
    if name == "data.tar":
        return data
    # Newer Debians compress with zstd, which Python cannot read before 3.14.
    if not shutil.which("dpkg-deb"):
        raise UserError(f"{deb.name} holds {name}, which this Python cannot read without dpkg-deb")
    return subprocess.run(
        ["dpkg-deb", "--fsys-tarfile", os.fspath(deb)], check=True, stdout=subprocess.PIPE
    ).stdout


def _data_member(deb: Path) -> tuple[str, bytes]:
    """Name and content of the `data.tar*` member.

    The header of an ar member is 60 bytes: name (16), date, owner, group and mode (32), size in
    decimal (10) and two magic bytes. Members begin at even offsets.
    """
    with deb.open("rb") as file:
        if file.read(8) == b"!<arch>\n":
            while len(header := file.read(60)) == 60:
                name = header[:16].decode("ascii", "replace").strip().rstrip("/")
                size = int(header[48:58])
                if name.startswith("data.tar"):
                    return name, file.read(size)
                file.seek(size + size % 2, os.SEEK_CUR)
    raise UserError(f"{deb} is not a Debian package")
