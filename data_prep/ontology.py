"""Adjective-noun pairs as Columbia's Visual Sentiment Ontology (VSO) publishes them.

`read` takes any of:

- the 3,244 list (`3244ANPs.txt`): prose, then for each adjective
  `1. beautiful [sentiment: 1.00] [#images: 18,487,527]` and under it its pairs,
  `<TAB>beautiful_flower [sentiment: 1.77] [#imgs: 2,380,000]`;
- one ANP a line (`1200ANPsv1.1.txt`, or anybody's own list);
- a folder with one subfolder per ANP.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from basics.cli import UserError
from basics.files import PathLike, read_text

_NAME = re.compile(r"[^\s_]+_\S+")
_ADJECTIVE = re.compile(
    r"\d+\. (?P<name>\S+) \[sentiment: (?P<sentiment>[^\]]*)\] \[#images: (?P<hits>[^\]]*)\]"
)
_PAIR = re.compile(
    r"(?P<name>\S+) \[sentiment: (?P<sentiment>[^\]]*)\] \[#imgs: (?P<hits>[^\]]*)\]"
)


@dataclass(frozen=True)
class Anp:
    """One adjective-noun pair.

    `sentiment` lies in [-2, 2]; `hits` is what Flickr's search returned for
    the pair, which says little about how many images anybody has on disk.
    Both are None where the source does not tell.
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
        """The part behind the first underscore."""
        return self.name.partition("_")[2]


def is_name(text: str) -> bool:
    """Whether `text` reads as `adjective_noun`."""
    return _NAME.fullmatch(text) is not None


def read(path: PathLike) -> list[Anp]:
    """The ANPs of an ontology file or folder tree, in its order.

    Raises:
        UserError: not there, no ANP in it, or a line that is not in the format.
    """
    path = Path(path)
    if path.is_dir():
        anps = [
            Anp(entry.name)
            for entry in sorted(path.iterdir())
            if entry.is_dir() and is_name(entry.name)
        ]
    else:
        anps = parse(read_text(path), str(path))
    if not anps:
        raise UserError(f"{path}: no adjective_noun pair in it")
    return anps


def parse(text: str, source: str) -> list[Anp]:
    """The ANPs in `text`, whichever format it has; `source` names it in errors."""
    lines = [
        (number, line.rstrip()) for number, line in enumerate(text.lstrip("\ufeff").split("\n"), 1)
    ]
    first = next((i for i, (_, line) in enumerate(lines) if _ADJECTIVE.fullmatch(line)), None)
    if first is None:
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
            raise UserError(f"{source}:{number}: {anp.name} stands under the adjective {adjective}")
        yield number, anp


def _numbers(match: re.Match[str], where: str) -> tuple[float, int]:
    if not re.fullmatch(r"[+-]?\d+(\.\d+)?", match["sentiment"], re.ASCII):
        raise UserError(f"{where}: {_short(match['sentiment'])} is not a sentiment value")
    if not re.fullmatch(r"\d+|\d{1,3}(,\d{3})+", match["hits"], re.ASCII):
        raise UserError(f"{where}: {_short(match['hits'])} is not a number of images")
    return float(match["sentiment"]), int(match["hits"].replace(",", ""))


def _unique(found: Iterable[tuple[int, Anp]], source: str) -> list[Anp]:
    seen: dict[str, int] = {}
    anps = []
    for number, anp in found:
        if anp.name in seen:
            raise UserError(
                f"{source}:{number}: {anp.name} stands already on line {seen[anp.name]}"
            )
        seen[anp.name] = number
        anps.append(anp)
    return anps


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
