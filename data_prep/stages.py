"""What each command does: arguments in, (summary for programs, text for people) out."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Collection
from fractions import Fraction
from pathlib import Path
from typing import Any

from data_prep import criteria, duplicates, graph, ontology, sample, table
from data_prep import images as files
from data_prep.classes import Classes
from data_prep.folder import PARTS, DataFolder, check_name
from data_prep.lists import Entry, in_no_class, read_list, write_parts
from data_prep.split import split
from xresnet.basics.cli import UserError
from xresnet.basics.files import sha256, write

PAPER = {"ANPs": 553, "images": 384_258, "train": 307_185, "test": 77_073}  # section 5.1


def draw_sample(arguments: argparse.Namespace) -> tuple[dict, str]:
    """`sample`: a small drawn image set."""
    summary = sample.make(arguments.out, arguments.per_anp, arguments.seed)
    return summary, (
        f"{summary['images']:,} images of {summary['anps']} ANPs in {arguments.out}\n"
        f"next: python -m data_prep filter --ontology {arguments.out}/ontology.txt "
        f"--images {arguments.out} --min-images {max(1, arguments.per_anp * 5 // 6)} --out DATA"
    )


def choose_classes(arguments: argparse.Namespace) -> tuple[dict, str]:
    """`filter`: the paper's criteria, or finished class lists."""
    folder = DataFolder(arguments.out)
    found = files.scan(arguments.images) if arguments.images else None
    choose = _take_labels if arguments.labels else _apply_criteria
    classes, decisions, summary, lines = choose(arguments, found)
    if found:
        there = {anp for anp, paths in found.by_anp.items() if paths}
        lines += _missing(classes, there, arguments.allow_missing, files.told(found))
    summary["images"] = _images(found)
    summary["classes"] = classes.facts
    with folder.lock():
        folder.begin("filter", summary)
        classes.write(folder.classes)
        write(folder.ontology, criteria.table(decisions))
        folder.record("filter", summary)
    lines += _ignored(found) if found else []
    lines.append(f"classes in {folder.classes}, every ANP's reason in {folder.ontology}")
    return summary, "\n".join(lines)


_Choice = tuple  # (Classes, decisions, summary, lines for the terminal)


def _counts(found: files.Images | None) -> dict[str, int] | None:
    return None if found is None else {anp: len(paths) for anp, paths in found.by_anp.items()}


def _missing(classes: Classes, there: Collection[str], allowed: bool, more: str = "") -> list[str]:
    """A line about classes that are not `there`, if that is `allowed`."""
    missing = [anp for anp in classes.anp if anp not in there]
    if not missing:
        return []
    line = f"{len(missing):,} of {len(classes.anp):,} ANPs have no image: {_some(missing)}"
    if allowed:
        return [line]
    raise UserError(f"{line}{more}; if they shall be classes all the same, add --allow-missing")


_ADVICE = {  # criterion -> what to do where it leaves nothing
    "adjective": "lower --min-nouns",
    "noun": "exclude fewer nouns (--exclude)",
    "images": "lower --min-images, or name the folder that holds the ANP folders (--images)",
}


def _apply_criteria(arguments: argparse.Namespace, found: files.Images | None) -> _Choice:
    counts = _counts(found)
    decisions = criteria.decide(
        ontology.read(arguments.ontology),
        counts,
        min_nouns=arguments.min_nouns,
        excluded=criteria.read_excluded(arguments.exclude),
        min_images=arguments.min_images,
    )
    rows = criteria.summary(decisions)
    empty = next((row for row in rows if not row["anps"]), None)
    if empty:
        raise UserError(
            f"{arguments.ontology}: no ANP is left after the criterion "
            f"`{empty['criterion']}`: {_ADVICE[empty['criterion']]}"
            + (files.told(found) if found and empty["criterion"] == "images" else "")
        )
    summary = {
        "ontology": _source(arguments.ontology),
        "excluded_nouns": _source(arguments.exclude),
        "min_nouns": arguments.min_nouns,
        "min_images": None if counts is None else arguments.min_images,
        "steps": rows,
    }
    lines = [f"{'criterion':<12}{'dropped':>9}{'ANPs':>9}{'adjectives':>12}{'nouns':>9}"]
    lines += [
        f"{row['criterion']:<12}{row['dropped']:>9,}{row['anps']:>9,}"
        f"{row['adjectives']:>12,}{row['nouns']:>9,}"
        for row in rows
    ]
    if counts is None:
        lines.append("without --images nothing was counted: criterion 3 was left out")
    classes = Classes.of(d.anp.name for d in decisions if not d.criterion)
    return classes, decisions, summary, lines


