"""The commands: `python -m data_prep sample | filter | split | lmdb | verify`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from basics.cli import Parser, UserError, run
from basics.files import sha256, write
from data_prep import filter as criteria
from data_prep import images as files
from data_prep import ontology
from data_prep.classes import TASKS, Classes
from data_prep.folder import PARTS, DataFolder
from data_prep.lists import write_list
from data_prep.split import parse_fraction, split

_EPILOG = """\
from nothing to the four databases:
  python -m data_prep sample --out work/sample
  python -m data_prep filter --ontology work/sample/ontology.txt \\
      --images work/sample --min-images 50 --out work/data
  python -m data_prep split --images work/sample --out work/data
  python -m data_prep lmdb --images work/sample --size 64 --out work/data
  python -m data_prep verify --out work/data

formats and layout: docs/DATA.md
"""


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    arguments = _parser().parse_args(argv)
    summary, text = arguments.command(arguments)
    print(json.dumps(summary, indent=2, ensure_ascii=False) if arguments.json else text)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="data_prep",
        epilog=_EPILOG,
        description="From an ontology and image folders to LMDBs that Caffe reads.",
    )
    commands = parser.add_subparsers(dest="name", required=True, metavar="COMMAND")

    def add(name: str, command: Any, help: str, example: str, out: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=help,
            description=f"{help[0].upper()}{help[1:]}.",
            epilog=f"example:\n  python -m data_prep {name} {example}\n",
        )
        sub.add_argument("--out", required=True, metavar="DIR", help=out)
        sub.add_argument("--json", action="store_true", help="print the summary as JSON")
        sub.set_defaults(command=command)
        return sub

    data = "the data folder, written by filter, split and lmdb in turn"
    sub = add(
        "sample",
        _sample,
        "draw a small adjective x noun image set",
        "--out work/sample --per-anp 60",
        "where bi_concepts/ and ontology.txt go",
    )
    sub.add_argument("--per-anp", type=int, default=60, metavar="N", help="images an ANP (60)")
    sub.add_argument("--seed", type=int, default=0, help="another seed, other images (0)")

    sub = add(
        "filter",
        _filter,
        "choose the classes by the paper's three criteria",
        "--ontology vso/1200ANPsv1.1.txt --images vso/bi_concepts1553 --out data",
        data,
    )
    source = sub.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--ontology",
        metavar="FILE",
        help="the 3,244 list, one ANP a line, or a folder of ANP folders",
    )
    source.add_argument(
        "--labels",
        metavar="DIR",
        help="take finished class lists instead: *adj.txt, *anp.txt, *noun.txt",
    )
    sub.add_argument(
        "--images", metavar="DIR", help="the ANP folders; without it criterion 3 is left out"
    )
    sub.add_argument(
        "--min-nouns",
        type=int,
        default=3,
        metavar="N",
        help="criterion 1: nouns an adjective needs in the full list (3)",
    )
    sub.add_argument(
        "--exclude",
        metavar="FILE",
        default=str(criteria.EXCLUDED_NOUNS),
        help="criterion 2: `noun: reason` lines (the paper's five nouns)",
    )
    sub.add_argument(
        "--min-images",
        type=int,
        default=500,
        metavar="N",
        help="criterion 3: images an ANP needs on disk (500)",
    )

    sub = add(
        "split",
        _split,
        "divide the images of each class into train and test",
        "--images vso/bi_concepts1553 --out data",
        data,
    )
    sub.add_argument("--images", required=True, metavar="DIR", help="the ANP folders")
    sub.add_argument(
        "--train",
        default="0.8",
        metavar="F",
        help="share for training; an ANP with n images gives floor(F n) (0.8)",
    )
    sub.add_argument("--seed", type=int, default=0, help="another seed, another split (0)")

    sub = add(
        "lmdb",
        _lmdb,
        "write the image and label databases of both lists",
        "--images vso/bi_concepts1553 --size 224 --out data",
        data,
    )
    sub.add_argument("--images", required=True, metavar="DIR", help="the ANP folders")
    sub.add_argument("--size", type=int, default=224, metavar="S", help="pixels a side (224)")
    sub.add_argument(
        "--encoded",
        action="store_true",
        help="JPEGs in the records: 14 GB instead of 58, but Caffe reads a sixth as many a second",
    )
    sub.add_argument("--threads", type=int, metavar="N", help="decoding threads (cores + 1)")
    sub.add_argument(
        "--allow-dropped",
        action="store_true",
        help="go on when more than 1%% of a list cannot be read",
    )
    sub.add_argument(
        "--drop-damaged",
        action="store_true",
        help="leave out JPEGs that end early; convert_imageset keeps them",
    )
    sub.add_argument(
        "--fresh", action="store_true", help="write again even if the same databases are there"
    )

    add(
        "verify",
        _verify,
        "read the databases back and hold them against lists and classes",
        "--out data",
        data,
    )
    return parser


def _sample(arguments: argparse.Namespace) -> tuple[dict, str]:
    from data_prep.sample import make  # drawing needs tables that no other command does

    summary = make(arguments.out, arguments.per_anp, arguments.seed)
    return summary, (
        f"{summary['images']:,} images of {summary['anps']} ANPs in {arguments.out}\n"
        f"next: python -m data_prep filter --ontology {arguments.out}/ontology.txt "
        f"--images {arguments.out} --min-images {max(1, arguments.per_anp * 5 // 6)} --out DATA"
    )


def _filter(arguments: argparse.Namespace) -> tuple[dict, str]:
    found = files.scan(arguments.images) if arguments.images else None
    counts = None if found is None else {anp: len(paths) for anp, paths in found.by_anp.items()}
    choose = _take_labels if arguments.labels else _apply_criteria
    classes, decisions, summary, lines = choose(arguments, counts)
    folder = DataFolder(arguments.out)
    with folder.lock():
        classes.write(folder.classes)
        write(folder.ontology, criteria.table(decisions))
        summary["images"] = _images(found)
        summary["classes"] = {
            task: {
                "count": len(getattr(classes, task)),
                "sha256": sha256(folder.classes / f"{task}.txt"),
            }
            for task in TASKS
        }
        folder.record("filter", summary)
    lines += _ignored(found) if found else []
    lines.append(f"classes in {folder.classes}, every ANP's reason in {folder.ontology}")
    return summary, "\n".join(lines)


_Choice = tuple  # (Classes, decisions, summary, lines for the terminal)


def _apply_criteria(arguments: argparse.Namespace, counts: dict[str, int] | None) -> _Choice:
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
            f"`{empty['criterion']}`; lower --min-nouns or --min-images"
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


def _take_labels(arguments: argparse.Namespace, counts: dict[str, int] | None) -> _Choice:
    classes = Classes.read(arguments.labels)
    decisions = [
        criteria.Decision(ontology.Anp(anp), None if counts is None else counts.get(anp, 0))
        for anp in classes.anp
    ]
    missing = [d.anp.name for d in decisions if d.images == 0]
    lines = [
        ", ".join(f"{len(getattr(classes, task))} {task}" for task in TASKS)
        + f" classes taken from {arguments.labels}, in their order"
    ]
    if missing:
        lines.append(f"{len(missing)} ANPs have no image on disk: {_some(missing)}")
    return classes, decisions, {"labels": arguments.labels, "missing_on_disk": missing}, lines


def _split(arguments: argparse.Namespace) -> tuple[dict, str]:
    folder = DataFolder(arguments.out)
    classes = _classes(folder)
    fraction = parse_fraction(arguments.train)
    found = files.scan(arguments.images)
    train, test = split(found.by_anp, classes.anp_index, arguments.seed, fraction)
    if not train or not test:
        raise UserError(
            f"{found.root}: too few images of the {len(classes.anp)} classes "
            f"to split ({len(train)} train, {len(test)} test)"
        )
    trained = {entry.label for entry in train}
    untrained = [anp for anp, label in classes.anp_index.items() if label not in trained]
    with folder.lock():
        for part, entries in zip(PARTS, (train, test)):
            write_list(folder.list(part), entries)
        summary = {
            "images": _images(found),
            "fraction": str(fraction),
            "seed": arguments.seed,
            "lists": {
                part: {"images": len(entries), "sha256": sha256(folder.list(part))}
                for part, entries in zip(PARTS, (train, test))
            },
            "without_training_images": untrained,
        }
        folder.record("split", summary)
    lines = [
        f"{len(train):,} train, {len(test):,} test, {len(classes.anp)} ANPs, "
        f"seed {arguments.seed}: {folder.list('train')}, {folder.list('test')}"
    ]
    if untrained:
        lines.append(f"{len(untrained)} ANPs have no training image: {_some(untrained)}")
    return summary, "\n".join(lines + _ignored(found))


def _lmdb(arguments: argparse.Namespace) -> tuple[dict, str]:
    from data_prep.lmdb_writer import MEAN, write_pair

    if not 1 <= arguments.size <= 4096:
        raise UserError(f"--size {arguments.size}: between 1 and 4096 pixels")
    if arguments.threads is not None and not 1 <= arguments.threads <= 256:
        raise UserError(f"--threads {arguments.threads}: between 1 and 256")
    folder = DataFolder(arguments.out)
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


def _verify(arguments: argparse.Namespace) -> tuple[dict, str]:
    from data_prep.verify import verify_pair

    folder = DataFolder(arguments.out)
    classes = _classes(folder)
    counts, wrong = {}, []
    for part in PARTS:
        counts[part], problems = verify_pair(folder, part, classes)
        wrong += [f"{folder.lmdb(part, 'image').name}: {problem}" for problem in problems]
    if wrong:
        raise UserError("; ".join(wrong[:3]) + (f"; and {len(wrong) - 3} more" * (len(wrong) > 3)))
    return counts, ", ".join(f"{part}: {n:,} records agree" for part, n in counts.items())


def _classes(folder: DataFolder) -> Classes:
    if not folder.classes.is_dir():
        raise UserError(f"{folder.classes} is not there: run `python -m data_prep filter` first")
    return Classes.read(folder.classes)


def _source(path: str) -> dict[str, str | None]:
    return {"path": path, "sha256": sha256(path) if Path(path).is_file() else None}


def _images(found: files.Images | None) -> dict[str, Any] | None:
    return found and {
        "root": str(found.root),
        "anps": len(found.by_anp),
        "images": found.total,
        "ignored": found.ignored,
    }


def _ignored(found: files.Images) -> list[str]:
    shown = [f"ignored {path}: {reason}" for path, reason in found.ignored[: files.SHOWN]]
    more = len(found.ignored) - len(shown)
    return shown + ([f"ignored {more} more, listed in the manifest"] if more > 0 else [])


def _some(names: list[str]) -> str:
    return ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")


if __name__ == "__main__":
    run(main, "data_prep")
