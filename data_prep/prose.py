"""The text that a command prints about its result."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from data_prep.archives import Unpacked
from data_prep.databases import Written
from data_prep.download import Downloaded
from data_prep.folder import PARTS
from data_prep.graph import Described
from data_prep.images import Images
from data_prep.labels import Published
from data_prep.lists import Division
from data_prep.lmdb_writer import KINDS
from data_prep.reorder import Reordered
from data_prep.sample import Sample
from data_prep.table import Taken, not_there
from data_prep.verify import Verified
from data_prep.vso import Chosen, Divided, without_images
from xresnet.basics.cli import shortened

PAPER = {"ANPs": 553, "images": 384_258, "train": 307_185, "test": 77_073}  # section 5.1
SHOWN = 20  # of a long list of complaints; the manifest has all of them


def of(result: Any) -> str:
    """The text about a result of one of this package's functions."""
    return "\n".join(_lines(result))


@functools.singledispatch
def _lines(result: Any) -> list[str]:
    raise TypeError(type(result).__name__)


@_lines.register
def _(result: Sample) -> list[str]:
    least = max(1, result.facts["per_anp"] * 5 // 6)
    return [
        f"{result.facts['images']:,} images of {result.facts['anps']} ANPs in {result.root}",
        f"next: python -m data_prep filter --ontology {result.root}/ontology.txt "
        f"--images {result.root} --min-images {least} --out DATA",
    ]


@_lines.register
def _(result: Published) -> list[str]:
    return [f"{_counts(result.facts['classes'])} classes, as published, in {result.folder}"]


@_lines.register
def _(result: Described) -> list[str]:
    f = result.facts
    lines = [
        f"{f['anps']:,} ANPs of {f['adjectives']:,} adjectives and {f['nouns']:,} "
        f"nouns: {f['density']:.2%} of all pairs, {f['components']} connected part(s)"
    ]
    for name, title in (
        ("adjective_degree", "nouns an adjective"),
        ("noun_degree", "adjectives a noun"),
        ("hits", "search hits an ANP"),
        ("images", "images per ANP"),
    ):
        if f.get(name):
            s = f[name]
            lines.append(
                f"{title:<20} {s['min']:,} to {s['max']:,}, median {s['median']:,}; "
                f"the largest tenth holds {s['top_tenth']:.0%}"
            )
    for name, title in (("widest_adjectives", "adjectives"), ("widest_nouns", "nouns")):
        widest = ", ".join(f"{word} {n}" for word, n in f[name])
        lines.append(f"{'widest ' + title:<20} {widest}")
    if "without_images" in f:
        lines.append(
            f"{f['without_images']:,} ANPs without an image on disk, "
            f"{len(f['outside_ontology']):,} folders that the ontology does not have"
        )
    return [*lines, f"{result.table}, {result.picture}", *_ignored(result.images)]


@_lines.register
def _(result: Downloaded) -> list[str]:
    facts, place = result.facts, result.folder
    return [
        f"{facts['images']:,} images of {facts['addresses']:,} addresses",
        *(f"{n:>9,}  {reason}" for reason, n in facts["rejected"].items()),
        f"{place}/downloaded.csv, {place}/rejected.csv (each its reason)",
    ]


@_lines.register
def _(result: Chosen) -> list[str]:
    facts = result.facts
    if "labels" in facts:
        lines = [
            f"{_counts(result.classes.counts)} classes taken from {facts['labels']}, in their order"
        ]
    else:
        lines = [f"{'criterion':<12}{'dropped':>9}{'ANPs':>9}{'adjectives':>12}{'nouns':>9}"]
        lines += [
            f"{step['criterion']:<12}{step['dropped']:>9,}{step['anps']:>9,}"
            f"{step['adjectives']:>12,}{step['nouns']:>9,}"
            for step in facts["steps"]
        ]
        if not result.images:
            lines.append("without --images nothing was counted: criterion 3 was left out")
    return [
        *lines,
        *([without_images(result.missing, result.classes)] if result.missing else []),
        *_ignored(result.images),
        f"classes in {result.folder.classes}, every ANP's reason in {result.folder.ontology}",
    ]


@_lines.register
def _(result: Divided) -> list[str]:
    train, test = map(len, result.parts)
    here = (len(result.classes.anp), train + test, train, test)
    lines = [f"{'':<8}{'here':>10}{'paper':>10}"]
    lines += [f"{name:<8}{n:>10,}{PAPER[name]:>10,}" for name, n in zip(PAPER, here)]
    if result.copies:
        lines.append(f"{_copies(result)}; each group is on one side")
    if result.untrained:
        some = shortened(result.untrained)
        lines.append(f"{len(result.untrained)} ANPs have no training image: {some}")
    lines += [_lists(result), *_on_both_sides(result)]
    if result.unplaced:
        lines.append(
            f"{result.unplaced:,} images lie in no folder of their class: the lists alone say that "
            f"their labels are those of {result.folder.classes}"
        )
    lines += _ignored(result.images)
    return lines + ([without_images(result.missing, result.classes)] if result.missing else [])


@_lines.register
def _(result: Taken) -> list[str]:
    width = max(map(len, ("task", *result.counts)))
    lines = [f"{'task':<{width}}{'classes':>9}{'train':>10}{'test':>10}   images with a label"]
    for task, n in result.counts.items():
        lines.append(f"{task:<{width}}{n['classes']:>9,}{n['train']:>10,}{n['test']:>10,}")
    train, test = map(len, result.parts)
    lines.append(f"{'images':<{width + 9}}{train:>10,}{test:>10,}")
    if result.copies:
        lines.append(_copies(result))
    if result.absent:
        lines.append(f"left out: {not_there(result.absent, result.rows, result.root)}, ...")
    if result.unlabelled:
        lines.append(f"left out: {result.unlabelled:,} images without any label")
    lines += _on_both_sides(result)
    for task, n in result.counts.items():
        for side in PARTS:
            if none := n[f"without_{side}"]:
                some = shortened(none)
                lines.append(f"{task}: {len(none)} classes have no {side} image: {some}")
    return [*lines, f"classes in {result.folder.classes}; {_lists(result)}"]


@_lines.register
def _(result: Written) -> list[str]:
    lines = []
    for part, report in result.reports.items():
        reused = " (already there)" if report.reused else ""
        resumed = f" (taken up at {report.resumed_at:,})" if report.resumed_at else ""
        lines.append(
            f"{part}: {report.written:,} records of {report.listed:,} images{reused}{resumed}, "
            f"{len(report.dropped)} left out, {len(report.damaged)} damaged"
        )
    folder = result.folder
    values = ", ".join(f"{value:.3f}" for value in result.reports["train"].mean_values)
    lines.append(f"mean of the training images (blue, green, red): {values}; {folder.mean}")
    return [*lines, ", ".join(str(folder.lmdb(part, kind)) for part in PARTS for kind in KINDS)]


@_lines.register
def _(result: Verified) -> list[str]:
    lines = [", ".join(f"{part}: {n:,} records agree" for part, n in result.facts.items())]
    if result.sheet:
        lines.append(f"{result.shown} training records with their labels in {result.sheet}")
    return lines


@_lines.register
def _(result: Reordered) -> list[str]:
    of, seed = result.facts["of"], result.facts["seed"]
    return [f"{result.folder.root}: the training images of {of} in order {seed}"]


@_lines.register
def _(result: Unpacked) -> list[str]:
    facts = result.facts
    return [f"{facts['files']:,} files in {result.folder}", *_reasons(facts["ignored"])]


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{n} {task}" for task, n in counts.items())


def _lists(result: Division) -> str:
    return ", ".join(str(result.folder.list(part)) for part in PARTS)


def _copies(result: Division) -> str:
    return f"{sum(map(len, result.copies))} files are copies in {len(result.copies)} groups"


def _on_both_sides(result: Division) -> list[str]:
    return [f"the same image on both sides: {', '.join(one)}" for one in result.across[:SHOWN]]


def _ignored(images: Images | None) -> list[str]:
    if images is None:
        return []
    leaving = len(images.leaving)
    lines = [f"ignored {leaving:,} links that lead out of the image folder"] if leaving else []
    return lines + _reasons(images.ignored)


def _reasons(ignored: Sequence[tuple[str, str]]) -> list[str]:
    lines = [f"ignored {path!r}: {reason}" for path, reason in ignored[:SHOWN]]
    more = len(ignored) - len(lines)
    return lines + ([f"ignored {more:,} more, listed with --json"] if more > 0 else [])
