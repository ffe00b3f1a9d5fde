"""The lock file: the Debian packages that make up the prefix, with their hashes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

LOCK_FILE = Path(__file__).with_name("packages.json")


@dataclass(frozen=True)
class Package:
    """A Debian package: `path` is relative to the mirror, `size` in bytes, `sha256` in hex."""

    name: str
    version: str
    path: str
    size: int
    sha256: str

    @property
    def file_name(self) -> str:
        """The name of the .deb, unique in the lock file."""
        return PurePosixPath(self.path).name


@dataclass(frozen=True)
class Lock:
    """The contents of a lock file: Caffe's packages and all that they depend on.

    Attributes:
        suite: Debian's name of the release.
        snapshot: a timestamp at which Debian's archive held exactly these files.
        packages: in the order of their names.
        digest: the SHA-256 of the lock file.
    """

    suite: str
    snapshot: str
    packages: tuple[Package, ...]
    digest: str

    @property
    def size(self) -> int:
        """The total size of the packages in bytes."""
        return sum(package.size for package in self.packages)


@cache
def read(path: Path = LOCK_FILE) -> Lock:
    """Read a lock file; by default the committed one."""
    data = path.read_bytes()
    content = json.loads(data)
    return Lock(
        suite=content["suite"],
        snapshot=content["snapshot"],
        packages=tuple(Package(**entry) for entry in content["packages"]),
        digest=hashlib.sha256(data).hexdigest(),
    )


def text(suite: str, snapshot: str, packages: list[Package]) -> str:
    """The text of a lock file, with one package per line."""
    head = json.dumps({"suite": suite, "snapshot": snapshot}, indent=1)[:-2]
    ordered = sorted(packages, key=lambda package: package.name)
    entries = ",\n".join("  " + json.dumps(vars(package)) for package in ordered)
    return f'{head},\n "packages": [\n{entries}\n ]\n}}\n'
