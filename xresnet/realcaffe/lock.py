"""The lock file: the Debian packages that make up the prefix, and their hashes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

LOCK_FILE = Path(__file__).with_name("packages.json")


@dataclass(frozen=True)
class Package:
    """One Debian package: `path` is relative to the mirror, `size` in bytes, `sha256` in hex."""

    name: str
    version: str
    path: str
    size: int
    sha256: str

    @property
    def file_name(self) -> str:
        """The .deb's own name, unique in the lock file."""
        return PurePosixPath(self.path).name


@dataclass(frozen=True)
class Lock:
    """The whole closure; `digest` changes with any byte of the lock file."""

    suite: str
    snapshot: str  # a moment at which Debian's archive held exactly these files
    packages: tuple[Package, ...]
    digest: str

    @property
    def size(self) -> int:
        """Bytes to fetch in all."""
        return sum(package.size for package in self.packages)


@cache
def read(path: Path = LOCK_FILE) -> Lock:
    """The committed lock file."""
    data = path.read_bytes()
    content = json.loads(data)
    return Lock(
        suite=content["suite"],
        snapshot=content["snapshot"],
        packages=tuple(Package(**entry) for entry in content["packages"]),
        digest=hashlib.sha256(data).hexdigest(),
    )


def text(suite: str, snapshot: str, packages: list[Package]) -> str:
    """The lock file's text, one package a line, so that a diff shows what moved."""
    head = json.dumps({"suite": suite, "snapshot": snapshot}, indent=1)[:-2]
    entries = ",\n".join("  " + json.dumps(vars(p)) for p in sorted(packages, key=_name))
    return f'{head},\n "packages": [\n{entries}\n ]\n}}\n'


def _name(package: Package) -> str:
    return package.name
