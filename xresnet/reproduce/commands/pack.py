"""`xresnet pack`: a trained net to hand on."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from xresnet.basics.cli import printable
from xresnet.reproduce.commands import common
from xresnet.reproduce.net import net_of
from xresnet.reproduce.pack import pack

NAME = "pack"
SUMMARY = "pack a trained net to share: weights, classes and a card"
DESCRIPTION = (
    "Copy what `predict` needs of an evaluated run into a folder without paths of this "
    "machine, with a card that says what was trained and how accurate it is."
)
EXAMPLES = """\
examples:
  python -m xresnet pack runs/xs --out models/xs
  python -m xresnet pack runs/xs --snapshot best --out models/xs
"""


def add(p: ArgumentParser) -> None:
    p.add_argument("folder", type=Path, metavar="RUN", help="a run's folder")
    common.add_snapshot(p)
    common.add_out(p, "the folder to write")


def run(args: Namespace) -> int:
    print(printable(pack(net_of(args.folder, args.snapshot), args.out)))
    return 0
