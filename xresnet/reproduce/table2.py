"""Table 2: each net trained and tested, beside the paper's figures."""

from __future__ import annotations

import csv
import io
import platform
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from netgen import Network, build
from netgen.catalog import CATALOG
from netgen.options import words
from netgen.paper import paper
from xresnet import realcaffe
from xresnet.basics import cores
from xresnet.basics.cli import UserError, near_miss
from xresnet.basics.files import read_json, write, write_json
from xresnet.reproduce.accuracy import METRICS
from xresnet.reproduce.data import Data, hold_vso
from xresnet.reproduce.deepsentibank import DeepSentiBank
from xresnet.reproduce.engine import CAFFE, ENGINES, Engine
from xresnet.reproduce.run import Run, run_all
from xresnet.reproduce.schedule import Plateau, Schedule, Stage, Stages
from xresnet.reproduce.start import IMAGENET, Start, is_imagenet
from xresnet.reproduce.training import Training

# Every net of the table that there is to train, in its order; the rehearsal takes the last four.
ROWS = tuple(row["net"] for row in paper()["table2"] if row["net"] and CATALOG[row["net"]].trained)
DEEPSENTIBANK = "deepsentibank"  # evaluated as published
SMOKE_ROWS = ("resnet50", "x0_resnet50", "xi_resnet50", "xs_resnet50")


