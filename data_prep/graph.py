"""The ontology as a bipartite graph, adjectives on one side and nouns on the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from math import ceil, log10
from typing import Any

from data_prep.ontology import Anp


def statistics(anps: Sequence[Anp], images: Mapping[str, int] | None = None) -> dict[str, Any]:
    """Counts, degrees, connected components, and the tail of hits and images.

    Args:
        images: ANP -> images on disk, where they were counted.
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


def describe(found: Mapping[str, Any]) -> list[str]:
    """`statistics` as lines for a person."""
    lines = [
        f"{found['anps']:,} ANPs of {found['adjectives']:,} adjectives and {found['nouns']:,} "
        f"nouns: {found['density']:.2%} of all pairs, {found['components']} connected part(s)"
    ]
    for name, title in (
        ("adjective_degree", "nouns an adjective"),
        ("noun_degree", "adjectives a noun"),
        ("hits", "search hits an ANP"),
        ("images", "images an ANP"),
    ):
        if name in found:
            s = found[name]
            lines.append(
                f"{title:<20} {s['min']:,} to {s['max']:,}, median {s['median']:,}; "
                f"the largest tenth holds {s['top_tenth']:.0%}"
            )
    for name, title in (("widest_adjectives", "adjectives"), ("widest_nouns", "nouns")):
        widest = ", ".join(f"{word} {n}" for word, n in found[name])
        lines.append(f"{'widest ' + title:<20} {widest}")
    if "without_images" in found:
        lines.append(
            f"{found['without_images']:,} ANPs without an image on disk, "
            f"{len(found['outside_ontology']):,} folders that the ontology does not have"
        )
    return lines


def picture(anps: Sequence[Anp], images: Mapping[str, int] | None = None) -> str:
    """An SVG: both degree distributions, and the ANPs by falling count (the long tail)."""
    tail, what = [anp.hits or 0 for anp in anps], "search hits"
    if images is not None:
        tail, what = [images.get(anp.name, 0) for anp in anps], "images on disk"
    adjectives = Counter(anp.adjective for anp in anps)
    nouns = Counter(anp.noun for anp in anps)
    panels = [
        _panel(0, "adjectives by degree", "adjectives, rank", "nouns", adjectives.values()),
        _panel(1, "nouns by degree", "nouns, rank", "adjectives", nouns.values()),
    ]
    if any(tail):
        panels.append(_panel(2, f"ANPs by {what}", "ANPs, rank", what, tail))
    width = _WIDTH * len(panels)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {_HEIGHT}" '
        f'font-family="sans-serif" font-size="12">\n'
        f'<rect width="{width}" height="{_HEIGHT}" fill="white"/>\n' + "".join(panels) + "</svg>\n"
    )


def _components(anps: Sequence[Anp]) -> int:
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def root(node: tuple[str, str]) -> tuple[str, str]:
        parent.setdefault(node, node)
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for anp in anps:
        parent[root(("adjective", anp.adjective))] = root(("noun", anp.noun))
    return sum(root(node) == node for node in list(parent))


def _spread(values: Any) -> dict[str, float]:
    ordered = sorted(values, reverse=True)
    total = sum(ordered)
    return {
        "min": ordered[-1],
        "median": ordered[len(ordered) // 2],
        "max": ordered[0],
        "total": total,
        "top_tenth": sum(ordered[: max(1, len(ordered) // 10)]) / total if total else 0.0,
    }


# --- drawing: one curve a panel, both axes logarithmic, as long tails are read ------------------

_WIDTH, _HEIGHT = 360, 280  # a panel
_LEFT, _TOP, _RIGHT, _BOTTOM = 62, 34, 14, 44  # its margins


def _panel(index: int, title: str, across: str, up: str, values: Any) -> str:
    ordered = sorted((value for value in values if value > 0), reverse=True)
    x_end, y_end = (max(1, ceil(log10(max(2, n)))) for n in (len(ordered), ordered[0]))
    left, top = index * _WIDTH + _LEFT, _TOP
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def x(rank: float) -> float:
        return round(left + width * log10(rank) / x_end, 1)

    def y(value: float) -> float:
        return round(top + height * (1 - log10(value) / y_end), 1)

    out = [f'<text x="{left}" y="20" font-weight="bold">{escape(title)}</text>']
    for power in range(x_end + 1):
        out.append(f'<path d="M{x(10**power)} {top}V{top + height}" stroke="#ddd"/>')
        label = f'<text x="{x(10**power)}" y="{top + height + 16}" text-anchor="middle">'
        out.append(f"{label}{10**power:,}</text>")
    for power in range(y_end + 1):
        out.append(f'<path d="M{left} {y(10**power)}H{left + width}" stroke="#ddd"/>')
        label = f'<text x="{left - 6}" y="{y(10**power) + 4}" text-anchor="end">'
        out.append(f"{label}{10**power:,}</text>")
    points = " ".join(
        f"{x(rank)},{y(value)}"
        for rank, value in enumerate(ordered, 1)
        # A thousand points draw the same curve as three thousand; the steps are at the left.
        if rank < 300 or rank % 5 == 0 or rank == len(ordered)
    )
    out.append(f'<polyline points="{points}" fill="none" stroke="#1f5fa8" stroke-width="1.6"/>')
    middle = left + width / 2
    out.append(f'<text x="{middle}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(across)}</text>')
    turn = f"rotate(-90 {index * _WIDTH + 13} {top + height / 2})"
    out.append(
        f'<text x="{index * _WIDTH + 13}" y="{top + height / 2}" text-anchor="middle" '
        f'transform="{turn}">{escape(up)}</text>'
    )
    return "\n".join(out) + "\n"
