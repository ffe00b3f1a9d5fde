"""Arguments that several commands share."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Union

from netgen.weights.plan import BRANCH_INITS
from xresnet.basics.cli import UserError, option_help, printable
from xresnet.basics.numbers import POSITIVE, THREADS, Number, at_least
from xresnet.reproduce.deepsentibank import AMONG, DeepSentiBank
from xresnet.reproduce.engine import CAFFE, ENGINES, Engine, Torch
from xresnet.reproduce.schedule import Plateau
from xresnet.reproduce.start import Start

Arguments = Union[argparse.ArgumentParser, argparse._ArgumentGroup]
JOBS = at_least(1, "jobs", most=1_024)

PICTURE_EXAMPLES = """\
examples:
  python -m xresnet figure5 runs/xs --out figure5.svg --change figure5_change.svg
  python -m xresnet figure5 runs/xs/snapshot_iter_128000.caffemodel --json
  python -m xresnet figure6 runs/xs dog.jpg sunset.jpg --out figure6.png
  python -m xresnet predict runs/xs photos/ > predictions.json
  python -m xresnet predict imagenet cat.jpg
"""


def option(
    p: Arguments,
    flag: str,
    what: str,
    of: Any = None,
    default: Any = None,
    unset: str = "",
    **more: Any,
) -> None:
    """An option whose help tells the range and the default of its value.

    Args:
        of: a `Number` or another type, or the words to choose from; by default any text.
        unset: the meaning of the default None, if it has one.
        more: arguments of add_argument.
    """
    words = isinstance(of, (Sequence, Mapping))
    known = of if isinstance(of, Number) else None
    shown = None if more.get("required") else default or unset or "none"
    help = option_help(what, known, shown)
    more |= {"choices": of} if words else {"type": of} if of else {}
    p.add_argument(flag, default=default, help=help, **more)


def add_data(p: Arguments, required: bool = True) -> None:
    option(p, "--data", "data_prep's folder", Path, required=required, metavar="DIR")


def add_out(p: Arguments, what: str) -> None:
    """The option for the folder that a command makes."""
    option(p, "--out", what, Path, required=True, metavar="DIR")


def add_picture(p: Arguments, default: str) -> None:
    """The option for the file of a picture."""
    what = "the picture to write: .svg, .png or .pdf"
    option(p, "--out", what, Path, default=Path(default), metavar="FILE")


def add_json(p: Arguments, what: str) -> None:
    p.add_argument("--json", action="store_true", help=f"print {what} as JSON")


def show(made: Any, as_json: bool, words: str) -> int:
    """Print a command's result as JSON or in words; returns the exit status."""
    print(json.dumps(made, indent=2) if as_json else printable(words))
    return 0


def add_jobs(p: Arguments, what: str, default: int | None = None, unset: str = "") -> None:
    option(p, "--jobs", what, JOBS, default, unset, metavar="N")


def add_engine(p: Arguments, trains: bool = False) -> None:
    """The options for engine and device; if it `trains`, for several GPUs and bfloat16 as well."""
    what = "the engine: real Caffe, or torchcaffe on PyTorch"
    option(p, "--engine", what, ENGINES, CAFFE.name)
    what = "Caffe's -gpu: 0, or 0,1, or all" if trains else "Caffe's -gpu: a GPU's number"
    option(p, "--gpu", what, unset="the CPU", metavar="N")
    if trains:
        what = "with --engine torch, train in bfloat16: faster, if the CPU or GPU supports it"
        p.add_argument("--bf16", action="store_true", help=what)


def add_threads(p: Arguments) -> None:
    what = "CPU threads of the engine"
    option(p, "--threads", what, THREADS, unset="the engine's choice", metavar="N")


def engine(args: argparse.Namespace) -> Engine:
    """The engine that the options of `add_engine` and `add_threads` name.

    Raises:
        UserError: it is not installed, or --bf16 is given to real Caffe.
    """
    words: dict[str, Any] = {"gpu": args.gpu, "threads": getattr(args, "threads", None)}
    if getattr(args, "bf16", False):
        if args.engine != Torch.name:
            raise UserError("--bf16 needs --engine torch: real Caffe has single precision only")
        words["bf16"] = True
    chosen = ENGINES[args.engine](**words)
    chosen.program()
    return chosen


def add_snapshot(p: Arguments) -> None:
    what = "which snapshot of a run: last, best, or an iteration"
    option(p, "--snapshot", what, unset="last", metavar="WHICH")


def add_images(p: Arguments) -> None:
    """The arguments for a trained net, images, and the device."""
    p.add_argument("snapshot", type=Path, metavar="SNAPSHOT", help="a run, or a .caffemodel in it")
    p.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="image files, or folders")
    add_engine(p)


RULE = {one.name: one.metadata for one in fields(Plateau)}


def add_rule(p: Arguments, *names: str) -> None:
    """Options for fields of the plateau rule, by default all; `rule` has their values."""
    for name in names or RULE:
        field = RULE[name]
        option(
            p,
            rule_flag(name),
            field["what"],
            field["of"],
            unset=str(getattr(Plateau(), name)),
            dest=f"rule_{name}",
            metavar=field["metavar"],
        )


def rule_flag(name: str) -> str:
    """The option of a field of `Plateau`."""
    return f"--{'plateau-on' if name == 'on' else name.replace('_', '-')}"


def rule(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of `Plateau` that were given by `add_rule`'s options."""
    given = {name: getattr(args, f"rule_{name}", None) for name in RULE}
    return {name: value for name, value in given.items() if value is not None}


def add_weights(p: Arguments, what: str, of: Any, **more: Any) -> None:
    """The options for initial weights, and for how ImageNet's are converted."""
    option(p, "--weights", f"{what}; or imagenet", of, **more)
    what = "with --weights imagenet: the norms after the branching point"
    option(p, "--branch-init", what, BRANCH_INITS, unset=BRANCH_INITS[0])
    what = "with --weights imagenet: the epsilon of its BatchNorms' variances"
    option(p, "--bn-epsilon", what, POSITIVE, unset="1e-5", metavar="E")


def start(args: argparse.Namespace) -> Start:
    """How ImageNet's weights are converted, by the options of `add_weights`."""
    return Start(args.branch_init, args.bn_epsilon)


def all_read(found: Sequence[object], images: Sequence[object]) -> int:
    """The exit status of a command that leaves out unreadable images: 1 if it did.

    Raises:
        UserError: none could be read.
    """
    if not found:
        raise UserError("none of the images could be read")
    return 0 if len(found) == len(images) else 1


def names(text: str) -> tuple[str, ...]:
    """The names in `a,b`."""
    found = tuple(part.strip() for part in text.split(","))
    if not all(found):
        raise argparse.ArgumentTypeError(f"expected names separated by commas, not {text!r}")
    return found


def paths(text: str) -> tuple[Path, ...]:
    return tuple(map(Path, names(text)))


def add_among(p: Arguments) -> None:
    what = "rank an ANP among DeepSentiBank's outputs for our ANPs, or among all 2,089"
    option(p, "--among", what, AMONG, unset=AMONG[0])


def deepsentibank(
    args: argparse.Namespace, weights: Path | None, classes: Path | None
) -> DeepSentiBank | None:
    """DeepSentiBank by its options; None without them.

    Raises:
        UserError: --among is given without DeepSentiBank's files.
    """
    if weights and classes:
        return DeepSentiBank(weights, classes, args.among or AMONG[0])
    if args.among:
        raise UserError("--among needs --deepsentibank")
    return None
