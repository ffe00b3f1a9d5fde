"""The three criteria by which the paper selects 553 of VSO's 1,200 ANPs (section 5.1).

(1) The adjective has at least 3 nouns, (2) the noun is neither overwhelmingly biasing nor abstract,
(3) the ANP has at least 500 images. Criterion 1 counts on the full list, since 36 of the final 117
adjectives have fewer than 3 nouns in the final list. Images are those on disk; the counts in an
ontology are search hits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep import spreadsheet
from data_prep.ontology import Anp
from xresnet.basics.cli import UserError
from xresnet.basics.files import PathLike, read_text

EXCLUDED_NOUNS = Path(__file__).with_name("excluded_nouns.txt")
CRITERIA = ("adjective", "noun", "images")  # in the order they are applied


@dataclass(frozen=True)
class Decision:
    """The decision on an ANP. `criterion`: the first that it fails, None if it is kept;
    `images`: on disk, None if they were not counted."""

    anp: Anp
    images: int | None = None
    criterion: str | None = None
    reason: str = ""


def read_excluded(path: PathLike = EXCLUDED_NOUNS) -> dict[str, str]:
    """Read noun -> reason from a file of `noun: reason` lines (`#` starts a comment).

    Raises:
        UserError: a line has no reason, or a noun is listed twice.
    """
    return parse_excluded(read_text(path), str(path))


def parse_excluded(text: str, path: str) -> dict[str, str]:
    """`read_excluded` for the text of a file; `path` names it in errors."""
    excluded: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.partition("#")[0].strip()
        if not line:
            continue
        noun, _, reason = (part.strip() for part in line.partition(":"))
        if not noun or not reason:
            raise UserError(f"{path}:{number}: expected `noun: reason`, found {line!r}")
        if noun in excluded:
            raise UserError(f"{path}:{number}: {noun} is listed twice")
        excluded[noun] = reason
    return excluded


def decide(
    anps: Sequence[Anp],
    images: Mapping[str, int] | None,
    *,
    min_nouns: int = 3,
    excluded: Mapping[str, str] | None = None,
    min_images: int = 500,
) -> list[Decision]:
    """Apply the criteria to each ANP of the full list, in its order.

    Args:
        anps: the full list.
        images: ANP -> images on disk; None omits criterion 3.
        min_nouns: criterion 1, counted on the full list.
        excluded: criterion 2, noun -> reason.
        min_images: criterion 3.
    """
    excluded = excluded or {}
    nouns = Counter(anp.adjective for anp in anps)
    decisions = []
    for anp in anps:
        count = None if images is None else images.get(anp.name, 0)
        criterion, reason = None, ""
        if nouns[anp.adjective] < min_nouns:
            criterion = "adjective"
            reason = f"{anp.adjective} has {nouns[anp.adjective]} nouns, fewer than {min_nouns}"
        elif anp.noun in excluded:
            criterion, reason = "noun", f"{anp.noun}: {excluded[anp.noun]}"
        elif count is not None and count < min_images:
            criterion, reason = "images", f"{count} images on disk, fewer than {min_images}"
        decisions.append(Decision(anp, count, criterion, reason))
    return decisions


def undecided(anps: Iterable[Anp], images: Mapping[str, int] | None) -> list[Decision]:
    """Keep all ANPs without any criterion; `images`: ANP -> images on disk, None if not counted."""
    return [Decision(anp, None if images is None else images.get(anp.name, 0)) for anp in anps]


def summary(decisions: Sequence[Decision]) -> list[dict[str, Any]]:
    """A row for the full list and one for each criterion.

    Keys: criterion; dropped, the ANPs that fail it; anps, adjectives and nouns, the numbers left.
    """
    rows = []
    left = list(decisions)
    for criterion in (None, *CRITERIA):
        before = len(left)
        if criterion:
            left = [d for d in left if d.criterion != criterion]
        rows.append(
            {
                "criterion": criterion or "full list",
                "dropped": before - len(left),
                "anps": len(left),
                "adjectives": len({d.anp.adjective for d in left}),
                "nouns": len({d.anp.noun for d in left}),
            }
        )
    return rows


COLUMNS = ("anp", "adjective", "noun", "sentiment", "hits", "images")
FATE = ("kept", "criterion", "reason")


def table(decisions: Sequence[Decision], fates: bool = True) -> str:
    """Every ANP as CSV; with `fates`, also whether it is kept and why not."""
    columns = COLUMNS + FATE if fates else COLUMNS
    rows = (
        (
            *(d.anp.name, d.anp.adjective, d.anp.noun, d.anp.sentiment, d.anp.hits, d.images),
            *("no" if d.criterion else "yes", d.criterion, d.reason),
        )
        for d in decisions
    )
    return spreadsheet.table(columns, (row[: len(columns)] for row in rows))
