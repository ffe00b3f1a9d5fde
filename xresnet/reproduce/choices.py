"""The options of netgen that users of the harness may choose, on a command line or in a grid file.

Options that the harness sets itself are refused with the reason. This module turns words into
values; all others use `netgen.Network`, and the solver's options by name.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from netgen import command
from netgen.option import flag
from xresnet.basics.cli import UserError

_OURS = "is set by the driver itself:"
_FORM = (
    f"{_OURS} it writes each form of the net: leave it out (python -m netgen writes a single one)"
)
_DATA = f"{_OURS} the data determine it: leave it out"
_SOLVER = f"{_OURS} it is set for each stage: leave it out"
# netgen's options that the driver sets itself, and what to do instead.
OURS = {
    **dict.fromkeys(("--solver", "--deploy", "--params", "--list", "--draw", "--json"), _FORM),
    **dict.fromkeys(("--tasks", "--train-images", "--test-images", "--ignore-label"), _DATA),
    "--from-block": f"{_DATA} (python -m xresnet features makes them)",
    "--input-size": f"{_DATA}; data_prep lmdb --size makes images of another",
    "--crop": f"{_OURS} its nets use whole images: leave it out, and give data_prep lmdb --size",
    **dict.fromkeys(("--max-iter", "--test-interval", "--net", "--snapshot-prefix"), _SOLVER),
    "--cpu": f"{_OURS} leave it out: without --gpu, the CPU is used",
}
# In a grid file, where a solver may test seldom, or never.
OF_A_GRID = {
    **{flag: reason for flag, reason in OURS.items() if flag != "--test-interval"},
    "--data": _DATA,
    "--lr": "stands in `plateau` or `stages`",
    "--seed": "stands in `seeds`",
}


def add(p: argparse.ArgumentParser, refused: Mapping[str, str] | None = None) -> None:
    """Add netgen's options to a command; `refused` are further ones that it does not take."""
    command.refuse_options(p, {**OURS, **(refused or {})})
    command.add_options(p)


def of(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """The chosen options by name: the net's, and the solver's."""
    return command.choices_of(args)


def of_net(words: Sequence[str], where: str) -> tuple[str | None, dict[str, Any]]:
    """The net's name (None without one) and options among the `words` of a grid file.

    Raises:
        UserError: an option is unknown or not allowed; the message begins with `where`.
    """
    name, net, solver = command.parse(words, where, OF_A_GRID)
    for option in solver:
        raise UserError(f"{where}: {flag(option)} belongs in `solver`")
    return name, net


def of_solver(words: Sequence[str], where: str) -> dict[str, Any]:
    """The solver's options among the `words` of a grid file.

    Raises:
        UserError: an option is unknown or not allowed; the message begins with `where`.
    """
    name, net, solver = command.parse(words, where, OF_A_GRID)
    for wrong in [*([name] if name else []), *map(flag, net)]:
        raise UserError(f"{where}: {wrong} is not an option of the solver")
    return solver
