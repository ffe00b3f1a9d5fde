"""Download a file over HTTP and resume what an earlier try has left."""

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
    """A try has failed; `final` if another try at the same address would fail as well."""

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
    """Download what `part`, the beginning of a file, lacks, and append it.

    Args:
        url: the file's address.
        part: where the file is written; may hold its beginning.
        size: the file's size in bytes.
        on_bytes: called with the number of bytes of each piece that arrives, and with a negative
            number where a server cannot resume and `part` is begun again.
        check: called between pieces; may raise an exception to stop.

    Returns:
        the size of `part` in bytes: less than `size` if the connection was cut.

    Raises:
        Failure: the server cannot be reached, refuses, or offers another size.
        OSError: `part` cannot be written.
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
        if have and getattr(answer, "status", None) != 206:  # the server sends all of it again
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
    """Turn errors of the network into a Failure; errors of the disk happen outside."""
    try:
        yield
    except urllib.error.HTTPError as error:
        passing = error.code in (408, 429) or error.code >= 500
        raise Failure(f"HTTP {error.code} {error.reason}", final=not passing) from error
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: no address
        raise Failure(str(getattr(error, "reason", error)) or repr(error)) from error
