"""`reproduce grid`: nets and seeds of a grid file, and their means."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from reproduce.commands import common
from reproduce.grid import grid, markdown

EXAMPLES = """\
examples:
  python -m reproduce grid reproduce/grids/cifar.json --data data/cifar --out runs/study
  python -m reproduce grid reproduce/grids/cifar.json --data data/cifar --out runs/study --table
"""


def add(commands: common.Commands) -> None:
    p = commands.add_parser(
        "grid",
        help="train a grid of nets and seeds, and tabulate mean and deviation",
        description="Train every row and seed of a grid file, one after another, and tabulate "
        "means and deviations after each. What is done is taken as it is.",
        epilog=EXAMPLES,
    )
    p.set_defaults(run=run)
    p.add_argument("file", type=Path, metavar="FILE", help="a grid file (reproduce/grids/)")
    p.add_argument("--data", type=Path, required=True, metavar="DIR", help="data_prep's folder")
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="where all results go")
    common.add_engine(p)
    common.add_threads(p)
    p.add_argument("--table", action="store_true", help="train nothing: tabulate what is done")
    p.add_argument("--json", action="store_true", help="print the table as JSON")


def run(args: argparse.Namespace) -> int:
    engine = common.engine(args)
    table = grid(args.file, args.data, args.out, engine, not args.table, say=_tell)
    print(json.dumps(table, indent=2) if args.json else markdown(table))
    return 0


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
