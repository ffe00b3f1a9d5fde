"""`xresnet report`: one page of all results."""

from __future__ import annotations

import argparse
from pathlib import Path

from xresnet.basics.cli import printable
from xresnet.reproduce.commands import common

EXAMPLES = """\
examples:
  python -m xresnet report work/demo
"""


def add(commands: common.Commands) -> None:
    p = commands.add_parser(
        "report",
        help="one self-contained page of all results",
        description="Tables, curves, figures, example predictions, data, commands and hashes of "
        "what `table2` or `grid` made, as one HTML page with nothing beside it.",
        epilog=EXAMPLES,
    )
    p.set_defaults(run=run)
    p.add_argument("results", type=Path, metavar="DIR", help="the --out of table2, grid or train")
    p.add_argument("--out", type=Path, metavar="FILE", help="default: DIR/report.html")


def run(args: argparse.Namespace) -> int:
    from xresnet.reproduce.report import report  # matplotlib takes its time

    print(printable(report(args.results, args.out)))
    return 0
