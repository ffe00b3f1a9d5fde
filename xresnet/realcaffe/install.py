"""Install real Caffe on this machine, and remove it.

The cache folder (`$XDG_CACHE_HOME` or ~/.cache, then xresnet/caffe) holds

    packages/         the downloaded .deb files, each checked
    prefix-DIGEST/    the system unpacked from the lock file with that digest
    lock              held while an installer is at work
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from xresnet.basics import bars, cache
from xresnet.basics.cli import UserError
from xresnet.realcaffe import lock, mirrors, tools, unpack, wrappers
from xresnet.realcaffe.fetch import Fetcher


@dataclass(frozen=True)
class Place:
    """The folders of an installation: the cache, and where the commands are written."""

    cache: Path
    bin: Path

    @property
    def packages(self) -> Path:
        return self.cache / "packages"

    @property
    def prefix(self) -> Path:
        return self.cache / f"prefix-{lock.read().digest[:12]}"


def place(bin_folder: Path | None) -> Place:
    """The folders to install to; the commands' is the venv's by default.

    Raises:
        UserError: there is neither a venv nor a given folder, or a library path could not hold
            the name of the cache folder.
    """
    bin_folder = bin_folder or tools.venv_bin()
    if not bin_folder:
        raise UserError(
            "this Python is not in a venv, so there is no place for the commands: make one"
            " (python3 -m venv .venv && . .venv/bin/activate), or name a folder with --bin"
        )
    folder = cache.folder("caffe")
    if set(":;$") & set(str(folder)):  # separators in a library path, and $ORIGIN
        raise UserError(
            f"the cache folder {folder} must have no ':', ';' or '$': set XDG_CACHE_HOME"
        )
    return Place(folder, Path(bin_folder).absolute())


def install(where: Place, mirror: str | None = None) -> bool:
    """Install Caffe, so that the commands in `where.bin` work; False if they did already.

    Raises:
        UserError: another kind of machine, no mirror, no space, or no permission to write.
    """
    if is_installed(where):
        return False
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise UserError(
            f"Debian's Caffe is for Linux on x86-64, this is {sys.platform} on"
            f" {platform.machine()}: put a Caffe of your own on PATH, or use the Docker image"
        )
    try:
        with cache.locked(where.cache, _wait):
            if not where.prefix.exists():
                _make_prefix(where, mirror)
        for tool in wrappers.PROGRAMS:
            wrappers.write(where.bin / tool, wrappers.text(tool, where.prefix))
    except OSError as error:
        raise UserError(f"cannot install: {error}") from error
    if not tools.version_of(where.bin / "caffe"):
        raise UserError(
            f"caffe is unpacked in {where.prefix} but does not start; are programs allowed to run"
            " from there (mount option noexec)? Set XDG_CACHE_HOME to another folder"
        )
    return True


def is_installed(where: Place) -> bool:
    """Whether the prefix and the wrappers exist and are those of the present lock file."""
    return where.prefix.exists() and all(
        _content(where.bin / tool) == wrappers.text(tool, where.prefix)
        for tool in wrappers.PROGRAMS
    )


def adopt(where: Place) -> Path | None:
    """Provide a `pycaffe` for a Caffe on PATH; returns the Python that it starts, or None.

    Wrappers of an earlier installation are deleted, since they would take precedence.
    """
    _remove_wrappers(where)
    python = tools.foreign_pycaffe()
    if python and python.name != "pycaffe":
        wrappers.write(where.bin / "pycaffe", wrappers.foreign_python_text(python))
    return python


def remove(where: Place, keep_packages: bool = False) -> list[Path]:
    """Delete wrappers, prefixes and, unless kept, the packages; returns what was deleted."""
    gone = _remove_wrappers(where)
    if where.cache.exists():
        try:
            with cache.locked(where.cache, _wait):
                folders = list(where.cache.glob("prefix-*"))
                if not keep_packages:
                    folders += [where.packages] * where.packages.exists()
                for folder in folders:
                    shutil.rmtree(folder)
                gone += folders
        except OSError as error:
            raise UserError(f"cannot remove: {error}") from error
    return gone


def _remove_wrappers(where: Place) -> list[Path]:
    gone = [where.bin / tool for tool in wrappers.PROGRAMS if wrappers.is_ours(where.bin / tool)]
    for path in gone:
        path.unlink()
    return gone


def _make_prefix(where: Place, mirror: str | None) -> None:
    """Download and unpack under another name, then rename: a prefix that exists is complete."""
    for leftover in where.cache.glob("prefix-*.new"):  # an earlier installer was killed
        shutil.rmtree(leftover)
    locked = lock.read()
    sources = mirrors.candidates(mirror, locked.snapshot)
    missing = [p for p in locked.packages if not (where.packages / p.file_name).exists()]
    if missing:
        size = sum(package.size for package in missing) / 1e6
        count = f"{len(missing)} package{'s' * (len(missing) > 1)}"
        _say(f"fetching Debian's Caffe ({count}, {size:.0f} MB) to {where.cache}")
    else:
        _say(
            f"unpacking Debian's Caffe: its {len(locked.packages)} packages are in {where.packages}"
        )
    with bars.bar(what="fetch", total=locked.size, unit="B", unit_scale=True) as bar:
        fetcher = Fetcher(sources, where.packages, on_bytes=bar.update)
        debs = fetcher.fetch_all(locked.packages)
    new = where.prefix.with_name(where.prefix.name + ".new")
    with bars.bar(what="unpack", total=len(debs), unit=" packages") as bar:
        unpack.unpack_all(debs, new, on_package=bar.update)
    (new / wrappers.PTH).write_text(wrappers.PTH_LINE)
    os.sync()  # the rename must not reach the disk before the files do
    new.rename(where.prefix)


def _content(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None


def _wait() -> None:
    _say("another installation is at work; waiting for it")


def _say(message: str) -> None:
    print(f"realcaffe: {message}", file=sys.stderr, flush=True)
