"""Table 2: each net trained and tested, beside the paper's figures."""

from __future__ import annotations

import csv
import io
import os
import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import realcaffe
from basics.cli import UserError, near_miss
from basics.files import write, write_json
from data_prep.classes import TASKS
from netgen.catalog import CATALOG
from netgen.paper import paper
from reproduce.data import Data
from reproduce.plateau import Stage, Stages
from reproduce.run import Run, run_all
from reproduce.training import Training

ROWS = ("resnet50", "x0_resnet50", "xi_resnet50", "xs_resnet50")
METRICS = ("top1", "top5")


@dataclass(frozen=True)
class Setting:
    """The size of the nets and how they are trained; one for all rows.

    `net` are netgen's arguments for the net, `solver` those for its solver.
    """

    name: str
    what: str
    net: tuple[str, ...]
    solver: tuple[str, ...]
    stages: tuple[Stage, ...]


# A quarter of the paper's width and half its depth, from scratch. BatchNorm's running statistics
# must forget the untrained net within a few hundred iterations; classifiers
# learn no faster than the rest, for nothing is pretrained.
SMOKE = Setting(
    name="smoke",
    what="nets of 26 layers and a quarter of the width, from scratch: a rehearsal, no reproduction",
    net=(
        *("--width", "16", "--blocks", "1,2,2,3", "--batch", "32"),
        *("--bn-fraction", "0.95", "--head-lr", "1"),
    ),
    solver=(
        *("--cpu", "--seed", "1", "--test-interval", "0"),
        *("--display", "10", "--snapshot", "100"),
    ),
    stages=(Stage(0.02, 280), Stage(0.002, 350)),
)


def table2(
    data: Path,
    out: Path,
    setting: Setting,
    rows: tuple[str, ...] = ROWS,
    jobs: int | None = None,
) -> dict[str, Any]:
    """Train, test and tabulate `rows`; writes table2.md, .csv and .json into `out`.

    `jobs` nets train at a time and share the cores; as many as there are cores
    unless said otherwise, for small nets use one core better than one net uses many.

    Raises:
        UserError: unknown rows, no LMDBs in `data`, or a Caffe that fails.
    """
    for row in rows:
        if row not in ROWS:
            raise UserError(
                f"unknown row {row!r}{near_miss(row, ROWS)}; there are {', '.join(ROWS)}"
            )
    found = Data.read(data)
    jobs = jobs or os.cpu_count() or 1
    runs = {}
    for net, task in ((row, task) for row in rows for task in _tasks(row)):
        name = f"{net}_{task}" if task else net
        choice = ["--task", task] if task else []
        training = Training(
            name=name,
            argv=[net, *choice, *setting.net],
            data=found,
            folder=out / "runs" / name,
            schedule=Stages(setting.stages),
            solver=list(setting.solver),
            threads=max(1, (os.cpu_count() or 1) // jobs),
            fresh=True,
        )
        runs[net, task] = Run(training)
    results = run_all(runs, jobs)
    table = {
        "table": _rows(rows, found.classes, results),
        "setting": {"name": setting.name, "what": setting.what},
        "data": found.facts(),
        "runs": list(results.values()),
        "versions": _versions(),
        "source": paper()["source"],
    }
    write_json(out / "table2.json", table)
    write(out / "table2.csv", _csv(table["table"]))
    write(out / "table2.md", markdown(table))
    return table


def markdown(table: dict[str, Any]) -> str:
    """The table as the paper sets it, its figures in brackets behind ours."""
    data = table["data"]
    classes = ", ".join(f"{data['classes'][task]} {task}" for task in TASKS)
    lines = [
        f"# Table 2 ({table['setting']['name']})",
        "",
        f"{table['setting']['what'][0].upper()}{table['setting']['what'][1:]}. In brackets: "
        "the paper's figures, for full-size nets on its own data.",
        "",
        f"{data['train']:,} training and {data['test']:,} test images; classes: {classes}.",
        "",
        "| Net | Task | Params (M) | Top-1 (%) | Top-5 (%) |",
        "|---|---|---:|---:|---:|",
    ]
    shown = None
    for row in table["table"]:
        net = "" if row["row"] == shown else row["row"]
        params = "" if net == "" and row["shared"] else _cell(row, "params")
        cells = [net, paper()["tasks"][row["task"]], params, *(_cell(row, m) for m in METRICS)]
        lines.append("| " + " | ".join(cells) + " |")
        shown = row["row"]
    return "\n".join(lines) + "\n"


def _rows(rows: tuple[str, ...], classes: dict[str, int], results: dict) -> list[dict[str, Any]]:
    """One record a net and task: ours and the paper's parameters, top-1 and top-5."""
    found = []
    for line in paper()["table2"]:
        chance = line["row"] == "Chance"
        if not chance and line["net"] not in rows:
            continue
        for task in paper()["tasks"]:
            record = {"row": line["row"], "task": task, "shared": False}
            if chance:
                record |= {"params": None, **_chance(classes[task])}
            else:
                single = CATALOG[line["net"]].single_task
                result = results[line["net"], task if single else None]
                record |= {"params": result["params"] / 1e6, "shared": not single}
                record |= {m: 100 * result["outputs"][f"{m}_{task}"] for m in METRICS}
            record["paper_params"] = line["params"].get(task, line["params"].get("all"))
            record |= {f"paper_{m}": line[m][task] for m in METRICS}
            found.append(record)
    return found


def _chance(classes: int) -> dict[str, float]:
    """The paper's chance in percent: five guesses with replacement for top-5."""
    return {"top1": 100 / classes, "top5": 100 * (1 - (1 - 1 / classes) ** 5)}


def _cell(row: dict[str, Any], name: str) -> str:
    ours, papers = row[name], row[f"paper_{name}"]
    return "–" if ours is None else f"{ours:.2f} ({papers:.2f})"


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _tasks(net: str) -> list[str | None]:
    """The nets of a row: one a task, in the table's order, or one for all (None)."""
    return list(paper()["tasks"]) if CATALOG[net].single_task else [None]


def _versions() -> dict[str, Any]:
    """The software and machine that made the table."""
    packages = ("numpy", "protobuf", "lmdb", "opencv-python-headless", "xresnet-caffe")
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
    )
    return {
        "caffe": realcaffe.version(),
        "commit": commit.stdout.strip() or None,
        "python": platform.python_version(),
        **{package: _package(package) for package in packages},
        "platform": platform.platform(),
        "cores": os.cpu_count(),
    }


def _package(name: str) -> str | None:
    try:
        return version(name)
    except ImportError:  # PackageNotFoundError: run from a checkout, or another build of it
        return None
