"""A net of the catalogue with its options, from which its prototxts and solvers are made."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from netgen import draw, report, solver
from netgen.catalog import Entry, find
from netgen.net import Net
from netgen.options import Options, Solver, solver_choices, words
from xresnet.basics.cli import UserError


@dataclass(frozen=True)
class Network:
    """A net and the options chosen for it; all other options have the paper's values.

    Args:
        name: one of `python -m netgen --list`.
        choices: options by name, such as `{"width": 16, "tasks": (Task("style", 25),)}`, in the
            order of the command line; None leaves an option at its default. Do not change it:
            `choose` makes another network.

    Raises:
        UserError: there is no such net or option, or an option does not apply to this net, is
            out of range, or excludes another. Combinations that cannot be built raise it
            later; `build` checks them at once.
    """

    name: str
    choices: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        chosen = {name: value for name, value in self.choices.items() if value is not None}
        object.__setattr__(self, "choices", self.entry.checked(chosen))

    @cached_property
    def entry(self) -> Entry:
        """The net's entry in the catalogue."""
        return find(self.name)

    @cached_property
    def options(self) -> Options:
        """All options: those chosen, and the defaults of the others."""
        return self.entry.options(**self.choices)

    def choose(self, **choices: Any) -> Network:
        """The network with further choices, which override those that it has."""
        return Network(self.name, {**self.choices, **choices})

    def words(self) -> list[str]:
        """The arguments of `python -m netgen` for it: `["xs_resnet50", "--width", "16"]`."""
        return [self.name, *words(self.choices)]

    # ---- what it makes ------------------------------------------------------------

    def net(self, deploy: bool = False) -> Net:
        """The train/test net or, with `deploy`, the inference net as a `Net`.

        Raises:
            UserError: the options cannot be combined, or a user's joint fails.
        """
        if self.options.joint:
            self._check_shapes()
        return self.entry.build(replace(self.options, deploy=deploy))

    def _check_shapes(self) -> None:
        """Raise a UserError if a user's joint returns a term of another shape."""
        try:
            report.measured(self.entry, self.options)
        except ValueError as error:
            raise UserError(f"--joint {self.options.joint}: {error}") from None

    def proto(self, deploy: bool = False) -> Any:
        """The train/test net or the inference net as a NetParameter."""
        return self.net(deploy).proto()

    def prototxt(self) -> str:
        """The train/test net as prototxt; its header has the command that makes it."""
        net = self.net()
        return net.prototxt(self._header(net, "train/test net"))

    def deploy(self) -> str:
        """The inference net as prototxt: one Input layer, one Softmax layer per task."""
        net = self.net(deploy=True)
        return net.prototxt(self._header(net, "inference net", "--deploy"))

    def solver(self, **choices: Any) -> str:
        """The solver as prototxt; `choices` are options of the solver, such as `lr=0.01`.

        Raises:
            UserError: the solver has no such option, or a value is out of range.
        """
        chosen = solver_choices(choices)
        header = self._header(self.net(), "solver", "--solver", *words(chosen))
        stem = self.entry.files(self.options)
        return solver.prototxt(stem, self.options, Solver(**chosen), header)

    def params(self) -> dict[str, Any]:
        """The net's costs, as `python -m netgen NET --params --json` prints them.

        `total` is the number of parameters, `macs` that of multiply-adds per image,
        `training_memory` the bytes needed to train with batches of `batch` images, and
        `paper_millions` Table 2's parameters, or None. `blocks` and `layers` have the details.
        """
        return report.costs(self.entry, self.options)

    def draw(self, path: str | Path) -> None:
        """Draw the net in the style of Figure 4, as .svg, .png, .pdf or .dot.

        Raises:
            UserError: the file has another extension, or Graphviz is not installed.
        """
        draw.draw(self.entry, self.options, path)

    def _header(self, net: Net, what: str, *more: str) -> str:
        command = shlex.join(["python", "-m", "netgen", *self.words(), *more])
        return f"{net.name}: {what}\nmade by: {command}"


def build(name: str, **choices: Any) -> Network:
    """Build the net called `name` with these options.

    `build("xs_resnet50", width=16, blocks=(1, 1, 1, 3)).prototxt()` is what `python -m netgen
    xs_resnet50 --width 16 --blocks 1,1,1,3` prints.

    Raises:
        UserError: there is no such net or option, or the options cannot be combined.
    """
    network = Network(name, choices)
    network.net(deploy=not network.entry.trained)
    return network
