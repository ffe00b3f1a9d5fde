"""`reproduce figure5`: learned cross-residual weights."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from reproduce.commands import common
from reproduce.evaluate import net_of
from reproduce.snapshots import snapshots


def add(commands: common.Commands) -> None:
    p = commands.add_parser(
        "figure5",
        help="draw learned cross-residual weights, as Figure 5",
        description="Cross-residual weights sorted by channel, a plot a layer, a curve a "
        "Source-Target; with --change, how they moved over a run's snapshots.",
        epilog=common.PICTURE_EXAMPLES,
    )
    p.set_defaults(run=run)
    p.add_argument("snapshot", type=Path, metavar="SNAPSHOT", help="a .caffemodel, or a run")
    p.add_argument("--out", type=Path, default=Path("figure5.svg"), metavar="FILE")
    p.add_argument("--change", type=Path, metavar="FILE", help="also the change over snapshots")
    p.add_argument("--json", action="store_true", help="print the weights' statistics")


def run(args: argparse.Namespace) -> int:
    from reproduce import figures  # matplotlib takes its time

    folder = args.snapshot
    weights = net_of(folder).weights if folder.is_dir() else folder
    written = [figures.save(figures.figure5(weights), args.out)]
    if args.change:
        found = snapshots(folder if folder.is_dir() else folder.parent)
        change = figures.figure5_change([(s.iteration, s.weights) for s in found])
        written.append(figures.save(change, args.change))
    if args.json:
        print(json.dumps(figures.cross_statistics(weights), indent=2))
    else:
        print(*written, sep="\n")
    return 0
