"""`python -m reproduce COMMAND`: the paper's results from LMDBs."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

from basics import cli
from netgen.catalog import find
from reproduce import evaluate, grid, predict
from reproduce.data import Data
from reproduce.plateau import Plateau
from reproduce.snapshots import snapshots
from reproduce.table2 import PAPER, ROWS, SMOKE, markdown, table2
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
Without --smoke, everything else goes to netgen (`python -m netgen --help`).

examples:
  python -m reproduce table2 --smoke --data work/demo/data --out work/demo
  python -m reproduce table2 --smoke --data DATA --out OUT --rows x0_resnet50,xs_resnet50
  python -m reproduce table2 --data data/vso --out out --gpu 0 --weights weights/
  python -m reproduce table2 --data data/cifar --out out --rows x0_resnet50,xs_resnet50 \\
      --width 16 --blocks 1,1,1,3 --bn-fraction 0.99 --head-lr 1 --lr 0.02
"""


EVAL_EXAMPLES = """\
examples:
  python -m reproduce eval runs/xs
  python -m reproduce eval runs/xs --snapshot best --against runs/x0
  python -m reproduce eval runs/deepsentibank --deepsentibank dsb.caffemodel \\
      --classes deepsentibank_2089_classes.json --data data/vso
"""

FIGURE_EXAMPLES = """\
examples:
  python -m reproduce figure5 runs/xs --out figure5.svg --change figure5_change.svg
  python -m reproduce figure5 runs/xs/snapshot_iter_128000.caffemodel --json
  python -m reproduce figure6 runs/xs dog.jpg sunset.jpg --out figure6.png
  python -m reproduce predict runs/xs photos/ > predictions.json
  python -m reproduce watch runs/xs --every 60
"""

