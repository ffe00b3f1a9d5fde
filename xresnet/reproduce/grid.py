"""A grid of nets and seeds in one table: ablations and studies.

Runs are trained seed by seed, so that each row has a result early. Each has its own
folder; a finished one is kept as it is, and the table is written after each run.
OUT/grid.json has all results: with this file alone, a grid continues elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from xresnet.basics.cli import UserError, check_known, shortened
from xresnet.reproduce.data import Data
from xresnet.reproduce.engine import CAFFE, Engine
from xresnet.reproduce.estimate import estimate, spoken
from xresnet.reproduce.grid_file import Grid, Row
from xresnet.reproduce.grid_table import tabulated, write_table
from xresnet.reproduce.results import read_grid
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
    """Train the missing runs of a grid; writes grid.json, .md and .csv after each.

    Finished runs are kept: those in OUT/runs and OUT/grid.json, if they are of the same engine
    and version. Of a run's snapshots the last is kept.

    Args:
        train: if false, tabulate the finished runs only.
        jobs: how many runs train at a time.
        earlier: grid.jsons of other machines, whose results are taken whatever their engine.
        only: the names of the rows to train; all by default.
        seeds: in place of the grid file's.

    Returns:
        The content of grid.json.

    Raises:
        UserError: a mistake in the grid file, unfit data, or Caffe fails.
    """
    if path.resolve() == (out / "grid.json").resolve():
        raise UserError(f"{path}: its results take that name: rename it, or choose another --out")
    plan = Grid.read(path)
    if seeds:
        rows = tuple(replace(row, seeds=tuple(seeds)) for row in plan.rows)
        plan = replace(plan, rows=rows)
    names = [row.name for row in plan.rows]
    for name in only:
        check_known(name, names, f"{path}: no row")
    runs = plan.runs(Data.read(data), out, engine)
    found = _found(runs, out, earlier)
    wanted = {i: run for i, (row, run) in enumerate(runs) if not only or row.name in only}
    missing = {i: run for i, run in wanted.items() if i not in found}

    def tabulate() -> dict[str, Any]:
        for i, (_, run) in enumerate(runs):  # another grid may train here, too
            if i not in found and (result := run.finished()):
                found[i] = result
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
        others = len(list(out.glob("runs/*/result.json")))
        hint = f"; {others} other results are there: of another --engine, --seeds or --data?"
        raise UserError(
            f"{out}: no run of {path} by {engine.title} is finished yet{hint if others else ''}"
        )
    return tabulate()


class _Left:
    """The time that is left: by a few timed iterations, then by the runs themselves."""

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


def _found(
    runs: list[tuple[Row, Run]], out: Path, earlier: Sequence[Path]
) -> dict[int, dict[str, Any]]:
    """The results that are there: in the runs' folders, in OUT/grid.json, and in `earlier`.

    Raises:
        UserError: one of them is not a grid.json; or results would be lost, as OUT/grid.json is
            written anew, and it alone has results that are none of these runs'.
    """
    before = read_grid(out / "grid.json")["results"] if (out / "grid.json").exists() else []
    mine = {result.get("key"): result for result in before}
    elsewhere = {
        result["plan"]: result
        for path in earlier
        for result in read_grid(path)["results"]
        if "plan" in result
    }
    found = {}
    for i, (_, run) in enumerate(runs):
        result = run.finished() or mine.get(run.key) or elsewhere.get(run.plan)
        if result:
            found[i] = result
    plans = {run.plan for i, (_, run) in enumerate(runs) if i in found}
    lost = [
        result
        for result in before
        if result.get("plan") not in plans
        and not (out / "runs" / result["name"] / "result.json").exists()
    ]
    if lost:
        names = shortened([result["name"] for result in lost])
        raise UserError(
            f"{out}/grid.json alone has {len(lost)} results ({names}) of another engine, version, "
            "data folder or grid file, which would be overwritten: take those of this grid file "
            f"with --resume-from {out}/grid.json, or choose another --out"
        )
    return found


def _summary(result: dict[str, Any]) -> str:
    tops = {k: v for k, v in result["outputs"].items() if k.startswith("top1")}
    return ", ".join(f"{k} {v:.2%}" for k, v in tops.items())
