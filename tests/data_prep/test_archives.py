"""Archives: damaged, hostile, unpacked twice; nothing outside the folder, nothing wrong in it."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import random
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from data_prep import archives
from data_prep.__main__ import main
from data_prep.archives import unpack
from data_prep.folder import DataFolder
from xresnet.basics.cli import UserError

FLIPS = CUTS = 25


def _images() -> dict[str, bytes]:
    """Names, short and long, and bytes that do not compress."""
    rng = random.Random(1)
    return {
        f"dark_{('moon', 'star')[i % 2]}/{i}{'x' * (i * 9)}.jpg": rng.randbytes(
            rng.randint(0, 3000)
        )
        for i in range(20)
    }


IMAGES = _images()


def _tar(files: dict[str, bytes] = IMAGES) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def _zip(files: dict[str, bytes] = IMAGES, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


PACK = {"tar.gz": gzip.compress, "tar.bz2": bz2.compress, "tar.xz": lzma.compress}
ARCHIVES = {
    "tar": _tar(),
    **{kind: pack(_tar()) for kind, pack in PACK.items()},
    "zip": _zip(),
}


def _there(out: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def _write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("kind", ARCHIVES)
def test_unpack(tmp_path, kind):
    path = _write(tmp_path / f"images.{kind}", ARCHIVES[kind])
    assert unpack(path, tmp_path / "out") == (len(IMAGES), [])
    assert _there(tmp_path / "out") == IMAGES
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.jpg")}
    assert unpack(path, tmp_path / "out") == (len(IMAGES), [])
    assert {p: p.stat().st_mtime_ns for p in times} == times


@pytest.mark.parametrize("kind", ARCHIVES)
def test_changed_bits_and_cuts_are_told(tmp_path, kind):
    """Whatever is accepted is whole; and a good copy mends what a damaged one left."""
    path, out, good = tmp_path / "a", tmp_path / "out", ARCHIVES[kind]
    rng = random.Random(kind)
    accepted = 0
    for n in range(FLIPS + CUTS):
        damaged = bytearray(good)
        if n < FLIPS:
            damaged[rng.randrange(len(good))] ^= 1 << rng.randrange(8)
        else:
            del damaged[rng.randrange(len(good)) :]
        try:
            unpack(_write(path, damaged), out)
        except UserError as error:
            assert str(path) in str(error) and "\n" not in str(error)
        else:
            accepted += 1
            wrong = [name for name, data in IMAGES.items() if _there(out).get(name) != data]
            # A plain tar has no checksum of its contents: one bit there changes one file.
            assert len(wrong) <= (kind == "tar" and n < FLIPS)
        if n % 10 == 9:
            assert unpack(_write(path, good), out) == (len(IMAGES), [])
            assert {name: _there(out)[name] for name in IMAGES} == IMAGES
    assert accepted < 3 or kind == "tar"


def test_every_cut_between_members_is_told(tmp_path):
    """A tar that was cut where a member begins reads to its end without a complaint."""
    whole = _tar()
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        cuts = [member.offset for member in archive][1:]
    cuts.append(len(whole.rstrip(b"\0")) + tarfile.BLOCKSIZE & -tarfile.BLOCKSIZE)
    for pack in (bytes, gzip.compress):
        for cut in cuts:
            path = _write(tmp_path / "cut", pack(whole[:cut]))
            with pytest.raises(UserError, match="cut off: the blocks that end a tar are missing"):
                unpack(path, tmp_path / "out")


@pytest.mark.parametrize("kind", ["tar.gz", "tar.bz2", "tar.xz"])
def test_the_last_checksum_is_read(tmp_path, kind):
    """gzip's CRC stands behind all that tar reads: in an archive of some size no file feels it."""
    files = {f"dark_moon/{i}.jpg": random.Random(i).randbytes(1 << 18) for i in range(6)}
    data = bytearray(PACK[kind](_tar(files)))
    data[-6] ^= 1
    with pytest.raises(UserError, match=r"damaged, or not to be read, after \d files"):
        unpack(_write(tmp_path / "a", data), tmp_path / "out")


def test_what_stands_behind_the_end_is_not_lost_without_a_word(tmp_path):
    path = _write(tmp_path / "two.tar", _tar() + _tar({"tiny_tree/a.jpg": b"a"}))
    with pytest.raises(UserError, match="data other than zeros follows its end"):
        unpack(path, tmp_path / "out")


def _link(name: str) -> tarfile.TarInfo:
    link = tarfile.TarInfo(name)
    link.type, link.linkname = tarfile.SYMTYPE, "/etc"
    return link


