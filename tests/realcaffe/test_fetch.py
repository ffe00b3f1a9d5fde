"""Fetching: every fault a network and a disk have shown, against a server on the loopback."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.realcaffe_debs import SNAPSHOT, Server, archive, serving
from xresnet.basics.cli import UserError
from xresnet.realcaffe import fetch, lock, mirrors


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "PAUSE", 0.01)
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def server(tmp_path: Path):
    with serving(tmp_path / "archive") as running:
        yield running


@pytest.fixture
def locked(tmp_path: Path) -> lock.Lock:
    blobs = {f"p{n}": bytes([n]) * (1000 + n) for n in range(8)}
    return archive(tmp_path / "archive", **blobs)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def fetched(server: Server, locked: lock.Lock, cache: Path, *first: str) -> int:
    """Fetch everything, check it, and return what the progress bar ended on."""
    heard: list[int] = []
    fetcher = fetch.Fetcher([*first, server.url], cache, heard.append)
    for path, package in zip(fetcher.fetch_all(locked.packages), locked.packages):
        assert path.read_bytes() == (server.folder / package.path).read_bytes()
    assert not list(cache.glob("*.part"))
    return sum(heard)


def test_all_come_and_the_second_time_none_is_asked_for(server, locked, cache):
    assert fetched(server, locked, cache) == locked.size
    assert len(server.requests) == 8
    assert fetched(server, locked, cache) == locked.size
    assert len(server.requests) == 8


def test_a_cut_body_is_resumed_where_it_broke(server, locked, cache):
    server.faults["p3"] = ["cut", "ok"]
    assert fetched(server, locked, cache) == locked.size
    ranges = [wanted for path, wanted in server.requests if "p3" in path]
    assert ranges == ["", "bytes=501-"]


def test_an_interrupted_fetch_is_taken_up_again(server, locked, cache):
    package = locked.packages[3]
    cache.mkdir()
    (cache / f"{package.file_name}.part").write_bytes(bytes([3]) * 700)
    fetched(server, locked, cache)
    assert [wanted for path, wanted in server.requests if "p3" in path] == ["bytes=700-"]


def test_a_server_without_ranges_sends_it_again(server, locked, cache):
    server.faults["p3"] = ["cut", "whole"]
    assert fetched(server, locked, cache) == locked.size


def test_a_part_that_does_not_belong_is_thrown_away(server, locked, cache):
    cache.mkdir()
    (cache / f"{locked.packages[2].file_name}.part").write_bytes(b"x" * 700)  # wrong half
    (cache / f"{locked.packages[4].file_name}.part").write_bytes(b"x" * 9999)  # too long
    assert fetched(server, locked, cache) == locked.size


def test_a_damaged_cached_file_is_fetched_again(server, locked, cache):
    fetched(server, locked, cache)
    damaged = cache / locked.packages[5].file_name
    damaged.write_bytes(b"x" * damaged.stat().st_size)
    (cache / locked.packages[6].file_name).write_bytes(b"short")
    fetched(server, locked, cache)
    assert len(server.requests) == 10


@pytest.mark.parametrize("fault", [404, 403, "garbage", "page"])
def test_the_next_mirror_is_asked(server, locked, cache, tmp_path, fault):
    with serving(tmp_path / "archive") as bad:
        bad.faults[""] = [fault]
        assert fetched(server, locked, cache, bad.url) == locked.size
        assert len(bad.requests) == 8, "what a mirror will not mend is not asked for twice"


def test_a_mirror_that_is_down_is_passed_over(server, locked, cache):
    fetched(server, locked, cache, "http://127.0.0.1:9")  # nothing listens there


def test_what_passes_is_tried_again(server, locked, cache):
    server.faults["p3"] = [503, 429, "cut", 500, "ok"]
    assert fetched(server, locked, cache) == locked.size


def test_the_wrong_file_everywhere_is_an_error(server, locked, cache):
    server.faults["p3"] = ["garbage"]
    with pytest.raises(UserError, match="wrong SHA-256"):
        fetched(server, locked, cache)
    assert not (cache / locked.packages[3].file_name).exists()


def test_nothing_reachable_says_what_was_tried_and_what_to_do(locked, cache):
    with pytest.raises(UserError) as caught:
        fetch.Fetcher(["http://127.0.0.1:9/debian"], cache).fetch_all(locked.packages)
    message = str(caught.value)
    for part in ("127.0.0.1:9/debian", "refused", "--mirror", mirrors.VARIABLE, str(cache), "PATH"):
        assert part in message


def test_the_dated_archive_is_asked_by_its_date(server, locked, cache, tmp_path, monkeypatch):
    monkeypatch.setattr(mirrors, "SNAPSHOTS", f"{server.url}/archive/debian")
    monkeypatch.delenv(mirrors.VARIABLE, raising=False)
    bases = mirrors.candidates(None, locked.snapshot, apt=tmp_path / "no-apt")
    dated = tmp_path / "archive" / "archive" / "debian"
    dated.mkdir(parents=True)
    (dated / SNAPSHOT).symlink_to(tmp_path / "archive")
    paths = fetch.Fetcher(bases, cache).fetch_all(locked.packages)
    assert all(path.exists() for path in paths)
    assert server.requests[0][0].startswith(f"/archive/debian/{SNAPSHOT}/pool/")


def test_a_folder_is_a_mirror_too(locked, cache, tmp_path):
    bases = mirrors.candidates(str(tmp_path / "archive"), SNAPSHOT)
    assert len(fetch.Fetcher(bases, cache).fetch_all(locked.packages)) == 8
