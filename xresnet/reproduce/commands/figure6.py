"""`xresnet figure6`: images with their best classes."""

from __future__ import annotations

import argparse
from pathlib import Path

from xresnet.basics.cli import printable
from xresnet.reproduce.commands import common
from xresnet.reproduce.evaluate import net_of
from xresnet.reproduce.predict import images_of, predict


def add(commands: common.Commands) -> None:
    p = commands.add_parser(
        "figure6",
        help="draw images with their best classes, as Figure 6",
        description="Images beside their five best adjectives, adjective-noun pairs and nouns.",
        epilog=common.PICTURE_EXAMPLES,
    )
    p.set_defaults(run=run)
    common.add_images(p)
    p.add_argument("--out", type=Path, default=Path("figure6.png"), metavar="FILE")


def run(args: argparse.Namespace) -> int:
    from xresnet.reproduce import figures  # matplotlib takes its time

    net, images = net_of(args.snapshot), images_of(args.images)
    figures.hold_figure6(args.out, len(images))
    found = predict(net, images, engine=common.engine(args))
    if found:
        print(printable(figures.save(figures.figure6(found), args.out)))
    return common.all_read(found, images)
