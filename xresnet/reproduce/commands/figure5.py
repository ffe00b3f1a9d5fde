"""`xresnet figure5`: learned cross-residual weights."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from xresnet.reproduce.commands import common
from xresnet.reproduce.net import weights_of
from xresnet.reproduce.snapshots import snapshots

NAME = "figure5"
SUMMARY = "draw learned cross-residual weights, as Figure 5"
DESCRIPTION = (
    "Cross-residual weights, a plot a layer, a curve a Source-Target, each sorted "
    "by weight; with --change, how they moved over a run's snapshots."
)
EXAMPLES = common.PICTURE_EXAMPLES


def add(p: ArgumentParser) -> None:
    p.add_argument(
        "snapshot", type=Path, metavar="SNAPSHOT", help="a .caffemodel, or a run's folder"
    )
    common.add_picture(p, "figure5.svg")
    p.add_argument(
        "--by-channel", action="store_true", help="in the order of the channels, unsorted"
    )
    common.option(p, "--change", "also draw the change over snapshots", Path, metavar="FILE")
    common.add_json(p, "statistics of the weights")


def run(args: Namespace) -> int:
    from xresnet.reproduce import figures, pictures  # matplotlib takes its time

    place = args.snapshot
    for out in filter(None, (args.out, args.change)):
        pictures.hold_suffix(out.suffix.lower())
    weights = weights_of(place)
    statistics = figures.cross_statistics(weights)
    written = [pictures.save(figures.figure5(weights, args.by_channel), args.out)]
    if args.change:
        found = snapshots(place if place.is_dir() else place.parent)
        change = figures.figure5_change([(s.iteration, s.weights) for s in found])
        written.append(pictures.save(change, args.change))
    words = "\n".join([figures.statistics_text(statistics), *map(str, written)])
    return common.show(statistics, args.json, words)
