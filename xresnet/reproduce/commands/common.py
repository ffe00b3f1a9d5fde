"""Arguments that several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from netgen.weights.plan import BRANCH_INITS
from xresnet.basics.cli import UserError
from xresnet.basics.numbers import POSITIVE, THREADS
from xresnet.reproduce.deepsentibank import AMONG, DeepSentiBank
from xresnet.reproduce.engine import CAFFE, ENGINES, Engine, Torch
from xresnet.reproduce.start import Start

Commands = argparse._SubParsersAction  # what ArgumentParser.add_subparsers returns

PICTURE_EXAMPLES = """\
examples:
  python -m xresnet figure5 runs/xs --out figure5.svg --change figure5_change.svg
  python -m xresnet figure5 runs/xs/snapshot_iter_128000.caffemodel --json
  python -m xresnet figure6 runs/xs dog.jpg sunset.jpg --out figure6.png
  python -m xresnet predict runs/xs photos/ > predictions.json
  python -m xresnet predict imagenet cat.jpg
"""


def add_engine(
    p: argparse.ArgumentParser,
    gpu: str = "Caffe's -gpu; default: the CPU",
    trains: bool = False,
) -> None:
    """What computes, and on which device; where it `trains`, in which precision, too."""
    what = "what computes: real Caffe, the default, or torchcaffe on PyTorch"
    p.add_argument("--engine", choices=ENGINES, default=CAFFE.name, help=what)
    p.add_argument("--gpu", metavar="N", help=gpu)
    if trains:
        what = "--engine torch trains in bfloat16: faster, where the CPU or GPU knows it"
        p.add_argument("--bf16", action="store_true", help=what)


def add_threads(p: argparse.ArgumentParser) -> None:
    what = "of the engine's arithmetic on the CPU"
    p.add_argument("--threads", type=THREADS, metavar="N", help=what)


def engine(args: argparse.Namespace) -> Engine:
    """What `add_engine` and `add_threads` were given.

    Raises:
        UserError: it is not installed here, or --bf16 is given to real Caffe.
    """
    words: dict[str, Any] = {"gpu": args.gpu, "threads": getattr(args, "threads", None)}
    if getattr(args, "bf16", False):
        if args.engine != Torch.name:
            raise UserError("--bf16 goes with --engine torch: real Caffe has single precision only")
        words["bf16"] = True
    chosen = ENGINES[args.engine](**words)
    chosen.program()
    return chosen


def add_images(p: argparse.ArgumentParser) -> None:
    """A trained net, images, and the device."""
    p.add_argument("snapshot", type=Path, metavar="SNAPSHOT", help="a run, or a .caffemodel in it")
    p.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="image files, or folders")
    add_engine(p)


def add_weights(p: argparse.ArgumentParser, what: str, **more: Any) -> None:
    """Initial weights, and how those of ImageNet are made."""
    p.add_argument("--weights", help=f"{what}; or imagenet", **more)
    p.add_argument(
        "--branch-init",
        choices=BRANCH_INITS,
        help=f"of --weights imagenet: the norms behind the branching point; {BRANCH_INITS[0]}",
    )
    p.add_argument(
        "--bn-epsilon",
        type=POSITIVE,
        metavar="E",
        help="of --weights imagenet: with which its BatchNorms' variances were taken; 1e-5",
    )


def start(args: argparse.Namespace) -> Start:
    """What `add_weights` was given of how to make them."""
    return Start(args.branch_init, args.bn_epsilon)


def all_read(found: Sequence[object], images: Sequence[object]) -> int:
    """The exit status of a command that left out the images that it could not read.

    Raises:
        UserError: that was all of them.
    """
    if not found:
        raise UserError("no image could be read")
    return 0 if len(found) == len(images) else 1


def names(text: str) -> tuple[str, ...]:
    """`a,b` as an argument's value."""
    found = tuple(part.strip() for part in text.split(","))
    if not all(found):
        raise argparse.ArgumentTypeError(f"expected names with commas between them, not {text!r}")
    return found


def paths(text: str) -> tuple[Path, ...]:
    return tuple(map(Path, names(text)))


def add_among(p: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    p.add_argument(
        "--among",
        choices=AMONG,
        help="rank an ANP among DeepSentiBank's outputs for our ANPs, or all 2,089: ours",
    )


def deepsentibank(
    args: argparse.Namespace, weights: Path | None, classes: Path | None
) -> DeepSentiBank | None:
    """What its options say; None where they are not given.

    Raises:
        UserError: --among without DeepSentiBank's files.
    """
    if weights and classes:
        return DeepSentiBank(weights, classes, args.among or "ours")
    if args.among:
        raise UserError("--among goes with --deepsentibank")
    return None
