"""A net of the catalogue as a value: its name, its options, and the resulting net."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
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
    """A net by its name, and what is chosen about it; everything else is the paper's.

    Args:
        name: one of `python -m netgen --list`.
        choices: options by name, as `{"width": 16, "tasks": (Task("style", 25),)}`, in the
            order in which a command line has them; what is None is not chosen. Not to be
            changed: `choose` makes another network.

    Raises:
        UserError: there is no such net or option, an option does not apply to this net, is out
            of its range, or excludes another. Whether they go together shows in what is made
            of them; `build` looks at once.
    """

    name: str
    choices: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        chosen = {name: value for name, value in self.choices.items() if value is not None}
        object.__setattr__(self, "choices", self.entry.checked(chosen))

    @cached_property
    def entry(self) -> Entry:
        """What the catalogue says of it."""
        return find(self.name)

    @cached_property
    def options(self) -> Options:
        """What a net function reads: the choices, and the defaults of what is not chosen."""
        return self.entry.options(**self.choices)

    def choose(self, **choices: Any) -> Network:
        """The network with these choices, too; they outweigh those that it has."""
        return Network(self.name, {**self.choices, **choices})

    def words(self) -> list[str]:
        """The arguments of `python -m netgen` that make it: `["xs_resnet50", "--width", "16"]`."""
        return [self.name, *words(self.choices)]

    # ---- what it makes ------------------------------------------------------------

    def net(self, deploy: bool = False) -> Net:
        """The train/test net, or the inference net, layer by layer."""
        if self.options.joint:
            self._check_shapes()
        return self.entry.build(self.options.with_form(deploy))

    def _check_shapes(self) -> None:
        """Refuse a user's joint whose term has not the shape of what it is added to."""
        try:
            report.measured(self.entry, self.options)
        except ValueError as error:
            raise UserError(f"--joint {self.options.joint}: {error}") from None

    def proto(self, deploy: bool = False) -> Any:
        """The same as a NetParameter."""
        return self.net(deploy).proto()

    def prototxt(self) -> str:
        """The train/test net as a file's text; its header has the command that makes it."""
        net = self.net()
        return net.prototxt(self._header(net, "train/test net"))

    def deploy(self) -> str:
        """The inference net as a file's text: images in, one softmax a task out."""
        net = self.net(deploy=True)
        return net.prototxt(self._header(net, "inference net", "--deploy"))

    def solver(self, **choices: Any) -> str:
        """Its solver as a file's text; `choices` are options of the solver, such as `lr=0.01`.

        Raises:
            UserError: no such option of the solver, or one out of its range.
        """
        chosen = solver_choices(choices)
        header = self._header(self.net(), "solver", "--solver", *words(chosen))
        stem = self.entry.files(self.options)
        return solver.prototxt(stem, self.options, Solver(**chosen), header)

    def params(self) -> dict[str, Any]:
        """What it costs: `total` parameters, `macs` multiply-adds an image, `blocks`, `layers`.

        `training_memory` is in bytes, at `batch` images; `paper_millions` Table 2's figure, or
        None. All of it is what `python -m netgen NET --params --json` prints.
        """
        return report.costs(self.entry, self.options)

    def draw(self, path: str | Path) -> None:
        """Write its picture, in the manner of Figure 4, as .svg, .png, .pdf or .dot.

        Raises:
            UserError: another ending, or no Graphviz on this machine.
        """
        draw.draw(self.entry, self.options, path)

    def _header(self, net: Net, what: str, *more: str) -> str:
        command = shlex.join(["python", "-m", "netgen", *self.words(), *more])
        return f"{net.name}: {what}\nmade by: {command}"


def build(name: str, **choices: Any) -> Network:
    """The net called `name` with these choices, all of them looked at: it can be made.

    `build("xs_resnet50", width=16, blocks=(1, 1, 1, 3)).prototxt()` is what `python -m netgen
    xs_resnet50 --width 16 --blocks 1,1,1,3` prints.

    Raises:
        UserError: a net or option that cannot be, in the words of the command.
    """
    network = Network(name, choices)
    network.net(deploy=not network.entry.trained)
    return network
