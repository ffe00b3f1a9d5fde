"""`xresnet features`: the maps of a block, cached as a data folder."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from xresnet.reproduce import choices
from xresnet.reproduce.commands import common
from xresnet.reproduce.data import Data
from xresnet.reproduce.features import features

NAME = "features"
SUMMARY = "cache a frozen trunk's maps as a data folder"
DESCRIPTION = (
    "Run the trunk of a ResNet up to a block over a data folder, once, and write "
    "the block's output as databases of floats. train, grid and eval use the new folder like "
    "any data folder: their nets begin after that block."
)
EXAMPLES = """\
examples:
  python -m xresnet features res4f --weights imagenet --data data/fashion \\
      --out data/fashion-res4f
  python -m xresnet train xs_resnet50 --weights imagenet --data data/fashion-res4f --out runs/xs
"""


def add(p: ArgumentParser) -> None:
    p.add_argument("block", metavar="BLOCK", help="the block whose output is cached, such as res4f")
    common.add_data(p)
    common.add_out(p, "the data folder to write")
    what = "the trunk's weights: imagenet, a run, or a file that netgen.weights init reads"
    common.option(p, "--weights", what, Path, required=True, metavar="FILE")
    common.add_engine(p)
    common.add_threads(p)
    p.add_argument(
        "--no-flips",
        dest="flips",
        action="store_false",
        help="store training images unmirrored only; default: a mirrored record of each, too",
    )
    choices.add(p)


def run(args: Namespace) -> int:
    net, solver = choices.of(args)
    made = features(
        Data.read(args.data),
        args.out,
        args.block,
        args.weights,
        {**net, **solver},  # the net refuses the solver's
        args.flips,
        common.engine(args),
    )
    shape = " x ".join(map(str, made["maps"]))
    print(f"{args.out}: maps of {made['block']}, {shape} an image")
    return 0
