"""The committed lock file is one that can be fetched and checked."""

from __future__ import annotations

import re

from xresnet.realcaffe import lock, resolve


def test_the_lock_file_is_sane() -> None:
    locked = lock.read()
    names = [package.name for package in locked.packages]
    assert locked.suite == "bullseye"
    assert re.fullmatch(r"\d{8}T\d{6}Z", locked.snapshot)
    assert len(set(names)) == len(names) == len({p.file_name for p in locked.packages})
    assert {*resolve.WANTED, "libc6", "python3.9", "libcaffe1"} <= set(names)
    assert not set(resolve.UNUSED) & set(names)
    assert names == sorted(names)
    for package in locked.packages:
        assert re.fullmatch(r"pool/main/[\w./+~-]+\.deb", package.path)
        assert re.fullmatch(r"[0-9a-f]{64}", package.sha256)
        assert package.size > 0
        assert package.file_name.startswith(f"{package.name}_")
        assert package.file_name.endswith(("_amd64.deb", "_all.deb"))
    assert 100e6 < locked.size < 200e6


def test_the_lock_file_is_written_as_it_stands() -> None:
    locked = lock.read()
    assert lock.text(locked.suite, locked.snapshot, list(locked.packages)) == (
        lock.LOCK_FILE.read_text()
    )


def test_apts_answers_are_read() -> None:
    listing = (
        "Reading package lists...\n"
        f"'http://m.example/debian/pool/main/n/n/n_1%2bb1_amd64.deb' n_2%3a1+b1_amd64.deb 12 "
        f"SHA256:{'a' * 64}\n"
    )
    (package,) = resolve._packages(listing, "http://m.example/debian")
    assert (package.name, package.version, package.size) == ("n", "2:1+b1", 12)
    assert package.path == "pool/main/n/n/n_1+b1_amd64.deb"
    moment = resolve._moment_after("Suite: x\nDate: Sat, 09 Aug 2025 09:16:30 UTC\n")
    assert moment == "20250810T000000Z"
