"""Several nets, several seeds, one table: the ablations that the paper invites.

A grid file is JSON:

    {"name": "...", "what": "...",
     "net": ["--width", "8", ...],         netgen's arguments, of all rows
     "plateau": {"lr": 0.02, ...},         reproduce.plateau.Plateau's fields
     "solver": ["--seed", ...],            netgen's solver arguments, of all rows (optional)
     "rows": [{"name": "XS", "net": ["xs_resnet50"], "seeds": [1, 2, 3]}, ...]}

Runs go seed by seed, so that each row has something early. Each has its own
folder; one that is done is taken as it is, and the table is written after each.
"""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from basics.cli import UserError, near_miss
from basics.files import read_text, write, write_json
from data_prep.classes import TASKS
from reproduce.data import Data
from reproduce.engine import CAFFE, Engine
from reproduce.plateau import Plateau
from reproduce.run import Run
from reproduce.training import Training, refuse_ours

METRICS = ("top1", "top5")


@dataclass(frozen=True)
class Row:
    """A net by its netgen arguments, trained once a seed."""

    name: str
    net: tuple[str, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Grid:
    """What a grid file says."""

    name: str
    what: str
    net: tuple[str, ...]
    plateau: Plateau
    solver: tuple[str, ...]
    rows: tuple[Row, ...]

    @classmethod
    def read(cls, path: Path) -> Grid:
        """Read a grid file.

        Raises:
            UserError: no such file, or what is wrong in it.
        """
        try:
            values = json.loads(read_text(path))
        except json.JSONDecodeError as error:
            raise UserError(f"{path}:{error.lineno}: not JSON ({error.msg})") from error
        known = {f.name for f in fields(cls)}
        _hold(path, values, known, {"name", "rows"})
        rules = {f.name for f in fields(Plateau)}
        _hold(f"{path}, plateau", values.get("plateau", {}), rules, set())
        refuse_ours(values.get("net", ()), f"{path}, net: ")
        rows = []
        for row in values["rows"]:
            where = f"{path}, row {len(rows) + 1}"
            _hold(where, row, {"name", "net", "seeds"}, {"name", "net"})
            refuse_ours(row["net"], f"{where}: ")
            rows.append(Row(row["name"], tuple(row["net"]), tuple(row.get("seeds", (1,)))))
        names = [row.name for row in rows]
        if len(set(names)) != len(names):
            raise UserError(f"{path}: two rows have the same name")
        return cls(
            values["name"],
            values.get("what", ""),
            tuple(values.get("net", ())),
            Plateau(**values.get("plateau", {})),
            tuple(values.get("solver", ())),
            tuple(rows),
        )

    def runs(self, data: Data, out: Path, engine: Engine = CAFFE) -> list[tuple[Row, Run]]:
        """All runs, seed by seed."""
        most = max(len(row.seeds) for row in self.rows)
        return [
            (row, Run(self._training(row, row.seeds[i], data, out, engine)))
            for i in range(most)
            for row in self.rows
            if i < len(row.seeds)
        ]

    def _training(self, row: Row, seed: int, data: Data, out: Path, engine: Engine) -> Training:
        name = f"{row.name}-{seed}".replace(" ", "_").replace("/", "_")
        return Training(
            name=name,
            argv=[*row.net, *self.net],
            data=data,
            folder=out / "runs" / name,
            schedule=self.plateau,
            solver=[*self.solver, "--seed", str(seed)],
            engine=engine,
        )


def grid(
    path: Path,
    data: Path,
    out: Path,
    engine: Engine = CAFFE,
    train: bool = True,
    say: Callable[[str], object] = print,
) -> dict[str, Any]:
    """Train what is missing, and write grid.md, grid.csv and grid.json; returns the last.

    Without `train` only what is there already is tabulated.

    Raises:
        UserError: the grid file, the data, or a Caffe that fails.
    """
    plan = Grid.read(path)
    runs = plan.runs(Data.read(data), out, engine)
    done: dict[str, list[dict[str, Any]]] = {row.name: [] for row in plan.rows}
    table: dict[str, Any] = {}
    for row, run in runs:
        result = run.result() if train else run.finished()
        if result:
            done[row.name].append(result)
            table = _table(plan, done, len(runs))
            _write(table, out)
            if train:
                say(f"{run.name}: {_summary(result)}")
    if not table:
        raise UserError(f"{out}: no run of {path} is finished yet")
    return table


def markdown(table: dict[str, Any]) -> str:
    """The table; each figure a mean, and the seeds' standard deviation where there are several."""
    tasks = list(dict.fromkeys(task for row in table["rows"] for task in row["tasks"]))
    heads = [f"{task} {metric}" for task in tasks for metric in METRICS]
    lines = [
        f"# {table['name']}",
        "",
        table["what"],
        "",
        f"{table['finished']} of {table['runs']} runs are finished. Per cent of all test images; "
        "mean, and ± the standard deviation over seeds (n).",
        "",
        "| Net | Params (M) | n | " + " | ".join(heads) + " |",
        "|---|---:|---:|" + "---:|" * len(heads),
    ]
    for row in table["rows"]:
        cells = [row["name"], _params(row), str(row["n"])]
        for task in tasks:
            for metric in METRICS:
                cells.append(_mean(row["tasks"].get(task, {}).get(metric)))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _table(plan: Grid, done: dict[str, list[dict[str, Any]]], runs: int) -> dict[str, Any]:
    rows = []
    for row in plan.rows:
        results = done[row.name]
        tasks: dict[str, Any] = {}
        for task in TASKS:
            for metric in METRICS:
                values = [
                    100 * r["outputs"][f"{metric}_{task}"]
                    for r in results
                    if f"{metric}_{task}" in r["outputs"]
                ]
                if values:
                    tasks.setdefault(task, {})[metric] = _spread(values)
        params = results[0]["params"] / 1e6 if results else None
        names = [r["name"] for r in results]
        rows.append(
            {"name": row.name, "n": len(results), "params": params, "tasks": tasks, "runs": names}
        )
    finished = sum(map(len, done.values()))
    return {
        "name": plan.name,
        "what": plan.what,
        "runs": runs,
        "finished": finished,
        "rows": rows,
        "results": [result for results in done.values() for result in results],
    }


def _spread(values: list[float]) -> dict[str, Any]:
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "sd": deviation, "values": values}


