"""`python -m netgen NET`: the net, its solver, its deploy form or its parameters, on stdout.

The one place where command lines become values: `read` and `parse` make them of words.
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

Choices = dict[str, Any]  # options by name, in the order in which they were typed


@dataclass(frozen=True)
class Asked:
    """What a command line asks for: a network, the choices of its solver, and which form."""

    network: Network
    solver: Choices
    form: str  # net, solver, deploy, params or draw
    draw: str | None = None
    json: bool = False


def parser() -> cli.Parser:
    """The command line; every default is the paper's."""
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
    """What `python -m netgen ARGV` prints, whole: nothing goes out before all of it is made.

    Raises:
        UserError: a net, task or option that cannot be.
    """
    asked = read(argv)
    if asked is None:
        return listing("--json" in argv)
    network = asked.network
    if asked.form == "solver":
        return network.solver(**asked.solver)
    if asked.form == "deploy":
        return network.deploy()
    if asked.form == "params":
        if asked.json:
            return json.dumps(network.params(), indent=2) + "\n"
        return report.as_table(network.entry, network.options)
    if asked.draw:
        network.draw(asked.draw)
        return ""
    return network.prototxt()


def read(argv: Sequence[str]) -> Asked | None:
    """The values that a command line of `python -m netgen` stands for; None for `--list`."""
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
        net, solver = {**net, **solver}, {}  # a net refuses the solver's
    form = next((f for f in ("solver", "deploy", "params", "draw") if getattr(args, f)), "net")
    return Asked(Network(args.net, net), solver, form, args.draw, args.json)


def parse(
    words: Sequence[str], where: str, refused: Mapping[str, str] | None = None
) -> tuple[str | None, Choices, Choices]:
    """The net's name, if there is one, and the choices of net and solver among `words`.

    For words that stand in a file: `where` they do begins each complaint. `refused` are the
    flags that must not be among them, each with the reason.

    Raises:
        UserError: an option is unknown, or a value is out of range.
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
    """A parser of words in a file: a mistake is an error of the file's, not of the command's."""

    def error(self, message: str) -> NoReturn:
        raise cli.UserError(f"{self.prog}: {message}")


# ---- Options as arguments ---------------------------------------------------------

_CHOSEN = "chosen_"  # begins the names under which argparse keeps what was chosen


def add_options(p: argparse.ArgumentParser) -> None:
    """Give `p` an argument for each option, but for those that it has; by family."""
    for family in FAMILIES:
        group = None
        for option in OPTIONS.values():
            if option.family is family and option.flag not in p._option_string_actions:
                group = group or p.add_argument_group(family.__doc__)
                option.add_to(group, f"{_CHOSEN}{option.name}", _other_defaults(option))


def _other_defaults(option: Option) -> str:
    """`caffenet, deepsentibank: 227`: the nets whose default is not the paper's."""
    nets: dict[str, list[str]] = {}
    for entry in CATALOG.values():
        default = entry.defaults.get(option.name, option.default)
        if option.family in entry.families and default != option.default:
            nets.setdefault(spell(default), []).append(entry.name)
    return "; ".join(f"{', '.join(names)}: {default}" for default, names in nets.items())


def refuse_options(p: argparse.ArgumentParser, reasons: Mapping[str, str]) -> None:
    """Give `p` arguments that are refused, with these reasons, and stand in no help."""
    for flag, reason in reasons.items():
        if flag not in p._option_string_actions:
            p.add_argument(flag, action=_Refused, reason=reason)


class _Refused(argparse.Action):
    """An option that must not be given, with a value or without."""

    def __init__(self, reason: str, **more: Any) -> None:
        super().__init__(nargs="?", help=argparse.SUPPRESS, **more)
        self.reason = reason

    def __call__(self, *_: Any) -> NoReturn:
        raise cli.UserError(f"{self.option_strings[0]} {self.reason}")


def choices_of(args: argparse.Namespace) -> tuple[Choices, Choices]:
    """What was chosen of the arguments of `add_options`: the net's, and the solver's."""
    net: Choices = {}
    solver: Choices = {}
    for name, value in vars(args).items():
        if name.startswith(_CHOSEN):
            option = OPTIONS[name[len(_CHOSEN) :]]
            (solver if option.family is Solver else net)[option.name] = value
    return net, solver


def listing(as_json: bool) -> str:
    """The nets that can be asked for."""
    if as_json:
        return json.dumps({e.name: e.what for e in CATALOG.values()}, indent=2) + "\n"
    width = max(map(len, CATALOG))
    return "".join(f"{e.name:{width}}  {e.what}\n" for e in CATALOG.values())
