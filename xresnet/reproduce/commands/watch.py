"""`xresnet watch`: a training's curves."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from xresnet.basics.cli import printable
from xresnet.basics.numbers import SECONDS
from xresnet.reproduce.commands import common


def add(commands: common.Commands) -> None:
    p = commands.add_parser(
        "watch",
        help="draw a training's curves, also while it runs",
        description="Losses, accuracies and rates of a run so far: .png, .svg or .pdf, or an "
        ".html page that shows itself anew.",
        epilog=common.PICTURE_EXAMPLES,
    )
    p.set_defaults(run=run)
    p.add_argument("folder", type=Path, metavar="RUN", help="a run's folder")
    p.add_argument("--out", type=Path, metavar="FILE", help="default: RUN/watch.html")
    p.add_argument("--every", type=SECONDS, metavar="S", help="draw anew every S seconds")


def run(args: argparse.Namespace) -> int:
    from xresnet.reproduce.watch import watch  # matplotlib takes its time

    out = args.out or args.folder / "watch.html"
    while True:
        watch(args.folder, out, args.every)
        print(printable(out), flush=True)
        if not args.every:
            return 0
        time.sleep(args.every)
