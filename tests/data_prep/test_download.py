"""Downloads from a server on loopback, by each of img2dataset's distributors.

`pip install 'xresnet-caffe[pyspark,ray]'` to run them all.
"""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from data_prep import labels
from data_prep.__main__ import main
from data_prep.urls import Url, parse_urls, read_urls
from tests.data_prep.test_lmdb import encoded, picture
from xresnet.basics.cli import UserError


class Server:
    """Serves `pages`: path -> (status, content type, body); counts what is asked for."""

    def __init__(self, pages: dict[str, tuple[int, str, bytes]]) -> None:
        self.pages, self.asked = pages, Counter()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked[self.path] += 1
                status, kind, body = outer.pages.get(self.path, (404, "text/html", b"gone"))
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", kind)
                else:
                    self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def serve():
    servers = []

    def start(pages: dict[str, tuple[int, str, bytes]]) -> Server:
        servers.append(Server(pages))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


# --- URL lists ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "anp", "expected"),
    [
        ("dark_moon http://a/1.jpg", None, ("dark_moon", "http://a/1.jpg", "")),
        ("dark_moon\thttps://a/1,2.jpg", None, ("dark_moon", "https://a/1,2.jpg", "")),
        ('dark_moon,"http://a/1.jpg"', None, ("dark_moon", "http://a/1.jpg", "")),
        ("http://a/1.jpg dark_moon", None, ("dark_moon", "http://a/1.jpg", "")),
        ("http://a/1.jpg,dark_moon", None, ("dark_moon", "http://a/1.jpg", "")),
        ("http://a/1,2.jpg", "tiny_star", ("tiny_star", "http://a/1,2.jpg", "")),
    ],
)
def test_url_lines(line, anp, expected):
    assert list(parse_urls([line], "list", anp)) == [Url(*expected)]


@pytest.mark.parametrize("line", ["http://a/1.jpg", "dark_moon", "moon http://a", "a_b ftp://c/d"])
def test_wrong_url_line_is_named(line):
    with pytest.raises(UserError, match=r"^list:2: expected `adjective_noun url`"):
        list(parse_urls(["a_b http://c/d", line], "list"))


def test_url_header_and_hashes():
    digest = "ab" * 32
    lines = ["anp,url,sha256", f"dark_moon,http://a/1.jpg,{digest}", "dark_moon,http://a/2.jpg,"]
    assert [url.sha256 for url in parse_urls(lines, "list")] == [digest, ""]
    with pytest.raises(UserError, match="list:2"):
        list(parse_urls(["anp,url,sha256", "dark_moon,http://a/1.jpg,abc"], "list"))


def test_url_folder(tmp_path):
    (tmp_path / "dark_moon").mkdir()
    (tmp_path / "dark_moon" / "urls.txt").write_text("http://a/1.jpg\n")
    (tmp_path / "tiny_star.txt").write_text("http://a/2.jpg\n\n")
    found = list(read_urls(tmp_path))
    assert found == [Url("dark_moon", "http://a/1.jpg"), Url("tiny_star", "http://a/2.jpg")]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no image address"):
        list(read_urls(tmp_path / "empty"))


# --- download -----------------------------------------------------------------------------------


def needs(*packages: str):
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    reason = f"SKIPPED FOR LACK OF {', '.join(missing)}: pip install '.[pyspark,ray]'"
    return pytest.mark.skipif(bool(missing), reason=reason)


def _photo(seed: int) -> bytes:
    return encoded(".jpg", picture(seed, 200, 240))


def _pages() -> dict[str, tuple[int, str, bytes]]:
    gone = encoded(".png", picture(0, 60, 60)) + b"\0" * 3000  # as large as a photo
    pages = {f"/{i}.jpg": (200, "image/jpeg", _photo(i)) for i in range(20)}
    pages.update({f"/gone{i}.jpg": (302, "/gone.png", b"") for i in range(6)})
    pages["/gone.png"] = (200, "image/png", gone)
    pages["/page.jpg"] = (200, "text/html", b"<!DOCTYPE html><html>no such photo</html>")
    pages["/moving.gif"] = (200, "image/gif", b"GIF89a" + b"\0" * 5000)
    pages["/tiny.jpg"] = (200, "image/jpeg", encoded(".jpg", picture(1, 8, 8)))
    pages["/again.jpg"] = pages["/3.jpg"]
    pages["/broken.jpg"] = (200, "image/jpeg", _photo(5)[:100])
    return pages


DISTRIBUTORS = [
    pytest.param("multiprocessing", marks=needs("img2dataset")),
    pytest.param("pyspark", marks=[needs("img2dataset", "pyspark"), pytest.mark.slow]),
    pytest.param("ray", marks=[needs("img2dataset", "ray"), pytest.mark.slow]),
]


