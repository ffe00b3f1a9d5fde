"""The three criteria that make the paper's 553 ANPs of VSO's 1,200 (section 5.1).

(1) adjectives with at least 3 paired nouns, (2) nouns neither overwhelmingly
biasing nor abstract, (3) ANPs with at least 500 images. In this order: 36 of
the final 117 adjectives have fewer than 3 nouns left in the final list, so
the degree was taken on the full list, before the other two. The images are
those on disk; an ontology's own counts are search hits.
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
    """One ANP's fate: `criterion` is None where it stays, else the first that it fails.

    `images` is None where no images were counted.
    """

    anp: Anp
    images: int | None = None
    criterion: str | None = None
    reason: str = ""


def read_excluded(path: PathLike = EXCLUDED_NOUNS) -> dict[str, str]:
    """Noun -> reason, from a file of `noun: reason` lines (`#` starts a comment).

    Raises:
        UserError: a line without a reason, or a noun named twice.
    """
    return parse_excluded(read_text(path), str(path))


def parse_excluded(text: str, path: str) -> dict[str, str]:
    """`read_excluded` of a file's text; `path` names it in errors."""
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
        images: ANP -> images on disk; None leaves criterion 3 out.
        min_nouns: criterion 1, counted on `anps` as given.
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
    """ANPs that no criterion was applied to, with their images on disk (None: not counted)."""
    return [Decision(anp, None if images is None else images.get(anp.name, 0)) for anp in anps]


def summary(decisions: Sequence[Decision]) -> list[dict[str, Any]]:
    """What each criterion leaves: a row for the full list, then one a criterion.

    Keys: criterion, dropped (ANPs that fall to it), anps, adjectives, nouns (left).
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
    """Every ANP as CSV, with its fate unless that is not yet decided."""
    columns = COLUMNS + FATE if fates else COLUMNS
    rows = (
        (
            d.anp.name,
            d.anp.adjective,
            d.anp.noun,
            d.anp.sentiment,
            d.anp.hits,
            d.images,
            "no" if d.criterion else "yes",
            d.criterion,
            d.reason,
        )
        for d in decisions
    )
    return spreadsheet.table(columns, (row[: len(columns)] for row in rows))
