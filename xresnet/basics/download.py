"""Receive a file over HTTP, going on after what an earlier try has left."""

from __future__ import annotations

import contextlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

TIMEOUT = 20.0  # seconds without a byte
PIECE = 1 << 18  # bytes


class Failure(Exception):
    """One try failed; `final` when the same address would only say the same again."""

    def __init__(self, reason: str, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final


def receive(
    url: str,
    part: Path,
    size: int,
    on_bytes: Callable[[int], object] = lambda n: None,
    check: Callable[[], object] = lambda: None,
) -> int:
    """Append to `part`, the beginning of a file of `size` bytes, what it lacks.

    Returns how many bytes it has then: fewer than `size` if the connection was cut.
    `on_bytes` hears of every piece that arrived (negative: thrown away, where a server cannot begin
    in the middle); `check` may raise between pieces, to stop.

    Raises:
        Failure: the server cannot be reached, refuses, or has another file.
        OSError: the disk is full, or `part` cannot be written.
    """
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "xresnet-caffe"}
    if have:
        headers["Range"] = f"bytes={have}-"
    with _network():
        answer = urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=TIMEOUT
        )
    with answer:
        if have and getattr(answer, "status", None) != 206:  # it sends all of it again
            on_bytes(-have)
            have = 0
        announced = answer.headers.get("Content-Length")
        if announced and int(announced) != size - have:  # a login page, another version
            raise Failure(f"offers {announced} bytes, not {size - have}", final=True)
        with part.open("ab" if have else "wb") as file:
            while have < size:
                with _network():
                    piece = answer.read(min(PIECE, size - have))
                if not piece:
                    break
                check()
                file.write(piece)
                have += len(piece)
                on_bytes(len(piece))
    return have


@contextlib.contextmanager
def _network() -> Iterator[None]:
    """What goes wrong on the way, as a Failure; errors of the disk are none of these."""
    try:
        yield
    except urllib.error.HTTPError as error:
        passing = error.code in (408, 429) or error.code >= 500
        raise Failure(f"HTTP {error.code} {error.reason}", final=not passing) from error
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: no address
        raise Failure(str(getattr(error, "reason", error)) or repr(error)) from error
