"""The class lists that the paper's first author published, fetched and checked.

They stand in the repository of a later paper of the same group (Fernandez
et al., MUSA2 2017), which took them from the author's gist
547112cc41b831ec1905e75deae11104; the commit is fixed, and so are the hashes.
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
    """The authors' class lists, where they are now, and what is known of them."""

    folder: Path
    classes: Classes
    facts: dict[str, Any]


def fetch(out: PathLike, *, source: str = SOURCE, timeout: float = 30) -> Published:
    """Fetch the three lists to `out/mtvso_{adj,anp,noun}.txt`; those already there stay.

    Args:
        source: the address above the three files; a mirror's must hold the same bytes.
        timeout: seconds that a server may keep silent.

    Raises:
        UserError: no connection, or a file is not the one that was published.
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