def _take_labels(arguments: argparse.Namespace, found: files.Images | None) -> _Choice:
    classes, counts = Classes.read(arguments.labels), _counts(found)
    decisions = [
        criteria.Decision(ontology.Anp(anp), None if counts is None else counts.get(anp, 0))
        for anp in classes.anp
    ]
    lines = [
        ", ".join(f"{n} {task}" for task, n in classes.counts.items())
        + f" classes taken from {arguments.labels}, in their order"
    ]
    missing = [d.anp.name for d in decisions if d.images == 0]
    return classes, decisions, {"labels": arguments.labels, "missing_on_disk": missing}, lines


def divide_images(arguments: argparse.Namespace) -> tuple[dict, str]:
    """`split`: the images of each class into train and test, or lists taken as given."""
    folder = DataFolder(arguments.out)
    classes = _classes(folder)
    if not classes.by_anp:
        raise UserError(
            f"{folder.root} was made by `python -m data_prep table`, which divides the images, too"
        )
    root = files.find_root(arguments.images)
    if arguments.lists:
        parts = [read_list(path, classes) for path in arguments.lists]
        _check_sides(*parts)
        same = duplicates.find(root, [entry.path for entries in parts for entry in entries])
        decided: dict[str, Any] = {"given": [_source(path) for path in arguments.lists]}
        lines, images = _across(same, parts), {"root": str(root)}
        unplaced = sum(in_no_class(entries, classes) for entries in parts)
        if unplaced:
            lines.append(
                f"{unplaced:,} images lie in no folder of their class: that their labels are "
                f"numbers of the classes in {folder.classes} rests on the lists alone"
            )
    else:
        fraction = arguments.train
        found = files.scan(root)
        mine = [path for anp in classes.anp for path in found.by_anp.get(anp, ())]
        same = duplicates.find(root, mine)
        parts = split(found.by_anp, classes.anp_index, arguments.seed, fraction, same)
        decided = {"fraction": str(fraction), "seed": arguments.seed}
        lines, images = _ignored(found), _images(found)
    there = {classes.anp[entry.label] for entries in parts for entry in entries}
    lines += _missing(classes, there, arguments.allow_missing)
    train, test = parts
    if not train or not test:
        raise UserError(
            f"{root}: too few images of the {len(classes.anp)} classes "
            f"to split ({len(train)} train, {len(test)} test)"
        )
    trained = {entry.label for entry in train}
    untrained = [anp for anp, label in classes.anp_index.items() if label not in trained]
    with folder.lock():
        summary = write_parts(
            folder,
            parts,
            images=images,
            **decided,
            duplicates=same,
            without_training_images=untrained,
        )
    here = {
        "ANPs": len(classes.anp),
        "images": len(train) + len(test),
        "train": len(train),
        "test": len(test),
    }
    head = [f"{'':<8}{'here':>10}{'paper':>10}"]
    head += [f"{name:<8}{n:>10,}{PAPER[name]:>10,}" for name, n in here.items()]
    if same:
        copies = sum(map(len, same))
        head.append(f"{copies} files are copies in {len(same)} groups; each group is on one side")
    if untrained:
        head.append(f"{len(untrained)} ANPs have no training image: {_some(untrained)}")
    head.append(f"{folder.list('train')}, {folder.list('test')}")
    return summary, "\n".join(head + lines)


