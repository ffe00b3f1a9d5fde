"""`xresnet compare`: arm against arm over a grid's seeds."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from xresnet.reproduce.commands import common

NAME = "compare"
SUMMARY = "compare a grid's arms in pairs of the same seed"
DESCRIPTION = (
    "For a grid.json, write each comparison's differences over the seeds, their mean and 95% "
    "t-interval, as compare.md, compare.json and compare.svg."
)
EXAMPLES = """\
examples:
  python -m xresnet compare runs/scratch/grid.json
  python -m xresnet compare docs/results/scratch/grid.json --out compared --json
"""


def add(p: ArgumentParser) -> None:
    p.add_argument("grid", type=Path, metavar="GRID.json", help="the grid.json that `grid` wrote")
    common.option(p, "--out", "their folder", Path, unset="beside it", metavar="DIR")
    common.add_json(p, "the comparisons")


def run(args: Namespace) -> int:
    from xresnet.reproduce.compare import compare, markdown  # matplotlib takes its time

    made = compare(args.grid, args.out or args.grid.parent)
    return common.show(made, args.json, markdown(made))
