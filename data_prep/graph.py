"""Describe an ontology, a bipartite graph of adjectives and nouns."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_prep import criteria
from data_prep.folder import source
from data_prep.images import Images, scan
from data_prep.ontology import Anp, read
from xresnet.basics.files import PathLike, write


@dataclass(frozen=True)
class Described:
    """The result of `describe`. `facts`: the source of the ontology and its `statistics`."""

    table: Path
    picture: Path
    images: Images | None = field(repr=False)
    facts: dict[str, Any] = field(repr=False)


def describe(ontology: PathLike, out: PathLike, *, images: PathLike | None = None) -> Described:
    """Write an ontology as a table, anps.csv, and a picture, anps.svg.

    Args:
        ontology: a file in any published format; see `ontology.read`.
        out: the folder for both files.
        images: the ANP folders, to count images on disk.

    Raises:
        UserError: a file cannot be read or written.
    """
    anps = read(ontology)
    found = scan(images) if images else None
    counts = found.counts if found else None
    table = write(
        Path(out) / "anps.csv", criteria.table(criteria.undecided(anps, counts), fates=False)
    )
    drawn = write(Path(out) / "anps.svg", picture(anps, counts))
    facts = {"ontology": source(ontology), "images": None, **statistics(anps, counts)}
    return Described(table, drawn, found, facts)


def statistics(anps: Sequence[Anp], images: Mapping[str, int] | None = None) -> dict[str, Any]:
    """Counts, degrees, connected components, and the distributions of hits and images.

    Args:
        images: ANP -> images on disk, if they were counted.
    """
    adjectives = Counter(anp.adjective for anp in anps)
    nouns = Counter(anp.noun for anp in anps)
    found: dict[str, Any] = {
        "anps": len(anps),
        "adjectives": len(adjectives),
        "nouns": len(nouns),
        "density": len(anps) / (len(adjectives) * len(nouns)),
        "components": _components(anps),
        "adjective_degree": _spread(adjectives.values()),
        "noun_degree": _spread(nouns.values()),
        "widest_adjectives": adjectives.most_common(5),
        "widest_nouns": nouns.most_common(5),
    }
    hits = [anp.hits for anp in anps if anp.hits is not None]
    if hits:
        found["hits"] = _spread(hits)
    if images is not None:
        found["images"] = _spread([images.get(anp.name, 0) for anp in anps])
        found["without_images"] = sum(not images.get(anp.name) for anp in anps)
        found["outside_ontology"] = sorted(set(images) - {anp.name for anp in anps})
    return found


def picture(anps: Sequence[Anp], images: Mapping[str, int] | None = None) -> bytes:
    """An SVG of the degree distributions and of the ANPs by images (or hits), on log-log axes."""
    import matplotlib  # takes half a second
    from matplotlib.figure import Figure

    tail, what = [anp.hits or 0 for anp in anps], "search hits"
    if images is not None:
        tail, what = [images.get(anp.name, 0) for anp in anps], "images on disk"
    adjectives = Counter(anp.adjective for anp in anps).values()
    nouns = Counter(anp.noun for anp in anps).values()
    panels: list[tuple[str, str, str, Iterable[int]]] = [
        ("adjectives by degree", "adjectives, rank", "nouns", adjectives),
        ("nouns by degree", "nouns, rank", "adjectives", nouns),
    ]
    if any(tail):
        panels.append((f"ANPs by {what}", "ANPs, rank", what, tail))
    # Text stays text, and the same picture gives the same bytes.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "xresnet"}):
        figure = Figure((4 * len(panels), 3), layout="constrained")
        for axis, (title, across, up, values) in zip(figure.subplots(1, len(panels)), panels):
            ordered = sorted((value for value in values if value > 0), reverse=True)
            axis.loglog(range(1, len(ordered) + 1), ordered)
            axis.set(title=title, xlabel=across, ylabel=up)
            axis.grid(alpha=0.25)
        out = io.BytesIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def _components(anps: Sequence[Anp]) -> int:
    parts: list[set[tuple[str, str]]] = []
    for anp in anps:
        nodes = {("adjective", anp.adjective), ("noun", anp.noun)}
        joined = [part for part in parts if not part.isdisjoint(nodes)]
        parts = [part for part in parts if part.isdisjoint(nodes)]
        parts.append(nodes.union(*joined))
    return len(parts)


def _spread(values: Iterable[int]) -> dict[str, float]:
    ordered = sorted(values, reverse=True)
    total = sum(ordered)
    return {
        "min": ordered[-1],
        "median": ordered[len(ordered) // 2],
        "max": ordered[0],
        "total": total,
        "top_tenth": sum(ordered[: max(1, len(ordered) // 10)]) / total if total else 0.0,
    }
