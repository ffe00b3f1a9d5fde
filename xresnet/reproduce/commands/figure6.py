"""`xresnet figure6`: images with their best classes."""

from __future__ import annotations

import argparse

from xresnet.basics.cli import printable
from xresnet.reproduce.commands import common
from xresnet.reproduce.net import net_of
from xresnet.reproduce.predict import images_of, predict


def add(commands: common.Commands) -> None:
    p = common.add(
        commands,
        "figure6",
        run,
        "draw images with their best classes, as Figure 6",
        "Images beside their five best adjectives, adjective-noun pairs and nouns.",
        common.PICTURE_EXAMPLES,
    )
    common.add_images(p)
    common.add_picture(p, "figure6.png")


def run(args: argparse.Namespace) -> int:
    from xresnet.reproduce import figures  # matplotlib takes its time

    net, images = net_of(args.snapshot), images_of(args.images)
    figures.hold_figure6(args.out, len(images))
    found = predict(net, images, engine=common.engine(args))
    if found:
        print(printable(figures.save(figures.figure6(found), args.out)))
    return common.all_read(found, images)