def _write(table: dict[str, Any], out: Path) -> None:
    write_json(out / "grid.json", table)
    write(out / "grid.md", markdown(table))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["net", "params", "task", "metric", "n", "mean", "sd"])
    for row in table["rows"]:
        for task, metrics in row["tasks"].items():
            for metric, s in metrics.items():
                cells = [row["name"], row["params"], task, metric, row["n"], s["mean"], s["sd"]]
                writer.writerow(cells)
    write(out / "grid.csv", text.getvalue())


def _summary(result: dict[str, Any]) -> str:
    tops = {k: v for k, v in result["outputs"].items() if k.startswith("top1")}
    return ", ".join(f"{k} {v:.2%}" for k, v in tops.items())


def _params(row: dict[str, Any]) -> str:
    return "–" if row["params"] is None else f"{row['params']:.2f}"


def _mean(spread: dict[str, Any] | None) -> str:
    if not spread:
        return "–"
    return f"{spread['mean']:.2f}" + (f" ± {spread['sd']:.2f}" if spread["sd"] is not None else "")


def _hold(where: object, values: Any, known: set[str], needed: set[str]) -> None:
    if not isinstance(values, dict):
        raise UserError(f"{where}: expected an object in braces")
    for name in values:
        if name not in known:
            raise UserError(f"{where}: unknown {name!r}{near_miss(name, known)}")
    for name in sorted(needed - values.keys()):
        raise UserError(f"{where}: {name!r} is missing")
