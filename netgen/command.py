"""`python -m netgen NET`: the net, its solver, its deploy form or its parameters, on stdout."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import fields, replace
from typing import Any, Callable

from basics import cli
from basics.numbers import FACTOR, FINITE
from netgen import draw, report, solver
from netgen.catalog import CATALOG, Entry, find
from netgen.options import Options, SolverOptions, parse_tasks

EXAMPLES = """\
examples:
  python -m netgen xs_resnet50 > prototxt/xs.prototxt
  python -m netgen xs_resnet50 --solver > solvers/xs.prototxt
  python -m netgen xs_resnet50 --solver --cpu --max-iter 2   a trial on a machine without a GPU
  python -m netgen resnet50 --task noun --deploy             inference net with softmax
  python -m netgen xs_resnet50 --params                      costs, beside the paper's
  python -m netgen xs_resnet50 --draw xs.svg                 a picture, as Figure 4's
  python -m netgen diff x0_resnet50 xs_resnet50              what differs, by layer
  python -m netgen xs_resnet50 --tasks style:25,artist:600   other tasks, other data
  python -m netgen x0_resnet50 --branch-after res4f --cross-blocks 0
"""


def parser() -> cli.Parser:
    """The command line; every default is the paper's."""
    p = cli.Parser(
        prog="netgen",
        description="Write the paper's networks and solvers as Caffe prototxt, to stdout.",
        epilog=EXAMPLES,
    )
    p.add_argument("net", nargs="?", metavar="NET", help="a name from --list")

    what = p.add_argument_group("what to write (default: the train/test net)")
    one = what.add_mutually_exclusive_group()
    one.add_argument("--solver", action="store_true", help="the solver")
    one.add_argument("--deploy", action="store_true", help="the inference net: softmax a task")
    one.add_argument("--params", action="store_true", help="parameters, multiply-adds, memory")
    one.add_argument("--list", action="store_true", help="the names of all nets")
    one.add_argument("--draw", metavar="FILE", help="a picture: .svg, .png, .pdf or .dot")
    what.add_argument("--json", action="store_true", help="--params or --list as JSON")

    d = Options()
    shape = p.add_argument_group("the net")
    shape.add_argument(
        "--tasks", type=parse_tasks, metavar="NAME:K,...", help="default: adj:117,anp:553,noun:167"
    )
    shape.add_argument("--task", metavar="NAME", help="the task of a single-task net")
    shape.add_argument("--depth", type=int, metavar="N", help="50 (default), 101 or 152")
    shape.add_argument(
        "--blocks",
        type=_numbers(int),
        metavar="A,B,C,D",
        help="blocks in res2 to res5, instead",
    )
    shape.add_argument("--width", type=int, metavar="C", help=f"channels of conv1: {d.width}")
    shape.add_argument("--input-size", type=int, metavar="S", help=f"{d.input_size}; caffenet: 227")
    shape.add_argument(
        "--branch-after", metavar="BLOCK", help=f"the branching block, or none: {d.branch_after}"
    )
    shape.add_argument(
        "--cross-blocks", type=int, metavar="N", help="cross-residual blocks: all after the branch"
    )
    shape.add_argument(
        "--branch-norm",
        choices=["both", "branch2c", "none"],
        help="whose BatchNorm moves behind the branching block's addition: both summands'",
    )
    shape.add_argument(
        "--cross-std", type=float, metavar="STD", help="of the cross weights' start: msra, 0.0442"
    )
    shape.add_argument(
        "--cross-start", type=FINITE, metavar="A", help="all cross weights' start, instead"
    )
    shape.add_argument(
        "--cross-lr", type=FACTOR, metavar="M", help=f"lr_mult of the cross weights: {d.cross_lr:g}"
    )
    shape.add_argument(
        "--cross-decay",
        type=FACTOR,
        metavar="M",
        help=f"decay_mult of the cross weights: {d.cross_decay:g}",
    )
    shape.add_argument(
        "--shortcut-factor",
        type=_factor,
        metavar="F",
        help="of all shortcuts in equation 2's sum: 1; or mean, one by the number of tasks",
    )
    shape.add_argument(
        "--freeze-towers", action="store_true", default=None, help="only cross weights learn"
    )
    shape.add_argument(
        "--stride-in",
        choices=["1x1", "3x3"],
        help="the convolution that strides: 1x1 (published), 3x3 (torchvision)",
    )
    shape.add_argument(
        "--pool1",
        choices=["published", "padded"],
        help="a ResNet's first windows: from 0, rounded up; or from -1, rounded down, as "
        "torchvision and Keras pool",
    )
    shape.add_argument(
        "--bn-fraction",
        type=float,
        metavar="F",
        help=f"BatchNorm's moving average: {d.bn_fraction}",
    )
    shape.add_argument(
        "--head-lr", type=float, metavar="M", help=f"lr_mult of the classifiers: {d.head_lr:g}"
    )

    near = p.add_argument_group("neighbours: cross-stitch and ROCK")
    near.add_argument(
        "--stitch", choices=["channel", "layer"], help=f"an alpha for each: {d.stitch}"
    )
    near.add_argument(
        "--stitch-init",
        type=_numbers(float),
        metavar="S[,D]",
        help="alpha's start: 0.9, summing to 1",
    )
    near.add_argument(
        "--stitch-lr", type=float, metavar="M", help=f"lr_mult of alpha: {d.stitch_lr:g}"
    )
    near.add_argument("--primary", metavar="TASK", help=f"ROCK's primary task: {d.primary}")

    data = p.add_argument_group("data")
    data.add_argument("--data", metavar="DIR", help=f"folder of the LMDBs: {d.data}")
    data.add_argument("--batch", type=int, metavar="N", help=f"training batch: {d.batch}")
    data.add_argument(
        "--test-batch", type=int, metavar="N", help="the largest that divides the test images"
    )
    data.add_argument("--train-images", type=int, metavar="N", help=f"{d.train_images}")
    data.add_argument("--test-images", type=int, metavar="N", help=f"{d.test_images}")
    data.add_argument(
        "--mean", type=_numbers(float), metavar="B,G,R", help=",".join(f"{m:g}" for m in d.mean)
    )
    data.add_argument(
        "--crop",
        action="store_true",
        default=None,
        help="the images in the LMDBs are larger than the input: cut it out of them",
    )
    data.add_argument("--mean-file", metavar="FILE", help="a .binaryproto instead")

    s = d.solver
    sgd = p.add_argument_group("the solver")
    sgd.add_argument("--lr", type=float, help=f"base_lr: {s.lr:g}")
    sgd.add_argument("--momentum", type=float, metavar="M", help=f"{s.momentum:g}")
    sgd.add_argument("--weight-decay", type=float, metavar="D", help=f"{s.weight_decay:g}")
    sgd.add_argument("--max-iter", type=int, metavar="N", help=f"{solver.EPOCHS} epochs")
    sgd.add_argument("--test-interval", type=int, metavar="N", help="one epoch; 0: never")
    sgd.add_argument("--snapshot", type=int, metavar="N", help="one epoch")
    sgd.add_argument("--display", type=int, metavar="N", help=f"{s.display}")
    sgd.add_argument("--seed", type=int, metavar="N", help="random_seed: none")
    sgd.add_argument("--cpu", action="store_true", default=None, help="solver_mode CPU, not GPU")
    sgd.add_argument("--net", dest="solver_net", metavar="FILE", help="prototxt/<name>.prototxt")
    sgd.add_argument("--snapshot-prefix", metavar="PATH", help="snapshots/<name>")
    return p


