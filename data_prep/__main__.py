"""The commands: `python -m data_prep COMMAND`, from published lists to Caffe's databases."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from fractions import Fraction

from data_prep import criteria, labels, stages
from data_prep.sample import PER_ANP
from xresnet.basics.cli import Parser, printable, run
from xresnet.basics.numbers import (
    COUNT,
    NATURAL,
    PIXELS,
    PROCESSES,
    SEED,
    THREADS,
    TRIES,
    WAIT,
    exact_fraction,
)

_EPILOG = """\
from nothing to the four databases, in one command or one by one:
  python -m data_prep sample --out work/sample
  python -m data_prep run --ontology work/sample/ontology.txt \\
      --images work/sample --min-images 50 --size 64 --out work/data

  python -m data_prep filter --ontology work/sample/ontology.txt \\
      --images work/sample --min-images 50 --out work/data
  python -m data_prep split --images work/sample --out work/data
  python -m data_prep lmdb --images work/sample --size 64 --out work/data
  python -m data_prep verify --out work/data --sheet work/sheet.jpg

formats and layout: docs/DATA.md
"""

_DATA = "the data folder, written by filter, split and lmdb in turn"


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    arguments = _parser().parse_args(argv)
    summary, text = arguments.command(arguments)
    print(json.dumps(summary, indent=2) if arguments.json else printable(text))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="data_prep",
        epilog=_EPILOG,
        description="From an ontology and image folders to LMDBs that Caffe reads.",
    )
    commands = parser.add_subparsers(dest="name", required=True, metavar="COMMAND")

    def add(
        name: str, command: Callable, help: str, example: str, out: str = _DATA
    ) -> argparse.ArgumentParser:
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

    sub = add(
        "sample",
        stages.draw_sample,
        "draw a small adjective x noun image set",
        "--out work/sample --per-anp 60",
        "where bi_concepts/ and ontology.txt go",
    )
    sub.add_argument("--per-anp", type=PER_ANP, default=60, metavar="N", help="images an ANP (60)")
    sub.add_argument("--seed", type=SEED, default=0, help="another seed, other images (0)")

    sub = add(
        "labels",
        stages.fetch_labels,
        "fetch the class lists that the authors published",
        "--out vso/labels",
        "where mtvso_adj.txt, mtvso_anp.txt and mtvso_noun.txt go",
    )
    sub.add_argument(
        "--source", metavar="URL", default=labels.SOURCE, help="a mirror of the three files"
    )

    sub = add(
        "ontology",
        stages.describe_ontology,
        "read an ontology in any published format; its numbers and a picture",
        "vso/3244ANPs.txt --images vso/bi_concepts1553 --out vso/described",
        "where anps.csv and anps.svg go",
    )
    sub.add_argument(
        "ontology",
        metavar="FILE",
        help="the 3,244 list, one ANP a line, CSV with a column `anp`, or a folder of ANP folders",
    )
    sub.add_argument("--images", metavar="DIR", help="the ANP folders, to count images on disk")

    sub = add(
        "download",
        stages.download_images,
        "fetch the images of a URL list with img2dataset; goes on where it was stopped",
        "vso/english.csv --out vso/images --processes 4",
        "where the ANP folders, downloaded.csv and rejected.csv go",
    )
    sub.add_argument(
        "urls",
        metavar="LIST",
        help="`adj_noun url` lines, CSV with `anp,url[,sha256]`, or files named adj_noun of URLs",
    )
    sub.add_argument(
        "--distributor",
        choices=("multiprocessing", "pyspark", "ray"),
        default="multiprocessing",
        help="one machine, or a Spark or Ray cluster (multiprocessing)",
    )
    sub.add_argument(
        "--cluster", default="", metavar="URL", help="Spark master or Ray address (this machine)"
    )
    sub.add_argument("--processes", type=PROCESSES, default=2, metavar="N", help="processes (2)")
    sub.add_argument(
        "--threads", type=THREADS, default=16, metavar="N", help="connections a process (16)"
    )
    sub.add_argument("--timeout", type=WAIT, default=20, metavar="S", help="seconds a try (20)")
    sub.add_argument("--retries", type=TRIES, default=2, metavar="N", help="further tries (2)")
    sub.add_argument(
        "--per-shard", type=COUNT, default=1000, metavar="N", help="addresses a shard (1000)"
    )
    sub.add_argument(
        "--min-bytes",
        type=NATURAL,
        default=2052,
        metavar="N",
        help="smaller files are placeholders (2052)",
    )

    sub = add(
        "unpack",
        stages.unpack_archives,
        "unpack archives of images, safely and resumably",
        "bi_concepts1553.tar.gz --out vso",
        "the folder to unpack into",
    )
    sub.add_argument(
        "archives", nargs="+", metavar="ARCHIVE", help="tar (compressed or not) or zip"
    )

    sub = add(
        "filter",
        stages.choose_classes,
        "choose the classes by the paper's three criteria",
        "--ontology vso/1200ANPsv1.1.txt --images vso/bi_concepts1553 --out data",
    )
    _add_filter(sub)
    _add_missing(sub)
    sub.add_argument(
        "--images", metavar="DIR", help="the ANP folders; without it criterion 3 is left out"
    )

    sub = add(
        "split",
        stages.divide_images,
        "divide the images of each class into train and test",
        "--images vso/bi_concepts1553 --out data",
    )
    sub.add_argument("--images", required=True, metavar="DIR", help="the ANP folders")
    _add_split(sub)
    _add_missing(sub)

    sub = add(
        "table",
        stages.take_table,
        "choose classes and divide images by a table of your own: any tasks, labels as text",
        "labels.csv --images photos --tasks colour,kind --out data/own",
        "the data folder; lmdb and verify come next",
    )
    _add_table(sub)

    sub = add(
        "lmdb",
        stages.write_databases,
        "write the image and label databases of both lists; takes up a run that was stopped",
        "--images vso/bi_concepts1553 --size 224 --out data",
    )
    sub.add_argument("--images", required=True, metavar="DIR", help="the ANP folders")
    _add_lmdb(sub)

    sub = add(
        "verify",
        stages.read_back,
        "read the databases back and hold them against lists, classes and manifest",
        "--out data --sheet sheet.jpg",
    )
    _add_verify(sub)

    sub = add(
        "reorder",
        stages.reorder_training,
        "give the training images another order, in a folder of its own: a study's seeds",
        "data --seed 3 --out data-order-3",
        "where the reordered data folder goes; its test databases are links",
    )
    sub.add_argument("data", metavar="DATA", help="a finished data folder")
    sub.add_argument("--seed", type=SEED, required=True, help="another seed, another order")

    sub = add(
        "run",
        stages.run_all,
        "filter, split, lmdb and verify in one; the same command goes on after an interruption",
        "--labels vso/labels --images vso/bi_concepts1553 --out data",
    )
    sub.add_argument("--images", required=True, metavar="DIR", help="the ANP folders")
    for options in (_add_filter, _add_split, _add_missing, _add_lmdb, _add_verify):
        options(sub)
    return parser


def _add_filter(sub: argparse.ArgumentParser) -> None:
    source = sub.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--ontology",
        metavar="FILE",
        help="the 3,244 list, one ANP a line, CSV with a column `anp`, or a folder of ANP folders",
    )
    source.add_argument(
        "--labels",
        metavar="DIR",
        help="take finished class lists instead: *adj.txt, *anp.txt, *noun.txt",
    )
    sub.add_argument(
        "--min-nouns",
        type=NATURAL,
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
        type=NATURAL,
        default=500,
        metavar="N",
        help="criterion 3: images an ANP needs on disk (500)",
    )


def _add_table(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "table", metavar="TABLE", help="CSV, TSV, JSON lines or Parquet; a row an image"
    )
    sub.add_argument("--images", required=True, metavar="DIR", help="where the paths start from")
    sub.add_argument(
        "--tasks",
        required=True,
        metavar="COLUMN,...",
        help="a column a task, or TASK=COLUMN; an empty cell is no label",
    )
    sub.add_argument("--path", default="path", metavar="COLUMN", help="of the paths (path)")
    sub.add_argument(
        "--split", metavar="COLUMN", help="takes the sides from the table: train or test"
    )
    sub.add_argument(
        "--stratify",
        metavar="TASK",
        help="whose classes are divided alike, or all: each combination (the first task)",
    )
    sub.add_argument("--train", type=exact_fraction, metavar="F", help="share for training (0.8)")
    sub.add_argument("--seed", type=SEED, default=0, help="another seed, another split (0)")
    sub.add_argument(
        "--min-images", type=COUNT, default=1, metavar="N", help="a class of fewer is no label (1)"
    )
    sub.add_argument(
        "--classes", metavar="DIR", help="TASK.txt there: the classes in that order (sorted)"
    )
    sub.add_argument(
        "--allow-missing", action="store_true", help="leave out rows whose image is not there"
    )


def _add_split(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--train",
        type=exact_fraction,
        default=Fraction(4, 5),
        metavar="F",
        help="share for training; an ANP with n images gives floor(F n) (0.8)",
    )
    sub.add_argument("--seed", type=SEED, default=0, help="another seed, another split (0)")
    sub.add_argument(
        "--lists",
        nargs=2,
        metavar=("TRAIN", "TEST"),
        help="take finished lists instead: `path label` a line",
    )


def _add_missing(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--allow-missing",
        action="store_true",
        help="go on when classes have no image at all",
    )


def _add_lmdb(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--size", type=PIXELS, default=224, metavar="S", help="pixels a side (224)")
    sub.add_argument(
        "--encoded",
        action="store_true",
        help="JPEGs in the records: 14 GB instead of 58, but Caffe reads a sixth as many a second",
    )
    sub.add_argument("--threads", type=THREADS, metavar="N", help="decoding threads (cores + 1)")
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
        "--replace",
        action="store_true",
        help="replace finished databases of another size or form",
    )
    sub.add_argument("--fresh", action="store_true", help="write anew whatever databases are there")


def _add_verify(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--sheet", metavar="FILE", help="a JPEG of 40 training records with their labels"
    )


if __name__ == "__main__":
    run(main, "data_prep")
