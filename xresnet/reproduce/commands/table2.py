"""`xresnet table2`: the nets of Table 2, beside the paper's figures."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path

from netgen.options import words
from xresnet.basics.cli import UserError
from xresnet.reproduce import choices
from xresnet.reproduce.commands import common
from xresnet.reproduce.schedule import Plateau
from xresnet.reproduce.table2 import DEEPSENTIBANK, PAPER, ROWS, SMOKE, Setting, Table2
from xresnet.reproduce.table2_table import markdown

NAME = "table2"
SUMMARY = "train and test the nets of Table 2"
DESCRIPTION = (
    "Train and test the nets of Table 2, and write the table. "
    "Finished runs are kept as they are; interrupted ones are resumed."
)
EXAMPLES = """\
examples:
  python -m xresnet table2 --smoke --data work/demo/data --out work/demo
  python -m xresnet table2 --smoke --data DATA --out OUT --rows x0_resnet50,xs_resnet50
  python -m xresnet table2 --data data/vso --out out --gpu 0 --weights weights/
  python -m xresnet table2 --data data/cifar --out out --rows x0_resnet50,xs_resnet50 \\
      --width 16 --blocks 1,1,1,3 --bn-fraction 0.99 --head-lr 1 --lr 0.02
"""


def add(p: ArgumentParser) -> None:
    p.add_argument("--smoke", action="store_true", help=SMOKE.what)
    common.add_data(p)
    common.add_out(p, "where all results go")
    rows = f"those of {', '.join((DEEPSENTIBANK, *ROWS))}"
    unset = "all that are trained"
    common.option(p, "--rows", rows, common.names, unset=unset, metavar="NET,...")
    common.add_jobs(p, "nets trained at a time", unset="one per core; on a GPU, one")
    common.add_engine(p, trains=True)
    common.add_weights(p, "a folder of initial weights, one file per net", Path, metavar="DIR")
    common.add_rule(p, "lr", "max_epochs")
    what = "its .caffemodel and its class list, for its row"
    files = ("WEIGHTS", "CLASSES")
    common.option(p, "--deepsentibank", what, Path, nargs=2, metavar=files)
    common.add_among(p)
    common.add_json(p, "the table")
    p.add_argument(
        "--check",
        action="store_true",
        help="only check the other options, before there is any data",
    )
    task = "is chosen by the table, which trains single-task nets for each task: leave it out"
    choices.add(p, {"--task": task})


def run(args: Namespace) -> int:
    setting, engine, start = _setting(args), common.engine(args), common.start(args)
    deepsentibank = common.deepsentibank(args, *args.deepsentibank or (None, None))
    wanted = Table2(args.out, setting, args.rows or (), args.weights, start, deepsentibank)
    if args.check:
        wanted.check()
        return 0
    table = wanted.make(args.data, args.jobs, engine)
    also = f"also in {args.out}: table2.md, .csv, .json, .tex"
    return common.show(table, args.json, f"\n{markdown(table)}\n{also}")


def _setting(args: Namespace) -> Setting:
    rule = common.rule(args)
    net, solver = choices.of(args)
    if args.smoke:
        if net or solver:
            more = " ".join(words({**net, **solver}))
            raise UserError(f"--smoke chooses its own nets: leave out {more}")
        for name in rule:
            raise UserError(f"--smoke chooses its own plan: leave out {common.rule_flag(name)}")
        return SMOKE
    return replace(PAPER, net=net, solver=solver, schedule=Plateau(**rule))
