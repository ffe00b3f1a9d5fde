"""`xresnet report`: one page of all results."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from xresnet.basics.cli import printable
from xresnet.reproduce.commands import common

NAME = "report"
SUMMARY = "write one self-contained page of all results"
DESCRIPTION = (
    "Tables, curves, figures, example predictions, data, commands and hashes of "
    "what `table2` or `grid` made, as one HTML file."
)
EXAMPLES = """\
examples:
  python -m xresnet report work/demo
"""


def add(p: ArgumentParser) -> None:
    p.add_argument(
        "results", type=Path, metavar="DIR", help="the --out folder of table2, grid or train"
    )
    common.option(p, "--out", "the page", Path, unset="DIR/report.html", metavar="FILE")


def run(args: Namespace) -> int:
    from xresnet.reproduce.report import report  # matplotlib takes its time

    print(printable(report(args.results, args.out)))
    return 0