@pytest.mark.parametrize("distributor", DISTRIBUTORS)
def test_download(serve, tmp_path, capsys, distributor):
    pages = _pages()
    server = serve(pages)
    names = [*(f"{i}.jpg" for i in range(20)), *(f"gone{i}.jpg" for i in range(6))]
    names += ["page.jpg", "moving.gif", "tiny.jpg", "again.jpg", "broken.jpg", "missing.jpg"]
    rows = [("dark_moon", f"{server.address}/{name}", "") for name in names]
    right = hashlib.sha256(_photo(0)).hexdigest()
    # The same image under another ANP is another example; a wrong hash is refused.
    rows += [("tiny_star", f"{server.address}/0.jpg", right)]
    rows += [("tiny_star", f"{server.address}/1.jpg", "0" * 64)]
    addresses = tmp_path / "urls.csv"
    addresses.write_text("anp,url,sha256\n" + "".join(f"{','.join(row)}\n" for row in rows))

    out = tmp_path / "images"
    command = ["download", str(addresses), "--out", str(out), "--json", "--retries", "0"]
    command += ["--distributor", distributor, "--per-shard", "10", "--threads", "4"]
    main(command)
    summary = json.loads(capsys.readouterr().out)
    assert summary["images"] == 21
    assert summary["addresses"] == len(rows)
    assert {path.read_bytes() for path in (out / "dark_moon").iterdir()} == {
        _photo(i) for i in range(20)
    }
    assert [path.read_bytes() for path in (out / "tiny_star").iterdir()] == [_photo(0)]
    with (out / "rejected.csv").open() as file:
        reasons = {Path(row["url"]).name: row["reason"] for row in csv.DictReader(file)}
    assert reasons.pop("missing.jpg").startswith("HTTP Error 404")
    assert reasons.pop("page.jpg") == "a web page, not an image"
    assert reasons.pop("moving.gif") == "a GIF, which Caffe does not read"
    assert reasons.pop("tiny.jpg").startswith("placeholder or thumbnail: ")
    assert reasons.pop("again.jpg") == f"duplicate: of {server.address}/3.jpg"
    assert reasons.pop("broken.jpg").startswith("damaged")
    assert reasons.pop("1.jpg") == "not the bytes with the list's SHA-256"
    assert set(reasons) == {f"gone{i}.jpg" for i in range(6)}
    assert set(reasons.values()) == {"placeholder: the same bytes at 6 addresses"}

    # Again: nothing is fetched twice. A shard that is lost is fetched, and no other.
    asked = sum(server.asked.values())
    main(command)
    assert json.loads(capsys.readouterr().out) == summary
    assert sum(server.asked.values()) == asked
    for path in out.glob(".download/*/shards/00001*.json"):
        path.unlink()
    main(command)
    assert json.loads(capsys.readouterr().out) == summary
    assert 10 <= sum(server.asked.values()) - asked <= 10 + 6  # redirects are asked twice


def test_download_without_its_library(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"img2dataset is not installed: .*\[download\]"):
        main(["download", str(tmp_path / "urls"), "--out", str(tmp_path / "out")])


# --- the published class lists -------------------------------------------------------------------


def test_labels(serve, tmp_path, monkeypatch, capsys):
    lists = {"adj": b"dark\ntiny", "anp": b"tiny_star\ndark_moon", "noun": b"moon\nstar"}
    published = {
        task: (f"mtvso_{task}labels.txt", hashlib.sha256(text).hexdigest())
        for task, text in lists.items()
    }
    monkeypatch.setattr(labels, "FILES", published)
    pages = {f"/labels/{published[task][0]}": (200, "text/plain", lists[task]) for task in lists}
    server = serve(pages)
    command = ["labels", "--out", str(tmp_path), "--source", f"{server.address}/labels"]
    main(command)
    assert "2 adj, 2 anp, 2 noun classes" in capsys.readouterr().out
    assert (tmp_path / "mtvso_anp.txt").read_bytes() == lists["anp"]
    main(command)
    assert sum(server.asked.values()) == 3  # what is there and right is not fetched again
    (tmp_path / "mtvso_anp.txt").unlink()
    server.pages["/labels/mtvso_anplabels.txt"] = (200, "text/plain", b"tiny_star\n")
    with pytest.raises(UserError, match="not the published list"):
        main(command)
    assert not (tmp_path / "mtvso_anp.txt").exists()
    server.pages.clear()
    with pytest.raises(UserError, match="the server answers 404"):
        main(command)
    server.close()
    with pytest.raises(UserError, match=r"cannot fetch .*refused.*--source.* at .*/mtvso_anp.txt$"):
        main(command)
    with pytest.raises(UserError, match=r"cannot fetch .*control characters"):
        main([*command[:-1], "http://a b/labels"])


def test_the_published_lists_are_those_on_disk(shared):
    for task, (_, digest) in labels.FILES.items():
        data = (shared / "vso" / f"mtvso_{task}.txt").read_bytes()
        assert hashlib.sha256(data).hexdigest() == digest