def take_table(arguments: argparse.Namespace) -> tuple[dict, str]:
    """`table`: images and labels of any tasks; classes and lists in one."""
    folder = DataFolder(arguments.out)
    tasks = table.parse_tasks(arguments.tasks)
    if arguments.split and (arguments.stratify or arguments.train):
        raise UserError("--split takes the sides from the table: leave out --stratify and --train")
    by = arguments.stratify or next(iter(tasks))
    if by not in (*tasks, table.ALL):
        raise UserError(f"--stratify: {by!r} is no task; give {', '.join(tasks)} or {table.ALL}")
    root = check_name(arguments.images)
    if not root.is_dir():
        raise UserError(f"--images {root}: no such folder; name the one that the paths start from")
    rows = table.read(arguments.table, tasks, arguments.path, arguments.split)
    absent = [row for row in rows if not (root / row.path).is_file()]
    lines = []
    if absent:
        first = absent[0]
        line = f"{len(absent):,} of {len(rows):,} images are not in {root}: {first.path}"
        if not arguments.allow_missing or len(absent) == len(rows):
            raise UserError(f"{first.where}: {line}; to leave them out, add --allow-missing")
        lines.append(f"left out: {line}, ...")
    there = [row for row in rows if (root / row.path).is_file()]
    kept = table.keep_common(there, list(tasks), arguments.min_images)
    if len(kept) < len(there):
        lines.append(f"left out: {len(there) - len(kept):,} images without any label")
    classes, numbers = table.classes_of(kept, list(tasks), arguments.classes)
    same = duplicates.find(root, [row.path for row in kept])
    fraction = arguments.train or Fraction(4, 5)
    place = None if by == table.ALL else list(tasks).index(by)
    parts = table.divide(kept, numbers, place, arguments.seed, fraction, same)
    for side, entries in zip(PARTS, parts):
        if not entries:
            raise UserError(f"{arguments.table}: no image is left for {side} of {len(kept)}")
    counts = table.count(parts, classes)
    for task, n in counts.items():
        for side in PARTS:
            if not n[side]:
                raise UserError(
                    f"{arguments.table}: no {side} image has a label of the task {task}"
                )
    if arguments.split:
        lines += _across(same, list(parts))
        decided: dict[str, Any] = {"column": arguments.split, "seed": arguments.seed}
    else:
        decided = {"stratify": by, "fraction": str(fraction), "seed": arguments.seed}
    chosen = {
        "table": _source(arguments.table),
        "columns": {"path": arguments.path, **tasks},
        "min_images": arguments.min_images,
        "rows": len(rows),
        "not_there": len(absent),
        "tasks": counts,
        "classes": classes.facts,
    }
    with folder.lock():
        folder.begin("filter", chosen)
        classes.write(folder.classes)
        folder.record("filter", chosen)
        summary = write_parts(folder, parts, images={"root": str(root)}, **decided, duplicates=same)
    width = max(map(len, ("task", *tasks)))
    head = [f"{'task':<{width}}{'classes':>9}{'train':>10}{'test':>10}   images with a label"]
    for task, n in counts.items():
        head.append(f"{task:<{width}}{n['classes']:>9,}{n['train']:>10,}{n['test']:>10,}")
        for side in PARTS:
            if none := n[f"without_{side}"]:
                lines.append(f"{task}: {len(none)} classes have no {side} image: {_some(none)}")
    head.append(f"{'images':<{width + 9}}{len(parts[0]):>10,}{len(parts[1]):>10,}")
    if same:
        head.append(f"{sum(map(len, same))} files are copies in {len(same)} groups")
    lines.append(f"classes in {folder.classes}; {folder.list('train')}, {folder.list('test')}")
    return {"classes": chosen, "split": summary}, "\n".join(head + lines)


def _check_sides(train: list[Entry], test: list[Entry]) -> None:
    both = sorted({entry.path for entry in train} & {entry.path for entry in test})
    if both:
        raise UserError(f"{_some(both)}: in the training list and in the test list")


def _across(same: list[list[str]], parts: list[list[Entry]]) -> list[str]:
    """Given lists are taken as they are; identical files on both sides are told."""
    tested = {entry.path for entry in parts[1]}
    across = [group for group in same if 0 < len(tested.intersection(group)) < len(group)]
    return [f"the same image on both sides: {', '.join(group)}" for group in across[: files.SHOWN]]


