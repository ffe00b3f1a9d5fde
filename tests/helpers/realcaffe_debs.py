"""For the tests of realcaffe: tiny Debian packages, an archive of them, and a faulty web server."""

from __future__ import annotations

import contextlib
import hashlib
import io
import lzma
import re
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from xresnet.realcaffe import install, lock, wrappers

SNAPSHOT = "20250810T000000Z"

# Stands where the prefix's loader stands; says what `caffe --version` says.
FAKE_LOADER = b"#!/bin/sh\necho caffe version 1.0.0\n"


def member(name: str, content: bytes = b"", **attributes: object) -> tuple[tarfile.TarInfo, bytes]:
    """A tar member; `attributes` as TarInfo has them (type, mode, linkname)."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    info.mode = 0o644
    for key, value in attributes.items():
        setattr(info, key, value)
    return info, content


def deb(*members: tuple[tarfile.TarInfo, bytes], name: str = "data.tar.xz") -> bytes:
    """A Debian package with these files in it."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    data = lzma.compress(raw.getvalue()) if name.endswith(".xz") else raw.getvalue()
    parts = [("debian-binary", b"2.0\n"), ("control.tar", b"odd"), (name, data)]
    blob = b"!<arch>\n"
    for part, content in parts:
        header = f"{part:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n"
        blob += header.encode() + content + b"\n" * (len(content) % 2)
    return blob


def archive(folder: Path, **packages: bytes) -> lock.Lock:
    """Lay packages down under `folder`/pool and return their lock."""
    entries = []
    for name, blob in packages.items():
        path = Path("pool") / "main" / f"{name}_1.0+b1_amd64.deb"
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        if not (folder / path).exists():  # another process may be reading it
            (folder / path).write_bytes(blob)
        digest = hashlib.sha256(blob).hexdigest()
        entries.append(lock.Package(name, "1.0+b1", path.as_posix(), len(blob), digest))
    return lock.Lock("bullseye", SNAPSHOT, tuple(entries), "f" * 64)


def tiny_caffe(folder: Path) -> lock.Lock:
    """An archive from which `install` can make a prefix that seems to work."""
    return archive(
        folder,
        loader=deb(
            member(wrappers.LOADER, FAKE_LOADER, mode=0o755),
            member(wrappers.PTH.rpartition("/")[0] + "/caffe.py", b"pass\n"),
        ),
        **{f"filler{n}": deb(member(f"usr/lib/filler{n}", bytes([n]) * 50_000)) for n in range(9)},
    )


def install_tiny(archive_folder: str, place: str) -> None:
    """For a process of its own: install the tiny Caffe under `place`."""
    locked = tiny_caffe(Path(archive_folder))
    lock.read = lambda: locked
    install.install(install.Place(Path(place) / "cache", Path(place) / "bin"), archive_folder)


class Server:
    """Serves a folder on the loopback, with faults.

    `faults` maps a pattern of paths to what happens to matching requests, one
    entry a request, the last one for good: a status code, "cut" (half of the
    body), "garbage" (right length, wrong bytes), "page" (a short page of its
    own), "whole" (ignores Range) or "ok".
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.faults: dict[str, list[object]] = {}
        self.requests: list[tuple[str, str]] = []  # path and Range header
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.answer(self)

            def log_message(self, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        wanted = request.headers.get("Range", "")
        self.requests.append((request.path, wanted))
        fault = self.fault_for(request.path)
        file = self.folder / request.path.lstrip("/")
        if isinstance(fault, int) or not file.is_file():
            request.send_error(fault if isinstance(fault, int) else 404)
            return
        body = file.read_bytes()
        if fault == "page":
            body = b"<html>Please log in</html>"
        first = int(wanted[len("bytes=") : -1]) if wanted and fault != "whole" else 0
        body = body[first:]
        request.send_response(206 if first else 200)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if fault == "cut":
            body = body[: len(body) // 2]
        elif fault == "garbage":
            body = bytes(len(body))
        with contextlib.suppress(ConnectionError):
            request.wfile.write(body)

    def fault_for(self, path: str) -> object:
        for pattern, faults in self.faults.items():
            if re.search(pattern, path):
                return faults.pop(0) if len(faults) > 1 else faults[0]
        return "ok"


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """A running Server of `folder`."""
    server = Server(folder)
    thread = threading.Thread(target=server.http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        server.http.server_close()
