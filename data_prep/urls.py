"""Read lists of image addresses in the formats that VSO and its successors publish.

- `adj_noun url` a line, or `adj_noun,url`, columns in either order;
- CSV with a header that names `anp` and `url` (Multilingual VSO's
  `image_url_mappings/*.csv`), and optionally `sha256`;
- one URL a line in a file or under a folder named `adj_noun`.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from data_prep.ontology import csv_cells, is_name
from data_prep.spreadsheet import plain
from xresnet.basics.cli import UserError
from xresnet.basics.files import PathLike

_URL = re.compile(r"https?://[^\s/,\"]+/?[^\s\"]*", re.IGNORECASE)


class Url(NamedTuple):
    """The address of an ANP's image; `sha256` in hex, "" if the list does not have it."""

    anp: str
    url: str
    sha256: str = ""


def read_urls(path: PathLike) -> Iterator[Url]:
    """The addresses in a list, or in all files under a folder, in order; read line by line.

    Raises:
        UserError: a file cannot be read or is not text, a line has no known form, or there is
            no address.
    """
    path = Path(path)
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    empty = True
    for file in files:
        anp = next((name for name in (file.stem, file.parent.name) if is_name(name)), None)
        try:
            with file.open(encoding="utf-8-sig") as lines:
                for url in parse_urls(lines, str(file), anp):
                    empty = False
                    yield url
        except UnicodeDecodeError as error:
            raise UserError(f"{file}: not UTF-8 text (byte {error.start})") from error
        except OSError as error:
            raise UserError(f"cannot read {file}: {error.strerror or error}") from error
    if empty:
        raise UserError(f"{path}: it contains no image address")


def parse_urls(lines: Iterable[str], source: str, anp: str | None = None) -> Iterator[Url]:
    """`read_urls` for the lines of a file; `anp` is the ANP of lines that hold only a URL."""
    columns: list[str] | None = None
    for number, line in enumerate(lines, 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if columns is None:
            cells = csv_cells(line)
            columns = cells if {"anp", "url"} <= set(cells) else []
            if columns:
                continue
        url = _with_header(line, columns) if columns else _plain(line, anp)
        if url is None or not is_name(url.anp) or not _URL.fullmatch(url.url):
            shown = repr(line if len(line) <= 80 else line[:77] + "...")
            raise UserError(
                f"{source}:{number}: expected `adjective_noun url`, or a URL in a file or folder "
                f"named adjective_noun, found {shown}"
            )
        yield url


def _with_header(line: str, columns: list[str]) -> Url | None:
    try:
        row = dict(zip(columns, next(csv.reader([line], strict=True), [])))
    except csv.Error:
        return None
    digest = row.get("sha256", "").strip().lower()
    if digest and not re.fullmatch(r"[0-9a-f]{64}", digest):
        return None
    return Url(plain(row.get("anp", "").strip()), row.get("url", "").strip(), digest)


def _plain(line: str, anp: str | None) -> Url | None:
    # A URL may hold commas, an ANP neither comma nor blank: cut beside the ANP.
    if not _URL.match(line):
        first, *rest = re.split(r"[\s,]+", line, maxsplit=1)
        return Url(first.strip('"'), rest[0].strip('"')) if rest else None
    if anp and _URL.fullmatch(line):
        return Url(anp, line)
    cut = re.fullmatch(r"(\S+?)[\s,]+([^\s,]+)", line)
    return Url(cut[2].strip('"'), cut[1].strip('"')) if cut else None