def write_databases(arguments: argparse.Namespace) -> tuple[dict, str]:
    """`lmdb`: the image and label databases of both lists, and the mean."""
    from data_prep.lmdb_writer import MEAN, write_pair

    folder = DataFolder(arguments.out)
    _check_form(folder, arguments)
    classes = _classes(folder)
    root = files.find_root(arguments.images)
    reports, lines = {}, []
    with folder.lock():
        for part in PARTS:
            report = write_pair(
                folder,
                part,
                root,
                classes,
                arguments.size,
                encoded=arguments.encoded,
                threads=arguments.threads,
                allow_dropped=arguments.allow_dropped,
                drop_damaged=arguments.drop_damaged,
                fresh=arguments.fresh,
            )
            reports[part] = report.facts()
            lines.append(
                f"{part}: {report.written:,} records of {report.listed:,} images"
                f"{' (already there)' if report.reused else ''}"
                f"{f' (taken up at {report.resumed_at:,})' if report.resumed_at else ''}, "
                f"{len(report.dropped)} left out, {len(report.damaged)} damaged"
            )
        write(folder.mean, (folder.lmdb("train", "image") / MEAN).read_bytes())
        values = ", ".join(f"{value:.3f}" for value in reports["train"]["mean_values"])
        lines.append(f"mean of the training images (blue, green, red): {values}; {folder.mean}")
        summary = {
            "images": str(root),
            "size": arguments.size,
            "encoded": arguments.encoded,
            **reports,
        }
        folder.record("lmdb", summary)
    names = ", ".join(str(folder.lmdb(part, kind)) for part in PARTS for kind in ("image", "label"))
    return summary, "\n".join([*lines, names])


def _check_form(folder: DataFolder, arguments: argparse.Namespace) -> None:
    from data_prep.lmdb_writer import FORM, check_form

    if not (arguments.replace or arguments.fresh):
        check_form(folder, {name: getattr(arguments, name) for name in FORM})


def reorder_training(arguments: argparse.Namespace) -> tuple[dict, str]:
    """`reorder`: the same databases, the training images in another order."""
    from data_prep.reorder import reorder

    folder = DataFolder(arguments.out)
    order = reorder(DataFolder(arguments.data), folder, arguments.seed)
    return order, f"{folder.root}: the training images of {order['of']} in order {order['seed']}"


def read_back(arguments: argparse.Namespace) -> tuple[dict, str]:
    """`verify`: every record held against lists, classes and manifest."""
    from data_prep.sheet import write_sheet
    from data_prep.verify import verify_pair

    folder = DataFolder(arguments.out)
    classes = _classes(folder)
    counts, wrong = {}, []
    for part in PARTS:
        counts[part], problems = verify_pair(folder, part, classes)
        wrong += [f"{folder.lmdb(part, 'image').name}: {problem}" for problem in problems]
    if wrong:
        raise UserError("; ".join(wrong[:3]) + (f"; and {len(wrong) - 3} more" * (len(wrong) > 3)))
    lines = [", ".join(f"{part}: {n:,} records agree" for part, n in counts.items())]
    if arguments.sheet:
        shown = write_sheet(folder, "train", classes, arguments.sheet)
        lines.append(f"{shown} training records with their labels in {arguments.sheet}")
    return counts, "\n".join(lines)


def describe_ontology(arguments: argparse.Namespace) -> tuple[dict, str]:
    """`ontology`: any published format as one table, its graph's numbers, a picture."""
    anps = ontology.read(arguments.ontology)
    found = files.scan(arguments.images) if arguments.images else None
    counts = _counts(found)
    out = Path(arguments.out)
    listed, picture = out / "anps.csv", out / "anps.svg"
    decisions = [
        criteria.Decision(anp, None if counts is None else counts.get(anp.name, 0)) for anp in anps
    ]
    write(listed, criteria.table(decisions, fates=False))
    write(picture, graph.picture(anps, counts))
    numbers = graph.statistics(anps, counts)
    summary = {"ontology": _source(arguments.ontology), "images": _images(found), **numbers}
    lines = [*graph.describe(numbers), f"{listed}, {picture}"]
    return summary, "\n".join(lines + (_ignored(found) if found else []))