def main(argv: list[str] | None = None) -> int:
    sys.stdout.write(generate(sys.argv[1:] if argv is None else argv))
    return 0


def generate(argv: list[str]) -> str:
    """What `python -m netgen ARGV` prints, whole: nothing goes out before all of it is made.

    Raises:
        UserError: a net, task or option that cannot be.
    """
    p = parser()
    args = p.parse_args(argv)
    if args.list:
        return listing(args.json)
    if not args.net:
        p.error("which net? --list names them all")
    if args.json and not args.params:
        p.error("--json goes with --params or --list")
    entry = find(args.net)
    options = options_of(args, entry)
    if args.task and not entry.single_task:
        one = entry.defaults.get("task")
        what = f"{one} only" if one else "all tasks at once"
        raise cli.UserError(f"{entry.name} does {what}: leave out --task")
    if args.params:
        return (report.as_json if args.json else report.as_table)(entry, options)
    if args.draw:
        draw.draw(entry, options, args.draw)
        return ""
    net = entry.build(options)
    what = "solver" if args.solver else "inference net" if args.deploy else "train/test net"
    header = f"{net.name}: {what}\nmade by: {shlex.join(['python', '-m', 'netgen', *argv])}"
    if args.solver:
        return solver.prototxt(entry.files(options), options, header)
    return net.prototxt(header)


def options_of(args: Any, entry: Entry) -> Options:
    """The paper's options, `entry`'s own instead, and what the user chose instead of both."""
    chosen = {name: value for name, value in vars(args).items() if value is not None}
    chosen["net"] = chosen.pop("solver_net", None)
    solver_options = {f.name: chosen[f.name] for f in fields(SolverOptions) if f.name in chosen}
    net_options = {
        f.name: chosen[f.name] for f in fields(Options) if f.name in chosen and f.name != "solver"
    }
    net_options["solver"] = replace(SolverOptions(), **solver_options)
    return entry.options(**net_options)


def listing(as_json: bool) -> str:
    """The nets that can be asked for."""
    if as_json:
        return json.dumps({e.name: e.what for e in CATALOG.values()}, indent=2) + "\n"
    width = max(map(len, CATALOG))
    return "".join(f"{e.name:{width}}  {e.what}\n" for e in CATALOG.values())


def _factor(text: str) -> float | str:
    return text if text == "mean" else FINITE(text)


def _numbers(kind: type) -> Callable[[str], tuple]:
    def parse(text: str) -> tuple:
        return tuple(kind(part) for part in text.split(","))

    parse.__name__ = f"comma-separated {kind.__name__}"  # what argparse calls it in errors
    return parse
