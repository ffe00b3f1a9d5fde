"""The command line, `python -m data_prep COMMAND`.

Each command is a function of this package; its options and their defaults are the function's
keyword arguments.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the other imports, during which Ctrl-C may come
    from xresnet.basics import cli

    cli.run("data_prep.__main__", "data_prep")

import argparse
import inspect
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from data_prep import prose
from data_prep.archives import unpack_all
from data_prep.databases import Form, check_form, write_databases
from data_prep.download import DISTRIBUTORS, download
from data_prep.folder import DataFolder
from data_prep.graph import describe
from data_prep.labels import fetch
from data_prep.reorder import reorder
from data_prep.sample import PER_ANP, make
from data_prep.table import take
from data_prep.verify import verify
from data_prep.vso import choose_classes, divide_images
from xresnet.basics.cli import Parser, option_help, printable
from xresnet.basics.numbers import (
    COUNT,
    NATURAL,
    PIXELS,
    PROCESSES,
    SEED,
    THREADS,
    TRIES,
    WAIT,
    Number,
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


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    arguments = _parser().parse_args(argv)
    whole = COMMANDS[arguments.name].stages
    facts, text = (_run if whole else _one)(arguments, arguments.name)
    print(json.dumps(facts, indent=2) if arguments.json else printable(text))
    return 0


def _one(arguments: argparse.Namespace, name: str) -> tuple[Any, str]:
    command = COMMANDS[name]
    assert command.function is not None  # it is none of stages
    given = ("out", *(argument.name for argument in command.arguments))
    result = command.function(**{one: getattr(arguments, one) for one in given})
    return result.facts, prose.of(result)


def _run(arguments: argparse.Namespace, name: str) -> tuple[Any, str]:
    """`run` and `run-table`: execute several commands in turn.

    Complete databases are kept and half-written ones are resumed, so the same command continues
    after any interruption.
    """
    if not (arguments.replace or arguments.fresh):  # before one has changed anything
        form = Form(arguments.size, arguments.encoded, arguments.drop_damaged)
        check_form(DataFolder(arguments.out), form)
    facts, lines = {}, []
    for stage in COMMANDS[name].stages:
        before = time.monotonic()
        print(f"== {stage}", file=sys.stderr, flush=True)
        facts[stage], text = _one(arguments, stage)
        lines += [f"== {stage} ({time.monotonic() - before:,.0f} s)", text]
    return facts, "\n".join(lines)


# --- the arguments of each command -------------------------------------------------------------


@dataclass(frozen=True)
class _Argument:
    """A command-line argument for the function's parameter of the same name and default.

    `unset`: the help's words for the default, in place of its value.
    `either`: the name of a group of arguments of which exactly one must be given.
    """

    flag: str
    what: str
    metavar: Any = None
    type: Callable[[str], Any] | None = None
    unset: str = ""
    either: str = ""
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The parameter's name."""
        return self.flag.lstrip("-").replace("-", "_")

    def add_to(self, parser: argparse._ActionsContainer, default: Any) -> None:
        """Add it to an argparse parser; the default `_NEEDED` makes it required."""
        more = {"metavar": self.metavar, "type": self.type, **self.more}
        more = {name: value for name, value in more.items() if value is not None}
        shown = None
        if default is False:
            more["action"] = "store_true"
        elif self.flag.startswith("--") and default is _NEEDED:
            more["required"] = True
        elif self.flag.startswith("--"):
            more["default"] = default
            if not self.either:
                shown = self.unset or ("none" if default is None else str(default))
        help = option_help(self.what, self.type if isinstance(self.type, Number) else None, shown)
        parser.add_argument(self.flag, help=help.replace("%", "%%"), **more)


_NEEDED = inspect.Parameter.empty


@dataclass(frozen=True)
class _Command:
    """A command: a function with arguments, or the `stages` (commands) that it runs in turn."""

    help: str
    example: str
    function: Callable[..., Any] | None = None
    arguments: tuple[_Argument, ...] = ()
    out: str = "the data folder, written by filter, split and lmdb in turn"
    stages: tuple[str, ...] = ()


COMMANDS: dict[str, _Command] = {}


def _add(
    name: str,
    function: Callable[..., Any] | None,
    help: str,
    example: str,
    *given: _Argument,
    **more: Any,
) -> None:
    COMMANDS[name] = _Command(help, example, function, given, **more)