@dataclass(frozen=True)
class Setting:
    """The size of the nets and how they are trained; one for all rows.

    `net` are netgen's options of the net by name, `solver` those of its solver.
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

    `jobs` nets train at a time and share the cores: on a CPU as many as there
    are cores unless said otherwise, for small nets use one core better than
    one net uses many; on a GPU one. `weights` is a folder of initial .caffemodels named by
    net (`xs_resnet50.caffemodel`), or `imagenet`, from which `start` makes them.
    `deepsentibank` says with which files its row is made.

    Raises:
        UserError: unknown rows, no LMDBs in `data`, or a Caffe that fails.
    """
    rows = rows or setting.rows
    _refuse(out, setting, rows, deepsentibank)
    found = Data.read(data)
    hold_vso(found, "table2 is the paper's table")
    jobs = jobs or (1 if engine.gpu is not None else cores.usable())
    shared = replace(engine, threads=max(1, cores.usable() // jobs))
    runs = {}
    for (net, task), network in _nets(setting, rows):
        name = f"{net}_{task}" if task else net
        named = found.network(network, "DATA")
        named.net()  # what cannot be is told before any is trained
        training = Training(
            name=name,
            net=network,
            data=found,
            folder=out / "runs" / name,
            schedule=setting.schedule,
            solver=setting.solver,
            weights=(start or Start()).weights(_initial(weights, net), named, out / "weights"),
            engine=shared,
            fresh=setting is SMOKE,
        )
        runs[net, task] = Run(training)
    results = run_all(runs, jobs)
    if deepsentibank:
        folder = out / "runs" / DEEPSENTIBANK
        results[DEEPSENTIBANK, "anp"] = deepsentibank.result(found, folder, engine)
    table = {
        "table": _rows(found.classes, results),
        "setting": {"name": setting.name, "what": setting.what, "net": words(setting.net)},
        "data": found.facts(),
        "runs": [results[key] for key in runs],
        "engine": engine.name,
        "versions": versions([engine.name]),
        "source": paper()["source"],
    }
    write_json(out / "table2.json", table)
    write(out / "table2.csv", _csv(table["table"]))
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
    """Refuse what `table2` would, before there is any data; ImageNet's weights are fetched.

    Raises:
        UserError: as `table2`'s, with all files of ImageNet's weights that a user must bring.
    """
    rows = rows or setting.rows
    _refuse(out, setting, rows, deepsentibank)
    nets = [build(net.name, **net.choices) for _, net in _nets(setting, rows)]
    wanted = [net for net in nets if _initial(weights, net.name) == (IMAGENET,)]
    (start or Start()).hold(wanted)


def _refuse(
    out: Path,
    setting: Setting,
    rows: tuple[str, ...],
    deepsentibank: DeepSentiBank | None,
) -> None:
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
            raise UserError(f"--deepsentibank: {path} is not there")


def _nets(
    setting: Setting, rows: tuple[str, ...]
) -> Iterator[tuple[tuple[str, str | None], Network]]:
    """What is trained for `rows`: (net, task or None), and the net without what data say of it.

    Raises:
        UserError: an option that a row's net does not take.
    """
    for net in rows:
        for task in _tasks(net) if net in ROWS else ():
            yield (net, task), Network(net, {"task": task, **setting.net})


def _refuse_another_table(out: Path, setting: Setting) -> None:
    """A rehearsal must not take the place of the table, nor the table that of a rehearsal."""
    before = read_json(out / "table2.json")
    name = before["setting"]["name"] if before else setting.name
    if name != setting.name:
        raise UserError(f"{out} holds the table of another setting ({name}): choose another --out")


def markdown(table: dict[str, Any]) -> str:
    """The table as the paper sets it: ours, the paper's figure in brackets, our 95% interval."""
    data = table["data"]
    classes = ", ".join(f"{n} {task}" for task, n in data["classes"].items())
    lines = [
        f"# Table 2 ({table['setting']['name']})",
        "",
        f"{table['setting']['what'][0].upper()}{table['setting']['what'][1:]}. In brackets: "
        "the paper's figures, for full-size nets on its own data; then our 95% interval over "
        "test images, and the difference to the paper.",
        "",
        f"{data['train']:,} training and {data['test']:,} test images; classes: {classes}.",
        "",
        "| Net | Task | Params (M) | Top-1 (%) | Interval | Diff. | Top-5 (%) | Interval | Diff. |",
        "|---|---|---:|---:|---|---:|---:|---|---:|",
    ]
    for row, net, params in _shown(table):
        cells = [net, paper()["tasks"][row["task"]], params]
        for metric in METRICS:
            cells += [_cell(row, metric), _interval(row, metric), _difference(row, metric)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def latex(table: dict[str, Any]) -> str:
    """The table for a paper (needs the package booktabs)."""
    lines = [
        f"% {table['setting']['name']}: {table['setting']['what']}; in brackets: the paper's",
        r"\begin{tabular}{llrrr}",
        r"\toprule",
        r" & Task & \#Params & Top-1 & Top-5 \\",
        r"\midrule",
    ]
    for row, net, params in _shown(table):
        task = paper()["tasks"][row["task"]]
        cells = [net, task, params, _cell(row, "top1"), _cell(row, "top5")]
        lines.append(" & ".join(cells).replace("–", "--") + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _shown(table: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str, str]]:
    """Each row with its net's name and parameters, where they are not those of the row above."""
    shown = None
    for row in table["table"]:
        net = "" if row["row"] == shown else row["row"]
        yield row, net, "" if net == "" and row["shared"] else _cell(row, "params")
        shown = row["row"]


def _rows(classes: dict[str, int], results: dict) -> list[dict[str, Any]]:
    """One record a net and task: ours and the paper's parameters, top-1 and top-5."""
    found = []
    for line in paper()["table2"]:
        chance = line["row"] == "Chance"
        for task in paper()["tasks"]:
            result = results.get((line["net"], task)) or results.get((line["net"], None))
            if (not chance and not result) or task not in line["top1"]:
                continue
            record: dict[str, Any] = {"row": line["row"], "task": task, "shared": False}
            if chance:
                record |= {"params": None, **_chance(classes[task])}
            else:
                params = result.get("params")
                record["params"] = None if params is None else params / 1e6
                record["shared"] = (line["net"], None) in results
                for m in METRICS:
                    record[m] = result["tasks"][task][m]["percent"]
                    record[f"{m}_low"], record[f"{m}_high"] = result["tasks"][task][m]["interval"]
            record["paper_params"] = line["params"].get(task, line["params"].get("all"))
            record |= {f"paper_{m}": line[m][task] for m in METRICS}
            record |= {f"{m}_difference": record[m] - record[f"paper_{m}"] for m in METRICS}
            found.append(record)
    return found


def _chance(classes: int) -> dict[str, float]:
    """The paper's chance in percent: five guesses with replacement for top-5."""
    return {"top1": 100 / classes, "top5": 100 * (1 - (1 - 1 / classes) ** 5)}


def _cell(row: dict[str, Any], name: str) -> str:
    ours, papers = row[name], row[f"paper_{name}"]
    return "–" if ours is None else f"{ours:.2f} ({papers:.2f})"


def _interval(row: dict[str, Any], metric: str) -> str:
    return (
        f"{row[f'{metric}_low']:.1f}–{row[f'{metric}_high']:.1f}" if f"{metric}_low" in row else ""
    )


def _difference(row: dict[str, Any], metric: str) -> str:
    return f"{row[f'{metric}_difference']:+.2f}"


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    columns = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, fieldnames=columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _initial(folder: Path | None, net: str) -> tuple[Path, ...]:
    """The net's initial weights in `folder`; none where no folder is given."""
    if folder is None:
        return ()
    if is_imagenet(folder):
        return (IMAGENET,)
    path = folder / f"{net}.caffemodel"
    if not path.exists():
        raise UserError(f"{path}: no initial weights of {net}; see `python -m netgen.weights`")
    return (path,)


def _tasks(net: str) -> list[str | None]:
    """The nets of a row: one a task, in the table's order, or one for all (None)."""
    return list(paper()["tasks"]) if CATALOG[net].single_task else [None]


def _commit() -> str | None:
    """The commit of this code; None outside of a repository, or where there is no git."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None


def versions(engines: Iterable[str]) -> dict[str, Any]:
    """The software and machine that made the table."""
    packages = ("numpy", "protobuf", "lmdb", "opencv-python-headless", "xresnet-caffe")
    return {
        **{name: _known(lambda name=name: ENGINES[name]().version()) for name in engines},
        **({"openblas": _known(realcaffe.kernels)} if "caffe" in engines else {}),
        "commit": _commit(),
        "python": platform.python_version(),
        **{package: _package(package) for package in packages},
        "platform": platform.platform(),
        "cores": cores.usable(),
    }


def _known(tell: Callable[[], str | None]) -> str | None:
    """What `tell` says; None where that engine is gone since it trained."""
    try:
        return tell()
    except UserError:
        return None


def _package(name: str) -> str | None:
    try:
        return version(name)
    except ImportError:  # PackageNotFoundError: run from a checkout, or another build of it
        return None
