"""Choose VSO's classes, adjective-noun pairs, and split its images, labelled by their folders.

This is the paper's procedure (sections 5.1 and 5.2), in two steps because published lists may
replace either. Other images are prepared by `table.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from data_prep import criteria, duplicates, ontology
from data_prep.classes import Classes
from data_prep.criteria import EXCLUDED_NOUNS, Decision
from data_prep.folder import DataFolder, source
from data_prep.images import Images, find_root, scan
from data_prep.lists import (
    Division,
    Entry,
    in_no_class,
    on_both_sides,
    read_classes,
    read_list,
    write_parts,
)
from data_prep.ontology import Anp
from data_prep.split import split
from xresnet.basics.cli import UserError, shortened
from xresnet.basics.files import PathLike, write
from xresnet.basics.numbers import NATURAL, SEED, as_fraction

_ADVICE = {  # criterion -> what to do if it leaves no ANP
    "adjective": "lower --min-nouns",
    "noun": "exclude fewer nouns (--exclude)",
    "images": "lower --min-images, or name the folder that holds the ANP folders (--images)",
}


@dataclass(frozen=True)
class Chosen:
    """The result of `choose_classes`.

    `decisions`: one for each ANP; `images`: the scan of the image folder, None without one;
    `missing`: the classes without an image; `facts`: the manifest's entry.
    """

    folder: DataFolder
    classes: Classes = field(repr=False)
    decisions: list[Decision] = field(repr=False)
    images: Images | None = field(repr=False)
    missing: list[str]
    facts: dict[str, Any] = field(repr=False)


def choose_classes(
    out: PathLike,
    *,
    ontology: PathLike | None = None,
    labels: PathLike | None = None,
    images: PathLike | None = None,
    min_nouns: int = 3,
    exclude: PathLike = EXCLUDED_NOUNS,
    min_images: int = 500,
    allow_missing: bool = False,
) -> Chosen:
    """Write the classes chosen by the paper's three criteria, or those of finished lists.

    Args:
        out: the data folder.
        ontology: a file in any published format (see `ontology.read`), to choose from.
        labels: a folder of finished class lists, taken in their order, in place of `ontology`.
        images: the ANP folders; without them criterion 3 is omitted.
        min_nouns: criterion 1: nouns that an adjective must have in the full list.
        exclude: criterion 2: a file of `noun: reason` lines.
        min_images: criterion 3: images that an ANP must have on disk.
        allow_missing: continue if classes have no image at all.

    Raises:
        UserError: a file cannot be read or written, no class is left, or a class has no image.
    """
    if (ontology is None) == (labels is None):
        raise UserError("give either an ontology or a folder of class lists")
    NATURAL.check(min_nouns, "min_nouns")
    NATURAL.check(min_images, "min_images")
    folder = DataFolder(out)
    found = scan(images) if images else None
    if labels:
        classes = Classes.read(labels)
        counts = found.counts if found else None
        decisions = criteria.undecided([Anp(name) for name in classes.anp], counts)
        none = [d.anp.name for d in decisions if d.images == 0]
        facts: dict[str, Any] = {"labels": str(labels), "missing_on_disk": none}
    else:
        assert ontology is not None  # one of the two
        decisions, facts = _apply(ontology, found, min_nouns, exclude, min_images)
        classes = Classes.of(d.anp.name for d in decisions if not d.criterion)
    missing = []
    if found:
        there = {anp for anp, paths in found.by_anp.items() if paths}
        missing = _missing(classes, there, allow_missing, found.advice)
    facts |= {"images": found and found.facts, "classes": classes.facts}
    with folder.lock():
        folder.begin("filter", facts)
        classes.write(folder.classes)
        write(folder.ontology, criteria.table(decisions))
        folder.record("filter", facts)
    return Chosen(folder, classes, decisions, found, missing, facts)


def _apply(
    path: PathLike, found: Images | None, min_nouns: int, exclude: PathLike, min_images: int
) -> tuple[list[Decision], dict[str, Any]]:
    """Apply the criteria; returns the decisions and values for the manifest."""
    decisions = criteria.decide(
        ontology.read(path),
        found.counts if found else None,
        min_nouns=min_nouns,
        excluded=criteria.read_excluded(exclude),
        min_images=min_images,
    )
    steps = criteria.summary(decisions)
    empty = next((step["criterion"] for step in steps if not step["anps"]), None)
    if empty:
        raise UserError(
            f"{path}: no ANP is left after the criterion `{empty}`: {_ADVICE[empty]}"
            + (found.advice if found and empty == "images" else "")
        )
    return decisions, {
        "ontology": source(path),
        "excluded_nouns": source(exclude),
        "min_nouns": min_nouns,
        "min_images": min_images if found else None,
        "steps": steps,
    }


@dataclass(frozen=True)
class Divided(Division):
    """The result of `divide_images`.

    `images`: the scan of the image folder, None if lists were given; `missing`: classes without
    an image; `untrained`: classes without a training image; `unplaced`: the number of images in
    given lists that are outside a folder of their class.
    """

    images: Images | None = field(repr=False)
    missing: list[str]
    untrained: list[str]
    unplaced: int = 0


def divide_images(
    out: PathLike,
    images: PathLike,
    *,
    train: Fraction | float | str = Fraction(4, 5),
    seed: int = 0,
    lists: Sequence[PathLike] | None = None,
    allow_missing: bool = False,
) -> Divided:
    """Write the training and the test list: a share of each ANP's images, or given lists.

    Args:
        out: the data folder, with its classes.
        images: the ANP folders.
        train: share of training; of an ANP's n images, floor(train n) are used for it.
        seed: another seed gives another split.
        lists: a training and a test list to take instead, with `path label` a line.
        allow_missing: continue if classes have no image at all.

    Raises:
        UserError: a file cannot be read or written, the classes are not ANPs, one of them has no
            image, or a given list is invalid.
    """
    fraction = as_fraction(train, "train")
    SEED.check(seed, "seed")
    folder = DataFolder(out)
    classes = read_classes(folder)
    if not classes.by_anp:
        raise UserError(
            f"{folder.root} was made by `python -m data_prep table`, which divides the images, too"
        )
    root = find_root(images)
    found, across, unplaced = None, [], 0
    if lists:
        given_train, given_test = lists
        parts = read_list(given_train, classes), read_list(given_test, classes)
        _check_apart(*parts)
        same = duplicates.find(root, [entry.path for entries in parts for entry in entries])
        across = on_both_sides(same, parts[1])
        unplaced = sum(in_no_class(entries, classes) for entries in parts)
        decided: dict[str, Any] = {"given": [source(path) for path in lists]}
    else:
        found = scan(root)
        mine = {anp: found.by_anp.get(anp, []) for anp in classes.anp}
        numbers = {path: classes.anp_index[anp] for anp, paths in mine.items() for path in paths}
        same = duplicates.find(root, numbers)
        parts = split(mine, numbers, seed, fraction, same)
        decided = {"fraction": str(fraction), "seed": seed}
    labels = [{entry.label for entry in entries} for entries in parts]
    missing = _missing(classes, {classes.anp[n] for n in set.union(*labels)}, allow_missing)
    if not all(parts):
        raise UserError(
            f"{root}: too few images of the {len(classes.anp)} classes "
            f"to split ({len(parts[0])} train, {len(parts[1])} test)"
        )
    untrained = [anp for anp, label in classes.anp_index.items() if label not in labels[0]]
    with folder.lock():
        facts = write_parts(
            folder,
            parts,
            images=found.facts if found else {"root": str(root)},
            **decided,
            duplicates=same,
            without_training_images=untrained,
        )
    return Divided(
        *(folder, classes, parts, same, across, facts), found, missing, untrained, unplaced
    )


def _missing(classes: Classes, there: Collection[str], allowed: bool, more: str = "") -> list[str]:
    """The classes that are not in `there`, if that is `allowed`."""
    missing = [anp for anp in classes.anp if anp not in there]
    if missing and not allowed:
        raise UserError(
            f"{without_images(missing, classes)}{more}; to keep them as classes, add "
            "--allow-missing"
        )
    return missing


def without_images(missing: Sequence[str], classes: Classes) -> str:
    """A line about classes without an image."""
    return f"{len(missing):,} of {len(classes.anp):,} ANPs have no image: {shortened(missing)}"


def _check_apart(train: Sequence[Entry], test: Sequence[Entry]) -> None:
    both = sorted({entry.path for entry in train} & {entry.path for entry in test})
    if both:
        raise UserError(f"{shortened(both)}: in the training list and in the test list")
