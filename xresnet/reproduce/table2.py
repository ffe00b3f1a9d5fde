"""Table 2: all nets trained and tested, beside the paper's figures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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
from xresnet.reproduce.table2_table import as_csv, latex, markdown, tabulated
from xresnet.reproduce.training import Training
from xresnet.reproduce.versions import versions

# Every net of the table that there is to train, in its order; the rehearsal takes the last four.
ROWS = tuple(row["net"] for row in paper()["table2"] if row["net"] and CATALOG[row["net"]].trained)
DEEPSENTIBANK = "deepsentibank"  # evaluated as published
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
    name="smoke",
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


def table2(
    data: Path,
    out: Path,
    setting: Setting,
    rows: tuple[str, ...] | None = None,
    jobs: int | None = None,
    engine: Engine = CAFFE,
    weights: Path | None = None,
    start: Start | None = None,
    deepsentibank: DeepSentiBank | None = None,
) -> dict[str, Any]:
    """Train, test and tabulate `rows`; writes table2.md, .csv, .json and .tex into `out`.

    Args:
        jobs: how many nets train at a time and share the cores; by default on a CPU one per
            core, as small nets use one core better than one net uses many, and one on a GPU.
        weights: a folder of initial .caffemodels named by net (`xs_resnet50.caffemodel`), or
            `imagenet`, which `start` converts.
        deepsentibank: the files of its row.

    Returns:
        The content of table2.json.

    Raises:
        UserError: an unknown row, missing weights, no LMDBs in `data`, or Caffe fails.
    """
    rows, start = rows or setting.rows, start or Start()
    _refuse(out, setting, rows, weights, start, deepsentibank)
    found = Data.read(data)
    hold_vso(found, "table2 is the paper's table")
    jobs = jobs or (1 if engine.gpu is not None else cores.usable())
    shared = replace(engine, threads=max(1, cores.usable() // jobs))
    nets = dict(_nets(setting, rows))
    named = {key: found.network(network, "DATA") for key, network in nets.items()}
    for network in named.values():
        network.net()  # what cannot be is told before any is trained
    if weights and is_imagenet(weights):
        made = out / "weights"
        hold_imagenet(network for network in named.values() if not start.is_made(network, made))
    runs = {}
    for (net, task), network in nets.items():
        name = f"{net}_{task}" if task else net
        training = Training(
            name=name,
            net=network,
            data=found,
            folder=out / "runs" / name,
            schedule=setting.schedule,
            solver=setting.solver,
            weights=start.weights(_initial(weights, net), named[net, task], out / "weights"),
            engine=shared,
            fresh=setting is SMOKE,
        )
        runs[net, task] = Run(training)
    results = run_all(runs, jobs)
    if deepsentibank:
        folder = out / "runs" / DEEPSENTIBANK
        results[DEEPSENTIBANK, "anp"] = deepsentibank.result(found, folder, engine)
    table = {
        "table": tabulated(found.names.counts, results),
        "setting": {"name": setting.name, "what": setting.what, "net": words(setting.net)},
        "data": found.facts(),
        "runs": [results[key] for key in runs],
        "engine": engine.name,
        "versions": versions([engine.name]),
        "source": paper()["source"],
    }
    write_json(out / "table2.json", table)
    write(out / "table2.csv", as_csv(table["table"]))
    write(out / "table2.md", markdown(table))
    write(out / "table2.tex", latex(table))
    return table


def check(
    out: Path,
    setting: Setting,
    rows: tuple[str, ...] | None = None,
    weights: Path | None = None,
    start: Start | None = None,
    deepsentibank: DeepSentiBank | None = None,
) -> None:
    """Check the arguments of `table2` before there are data; ImageNet's weights are fetched.

    Raises:
        UserError: as of `table2`. All missing files of ImageNet's weights are named.
    """
    rows = rows or setting.rows
    _refuse(out, setting, rows, weights, start or Start(), deepsentibank)
    nets = [build(net.name, **net.choices) for _, net in _nets(setting, rows)]
    if weights and is_imagenet(weights):
        hold_imagenet(nets)


def _refuse(
    out: Path,
    setting: Setting,
    rows: tuple[str, ...],
    weights: Path | None,
    start: Start,
    deepsentibank: DeepSentiBank | None,
) -> None:
    """Check everything that needs no data."""
    known = (DEEPSENTIBANK, *ROWS)
    for row in rows:
        if row not in known:
            raise UserError(
                f"unknown row {row!r}{near_miss(row, known)}; there are {', '.join(known)}"
            )
    if DEEPSENTIBANK in rows and not deepsentibank:
        raise UserError(
            "DeepSentiBank is not trained: give its files, --deepsentibank WEIGHTS CLASSES"
        )
    _refuse_another_table(out, setting)
    for path in (deepsentibank.weights, deepsentibank.classes) if deepsentibank else ():
        if not path.is_file():
            raise UserError(f"--deepsentibank: {path} does not exist, or is not a file")
    start.refuse_idle([weights] if weights else [])
    for net in (net for net in rows if net in ROWS):
        _initial(weights, net)


def _nets(
    setting: Setting, rows: tuple[str, ...]
) -> Iterator[tuple[tuple[str, str | None], Network]]:
    """The nets of `rows`: (name, task or None), and the net without the data's options.

    Raises:
        UserError: an option that a row's net does not take.
    """
    for net in rows:
        for task in _tasks(net) if net in ROWS else ():
            yield (net, task), Network(net, {"task": task, **setting.net})


def _refuse_another_table(out: Path, setting: Setting) -> None:
    """Refuse to replace the table by a rehearsal, or a rehearsal by the table."""
    before = find(out / "table2.json", {"setting": {"name": str}})
    name = before["setting"]["name"] if before else setting.name
    if name != setting.name:
        raise UserError(f"{out} holds the table of another setting ({name}): choose another --out")


def _initial(folder: Path | None, net: str) -> tuple[Path, ...]:
    """The file of the net's initial weights in `folder`; empty if no folder is given."""
    if folder is None:
        return ()
    if is_imagenet(folder):
        return (folder,)
    path = folder / f"{net}.caffemodel"
    if not path.exists():
        raise UserError(f"{path}: no initial weights of {net}; see `python -m netgen.weights`")
    return (path,)


def _tasks(net: str) -> list[str | None]:
    """The tasks of a row's nets, in the table's order; None is a net of all tasks."""
    return list(paper()["tasks"]) if CATALOG[net].single_task else [None]
