"""`python -m netgen NET`: print a net, its solver, its deploy form or its parameters.

Only here command lines become values: `read` and `parse` convert them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from netgen import report
from netgen.catalog import CATALOG
from netgen.network import Network
from netgen.option import Option, spell
from netgen.options import FAMILIES, OPTIONS, Solver
from xresnet.basics import cli

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

Choices = dict[str, Any]  # options by name, in the order of the command line


@dataclass(frozen=True)
class Request:
    """What a command line requests: a network, options of its solver, and the form to print."""

    network: Network
    solver: Choices
    form: str  # net, solver, deploy, params or draw
    draw: str | None = None
    json: bool = False


def parser() -> cli.Parser:
    """The command line's parser; all defaults are the paper's."""
    p = cli.Parser(
        prog="netgen",
        description="Write the paper's networks and solvers as Caffe prototxt, to stdout.",
        epilog=EXAMPLES,
    )
    p.add_argument("net", nargs="?", metavar="NET", help="a name from --list")
    what = p.add_argument_group("form of the output (default: the train/test net)")
    one = what.add_mutually_exclusive_group()
    one.add_argument("--solver", action="store_true", help="the solver")
    one.add_argument(
        "--deploy", action="store_true", help="the inference net, with a softmax for each task"
    )
    one.add_argument("--params", action="store_true", help="parameters, multiply-adds and memory")
    one.add_argument("--list", action="store_true", help="list all nets")
    one.add_argument("--draw", metavar="FILE", help="draw the net: .svg, .png, .pdf or .dot")
    what.add_argument("--json", action="store_true", help="--params or --list as JSON")
    add_options(p)
    return p


def main(argv: list[str] | None = None) -> int:
    sys.stdout.write(generate(sys.argv[1:] if argv is None else argv))
    return 0


def generate(argv: Sequence[str]) -> str:
    """The output of `python -m netgen ARGV`.

    Raises:
        UserError: there is no such net, task or option, or they cannot be combined.
    """
    request = read(argv)
    if request is None:
        return listing("--json" in argv)
    network = request.network
    if request.form == "solver":
        return network.solver(**request.solver)
    if request.form == "deploy":
        return network.deploy()
    if request.form == "params":
        if request.json:
            return json.dumps(network.params(), indent=2) + "\n"
        return report.as_table(network.entry, network.options)
    if request.draw:
        network.draw(request.draw)
        return ""
    return network.prototxt()


def read(argv: Sequence[str]) -> Request | None:
    """Parse a command line of `python -m netgen`; None for `--list`."""
    p = parser()
    args = p.parse_args(argv)
    if args.list:
        return None
    if not args.net:
        p.error("name a net; --list lists them all")
    if args.json and not args.params:
        p.error("--json goes with --params or --list")
    net, solver = choices_of(args)
    if not args.solver:
        net, solver = {**net, **solver}, {}  # refused by Network
    form = next((f for f in ("solver", "deploy", "params", "draw") if getattr(args, f)), "net")
    return Request(Network(args.net, net), solver, form, args.draw, args.json)


def parse(
    words: Sequence[str], where: str, refused: Mapping[str, str] | None = None
) -> tuple[str | None, Choices, Choices]:
    """Parse arguments of `python -m netgen` that are written in a file.

    Args:
        words: the arguments.
        where: their place, which begins each error.
        refused: flags that they must not contain, with the reasons.

    Returns:
        the net's name, or None, and the options of the net and of the solver.

    Raises:
        UserError: an option is unknown or refused, or a value is out of range.
    """
    p = _FileParser(prog=where, add_help=False)
    p.add_argument("net", nargs="?")
    refuse_options(p, refused or {})
    add_options(p)
    try:
        args = p.parse_args(words)
    except cli.UserError as error:
        message = str(error)
        raise cli.UserError(
            message if message.startswith(where) else f"{where}: {message}"
        ) from None
    return (args.net, *choices_of(args))


class _FileParser(cli.Parser):
    """A parser that raises a UserError instead of printing the command's usage."""

    def error(self, message: str) -> NoReturn:
        raise cli.UserError(f"{self.prog}: {message}")


# ---- Options as arguments ---------------------------------------------------------

_CHOSEN = "chosen_"  # the prefix of our options' names in argparse's namespace


def add_options(p: argparse.ArgumentParser) -> None:
    """Add an argument for each option that the parser lacks, grouped by family."""
    for family in FAMILIES:
        group = None
        for option in OPTIONS.values():
            if option.family is family and option.flag not in p._option_string_actions:
                group = group or p.add_argument_group(family.__doc__)
                option.add_to(group, f"{_CHOSEN}{option.name}", _other_defaults(option))


def _other_defaults(option: Option) -> str:
    """The defaults that differ from the paper's, by net: `caffenet, deepsentibank: 227`."""
    nets: dict[str, list[str]] = {}
    for entry in CATALOG.values():
        default = entry.defaults.get(option.name, option.default)
        if option.family in entry.families and default != option.default:
            nets.setdefault(spell(default), []).append(entry.name)
    return "; ".join(f"{', '.join(names)}: {default}" for default, names in nets.items())


def refuse_options(p: argparse.ArgumentParser, reasons: Mapping[str, str]) -> None:
    """Add arguments that raise a UserError with these reasons, and are not in the help."""
    for flag, reason in reasons.items():
        if flag not in p._option_string_actions:
            p.add_argument(flag, action=_Refused, reason=reason)


class _Refused(argparse.Action):
    """An option that must not be given, neither with a value nor without."""

    def __init__(self, reason: str, **more: Any) -> None:
        super().__init__(nargs="?", help=argparse.SUPPRESS, **more)
        self.reason = reason

    def __call__(self, *_: Any) -> NoReturn:
        raise cli.UserError(f"{self.option_strings[0]} {self.reason}")


def choices_of(args: argparse.Namespace) -> tuple[Choices, Choices]:
    """The options of the net and of the solver among the arguments of `add_options`."""
    net: Choices = {}
    solver: Choices = {}
    for name, value in vars(args).items():
        if name.startswith(_CHOSEN):
            option = OPTIONS[name[len(_CHOSEN) :]]
            (solver if option.family is Solver else net)[option.name] = value
    return net, solver


def listing(as_json: bool) -> str:
    """The names and descriptions of all nets."""
    if as_json:
        return json.dumps({e.name: e.what for e in CATALOG.values()}, indent=2) + "\n"
    width = max(map(len, CATALOG))
    return "".join(f"{e.name:{width}}  {e.what}\n" for e in CATALOG.values())
