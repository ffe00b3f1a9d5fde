"""`python -m reproduce COMMAND`: the paper's results from LMDBs."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path

from basics import cli
from netgen.catalog import find
from reproduce import grid
from reproduce.data import Data
from reproduce.plateau import Plateau
from reproduce.table2 import ROWS, SMOKE, markdown, table2
from reproduce.training import KEPT, SNAPSHOT_EVERY, Training

EXAMPLES = """\
examples:
  python -m reproduce train xs_resnet50 --data data/vso --out runs/xs --gpu 0
  python -m reproduce table2 --smoke --data work/demo/data --out work/demo
"""

TRAIN_EXAMPLES = """\
Everything else goes to netgen: `python -m netgen --help` has the net's and solver's options.

examples:
  python -m reproduce train xs_resnet50 --data data/vso --out runs/xs --gpu 0 --weights xs.caffemodel
  python -m reproduce train resnet50 --task noun --data data/vso --out runs/noun
  python -m reproduce train xs_resnet50 --width 16 --blocks 1,2,2,3 --batch 32 --bn-fraction 0.99 \\
      --head-lr 1 --lr 0.02 --data data/cifar --out runs/small

By hand from the same files, at any time:
  caffe train -solver OUT/solver.prototxt -snapshot OUT/snapshot_iter_N.solverstate
"""  # noqa: E501

TABLE2_EXAMPLES = """\
examples:
  python -m reproduce table2 --smoke --data work/demo/data --out work/demo
  python -m reproduce table2 --smoke --data DATA --out OUT --rows x0_resnet50,xs_resnet50
"""


GRID_EXAMPLES = """\
examples:
  python -m reproduce grid reproduce/grids/cifar.json --data data/cifar --out runs/study
  python -m reproduce grid reproduce/grids/cifar.json --data data/cifar --out runs/study --table
