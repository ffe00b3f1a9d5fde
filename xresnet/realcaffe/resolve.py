"""For maintainers: resolve Caffe's dependencies with apt, for a new lock file.

apt works on an empty state of its own: it uses neither the machine's packages nor its sources,
and changes nothing. It checks the index's signature against Debian's keyring; the hashes come
from that index.
"""

from __future__ import annotations

import datetime
import email.utils
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import unquote

from xresnet.basics.cli import UserError
from xresnet.realcaffe import lock

SUITE = "bullseye"  # the last Debian with a Caffe
WANTED = ("caffe", "python3-caffe", "libopenblas0-pthread")  # default BLAS: the slow reference one
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

# Dependencies for Debian's housekeeping, for maps, or for building, of which Caffe's tools load
# no file (tests/realcaffe/test_prefix.py checks that every library comes from the prefix).
UNUSED = [
    *("coreutils", "cython3", "debconf", "dpkg", "fonts-lyx", "gdal-data", "libjs-jquery"),
    *("libjs-jquery-ui", "libperl5.32", "mailcap", "mime-support", "perl", "perl-base"),
    *("perl-modules-5.32", "proj-data", "sensible-utils", "tar", "ucf"),
]


def resolve(mirror: str) -> str:
    """The text of a new lock file.

    Raises:
        UserError: the machine lacks apt or Debian's keyring, or apt fails.
    """
    if not shutil.which("apt-get") or not KEYRING.exists():
        raise UserError(f"lock needs apt-get and {KEYRING}: run it on a Debian machine")
    with tempfile.TemporaryDirectory(prefix="realcaffe-apt-") as folder:
        root = Path(folder)
        for name in ("state/lists/partial", "cache/archives/partial"):
            (root / name).mkdir(parents=True)
        (root / "status").touch()
        (root / "sources.list").write_text(f"deb [signed-by={KEYRING}] {mirror} {SUITE} main\n")
        _apt(root, "update")
        listing = _apt(root, "install", "--yes", "--print-uris", *WANTED)
        (release,) = (root / "state" / "lists").glob("*_InRelease")
        packages = [p for p in _packages(listing, mirror) if p.name not in UNUSED]
        return lock.text(SUITE, _moment_after(release.read_text()), packages)


def _apt(root: Path, *command: str) -> str:
    options = {
        "Dir::State": root / "state",
        "Dir::State::status": root / "status",
        "Dir::Cache": root / "cache",
        "Dir::Etc::sourcelist": root / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Debug::NoLocking": 1,
        "APT::Architecture": "amd64",
        "APT::Architectures": "amd64",
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "root",
        "Acquire::ForceHash": "SHA256",
        "Acquire::Check-Valid-Until": "false",  # an archive gets no new dates
    }
    settings = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    done = subprocess.run(["apt-get", *settings, *command], capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"apt-get {command[0]} failed:\n{done.stderr.strip()}")
    return done.stdout


def _packages(listing: str, mirror: str) -> list[lock.Package]:
    """The packages in a listing of lines `'URI' name_version_arch.deb size SHA256:hash`."""
    found = []
    for uri, name, size, sha256 in re.findall(
        r"^'(\S+)' (\S+)\.deb (\d+) SHA256:([0-9a-f]{64})", listing, re.MULTILINE
    ):
        package, version, _ = unquote(name).split("_")
        path = unquote(uri[len(mirror) :].lstrip("/"))
        found.append(lock.Package(package, version, path, int(size), sha256))
    return found


def _moment_after(release: str) -> str:
    """The midnight after the date of the index, as a timestamp of the snapshot service."""
    (date,) = re.findall(r"^Date: (.*)", release, re.MULTILINE)
    day = email.utils.parsedate_to_datetime(date).date() + datetime.timedelta(days=1)
    return f"{day:%Y%m%d}T000000Z"