ODD = ("../out.jpg", "/tmp/out.jpg", "dark_moon/../../b.jpg", ".lock")


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_unpack_stays_in_its_folder(tmp_path, capsys, kind):
    if kind == "tar":
        with tarfile.open(tmp_path / "archive", "w:gz") as archive:
            for name in ("dark_moon/a.jpg", *ODD):
                member = tarfile.TarInfo(name)
                member.size = 3
                archive.addfile(member, io.BytesIO(b"abc"))
            archive.addfile(_link("dark_star"))
    else:
        with zipfile.ZipFile(tmp_path / "archive", "w") as archive:
            for name in ("dark_moon/a.jpg", *ODD):
                archive.writestr(name, b"abc")
            link = zipfile.ZipInfo("dark_star")
            link.external_attr = 0o120777 << 16
            archive.writestr(link, "/etc")
    out = tmp_path / "deep" / "out"
    main(["unpack", str(tmp_path / "archive"), "--out", str(out), "--json"])
    summary = json.loads(capsys.readouterr().out)
    assert summary["files"] == 1
    assert {name for name, _ in summary["ignored"]} == {*ODD, "dark_star"}
    assert set(_there(tmp_path)) == {"archive", "deep/out/dark_moon/a.jpg"}


def test_nothing_is_written_through_links(tmp_path):
    path, out, other = _write(tmp_path / "a", _tar()), tmp_path / "out", tmp_path / "other"
    other.mkdir()
    out.mkdir()
    (out / "dark_moon").symlink_to(other)
    with pytest.raises(UserError, match=r"dark_moon is a link out of .*nothing is written"):
        unpack(path, out)
    (out / "dark_moon").unlink()
    (out / "dark_moon").mkdir()
    name = next(name for name in IMAGES if "moon" in name)
    (out / name).symlink_to(other / "a.jpg")
    with pytest.raises(UserError, match="is a link; nothing is written through it"):
        unpack(path, out)
    assert os.listdir(other) == []


def test_unpack_refuses_what_is_no_archive(tmp_path):
    for data in (b"no archive", b"", b"\0" * 2000, gzip.compress(b"no tar")):
        with pytest.raises(
            UserError, match=r"neither a tar nor a zip|damaged, or|contains no file"
        ):
            unpack(_write(tmp_path / "text", data), tmp_path / "out")
    with pytest.raises(UserError, match="no such file"):
        unpack(tmp_path / "missing", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_what_a_member_is_compressed_or_encrypted_with(tmp_path):
    encrypted = bytearray(_zip({"dark_moon/a.jpg": b"abc"}))
    encrypted[6] |= 1
    encrypted[encrypted.index(b"PK\1\2") + 8] |= 1
    for data, complaint in (
        (bytes(encrypted), "a.jpg is encrypted; decrypt it first"),
        (_zip(method=zipfile.ZIP_LZMA), "is compressed by method 14"),
    ):
        with pytest.raises(UserError, match=complaint):
            unpack(_write(tmp_path / "a.zip", data), tmp_path / "out")
    assert _there(tmp_path / "out") == {}


def test_two_at_once(tmp_path):
    path = _write(tmp_path / "a", _tar())
    with DataFolder(tmp_path / "out").lock(), pytest.raises(UserError, match="another run"):
        unpack(path, tmp_path / "out")


def test_archives_that_are_made_to_fill_disks(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "FREE_GROWTH", 1 << 20)
    files = {f"dark_moon/{i}.jpg": bytes(1 << 16) for i in range(60)}
    for data in (gzip.compress(_tar(files)), _zip(files)):
        with pytest.raises(UserError, match="grows to more than 1 MiB, which no archive of images"):
            unpack(_write(tmp_path / "a", data), tmp_path / "out")
    monkeypatch.setattr(archives, "FREE_GROWTH", 1 << 30)
    monkeypatch.setattr(archives, "MOST_BYTES", 1 << 15)
    for data in (gzip.compress(_tar(files)), _zip(files)):
        _, ignored = unpack(_write(tmp_path / "a", data), tmp_path / "none")
        assert len(ignored) == 60 and ignored[0][1].startswith(
            "65,536 bytes, too large for an image"
        )
    assert _there(tmp_path / "none") == {}


def test_a_zip_that_the_disk_cannot_hold_is_refused_before_it_is_begun(tmp_path):
    data = bytearray(_zip({"dark_moon/a.jpg": b"abc", "dark_moon/b.jpg": b"abc"}))
    last = data.rindex(b"PK\1\2")
    struct.pack_into("<I", data, last + 24, 0xFFFFFFF0)
    path = _write(tmp_path / "a.zip", data)
    usage = archives.shutil.disk_usage(tmp_path)._replace(free=1 << 30)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archives.shutil, "disk_usage", lambda _: usage)
        with pytest.raises(
            UserError, match="4,294,967,283 bytes to unpack, 1,073,741,824 are free"
        ):
            unpack(path, tmp_path / "out")
    assert _there(tmp_path / "out") == {}


def test_a_name_of_gigabytes_is_not_read_into_memory(tmp_path):
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 4 << 30
    path = tmp_path / "a.tar.gz"
    with gzip.open(path, "wb", 1) as file:
        file.write(header.tobuf(tarfile.GNU_FORMAT))
        for _ in range(64):
            file.write(bytes(1 << 20))
    with pytest.raises(UserError, match="a name in it has 4,294,967,296 bytes"):
        unpack(path, tmp_path / "out")


def test_damage_is_one_line_and_an_exit_status(tmp_path):
    data = ARCHIVES["tar.gz"]
    path = _write(tmp_path / "a.tar.gz", data[:-3])
    command = [sys.executable, "-m", "data_prep", "unpack", path, "--out", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and "damaged" in done.stderr
