"""`xresnet predict`: the best classes of images, as JSON."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace

from xresnet.basics.numbers import COUNT
from xresnet.reproduce.commands import common
from xresnet.reproduce.net import net_of
from xresnet.reproduce.predict import imagenet, images_of, predict
from xresnet.reproduce.start import is_imagenet

NAME = "predict"
SUMMARY = "the best classes of images, as JSON"
DESCRIPTION = (
    "The best classes of each task, with probabilities, for images or folders. "
    "With imagenet in place of SNAPSHOT: those of the published ResNet-50, downloaded if "
    "necessary."
)
EXAMPLES = common.PICTURE_EXAMPLES


def add(p: ArgumentParser) -> None:
    common.add_images(p)
    common.option(p, "--top", "classes per task", COUNT, 5, metavar="K")


def run(args: Namespace) -> int:
    net = None if is_imagenet(args.snapshot) else net_of(args.snapshot)
    images, engine = images_of(args.images), common.engine(args)
    found = predict(net, images, args.top, engine) if net else imagenet(images, args.top, engine)
    print(json.dumps(found, indent=2))
    return common.all_read(found, images)
