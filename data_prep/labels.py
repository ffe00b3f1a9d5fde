"""Fetch the class lists that the paper's first author published.

They are in the repository of a later paper of the same group (Fernandez et al., MUSA2 2017),
copied from the author's gist 547112cc41b831ec1905e75deae11104. The commit and the hashes are fixed.
"""

from __future__ import annotations

import hashlib
import http.client
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.classes import Classes
from xresnet.basics.cli import UserError
from xresnet.basics.files import PathLike, sha256, write

SOURCE = (
    "https://raw.githubusercontent.com/imatge-upc/affective-2017-musa2/"
    "3779543678bf0d480ba8c4b8cd03cdf00445a63d/labels"
)
# Task -> (name there, SHA-256); line order is label order.
FILES = {
    "adj": (
        "mtvso_adjlabels.txt",
        "71716df4c4b75ebdccb0a82a9da9f178383680edf1f572463a102cafd26c014b",
    ),
    "anp": (
        "mtvso_anplabels.txt",
        "bcbf75a75b7fcc51269a4709072f71b2cf1a25c00b0d4679a233bf5e68de0062",
    ),
    "noun": (
        "mtvso_nounlabels.txt",
        "06694b3eaa7af0dd5e34402a2671432589f52f8e7916e1df4f10500145677a67",
    ),
}
_MOST = 1 << 20  # bytes; the lists have 9 KB


@dataclass(frozen=True)
class Published:
    """The result of `fetch`. `facts`: source, files with hashes, and numbers of classes."""

    folder: Path
    classes: Classes
    facts: dict[str, Any]


def fetch(out: PathLike, *, source: str = SOURCE, timeout: float = 30) -> Published:
    """Fetch the three lists to `out/mtvso_{adj,anp,noun}.txt`; existing ones are kept.

    Args:
        out: the folder for the lists.
        source: the address of the folder with the three files; a mirror must have the same bytes.
        timeout: seconds without a byte until the connection fails.

    Raises:
        UserError: the server cannot be reached, or a file is not the published one.
    """
    files = []
    for task, (name, expected) in FILES.items():
        path = Path(out) / f"mtvso_{task}.txt"
        if not (path.is_file() and sha256(path) == expected):
            url = f"{source.rstrip('/')}/{name}"
            data = _get(url, path, timeout)
            found = hashlib.sha256(data).hexdigest()
            if found != expected:
                raise UserError(
                    f"{url}: not the published list (SHA-256 {found[:12]}..., not "
                    f"{expected[:12]}...); nothing was written for {task}"
                )
            write(path, data)
        files.append({"path": str(path), "sha256": expected})
    classes = Classes.read(out)
    facts = {"source": source, "files": files, "classes": classes.counts}
    return Published(Path(out), classes, facts)


def _get(url: str, path: Path, timeout: float) -> bytes:
    if not url.startswith(("http://", "https://")):
        raise UserError(f"--source {url}: expected an address that begins with https://")
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:
            return answer.read(_MOST)
    except urllib.error.HTTPError as error:
        why = f"{url}: the server answers {error.code} {error.reason}"
    except (OSError, ValueError, http.client.HTTPException) as error:  # URLError is an OSError
        why = f"cannot fetch {url}: {getattr(error, 'reason', error)}"
    raise UserError(
        f"{why}; name a mirror with --source, or put the file, fetched elsewhere, at {path}"
    )
