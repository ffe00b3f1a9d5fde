"""`xresnet compare`: arm against arm over a grid's seeds."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from xresnet.basics.cli import printable
from xresnet.reproduce.commands import common

EXAMPLES = """\
examples:
  python -m xresnet compare runs/scratch/grid.json
  python -m xresnet compare docs/results/scratch/grid.json --out compared --json
"""


def add(commands: common.Commands) -> None:
    p = commands.add_parser(
        "compare",
        help="compare a grid's arms, pair by pair of the same seed",
        description="Of a grid.json: each comparison's differences over the seeds, their mean and "
        "95% t-interval, as compare.md, compare.json and compare.svg.",
        epilog=EXAMPLES,
    )
    p.set_defaults(run=run)
    p.add_argument("grid", type=Path, metavar="GRID.json", help="what `grid` made")
    p.add_argument("--out", type=Path, metavar="DIR", help="default: beside it")
    p.add_argument("--json", action="store_true", help="print the comparisons as JSON")


def run(args: argparse.Namespace) -> int:
    from xresnet.reproduce.compare import compare, markdown  # matplotlib takes its time

    made = compare(args.grid, args.out or args.grid.parent)
    print(json.dumps(made, indent=2) if args.json else printable(markdown(made)))
    return 0
