"""Read adjective-noun pairs (ANPs) as Columbia's Visual Sentiment Ontology (VSO) publishes them.

`read` accepts:

- the 3,244 list (`3244ANPs.txt`): prose, then for each adjective
  `1. beautiful [sentiment: 1.00] [#images: 18,487,527]` and under it its pairs,
  `<TAB>beautiful_flower [sentiment: 1.77] [#imgs: 2,380,000]`;
- one ANP a line, as in `1200ANPsv1.1.txt`;
- CSV with a header that names the column `anp`: Multilingual VSO's `anp,url`
  (an ANP's lines are counted), or a table with `sentiment` and `hits` as this
  package writes them;
- a folder with one subfolder per ANP.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from data_prep.spreadsheet import plain
from xresnet.basics import bars
from xresnet.basics.cli import UserError, shortened
from xresnet.basics.files import PathLike, read_text

_NAME = re.compile(r"[^\s_\ud800-\udfff]+_[^\s\ud800-\udfff]+")  # UTF-8, as the lists are
_ADJECTIVE = re.compile(
    r"\d+\. (?P<name>\S+) \[sentiment: (?P<sentiment>[^\]]*)\] \[#images: (?P<hits>[^\]]*)\]"
)
_PAIR = re.compile(
    r"(?P<name>\S+) \[sentiment: (?P<sentiment>[^\]]*)\] \[#imgs: (?P<hits>[^\]]*)\]"
)


@dataclass(frozen=True)
class Anp:
    """An adjective-noun pair.

    `sentiment` is in [-2, 2]; `hits` is the number of results of Flickr's search, which says
    little about the number of images on disk. Both are None if the source lacks them.
    """

    name: str
    sentiment: float | None = None
    hits: int | None = None

    @property
    def adjective(self) -> str:
        """The part before the first underscore."""
        return self.name.partition("_")[0]

    @property
    def noun(self) -> str:
        """The part after the first underscore."""
        return self.name.partition("_")[2]


def is_name(text: str) -> bool:
    """Whether `text` has the form `adjective_noun`."""
    return _NAME.fullmatch(text) is not None


def read(path: PathLike) -> list[Anp]:
    """The ANPs of an ontology file or folder, in its order.

    Raises:
        UserError: it cannot be read, has no ANP, or a line is not in the format.
    """
    path = Path(path)
    if path.is_dir():
        names = sorted(entry.name for entry in path.iterdir() if entry.is_dir())
        anps = [Anp(name) for name in names if is_name(name)]
        others = [name for name in names if not is_name(name)]
        if others:
            bars.say(
                f"{path}: ignored {len(others):,} folders whose names are not adjective_noun "
                f"in UTF-8: {shortened(others, 3)}"
            )
    else:
        anps = parse(read_text(path), str(path))
    if not anps:
        raise UserError(f"{path}: it contains no adjective_noun pair")
    return anps


def parse(text: str, source: str) -> list[Anp]:
    """`read` for the text of a file in any of the formats; `source` names it in errors."""
    lines = [
        (number, line.rstrip()) for number, line in enumerate(text.lstrip("\ufeff").split("\n"), 1)
    ]
    first = next((i for i, (_, line) in enumerate(lines) if _ADJECTIVE.fullmatch(line)), None)
    if first is None:
        header = next((i for i, (_, line) in enumerate(lines) if line.strip()), 0)
        if "anp" in csv_cells(lines[header][1]):
            return _parse_csv(lines[header:], source)
        return _unique(_parse_plain(lines, source), source)
    return _unique(_parse_sectioned(lines[first:], source), source)


def _parse_plain(lines: list[tuple[int, str]], source: str) -> Iterable[tuple[int, Anp]]:
    for number, line in lines:
        name = line.strip()
        if not name:
            continue
        if not is_name(name):
            raise UserError(f"{source}:{number}: expected adjective_noun, found {_short(name)}")
        yield number, Anp(name)


def csv_cells(line: str) -> list[str]:
    """The cells of a CSV header in lower case; none if the line is not CSV."""
    try:
        return [cell.strip().lower() for cell in next(csv.reader([line]), [])]
    except csv.Error:
        return []


def _parse_csv(lines: list[tuple[int, str]], source: str) -> list[Anp]:
    """Parse a table with a line per ANP, or with a line per URL of an ANP's image."""
    columns = csv_cells(lines[0][1])
    found: dict[str, Anp] = {}
    counts: Counter[str] = Counter()
    for number, line in lines[1:]:
        where = f"{source}:{number}"
        if not line.strip():
            continue
        try:
            row = dict(zip(columns, next(csv.reader([line], strict=True))))
        except csv.Error as error:
            raise UserError(f"{where}: not CSV ({error}): {_short(line)}") from None
        name = plain(row.get("anp", "").strip())
        if not is_name(name):
            raise UserError(f"{where}: expected adjective_noun, found {_short(line)}")
        counts[name] += 1
        if counts[name] > 1 and "url" not in columns:
            raise UserError(f"{where}: {name} is listed twice")
        if name not in found:
            sentiment, hits = row.get("sentiment", "").strip(), row.get("hits", "").strip()
            found[name] = Anp(
                name,
                _sentiment(sentiment, where) if sentiment else None,
                _hits(hits, where) if hits else None,
            )
    if "url" in columns:
        return [replace(anp, hits=counts[name]) for name, anp in found.items()]
    return list(found.values())


def _parse_sectioned(lines: list[tuple[int, str]], source: str) -> Iterable[tuple[int, Anp]]:
    adjective = None
    for number, line in lines:
        if not line:
            continue
        heading = _ADJECTIVE.fullmatch(line)
        if heading:
            adjective = heading["name"]
            _numbers(heading, f"{source}:{number}")
            continue
        pair = _PAIR.fullmatch(line.lstrip())
        if not pair or not is_name(pair["name"]):
            raise UserError(
                f"{source}:{number}: expected `adjective_noun [sentiment: 1.77] [#imgs: 2,380]`"
                f" or `2. adjective [sentiment: 1.00] [#images: 4,793]`, found {_short(line)}"
            )
        anp = Anp(pair["name"], *_numbers(pair, f"{source}:{number}"))
        if anp.adjective != adjective:
            raise UserError(
                f"{source}:{number}: {anp.name} is listed under the adjective {adjective}"
            )
        yield number, anp


def _numbers(match: re.Match[str], where: str) -> tuple[float, int]:
    return _sentiment(match["sentiment"], where), _hits(match["hits"], where)


def _sentiment(text: str, where: str) -> float:
    if not re.fullmatch(r"[+-]?\d{1,9}(\.\d{1,18})?", text, re.ASCII):  # more would be infinite
        raise UserError(f"{where}: {_short(text)} is not a sentiment value")
    return float(text)


def _hits(text: str, where: str) -> int:
    # 12 digits are more images than there are, and keep int() from its own limit.
    if not re.fullmatch(r"\d{1,12}|\d{1,3}(,\d{3}){1,3}", text, re.ASCII):
        raise UserError(f"{where}: {_short(text)} is not a number of images")
    return int(text.replace(",", ""))


def _unique(found: Iterable[tuple[int, Anp]], source: str) -> list[Anp]:
    seen: dict[str, int] = {}
    anps = []
    for number, anp in found:
        if anp.name in seen:
            raise UserError(f"{source}:{number}: {anp.name} is already on line {seen[anp.name]}")
        seen[anp.name] = number
        anps.append(anp)
    return anps


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
