"""Sources of Debian's packages: a given mirror, the machine's own, Debian's dated archive."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from xresnet.basics.cli import UserError

VARIABLE = "XRESNET_DEBIAN_MIRROR"
SNAPSHOTS = "https://snapshot.debian.org/archive/debian"

# `.../debian`, or a dated copy of it; not debian-security, Ubuntu, or a vendor's archive.
_DEBIAN_PATH = re.compile(r"(^|/)debian(/\d{8}T\d{6}Z)?$")


def candidates(named: str | None, snapshot: str, apt: Path = Path("/etc/apt")) -> list[str]:
    """The base URLs to try in turn, without a final slash.

    A named mirror (by option, else by variable) is the only one. Otherwise they are those in the
    machine's apt sources, then the snapshot service.

    Args:
        named: a URL or a folder, if the user gives one.
        snapshot: the timestamp of the lock file.
        apt: apt's configuration.

    Raises:
        UserError: the named mirror is neither a URL nor a folder.
    """
    named = named or os.environ.get(VARIABLE)
    if named:
        return [_as_url(named)]
    return [*dict.fromkeys(from_apt(apt)), f"{SNAPSHOTS}/{snapshot}"]


def from_apt(apt: Path) -> Iterator[str]:
    """Debian's main archives in apt's sources, in both of their formats."""
    for path in [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*"))]:
        try:
            content = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        if path.suffix == ".sources":
            uris = _deb822_uris(content)
        elif path.suffix == ".list":
            uris = _one_line_uris(content)
        else:
            continue
        for uri in uris:
            yield from _archives(uri)


def _one_line_uris(content: str) -> Iterator[str]:
    """`deb [options] URI suite component...`"""
    for line in content.splitlines():
        words = re.sub(r"\[.*?\]", " ", line.partition("#")[0]).split()
        if len(words) > 3 and words[0] == "deb" and "main" in words[3:]:
            yield words[1]


def _deb822_uris(content: str) -> Iterator[str]:
    """Paragraphs of `Field: value`; a value continues on lines that begin with a space."""
    content = re.sub(r"^#.*\n?", "", content, flags=re.MULTILINE)
    for paragraph in re.split(r"\n\s*\n", content):
        pairs = re.findall(r"^([\w-]+):((?:.*)(?:\n[ \t].*)*)", paragraph, re.MULTILINE)
        fields = {name.lower(): value.split() for name, value in pairs}
        if (
            "deb" in fields.get("types", [])
            and "main" in fields.get("components", [])
            and fields.get("enabled", ["yes"]) != ["no"]
        ):
            yield from fields.get("uris", [])


def _archives(uri: str) -> Iterator[str]:
    """The URI itself, or, for a mirror list in a file (cloud images), the URIs in it."""
    if uri.startswith("mirror+file:"):
        try:
            lines = Path(urlsplit(uri).path).read_text(encoding="utf-8").splitlines()
        except OSError:
            return
        for line in lines:
            if words := line.split():
                yield from _archives(words[0])
        return
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https") and _DEBIAN_PATH.search(parts.path.rstrip("/")):
        yield uri.rstrip("/")


def _as_url(named: str) -> str:
    if urlsplit(named).scheme in ("http", "https", "file"):
        return named.rstrip("/")
    if Path(named).is_dir():
        return Path(named).resolve().as_uri()
    raise UserError(
        f"{named!r} is not a mirror: give a URL (http, https, file) or the folder that has pool/"
    )