"""


def parser() -> cli.Parser:
    p = cli.Parser(prog="reproduce", description="The paper's results from LMDBs.", epilog=EXAMPLES)
    commands = p.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _train_parser(commands)
    _table2_parser(commands)
    _grid_parser(commands)
    return p


def _train_parser(commands: argparse._SubParsersAction) -> None:
    d = Plateau()
    t = commands.add_parser(
        "train",
        help="train a net as the paper did, unattended",
        description="Train a net with real Caffe: a fixed rate, lowered when the loss plateaus, "
        "until convergence. The same command takes up a training that was stopped or killed.",
        epilog=TRAIN_EXAMPLES,
    )
    t.add_argument("net", metavar="NET", help="a name from `python -m netgen --list`")
    t.add_argument("--data", type=Path, required=True, metavar="DIR", help="data_prep's folder")
    t.add_argument("--out", type=Path, required=True, metavar="DIR", help="this run's folder")
    t.add_argument("--gpu", metavar="N", help="Caffe's -gpu: 0, or 0,1, or all; default: the CPU")
    t.add_argument(
        "--weights", type=_paths, default=(), metavar="FILE,...", help="initial .caffemodels"
    )
    t.add_argument("--threads", type=int, metavar="N", help="of Caffe's BLAS on the CPU")
    t.add_argument(
        "--keep", type=int, default=KEPT, metavar="N", help=f"recent snapshots kept: {KEPT}"
    )
    t.add_argument(
        "--snapshot",
        type=int,
        metavar="N",
        help=f"iterations between snapshots, rounded to a part of an epoch: {SNAPSHOT_EVERY}",
    )
    rule = t.add_argument_group("the plateau rule (docs/REPRODUCTION.md)")
    rule.add_argument("--lr", type=float, default=d.lr, help=f"the first rate: {d.lr:g}")
    rule.add_argument(
        "--plateau-on", choices=["train", "test"], default=d.on, help=f"which loss: {d.on}"
    )
    rule.add_argument(
        "--window", type=int, default=d.window, metavar="N", help=f"epochs averaged: {d.window}"
    )
    rule.add_argument(
        "--patience", type=int, default=d.patience, metavar="N", help=f"epochs: {d.patience}"
    )
    rule.add_argument(
        "--min-gain", type=float, default=d.min_gain, metavar="F", help=f"relative: {d.min_gain:g}"
    )
    rule.add_argument(
        "--drops", type=int, default=d.drops, metavar="N", help=f"of the rate, at most: {d.drops}"
    )
    rule.add_argument(
        "--max-epochs", type=int, default=d.max_epochs, metavar="N", help=f"{d.max_epochs}"
    )


def _table2_parser(commands: argparse._SubParsersAction) -> None:
    t = commands.add_parser(
        "table2",
        help="train and test the nets of Table 2",
        description="Train and test the nets of Table 2 with real Caffe, and set the table. "
        "A run that is done is taken as it is; one that was stopped goes on.",
        epilog=TABLE2_EXAMPLES,
    )
    t.add_argument("--smoke", action="store_true", help=SMOKE.what)
    t.add_argument("--data", type=Path, required=True, metavar="DIR", help="data_prep's folder")
    t.add_argument("--out", type=Path, required=True, metavar="DIR", help="where all results go")
    t.add_argument("--rows", type=_names, default=ROWS, metavar="NET,...", help=",".join(ROWS))
    t.add_argument("--jobs", type=int, metavar="N", help="nets trained at a time: one a core")
    t.add_argument("--json", action="store_true", help="print the table as JSON")


def _grid_parser(commands: argparse._SubParsersAction) -> None:
    g = commands.add_parser(
        "grid",
        help="train a grid of nets and seeds, and tabulate mean and deviation",
        description="Train every row and seed of a grid file, one after another, and tabulate "
        "means and deviations after each. What is done is taken as it is.",
        epilog=GRID_EXAMPLES,
    )
    g.add_argument("file", type=Path, metavar="FILE", help="a grid file (reproduce/grids/)")
    g.add_argument("--data", type=Path, required=True, metavar="DIR", help="data_prep's folder")
    g.add_argument("--out", type=Path, required=True, metavar="DIR", help="where all results go")
    g.add_argument("--gpu", metavar="N", help="Caffe's -gpu; default: the CPU")
    g.add_argument("--threads", type=int, metavar="N", help="of Caffe's BLAS on the CPU")
    g.add_argument("--table", action="store_true", help="train nothing: tabulate what is done")
    g.add_argument("--json", action="store_true", help="print the table as JSON")


def main(argv: list[str] | None = None) -> int:
    # A kill is a Ctrl-C: Caffe takes its snapshot first.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    p = parser()
    args, rest = p.parse_known_args(argv)
    if rest and args.command != "train":
        p.error(f"unrecognized arguments: {' '.join(rest)}")
    return COMMANDS[args.command](args, rest)


def _train(args: argparse.Namespace, rest: list[str]) -> int:
    find(args.net)
    for word in rest:
        if word.split("=")[0] in OURS:
            raise cli.UserError(f"{word.split('=')[0]} is the driver's own business: leave it out")
    snapshot = [] if args.snapshot is None else ["--snapshot", str(args.snapshot)]
    training = Training(
        name=args.out.name or args.net,
        argv=[args.net, *rest],
        data=Data.read(args.data),
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
        solver=snapshot,
        weights=args.weights,
        gpu=args.gpu,
        threads=args.threads,
        keep=args.keep,
    )
    last = training.run()
    print(last.weights)
    return 0


# netgen's options that the driver sets itself.
OURS = (
    *("--solver", "--deploy", "--params", "--list", "--draw", "--json"),
    *("--max-iter", "--cpu", "--net", "--snapshot-prefix", "--tasks", "--test-interval"),
    *("--train-images", "--test-images"),
)


def _table2(args: argparse.Namespace, rest: list[str]) -> int:
    if not args.smoke:
        raise cli.UserError(
            "only the rehearsal is there so far: add --smoke. At full size, train a net with "
            "`python -m reproduce train`"
        )
    table = table2(args.data, args.out, SMOKE, args.rows, args.jobs)
    if args.json:
        print(json.dumps(table, indent=2))
    else:
        print(f"\n{markdown(table)}\nalso in {args.out}/table2.md, table2.csv, table2.json")
    return 0


def _grid(args: argparse.Namespace, rest: list[str]) -> int:
    table = grid.grid(
        args.file, args.data, args.out, args.gpu, args.threads, not args.table, say=_tell
    )
    print(json.dumps(table, indent=2) if args.json else grid.markdown(table))
    return 0


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


COMMANDS = {"train": _train, "table2": _table2, "grid": _grid}


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _paths(text: str) -> tuple[Path, ...]:
    return tuple(map(Path, _names(text)))


if __name__ == "__main__":
    cli.run(main, "reproduce")
