"""`xresnet table2`: the nets of Table 2, beside the paper's figures."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from xresnet.basics.cli import UserError, printable
from xresnet.basics.numbers import at_least
from xresnet.reproduce.commands import common
from xresnet.reproduce.plateau import RANGES, Plateau
from xresnet.reproduce.table2 import (
    DEEPSENTIBANK,
    PAPER,
    ROWS,
    SMOKE,
    Setting,
    check,
    markdown,
    table2,
)
from xresnet.reproduce.training import refuse_ours

EXAMPLES = """\
Without --smoke, everything else goes to netgen (`python -m netgen --help`).

examples:
  python -m xresnet table2 --smoke --data work/demo/data --out work/demo
  python -m xresnet table2 --smoke --data DATA --out OUT --rows x0_resnet50,xs_resnet50
  python -m xresnet table2 --data data/vso --out out --gpu 0 --weights weights/
  python -m xresnet table2 --data data/cifar --out out --rows x0_resnet50,xs_resnet50 \\
      --width 16 --blocks 1,1,1,3 --bn-fraction 0.99 --head-lr 1 --lr 0.02
"""


def add(commands: common.Commands) -> None:
    p = commands.add_parser(
        "table2",
        help="train and test the nets of Table 2",
        description="Train and test the nets of Table 2, and set the table. "
        "A run that is done is taken as it is; one that was stopped goes on.",
        epilog=EXAMPLES,
    )
    p.set_defaults(run=run, netgen=())
    p.add_argument("--smoke", action="store_true", help=SMOKE.what)
    p.add_argument("--data", type=Path, required=True, metavar="DIR", help="data_prep's folder")
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="where all results go")
    p.add_argument(
        "--rows", type=common.names, metavar="NET,...", help=",".join((DEEPSENTIBANK, *ROWS))
    )
    p.add_argument(
        "--jobs",
        type=at_least(1, "jobs", most=1_024),
        metavar="N",
        help="nets trained at a time: one a core",
    )
    common.add_engine(p, trains=True)
    common.add_weights(p, "initial weights, by net", type=Path, metavar="DIR")
    p.add_argument("--lr", type=RANGES["lr"], help=f"the first rate: {Plateau().lr:g}")
    p.add_argument(
        "--max-epochs", type=RANGES["max_epochs"], metavar="N", help=f"{Plateau().max_epochs}"
    )
    p.add_argument(
        "--deepsentibank",
        type=Path,
        nargs=2,
        metavar=("WEIGHTS", "CLASSES"),
        help="its .caffemodel and its class list, for its row",
    )
    common.add_among(p)
    p.add_argument("--json", action="store_true", help="print the table as JSON")
    p.add_argument(
        "--check",
        action="store_true",
        help="only refuse what is wrong with the rest of the command, before there is any data",
    )


def run(args: argparse.Namespace) -> int:
    setting, engine, start = _setting(args), common.engine(args), common.start(args)
    deepsentibank = common.deepsentibank(args, *args.deepsentibank or (None, None))
    if args.check:
        check(args.out, setting, args.rows, args.weights, start, deepsentibank)
        return 0
    table = table2(
        args.data,
        args.out,
        setting,
        args.rows,
        args.jobs,
        engine,
        args.weights,
        start,
        deepsentibank,
    )
    if args.json:
        print(json.dumps(table, indent=2))
    else:
        print(f"\n{markdown(table)}\nalso in {printable(args.out)}: table2.md, .csv, .json, .tex")
    return 0


def _setting(args: argparse.Namespace) -> Setting:
    if args.smoke:
        if args.netgen:
            raise UserError(f"--smoke has its own nets: leave out {' '.join(args.netgen)}")
        for option in ("lr", "max_epochs"):
            if getattr(args, option) is not None:
                raise UserError(f"--smoke has its own plan: leave out --{option.replace('_', '-')}")
        return SMOKE
    refuse_ours(args.netgen)
    if any(word.split("=")[0] == "--task" for word in args.netgen):
        raise UserError("--task: the table's single-task nets do each task: leave it out")
    rule = {"lr": args.lr, "max_epochs": args.max_epochs}
    rule = {name: value for name, value in rule.items() if value is not None}
    return replace(PAPER, net=tuple(args.netgen), schedule=Plateau(**rule))