_IMAGES = _Argument("--images", "the ANP folders", "DIR")
_SHARE = _Argument(
    *("--train", "share of training, above 0 and below 1: floor(F n) of a class's n images", "F"),
    *(exact_fraction, "0.8"),
)
_SPLIT = _Argument("--seed", "another seed gives another split", "N", SEED)
_MISSING = _Argument("--allow-missing", "continue if classes have no image at all")
_FORMATS = "the 3,244 list, one ANP a line, CSV with a column `anp`, or a folder of ANP folders"

_add(
    "sample",
    make,
    "draw a small adjective x noun image set",
    "--out work/sample --per-anp 60",
    _Argument("--per-anp", "images per ANP", "N", PER_ANP),
    _Argument("--seed", "another seed gives other images", "N", SEED),
    out="folder for bi_concepts/ and ontology.txt",
)
_add(
    "labels",
    fetch,
    "fetch the class lists that the authors published",
    "--out vso/labels",
    _Argument("--source", "a mirror of the three files", "URL", unset="the published ones"),
    out="folder for mtvso_adj.txt, mtvso_anp.txt and mtvso_noun.txt",
)
_add(
    "ontology",
    describe,
    "read an ontology in any published format; its numbers and a picture",
    "vso/3244ANPs.txt --images vso/bi_concepts1553 --out vso/described",
    _Argument("ontology", _FORMATS, "FILE"),
    _Argument("--images", "the ANP folders, to count images on disk", "DIR"),
    out="folder for anps.csv and anps.svg",
)
_add(
    "download",
    download,
    "download the images of a URL list with img2dataset; resumes where it was stopped",
    "vso/english.csv --out vso/images --processes 4",
    _Argument(
        *("urls", "`adj_noun url` lines, CSV with `anp,url[,sha256]`, or files named adj_noun"),
        "LIST",
    ),
    _Argument(
        *("--distributor", "one machine, or a Spark or Ray cluster"),
        more={"choices": tuple(DISTRIBUTORS)},
    ),
    _Argument("--cluster", "Spark master or Ray address", "URL", unset="this machine"),
    _Argument("--processes", "parallel download processes", "N", PROCESSES),
    _Argument("--threads", "connections per process", "N", THREADS),
    _Argument("--timeout", "of a request until it fails", "S", WAIT),
    _Argument("--retries", "repetitions of a failed request", "N", TRIES),
    _Argument("--per-shard", "addresses per shard", "N", COUNT),
    _Argument("--min-bytes", "smaller files count as placeholders", "N", NATURAL),
    out="folder for the ANP folders, downloaded.csv and rejected.csv",
)
_add(
    "unpack",
    unpack_all,
    "unpack archives of images, safely and resumably",
    "bi_concepts1553.tar.gz --out vso",
    _Argument("archives", "tar (compressed or not) or zip", "ARCHIVE", more={"nargs": "+"}),
    out="the folder to unpack into",
)
_add(
    "filter",
    choose_classes,
    "choose the classes by the paper's three criteria",
    "--ontology vso/1200ANPsv1.1.txt --images vso/bi_concepts1553 --out data",
    _Argument("--ontology", _FORMATS, "FILE", either="classes"),
    _Argument(
        *("--labels", "take finished class lists instead: *adj.txt, *anp.txt, *noun.txt", "DIR"),
        either="classes",
    ),
    _Argument("--min-nouns", "criterion 1: nouns that an adjective must have", "N", NATURAL),
    _Argument(
        *("--exclude", "criterion 2: `noun: reason` lines", "FILE"),
        unset="the paper's five nouns",
    ),
    _Argument("--min-images", "criterion 3: images that an ANP must have on disk", "N", NATURAL),
    _MISSING,
    _Argument("--images", "the ANP folders; without it criterion 3 is left out", "DIR"),
)
_add(
    "split",
    divide_images,
    "split the images of each class into train and test",
    "--images vso/bi_concepts1553 --out data",
    _IMAGES,
    _SHARE,
    _SPLIT,
    _Argument(
        *("--lists", "take finished lists instead: `path label` a line", ("TRAIN", "TEST")),
        more={"nargs": 2},
    ),
    _MISSING,
)
_add(
    "table",
    take,
    "choose classes and split images by a table of your own: any tasks, labels as text",
    "labels.csv --images photos --tasks colour,kind --out data/own",
    _Argument("table", "CSV, TSV, JSON lines or Parquet, with one row per image", "TABLE"),
    _Argument("--images", "the folder that paths are relative to", "DIR"),
    _Argument(
        *(
            "--tasks",
            "one column per task, or TASK=COLUMN; an empty cell is a missing label",
            "COLUMN,...",
        )
    ),
    _Argument("--path", "column of the paths", "COLUMN"),
    _Argument("--split", "column that says train or test", "COLUMN"),
    _Argument(
        *(
            "--stratify",
            "task whose classes are split alike, or all: each combination of labels",
            "TASK",
        ),
        unset="the first task",
    ),
    _SHARE,
    _SPLIT,
    _Argument("--min-images", "labels of classes with fewer images are dropped", "N", COUNT),
    _Argument("--classes", "folder of TASK.txt, the classes in their order", "DIR", unset="sorted"),
    _Argument("--allow-missing", "leave out rows whose image does not exist"),
    out="the data folder; lmdb and verify come next",
)
_add(
    "lmdb",
    write_databases,
    "write the image and label databases of both lists; takes up a run that was stopped",
    "--images vso/bi_concepts1553 --size 224 --out data",
    _IMAGES,
    _Argument("--size", "height and width of an image", "S", PIXELS),
    _Argument(
        "--encoded",
        "JPEGs in the records: 14 GB instead of 58, but Caffe reads a sixth as many a second",
    ),
    _Argument("--threads", "decoding threads", "N", THREADS, "cores + 1"),
    _Argument("--allow-dropped", "continue if more than 1% of a list cannot be read"),
    _Argument("--drop-damaged", "leave out JPEGs that end early; convert_imageset keeps them"),
    _Argument("--replace", "replace finished databases of another size or format"),
    _Argument("--fresh", "rewrite all existing databases"),
)
_add(
    "verify",
    verify,
    "read the databases back and check them against lists, classes and manifest",
    "--out data --sheet sheet.jpg",
    _Argument("--sheet", "a JPEG of 40 training records with their labels", "FILE"),
)
_add(
    "reorder",
    reorder,
    "give the training images another order, in a folder of its own: a study's seeds",
    "data --seed 3 --out data-order-3",
    _Argument("data", "a finished data folder", "DATA"),
    _Argument("--seed", "another seed gives another order", "N", SEED),
    out="the reordered data folder to write; its test databases are links",
)
_add(
    "run",
    None,
    "filter, split, lmdb and verify in one; the same command goes on after an interruption",
    "--labels vso/labels --images vso/bi_concepts1553 --out data",
    stages=("filter", "split", "lmdb", "verify"),
)
_add(
    "run-table",
    None,
    "table, lmdb and verify in one; the same command goes on after an interruption",
    "labels.csv --images photos --tasks colour,kind --size 224 --out data/own",
    stages=("table", "lmdb", "verify"),
)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="data_prep",
        epilog=_EPILOG,
        description="From an ontology and image folders to LMDBs that Caffe reads.",
    )
    commands = parser.add_subparsers(dest="name", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        sub = commands.add_parser(
            name,
            help=command.help,
            description=f"{command.help[0].upper()}{command.help[1:]}.",
            epilog=f"example:\n  python -m data_prep {name} {command.example}\n",
        )
        sub.add_argument("--out", required=True, metavar="DIR", help=command.out)
        sub.add_argument("--json", action="store_true", help="print the summary as JSON")
        _add_arguments(sub, [command, *(COMMANDS[stage] for stage in command.stages)])
    return parser


def _add_arguments(parser: argparse.ArgumentParser, commands: list[_Command]) -> None:
    """Add the arguments of one or several commands; one that any of them requires is required."""
    found: dict[str, tuple[_Argument, Any]] = {}
    for command in commands:
        parameters = inspect.signature(command.function).parameters if command.function else {}
        for one in command.arguments:
            default = parameters[one.name].default
            if one.name not in found or default is _NEEDED:
                found[one.name] = one, default
    groups: dict[str, argparse._ActionsContainer] = {"": parser}
    for one, default in found.values():
        if one.either not in groups:
            groups[one.either] = parser.add_mutually_exclusive_group(required=True)
        one.add_to(groups[one.either], default)
