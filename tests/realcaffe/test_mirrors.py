"""Which mirrors the machine's apt sources name, and which of them may have Caffe."""

from __future__ import annotations

from pathlib import Path

import pytest

from xresnet.basics.cli import UserError
from xresnet.realcaffe import mirrors

ONE_LINE = """\
# deb http://commented.example/debian bookworm main
deb http://one.example/debian bookworm main contrib # with a comment
deb [arch=amd64 signed-by=/k.gpg] https://two.example/pub/debian/ bookworm main
deb-src http://source.example/debian bookworm main
deb http://sec.example/debian-security bookworm-security main
deb http://ubuntu.example/ubuntu jammy main
deb https://vendor.example/linux/debian bookworm stable
deb http://dated.example/archive/debian/20240101T000000Z bookworm main
deb cdrom:[Debian]/debian bookworm main
nonsense
"""
DEB822 = """\
Types: deb deb-src
# URIs: http://commented.example/debian
URIs: http://three.example/debian
 http://four.example/debian/
Suites: bookworm bookworm-updates
Components: main

Types: deb
URIs: http://sec.example/debian-security
Suites: bookworm-security
Components: main

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main

Types: deb
URIs: mirror+file:{list}
Suites: bookworm
Components: main
"""


def test_both_formats_and_only_debians_main_archive(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text(ONE_LINE)
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    (tmp_path / "mirrors.list").write_text("http://five.example/debian\tpriority:1\n\n")
    (parts / "debian.sources").write_text(DEB822.format(list=tmp_path / "mirrors.list"))
    (parts / "debian.sources.bak").write_text(ONE_LINE.replace("one.", "backup."))
    assert list(mirrors.from_apt(tmp_path)) == [
        "http://one.example/debian",
        "https://two.example/pub/debian",
        "http://dated.example/archive/debian/20240101T000000Z",
        "http://three.example/debian",
        "http://four.example/debian",
        "http://five.example/debian",
    ]


def test_without_a_name_the_machines_then_the_dated_archive(tmp_path, monkeypatch) -> None:
    monkeypatch.delenv(mirrors.VARIABLE, raising=False)
    dated = f"{mirrors.SNAPSHOTS}/20250810T000000Z"
    assert mirrors.candidates(None, "20250810T000000Z", tmp_path) == [dated]
    (tmp_path / "sources.list").write_text("deb http://one.example/debian bookworm main\n" * 2)
    found = mirrors.candidates(None, "20250810T000000Z", tmp_path)
    assert found == ["http://one.example/debian", dated]


def test_a_named_mirror_stands_alone_and_the_option_goes_first(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(mirrors.VARIABLE, "http://variable.example/debian/")
    assert mirrors.candidates(None, "x", tmp_path) == ["http://variable.example/debian"]
    assert mirrors.candidates("http://option.example", "x", tmp_path) == ["http://option.example"]
    assert mirrors.candidates(str(tmp_path), "x", tmp_path) == [tmp_path.as_uri()]
    with pytest.raises(UserError, match="not a mirror"):
        mirrors.candidates("my.mirror/debian", "x", tmp_path)
