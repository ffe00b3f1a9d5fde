"""`xresnet figure5`: learned cross-residual weights."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from xresnet.basics.cli import printable
from xresnet.reproduce.commands import common
from xresnet.reproduce.evaluate import net_of
from xresnet.reproduce.snapshots import snapshots


def add(commands: common.Commands) -> None:
    p = commands.add_parser(
        "figure5",
        help="draw learned cross-residual weights, as Figure 5",
        description="Cross-residual weights, a plot a layer, a curve a Source-Target, each sorted "
        "by weight; with --change, how they moved over a run's snapshots.",
        epilog=common.PICTURE_EXAMPLES,
    )
    p.set_defaults(run=run)
    p.add_argument("snapshot", type=Path, metavar="SNAPSHOT", help="a .caffemodel, or a run")
    p.add_argument("--out", type=Path, default=Path("figure5.svg"), metavar="FILE")
    p.add_argument("--by-channel", action="store_true", help="in the channels' order, unsorted")
    p.add_argument("--change", type=Path, metavar="FILE", help="also the change over snapshots")
    p.add_argument("--json", action="store_true", help="print the weights' statistics")


def run(args: argparse.Namespace) -> int:
    from xresnet.reproduce import figures  # matplotlib takes its time

    place = args.snapshot
    for out in filter(None, (args.out, args.change)):
        figures.hold_suffix(out.suffix.lower())
    weights = net_of(place).weights if place.is_dir() else place
    statistics = figures.cross_statistics(weights)
    written = [figures.save(figures.figure5(weights, args.by_channel), args.out)]
    if args.change:
        found = snapshots(place if place.is_dir() else place.parent)
        change = figures.figure5_change([(s.iteration, s.weights) for s in found])
        written.append(figures.save(change, args.change))
    if args.json:
        print(json.dumps(statistics, indent=2))
    else:
        print(printable(figures.statistics_text(statistics)))
        print(*map(printable, written), sep="\n")
    return 0
