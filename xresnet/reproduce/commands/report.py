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
    p = common.add(
        commands,
        "report",
        run,
        "write one self-contained page of all results",
        "Tables, curves, figures, example predictions, data, commands and hashes of "
        "what `table2` or `grid` made, as one HTML file.",
        EXAMPLES,
    )
    p.add_argument(
        "results", type=Path, metavar="DIR", help="the --out folder of table2, grid or train"
    )
    common.option(p, "--out", "the page", Path, unset="DIR/report.html", metavar="FILE")


def run(args: argparse.Namespace) -> int:
    from xresnet.reproduce.report import report  # matplotlib takes its time

    print(printable(report(args.results, args.out)))
    return 0
