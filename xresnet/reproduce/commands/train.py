"""`xresnet train`: a net, as the paper did."""

from __future__ import annotations

import argparse
from pathlib import Path

from netgen import command as netgen
from netgen.catalog import find
from xresnet.basics.cli import printable
from xresnet.basics.numbers import COUNT
from xresnet.reproduce.commands import common
from xresnet.reproduce.data import Data
from xresnet.reproduce.driver import train
from xresnet.reproduce.plateau import RANGES, SNAPSHOT_EVERY, Plateau
from xresnet.reproduce.training import KEPT, Training, refuse_ours

EXAMPLES = """\
Everything else goes to netgen: `python -m netgen --help` has the net's and solver's options.

examples:
  python -m xresnet train xs_resnet50 --data data/vso --out runs/xs --gpu 0 --weights imagenet
  python -m xresnet train xs_resnet50 --data data/vso --out runs/xs --gpu 0 --weights xs.caffemodel
  python -m xresnet train resnet50 --task noun --data data/vso --out runs/noun --engine torch
  python -m xresnet train xs_resnet50 --width 16 --blocks 1,2,2,3 --batch 32 --bn-fraction 0.99 \\
      --head-lr 1 --lr 0.02 --data data/cifar --out runs/small

By hand from the same files, at any time:
  caffe train -solver OUT/solver.prototxt -snapshot OUT/snapshot_iter_N.solverstate
"""


def add(commands: common.Commands) -> None:
    d = Plateau()
    p = commands.add_parser(
        "train",
        help="train a net as the paper did, unattended",
        description="Train a net with Caffe: a fixed rate, lowered when the loss plateaus, "
        "until convergence. The same command takes up a training that was stopped or killed.",
        epilog=EXAMPLES,
    )
    p.set_defaults(run=run, netgen=())
    p.add_argument("net", metavar="NET", help="a name from `python -m netgen --list`")
    p.add_argument("--data", type=Path, required=True, metavar="DIR", help="data_prep's folder")
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="this run's folder")
    common.add_engine(p, "Caffe's -gpu: 0, or 0,1, or all; default: the CPU", trains=True)
    common.add_weights(p, "initial .caffemodels", type=common.paths, default=(), metavar="FILE,...")
    common.add_threads(p)
    p.add_argument(
        "--keep", type=COUNT, default=KEPT, metavar="N", help=f"recent snapshots kept: {KEPT}"
    )
    p.add_argument(
        "--snapshot",
        type=COUNT,
        metavar="N",
        help=f"iterations between snapshots, rounded to a part of an epoch: {SNAPSHOT_EVERY}",
    )
    rule = p.add_argument_group("the plateau rule (docs/REPRODUCTION.md)")
    rule.add_argument("--lr", type=RANGES["lr"], default=d.lr, help=f"the first rate: {d.lr:g}")
    rule.add_argument(
        "--plateau-on", choices=["train", "test"], default=d.on, help=f"which loss: {d.on}"
    )
    rule.add_argument(
        "--window",
        type=RANGES["window"],
        default=d.window,
        metavar="N",
        help=f"epochs averaged: {d.window}",
    )
    rule.add_argument(
        "--patience",
        type=RANGES["patience"],
        default=d.patience,
        metavar="N",
        help=f"epochs: {d.patience}",
    )
    rule.add_argument(
        "--min-gain",
        type=RANGES["min_gain"],
        default=d.min_gain,
        metavar="F",
        help=f"relative: {d.min_gain:g}",
    )
    rule.add_argument(
        "--drops",
        type=RANGES["drops"],
        default=d.drops,
        metavar="N",
        help=f"of the rate, at most: {d.drops}",
    )
    rule.add_argument(
        "--max-epochs",
        type=RANGES["max_epochs"],
        default=d.max_epochs,
        metavar="N",
        help=f"{d.max_epochs}",
    )


def run(args: argparse.Namespace) -> int:
    find(args.net)
    refuse_ours(args.netgen)
    data = Data.read(args.data)
    argv, solver = netgen.split([args.net, *args.netgen])
    weights = common.start(args).weights(args.weights, [*argv, *data.argv("DATA")], args.out)
    training = Training(
        name=args.out.name or args.net,
        argv=argv,
        data=data,
        folder=args.out,
        schedule=Plateau(
            lr=args.lr,
            on=args.plateau_on,
            window=args.window,
            patience=args.patience,
            min_gain=args.min_gain,
            drops=args.drops,
            max_epochs=args.max_epochs,
        ),
        solver=[*([] if args.snapshot is None else ["--snapshot", str(args.snapshot)]), *solver],
        weights=weights,
        engine=common.engine(args),
        keep=args.keep,
    )
    print(printable(train(training).weights))
    return 0
