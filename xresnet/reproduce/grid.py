"""Several nets, several seeds, one table: ablations, and studies.

Runs go seed by seed, so that each row has something early. Each has its own
folder; one that is done is taken as it is, and the table is written after each.
OUT/grid.json holds all results: with it alone, elsewhere, a grid goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from xresnet.basics.cli import UserError, near_miss
from xresnet.basics.files import read_json
from xresnet.reproduce.data import Data
from xresnet.reproduce.engine import CAFFE, Engine
from xresnet.reproduce.estimate import estimate, spoken
from xresnet.reproduce.grid_file import Grid, Row
from xresnet.reproduce.grid_table import tabulated, write_table
from xresnet.reproduce.run import Run, run_all


def grid(
    path: Path,
    data: Path,
    out: Path,
    engine: Engine = CAFFE,
    train: bool = True,
    jobs: int = 1,
    earlier: Sequence[Path] = (),
    only: Sequence[str] = (),
    seeds: Sequence[int] = (),
    say: Callable[[str], object] = print,
) -> dict[str, Any]:
    """Train what is missing, `jobs` runs at a time; returns what grid.json then holds.

    grid.md, grid.csv and grid.json are written after each run. Results in OUT/grid.json are
    taken as they are, and those in `earlier`, grid.jsons of other machines, whatever the
    engine and its version were. Without `train` only what is there already is tabulated.
    `only` names the rows that are trained now, if not all; `seeds` stand in for the file's.
    Of a run's snapshots the last is kept.

    Raises:
        UserError: the grid file, the data, or a Caffe that fails.
    """
    plan = Grid.read(path)
    if seeds:
        rows = tuple(replace(row, seeds=tuple(seeds)) for row in plan.rows)
        plan = replace(plan, rows=rows)
    names = [row.name for row in plan.rows]
    for name in only:
        if name not in names:
            raise UserError(f"{path}: no row {name!r}{near_miss(name, names)}")
    runs = plan.runs(Data.read(data), out, engine)
    elsewhere = _results(earlier)
    mine = {r["key"]: r for r in (read_json(out / "grid.json") or {}).get("results", ())}
    found: dict[int, dict[str, Any]] = {}
    for i, (_, run) in enumerate(runs):
        result = run.finished() or next(filter(run.is_mine, mine.values()), None)
        result = result or elsewhere.get(run.plan)
        if result:
            found[i] = result
    wanted = {i: run for i, (row, run) in enumerate(runs) if not only or row.name in only}
    missing = {i: run for i, run in wanted.items() if i not in found}

    def tabulate() -> dict[str, Any]:
        table = tabulated(plan, runs, found, out)
        write_table(table, out)
        return table

    if found:
        tabulate()
    if train and missing:
        left = _Left(plan, runs, missing, jobs)
        say(left.before(len(found)))

        def done(i: int, result: dict[str, Any]) -> None:
            found[i] = result
            tabulate()
            runs[i][1].trim()
            say(f"{runs[i][1].name}: {_summary(result)}; {left.after(i)}")

        run_all(missing, jobs, done)
    if not found:
        raise UserError(f"{out}: no run of {path} is finished yet")
    return tabulate()


class _Left:
    """How long the rest takes: from a few timed iterations, then from the runs themselves."""

    def __init__(
        self, plan: Grid, runs: list[tuple[Row, Run]], missing: dict[int, Run], jobs: int
    ) -> None:
        by_row: dict[str, float] = {}
        for i, run in missing.items():
            name = runs[i][0].name
            if name not in by_row:
                by_row[name] = estimate(run.training)
        self.seconds = {i: by_row[runs[i][0].name] for i in missing}
        self.jobs = min(jobs, len(missing))
        self.most = "" if plan.stages else "at most "
        self.begun = time.monotonic()
        self.done = 0.0

    def before(self, there: int) -> str:
        total = sum(self.seconds.values()) / self.jobs
        taken = f"{there} runs are there; " if there else ""
        return f"{taken}{len(self.seconds)} to train: {self.most}about {spoken(total)}"

    def after(self, i: int) -> str:
        self.done += self.seconds.pop(i)
        if not self.seconds:
            return "all are done"
        rate = (time.monotonic() - self.begun) / self.done
        left = spoken(rate * sum(self.seconds.values()))
        return f"{len(self.seconds)} runs left: {self.most}about {left}"


def _results(files: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """The results in some grid.jsons by their plan.

    Raises:
        UserError: one of them is not a grid.json.
    """
    found = {}
    for path in files:
        table = read_json(path)
        if not isinstance(table, dict) or "results" not in table:
            raise UserError(f"{path}: does not exist, or is not a grid.json")
        found.update({r["plan"]: r for r in table["results"] if "plan" in r})
    return found


def _summary(result: dict[str, Any]) -> str:
    tops = {k: v for k, v in result["outputs"].items() if k.startswith("top1")}
    return ", ".join(f"{k} {v:.2%}" for k, v in tops.items())