def fetch_labels(arguments: argparse.Namespace) -> tuple[dict, str]:
    """`labels`: the published class lists, hash-checked."""
    from data_prep.labels import fetch

    paths = fetch(arguments.out, arguments.source)
    classes = Classes.read(arguments.out)
    summary = {
        "source": arguments.source,
        "files": [_source(str(path)) for path in paths],
        "classes": classes.counts,
    }
    counts = ", ".join(f"{n} {task}" for task, n in summary["classes"].items())
    return summary, f"{counts} classes, as published, in {arguments.out}"


def download_images(arguments: argparse.Namespace) -> tuple[dict, str]:
    """`download`: addresses to images in ANP folders, what is no image listed."""
    from data_prep.download import Engine, download

    names = ("distributor", "cluster", "processes", "threads", "timeout", "retries", "per_shard")
    engine = Engine(**{name: getattr(arguments, name) for name in names})
    with DataFolder(arguments.out).lock():
        summary = download(arguments.urls, arguments.out, engine, arguments.min_bytes)
    lines = [f"{summary['images']:,} images of {summary['addresses']:,} addresses"]
    lines += [f"{n:>9,}  {reason}" for reason, n in summary["rejected"].items()]
    lines.append(f"{arguments.out}/downloaded.csv, {arguments.out}/rejected.csv (each its reason)")
    return summary, "\n".join(lines)


def unpack_archives(arguments: argparse.Namespace) -> tuple[dict, str]:
    """`unpack`: archives of images, links and names that lead elsewhere left out."""
    from data_prep.archives import unpack

    summary: dict[str, Any] = {"files": 0, "ignored": []}
    for archive in arguments.archives:
        done, ignored = unpack(archive, arguments.out)
        summary["files"] += done
        summary["ignored"] += ignored
    lines = [f"{summary['files']:,} files in {arguments.out}", *_shown(summary["ignored"])]
    return summary, "\n".join(lines)


def run_all(arguments: argparse.Namespace) -> tuple[dict, str]:
    """`run`: filter, split, lmdb, verify, each as its own command would.

    What is done stays: databases that are whole are left alone, half ones
    are taken up, so the same command goes on after any interruption.
    """
    _check_form(DataFolder(arguments.out), arguments)  # before a stage has changed anything
    summary, lines = {}, []
    for name, stage in (
        ("filter", choose_classes),
        ("split", divide_images),
        ("lmdb", write_databases),
        ("verify", read_back),
    ):
        before = time.monotonic()
        print(f"== {name}", file=sys.stderr, flush=True)
        summary[name], text = stage(arguments)
        lines += [f"== {name} ({time.monotonic() - before:,.0f} s)", text]
    return summary, "\n".join(lines)


def _classes(folder: DataFolder) -> Classes:
    if not folder.classes.is_dir():
        raise UserError(
            f"{folder.classes} is not there: run `python -m data_prep filter` first, or `table`"
        )
    return Classes.read(folder.classes)


def _source(path: str) -> dict[str, str | None]:
    return {"path": path, "sha256": sha256(path) if Path(path).is_file() else None}


def _images(found: files.Images | None) -> dict[str, Any] | None:
    return found and {
        "root": str(found.root),
        "anps": len(found.by_anp),
        "images": found.total,
        "links_out": len(found.leaving),
        "ignored": found.ignored,
    }


def _ignored(found: files.Images) -> list[str]:
    leaving = len(found.leaving)
    lines = [f"ignored {leaving:,} links that lead out of the image folder"] if leaving else []
    return lines + _shown(found.ignored)


def _shown(ignored: list[tuple[str, str]]) -> list[str]:
    shown = [f"ignored {path!r}: {reason}" for path, reason in ignored[: files.SHOWN]]
    more = len(ignored) - len(shown)
    return shown + ([f"ignored {more:,} more, listed with --json"] if more > 0 else [])


def _some(names: list[str]) -> str:
    return ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
