"""`xresnet train`: a net, as the paper did."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from netgen import Network
from xresnet.basics.cli import printable
from xresnet.basics.numbers import COUNT
from xresnet.reproduce import choices
from xresnet.reproduce.commands import common
from xresnet.reproduce.data import Data
from xresnet.reproduce.driver import train
from xresnet.reproduce.schedule import SNAPSHOT_EVERY, Plateau
from xresnet.reproduce.training import KEPT, Training

NAME = "train"
SUMMARY = "train a net as the paper did, unattended"
DESCRIPTION = (
    "Train a net with Caffe: a fixed rate, lowered when the loss plateaus, "
    "until convergence. The same command resumes a training that was stopped or killed."
)
EXAMPLES = """\
examples:
  python -m xresnet train xs_resnet50 --data data/vso --out runs/xs --gpu 0 --weights imagenet
  python -m xresnet train xs_resnet50 --data data/vso --out runs/xs --gpu 0 --weights xs.caffemodel
  python -m xresnet train resnet50 --task noun --data data/vso --out runs/noun --engine torch
  python -m xresnet train xs_resnet50 --width 16 --blocks 1,2,2,3 --batch 32 --bn-fraction 0.99 \\
      --head-lr 1 --lr 0.02 --data data/cifar --out runs/small

By hand from the same files, at any time:
  caffe train -solver OUT/solver.prototxt -snapshot OUT/snapshot_iter_N.solverstate
"""


def add(p: ArgumentParser) -> None:
    p.add_argument("net", metavar="NET", help="a name from `python -m netgen --list`")
    common.add_data(p)
    common.add_out(p, "the run's folder")
    common.add_engine(p, trains=True)
    what = "initial .caffemodels, or runs whose last ones they are"
    common.add_weights(p, what, common.paths, default=(), metavar="FILE,...")
    common.add_threads(p)
    common.option(p, "--keep", "number of recent snapshots to keep", COUNT, KEPT, metavar="N")
    what = "iterations between snapshots, rounded to divide an epoch"
    common.option(p, "--snapshot", what, COUNT, unset=f"{SNAPSHOT_EVERY}", metavar="N")
    common.add_rule(p.add_argument_group("the plateau rule (docs/REPRODUCTION.md)"))
    choices.add(p)


def run(args: Namespace) -> int:
    chosen, solver = choices.of(args)
    net, engine = Network(args.net, chosen), common.engine(args)
    data = Data.read(args.data)
    weights = common.start(args).weights(args.weights, data.network(net, "DATA"), args.out)
    training = Training(
        name=args.out.name or args.net,
        net=net,
        data=data,
        folder=args.out,
        schedule=Plateau(**common.rule(args)),
        solver={**({} if args.snapshot is None else {"snapshot": args.snapshot}), **solver},
        weights=weights,
        engine=engine,
        keep=args.keep,
    )
    print(printable(train(training).weights))
    return 0