REPORT_EXAMPLES = """\
examples:
  python -m reproduce report work/demo
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
    _eval_parser(commands)
    _figure_parsers(commands)
    _report_parser(commands)
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
    t.add_argument("--rows", type=_names, metavar="NET,...", help=",".join(ROWS))
    t.add_argument("--jobs", type=int, metavar="N", help="nets trained at a time: one a core")
    t.add_argument("--gpu", metavar="N", help="Caffe's -gpu; default: the CPU")
    t.add_argument(
        "--weights",
        type=Path,
        metavar="DIR",
        help="initial weights, by net",
    )
    t.add_argument("--lr", type=float, help=f"the first rate: {Plateau().lr:g}")
    t.add_argument("--max-epochs", type=int, metavar="N", help=f"{Plateau().max_epochs}")
    t.add_argument(
        "--deepsentibank",
        type=Path,
        nargs=2,
        metavar=("WEIGHTS", "CLASSES"),
        help="its .caffemodel and its class list, for its row",
    )
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


def _eval_parser(commands: argparse._SubParsersAction) -> None:
    e = commands.add_parser(
        "eval",
        help="evaluate a trained net exactly, in two ways",
        description="Test a run's net on every test image once, by `caffe test` and from the "
        "scores that pycaffe writes; both must agree. Intervals are 95%, by bootstrap over images.",
        epilog=EVAL_EXAMPLES,
    )
    e.add_argument("run", type=Path, metavar="RUN", help="a run's folder, or a .caffemodel in it")
    e.add_argument(
        "--snapshot", default="last", metavar="WHICH", help="last, best, or an iteration"
    )
    e.add_argument("--against", type=Path, metavar="RUN", help="compare with this run: McNemar")
    e.add_argument("--gpu", metavar="N", help="Caffe's -gpu; default: the CPU")
    e.add_argument("--json", action="store_true", help="print all of it as JSON")
    d = e.add_argument_group("DeepSentiBank (RUN is then the folder for its results)")
    d.add_argument("--deepsentibank", type=Path, metavar="FILE", help="its .caffemodel")
    d.add_argument("--classes", type=Path, metavar="FILE", help="its published class list (JSON)")
    d.add_argument("--data", type=Path, metavar="DIR", help="data_prep's folder")


def _figure_parsers(commands: argparse._SubParsersAction) -> None:
    f = commands.add_parser(
        "figure5",
        help="draw learned cross-residual weights, as Figure 5",
        description="Cross-residual weights sorted by channel, a plot a layer, a curve a "
        "Source-Target; with --change, how they moved over a run's snapshots.",
        epilog=FIGURE_EXAMPLES,
    )
    f.add_argument("snapshot", type=Path, metavar="SNAPSHOT", help="a .caffemodel, or a run")
    f.add_argument("--out", type=Path, default=Path("figure5.svg"), metavar="FILE")
    f.add_argument("--change", type=Path, metavar="FILE", help="also the change over snapshots")
    f.add_argument("--json", action="store_true", help="print the weights' statistics")

    f = commands.add_parser(
        "figure6",
        help="draw images with their best classes, as Figure 6",
        description="Images beside their five best adjectives, adjective-noun pairs and nouns.",
        epilog=FIGURE_EXAMPLES,
    )
    _image_arguments(f)
    f.add_argument("--out", type=Path, default=Path("figure6.png"), metavar="FILE")

    f = commands.add_parser(
        "predict",
        help="the best classes of images, as JSON",
        description="The best classes of each task, with probabilities, for images or folders.",
        epilog=FIGURE_EXAMPLES,
    )
    _image_arguments(f)
    f.add_argument("--top", type=int, default=5, metavar="K", help="classes a task: 5")

    f = commands.add_parser(
        "watch",
        help="draw a training's curves, also while it runs",
        description="Losses, accuracies and rates of a run so far: .png, .svg or .pdf, or an "
        ".html page that shows itself anew.",
        epilog=FIGURE_EXAMPLES,
    )
    f.add_argument("run", type=Path, metavar="RUN", help="a run's folder")
    f.add_argument("--out", type=Path, metavar="FILE", help="default: RUN/watch.html")
    f.add_argument("--every", type=float, metavar="S", help="draw anew every S seconds")


def _report_parser(commands: argparse._SubParsersAction) -> None:
    r = commands.add_parser(
        "report",
        help="one self-contained page of all results",
        description="Tables, curves, figures, example predictions, data, commands and hashes of "
        "what `table2` or `grid` made, as one HTML page with nothing beside it.",
        epilog=REPORT_EXAMPLES,
    )
    r.add_argument("results", type=Path, metavar="DIR", help="the --out of table2, grid or train")
    r.add_argument("--out", type=Path, metavar="FILE", help="default: DIR/report.html")


def _image_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("snapshot", type=Path, metavar="SNAPSHOT", help="a run, or a .caffemodel in it")
    p.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="image files, or folders")
    p.add_argument("--gpu", metavar="N", help="Caffe's -gpu; default: the CPU")


def main(argv: list[str] | None = None) -> int:
    # A kill is a Ctrl-C: Caffe takes its snapshot first.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    p = parser()
    args, rest = p.parse_known_args(argv)
    if rest and args.command not in ("train", "table2"):
        p.error(f"unrecognized arguments: {' '.join(rest)}")
    return COMMANDS[args.command](args, rest)


def _train(args: argparse.Namespace, rest: list[str]) -> int:
    find(args.net)
    _refuse_ours(rest)
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


def _refuse_ours(rest: list[str]) -> None:
    for word in rest:
        if word.split("=")[0] in OURS:
            raise cli.UserError(f"{word.split('=')[0]} is the driver's own business: leave it out")


# netgen's options that the driver sets itself.
OURS = (
    *("--solver", "--deploy", "--params", "--list", "--draw", "--json"),
    *("--max-iter", "--cpu", "--net", "--snapshot-prefix", "--tasks", "--test-interval"),
    *("--train-images", "--test-images"),
)


def _table2(args: argparse.Namespace, rest: list[str]) -> int:
    setting = SMOKE
    if args.smoke and rest:
        raise cli.UserError(f"--smoke has its own nets: leave out {' '.join(rest)}")
    if not args.smoke:
        _refuse_ours(rest)
        rule = {"lr": args.lr, "max_epochs": args.max_epochs}
        rule = {name: value for name, value in rule.items() if value is not None}
        setting = replace(PAPER, net=tuple(rest), schedule=Plateau(**rule))
    table = table2(
        args.data,
        args.out,
        setting,
        args.rows,
        args.jobs,
        args.gpu,
        args.weights,
        args.deepsentibank,
    )
    if args.json:
        print(json.dumps(table, indent=2))
    else:
        print(f"\n{markdown(table)}\nalso in {args.out}: table2.md, .csv, .json, .tex")
    return 0


def _grid(args: argparse.Namespace, rest: list[str]) -> int:
    table = grid.grid(
        args.file, args.data, args.out, args.gpu, args.threads, not args.table, say=_tell
    )
    print(json.dumps(table, indent=2) if args.json else grid.markdown(table))
    return 0


def _eval(args: argparse.Namespace, rest: list[str]) -> int:
    if args.deepsentibank:
        if not args.classes or not args.data:
            raise cli.UserError("--deepsentibank needs --classes and --data")
        result = evaluate.deepsentibank(
            args.deepsentibank, args.classes, Data.read(args.data), args.run, args.gpu
        )
    else:
        net = evaluate.net_of(args.run, args.snapshot)
        result = evaluate.evaluate(net, net.model.parent, args.gpu)
    if args.against:
        result["against"] = evaluate.compare(args.run, args.against)
    print(json.dumps(result, indent=2) if args.json else evaluate.as_text(result))
    return 0


def _figure5(args: argparse.Namespace, rest: list[str]) -> int:
    from reproduce import figures

    run = args.snapshot
    weights = evaluate.net_of(run).weights if run.is_dir() else run
    written = [figures.save(figures.figure5(weights), args.out)]
    if args.change:
        found = snapshots(run if run.is_dir() else run.parent)
        change = figures.figure5_change([(s.iteration, s.weights) for s in found])
        written.append(figures.save(change, args.change))
    if args.json:
        print(json.dumps(figures.cross_statistics(weights), indent=2))
    else:
        print(*written, sep="\n")
    return 0


def _figure6(args: argparse.Namespace, rest: list[str]) -> int:
    from reproduce import figures

    net, images = evaluate.net_of(args.snapshot), predict.images_of(args.images)
    print(figures.save(figures.figure6(predict.predict(net, images, gpu=args.gpu)), args.out))
    return 0


def _predict(args: argparse.Namespace, rest: list[str]) -> int:
    net, images = evaluate.net_of(args.snapshot), predict.images_of(args.images)
    print(json.dumps(predict.predict(net, images, args.top, args.gpu), indent=2))
    return 0


def _watch(args: argparse.Namespace, rest: list[str]) -> int:
    from reproduce import watch

    out = args.out or args.run / "watch.html"
    while True:
        watch.watch(args.run, out, args.every)
        print(out, flush=True)
        if not args.every:
            return 0
        time.sleep(args.every)


def _report(args: argparse.Namespace, rest: list[str]) -> int:
    from reproduce import report

    print(report.report(args.results, args.out))
    return 0


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


COMMANDS = {
    "train": _train,
    "table2": _table2,
    "grid": _grid,
    "eval": _eval,
    "figure5": _figure5,
    "figure6": _figure6,
    "predict": _predict,
    "watch": _watch,
    "report": _report,
}


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _paths(text: str) -> tuple[Path, ...]:
    return tuple(map(Path, _names(text)))


if __name__ == "__main__":
    cli.run(main, "reproduce")
