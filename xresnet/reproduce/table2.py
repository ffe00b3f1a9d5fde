"""Table 2: all nets trained and tested, beside the paper's figures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Optional

from netgen import Network, build
from netgen.catalog import CATALOG
from netgen.options import words
from netgen.paper import paper
from xresnet.basics import cores
from xresnet.basics.cli import UserError, near_miss
from xresnet.basics.files import write, write_json
from xresnet.reproduce.data import Data, hold_vso
from xresnet.reproduce.deepsentibank import DeepSentiBank
from xresnet.reproduce.engine import CAFFE, Engine
from xresnet.reproduce.results import find
from xresnet.reproduce.run import Run, run_all
from xresnet.reproduce.schedule import Plateau, Schedule, Stage, Stages
from xresnet.reproduce.start import Start, hold_imagenet, is_imagenet
from xresnet.reproduce.table2_table import REHEARSAL, as_csv, latex, markdown, tabulated
from xresnet.reproduce.training import Training
from xresnet.reproduce.versions import versions

# Every net of the table that there is to train, in its order; the rehearsal takes the last four.
ROWS = tuple(row["net"] for row in paper()["table2"] if row["net"] and CATALOG[row["net"]].trained)
DEEPSENTIBANK = "deepsentibank"  # evaluated as published
Key = tuple[str, Optional[str]]
SMOKE_ROWS = ("resnet50", "x0_resnet50", "xi_resnet50", "xs_resnet50")


@dataclass(frozen=True)
class Setting:
    """The size of the nets and how they are trained, for all rows of a table.

    Args:
        what: a description of the table.
        net: netgen's options of the nets by name.
        solver: netgen's options of the solvers by name.
        rows: the rows that are trained by default.
    """

    name: str
    what: str
    net: dict[str, Any]
    solver: dict[str, Any]
    schedule: Schedule
    rows: tuple[str, ...] = ROWS


# A quarter of the paper's width and half its depth, from scratch. BatchNorm's running statistics
# must forget the untrained net within a few hundred iterations; classifiers
# learn no faster than the rest, for nothing is pretrained.
SMOKE = Setting(
    name=REHEARSAL,
    what="nets of 26 layers and a quarter of the width, from scratch: a rehearsal, no reproduction",
    net={"width": 16, "blocks": (1, 2, 2, 3), "batch": 32, "bn_fraction": 0.95, "head_lr": 1},
    solver={"cpu": True, "seed": 1, "test_interval": 0, "display": 10, "snapshot": 100},
    schedule=Stages((Stage(0.02, 280), Stage(0.002, 350))),
    rows=SMOKE_ROWS,
)

PAPER = Setting(
    name="by the paper's recipe",
    what="the nets that are asked for, trained by the plateau rule until convergence",
    net={},
    solver={},
    schedule=Plateau(),
)


@dataclass(frozen=True)
class Table2:
    """A table to make in the folder `out`.

    Args:
        rows: the names of its nets; by default the setting's.
        weights: a folder of initial .caffemodels named by net (`xs_resnet50.caffemodel`), or
            `imagenet`, which `start` converts.
        deepsentibank: the files of its row.
    """

    out: Path
    setting: Setting
    rows: tuple[str, ...] = ()
    weights: Path | None = None
    start: Start = field(default_factory=Start)
    deepsentibank: DeepSentiBank | None = None

    def check(self) -> None:
        """Check all of it before there are data; ImageNet's weights are fetched.

        Raises:
            UserError: as of `make`. All missing files of ImageNet's weights are named.
        """
        self._check()
        nets = [build(net.name, **net.choices) for net in self._nets().values()]
        hold_imagenet(nets if self._from_imagenet else ())

    def make(self, data: Path, jobs: int | None = None, engine: Engine = CAFFE) -> dict[str, Any]:
        """Train, test and tabulate; writes table2.md, .csv, .json and .tex.

        Args:
            jobs: how many nets train at a time and share the cores; by default on a CPU one per
                core, as small nets use one core better than one net uses many, and one on a GPU.

        Returns:
            The content of table2.json.

        Raises:
            UserError: an unknown row, missing weights, no LMDBs in `data`, or Caffe fails.
        """
        self._check()
        found = Data.read(data)
        hold_vso(found, "table2 is the paper's table")
        jobs = jobs or (1 if engine.gpu is not None else cores.usable())
        shared = replace(engine, threads=max(1, cores.usable() // jobs))
        runs = {key: Run(training) for key, training in self._trainings(found, shared).items()}
        results = run_all(runs, jobs)
        if self.deepsentibank:
            folder = self.out / "runs" / DEEPSENTIBANK
            results[DEEPSENTIBANK, "anp"] = self.deepsentibank.result(found, folder, engine)
        setting = self.setting
        table = {
            "table": tabulated(found.names.counts, results),
            "setting": {"name": setting.name, "what": setting.what, "net": words(setting.net)},
            "data": found.facts(),
            "runs": [results[key] for key in runs],
            "engine": engine.name,
            "versions": versions([engine.name]),
            "source": paper()["source"],
        }
        write_json(self.out / "table2.json", table)
        write(self.out / "table2.csv", as_csv(table["table"]))
        write(self.out / "table2.md", markdown(table))
        write(self.out / "table2.tex", latex(table))
        return table

    def _trainings(self, data: Data, engine: Engine) -> dict[Key, Training]:
        """The trainings of all nets, with their initial weights; errors come before those."""
        folder, nets = self.out / "weights", self._nets()
        named = {key: data.network(net, "DATA") for key, net in nets.items()}
        for net in named.values():
            net.net()
        if self._from_imagenet:
            hold_imagenet(net for net in named.values() if not self.start.is_made(net, folder))
        names = {key: "_".join(filter(None, key)) for key in nets}
        return {
            key: Training(
                name=names[key],
                net=net,
                data=data,
                folder=self.out / "runs" / names[key],
                schedule=self.setting.schedule,
                solver=self.setting.solver,
                weights=self.start.weights(self._initial(net.name), named[key], folder),
                engine=engine,
                fresh=self.setting is SMOKE,
            )
            for key, net in nets.items()
        }

    def _check(self) -> None:
        """Check everything that needs no data."""
        known, published = (DEEPSENTIBANK, *ROWS), self.deepsentibank
        for row in self.rows:
            if row not in known:
                raise UserError(
                    f"unknown row {row!r}{near_miss(row, known)}; there are {', '.join(known)}"
                )
        if DEEPSENTIBANK in self.rows and not published:
            raise UserError(
                "DeepSentiBank is not trained: give its files, --deepsentibank WEIGHTS CLASSES"
            )
        # A rehearsal must not take the place of the table, nor the table that of a rehearsal.
        before = find(self.out / "table2.json", {"setting": {"name": str}})
        if before and before["setting"]["name"] != self.setting.name:
            name = before["setting"]["name"]
            raise UserError(
                f"{self.out} holds the table of another setting ({name}): choose another --out"
            )
        for path in (published.weights, published.classes) if published else ():
            if not path.is_file():
                raise UserError(f"--deepsentibank: {path} does not exist, or is not a file")
        self.start.refuse_idle([self.weights] if self.weights else [])
        for net, _ in self._nets():
            self._initial(net)

    def _nets(self) -> dict[Key, Network]:
        """The nets of the rows, without the data's options.

        Raises:
            UserError: an option that a row's net does not take.
        """
        return nets_of(self.setting, self.rows or self.setting.rows)

    @property
    def _from_imagenet(self) -> bool:
        return self.weights is not None and is_imagenet(self.weights)

    def _initial(self, net: str) -> tuple[Path, ...]:
        """The file of a net's initial weights, or `imagenet`; empty for none."""
        if not self.weights or self._from_imagenet:
            return (self.weights,) if self.weights else ()
        path = self.weights / f"{net}.caffemodel"
        if not path.exists():
            raise UserError(f"{path}: no initial weights of {net}; see `python -m netgen.weights`")
        return (path,)


def nets_of(setting: Setting, rows: Iterable[str]) -> dict[Key, Network]:
    """(net, task or None for all tasks) -> the net, of the `rows` that are trained.

    Raises:
        UserError: an option that a row's net does not take.
    """
    return {
        (net, task): Network(net, {"task": task, **setting.net})
        for net in rows
        if net in ROWS
        for task in _tasks(net)
    }


def _tasks(net: str) -> list[str | None]:
    """The tasks of a row's nets, in the table's order; None is a net of all tasks."""
    return list(paper()["tasks"]) if CATALOG[net].single_task else [None]
