"""`xresnet figure6`: images with their best classes."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from xresnet.basics.cli import printable
from xresnet.reproduce.commands import common
from xresnet.reproduce.net import net_of
from xresnet.reproduce.predict import images_of, predict

NAME = "figure6"
SUMMARY = "draw images with their best classes, as Figure 6"
DESCRIPTION = "Images beside their five best adjectives, adjective-noun pairs and nouns."
EXAMPLES = common.PICTURE_EXAMPLES


def add(p: ArgumentParser) -> None:
    common.add_images(p)
    common.add_picture(p, "figure6.png")


def run(args: Namespace) -> int:
    from xresnet.reproduce import figures, pictures  # matplotlib takes its time

    net, images = net_of(args.snapshot), images_of(args.images)
    figures.hold_figure6(args.out, len(images))
    found = predict(net, images, engine=common.engine(args))
    if found:
        print(printable(pictures.save(figures.figure6(found), args.out)))
    return common.all_read(found, images)
