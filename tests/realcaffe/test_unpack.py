"""Unpacking packages: what is written, what is left out, what is refused."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import pytest

from tests.helpers.realcaffe_debs import deb, member
from xresnet.basics.cli import UserError
from xresnet.realcaffe import unpack


def unpacked(tmp_path: Path, *blobs: bytes) -> Path:
    debs = []
    for number, blob in enumerate(blobs):
        debs.append(tmp_path / f"{number}.deb")
        debs[-1].write_bytes(blob)
    unpack.unpack_all(debs, tmp_path / "root")
    return tmp_path / "root"


@pytest.mark.parametrize("name", ["data.tar.xz", "data.tar"])
def test_files_modes_and_links(tmp_path: Path, name: str) -> None:
    root = unpacked(
        tmp_path,
        deb(
            member("./", type=tarfile.DIRTYPE),
            member("./usr/bin/", type=tarfile.DIRTYPE),
            member("./usr/bin/tool", b"#!", mode=0o4755),
            member("./usr/lib/plain", b"plain"),
            member("./usr/lib/relative", type=tarfile.SYMTYPE, linkname="plain"),
            member("./usr/lib/absolute", type=tarfile.SYMTYPE, linkname="/usr/lib/plain"),
            member("./usr/lib/hard", type=tarfile.LNKTYPE, linkname="./usr/lib/plain"),
            name=name,
        ),
    )
    assert (root / "usr/bin/tool").stat().st_mode & 0o7777 == 0o755, "no setuid"
    for link in ("relative", "absolute", "hard"):
        assert (root / "usr/lib" / link).read_bytes() == b"plain"
    assert not (root / "usr/lib/absolute").readlink().is_absolute()


def test_documentation_is_left_out_but_not_the_licences(tmp_path: Path) -> None:
    root = unpacked(
        tmp_path,
        deb(
            member("./usr/share/doc/x/copyright", b"c"),
            member("./usr/share/doc/x/changelog.gz", b"c"),
            member("./usr/share/man/man1/x.1.gz", b"c"),
            member("./usr/share/locale/de/x.mo", b"c"),
            member("./usr/share/x/data", b"c"),
        ),
    )
    files = sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())
    assert files == ["usr/share/doc/x/copyright", "usr/share/x/data"]


@pytest.mark.parametrize(
    "members",
    [
        [member("../evil", b"x")],
        [member("./usr/../../evil", b"x")],
        [member("/evil", b"x")],
        [member("./a", type=tarfile.SYMTYPE, linkname="../../out")],
        [member("./a/b", type=tarfile.SYMTYPE, linkname="/../../../out")],
        [member("./a", type=tarfile.LNKTYPE, linkname="../secret")],
    ],
)
def test_nothing_is_written_outside(tmp_path: Path, members) -> None:
    (tmp_path / "secret").write_text("s")
    with pytest.raises(UserError, match=r"outside|leads out of the prefix"):
        unpacked(tmp_path, deb(*members))
    assert not list(tmp_path.rglob("evil"))


def test_not_through_a_link_that_was_there_before(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "a").symlink_to(tmp_path / "elsewhere")
    package = tmp_path / "p.deb"
    package.write_bytes(deb(member("./a/evil", b"x")))
    with pytest.raises(UserError, match=r"outside|leads out of the prefix"):
        unpack.unpack(package, tmp_path / "root")
    assert not (tmp_path / "elsewhere" / "evil").exists()


@pytest.mark.parametrize(
    "blob", [b"", b"!<arch>\n", b"<html>", deb(member("./a", b"x" * 999))[:-50]]
)
def test_what_is_no_whole_package_is_refused(tmp_path: Path, blob: bytes) -> None:
    with pytest.raises(UserError, match=r"not a Debian package|damaged"):
        unpacked(tmp_path, blob)


def test_an_unknown_compression_names_the_way_out(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UserError, match="dpkg-deb"):
        unpacked(tmp_path, deb(member("./a", b"x"), name="data.tar.zst"))
