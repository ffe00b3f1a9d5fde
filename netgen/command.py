"""`python -m netgen NET`: the net, its solver, its deploy form or its parameters, on stdout."""

from __future__ import annotations

import json
import shlex
import sys
from typing import Any

from netgen import draw, report, solver
from netgen.catalog import CATALOG, Entry, find
from netgen.options import OPTIONS, Family, Options, flag, parse_tasks, parse_weights
from xresnet.basics import cli
from xresnet.basics.numbers import Number, several

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
  python -m netgen xs_resnet50 --branch-after res4f --cross-blocks 2
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
    _add(shape, "task", "NAME", "the task of a single-task net")
    _add(shape, "depth", "N", "50 (default), 101 or 152")
    _add(shape, "blocks", "A,B,C,D", "blocks in res2 to res5, instead")
    _add(shape, "width", "C", f"channels of conv1 and of res2's inner layers: {d.width}")
    _add(shape, "stem_width", "C", "channels of conv1, where they are others")
    _add(shape, "input_size", "S", f"{d.input_size}; caffenet: 227")
    what = "begin behind this block: its maps, cached by `xresnet features`, are the data"
    _add(shape, "from_block", "BLOCK", what)
    _add(shape, "branch_after", "BLOCK", f"the branching block, or none: {d.branch_after}")
    _add(shape, "cross_blocks", "N", "cross-residual blocks: all after the branch")
    what = "whose BatchNorm moves behind the branching block's addition: both summands'"
    _add(shape, "branch_norm", None, what)
    _add(shape, "cross_std", "STD", "of the cross weights' start: msra, 0.0442")
    _add(shape, "cross_start", "A", "all cross weights' start, instead")
    _add(shape, "cross_lr", "M", f"lr_mult of the cross weights: {d.cross_lr:g}")
    _add(shape, "cross_decay", "M", f"decay_mult of the cross weights: {d.cross_decay:g}")
    what = "of all shortcuts in equation 2's sum: 1; or mean, one by the number of tasks"
    _add(shape, "shortcut_factor", "F", what)
    _add(shape, "freeze_towers", None, "only cross weights learn")
    what = "the convolution that strides: 1x1 (published), 3x3 (torchvision)"
    _add(shape, "stride_in", None, what)
    what = "a ResNet's first windows: from 0, rounded up; or from -1, rounded down, as "
    _add(shape, "pool1", None, f"{what}torchvision and Keras pool")
    what = "BatchNorm in training: on the batch; frozen on the statistics it started with; or so "
    what += "but for those behind the branching point's addition, which no published net has"
    _add(shape, "bn", None, what)
    _add(shape, "bn_fraction", "F", f"BatchNorm's moving average: {d.bn_fraction}")
    _add(shape, "head_lr", "M", f"lr_mult of the classifiers: {d.head_lr:g}")

    near = p.add_argument_group("neighbours: cross-stitch and ROCK")
    _add(near, "stitch", None, f"an alpha for each: {d.stitch}")
    _add(near, "stitch_init", "S[,D]", "alpha's start: 0.9, summing to 1")
    _add(near, "stitch_lr", "M", f"lr_mult of alpha: {d.stitch_lr:g}")
    _add(near, "primary", "TASK", f"ROCK's primary task: {d.primary}")

    data = p.add_argument_group("data")
    _add(data, "data", "DIR", f"folder of the LMDBs: {d.data}")
    _add(data, "batch", "N", f"training batch: {d.batch}")
    _add(data, "test_batch", "N", "the largest that divides the test images")
    _add(data, "train_images", "N", f"{d.train_images}")
    _add(data, "test_images", "N", f"{d.test_images}")
    _add(data, "mean", "B,G,R", ",".join(f"{m:g}" for m in d.mean))
    what = "what the losses of these tasks count: 1, as the others'"
    _add(data, "loss_weights", "TASK:W,...", what, type=parse_weights)
    what = "this label means none: losses and accuracies leave it out (data_prep table writes -1)"
    _add(data, "ignore_label", "N", what)
    what = "the images in the LMDBs are larger than the input: cut it out of them"
    _add(data, "crop", None, what)
    _add(data, "mean_file", "FILE", "a .binaryproto instead")

    s = d.solver
    sgd = p.add_argument_group("the solver")
    _add(sgd, "lr", "LR", f"base_lr: {s.lr:g}")
    _add(sgd, "momentum", "M", f"{s.momentum:g}")
    _add(sgd, "weight_decay", "D", f"{s.weight_decay:g}")
    _add(sgd, "max_iter", "N", f"{solver.EPOCHS} epochs")
    _add(sgd, "test_interval", "N", "one epoch; 0: never")
    _add(sgd, "snapshot", "N", "one epoch")
    _add(sgd, "display", "N", f"{s.display}")
    _add(sgd, "seed", "N", "random_seed: none")
    _add(sgd, "cpu", None, "solver_mode CPU, not GPU")
    _add(sgd, "net", "FILE", "prototxt/<name>.prototxt", dest="solver_net")
    _add(sgd, "snapshot_prefix", "PATH", "snapshots/<name>")
    return p


def _add(group: Any, name: str, metavar: str | None, what: str, **more: Any) -> None:
    """The argument of field `name`, which takes what the field says there is."""
    one = OPTIONS[name]
    known = one.metadata["one_of"]
    if isinstance(known, Number):
        more["type"] = several(known) if str(one.type).startswith("tuple") else known
    elif known:
        more["choices"] = known
    elif one.default is False:
        more["action"] = "store_true"
    if metavar:
        more["metavar"] = metavar
    group.add_argument(flag(name), default=None, help=what, **more)


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
    if not args.solver:
        refuse_solver(argv)
    options = options_of(args, entry)
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


def refuse_solver(argv: list[str]) -> None:
    """Hold words to those that a net can be made by.

    Raises:
        UserError: an option of the solver's is among them.
    """
    _, theirs = split(argv)
    if theirs:
        name = theirs[0].partition("=")[0]
        raise cli.UserError(f"{name} is the solver's and changes no net: it goes with --solver")


def split(argv: list[str]) -> tuple[list[str], list[str]]:
    """The words of `argv` without the solver's options, and these, each in their order."""
    net: list[str] = []
    solver: list[str] = []
    words = iter(argv)
    for word in words:
        name, equals, _ = word.partition("=")
        mine = net if name not in _SOLVERS else solver
        mine.append(word)
        if mine is solver and not equals and _SOLVERS[name]:
            mine += [value for value in [next(words, None)] if value is not None]
    return net, solver


# The solver's options -> whether a value follows.
_SOLVERS = {
    flag(name): one.default is not False
    for name, one in OPTIONS.items()
    if one.metadata["family"] is Family.SOLVER
}


def options_of(args: Any, entry: Entry) -> Options:
    """The paper's options, `entry`'s own instead, and what the user chose instead of both."""
    chosen = {**vars(args), "net": args.solver_net}
    return entry.options(**{name: chosen[name] for name in OPTIONS})


def listing(as_json: bool) -> str:
    """The nets that can be asked for."""
    if as_json:
        return json.dumps({e.name: e.what for e in CATALOG.values()}, indent=2) + "\n"
    width = max(map(len, CATALOG))
    return "".join(f"{e.name:{width}}  {e.what}\n" for e in CATALOG.values())
