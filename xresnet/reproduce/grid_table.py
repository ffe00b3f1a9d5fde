"""A grid's table: means and deviations over seeds, as JSON, Markdown and CSV."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from xresnet.basics.files import write, write_json
from xresnet.reproduce.accuracy import METRICS
from xresnet.reproduce.grid_file import Grid, Row
from xresnet.reproduce.run import Run
from xresnet.reproduce.tables import csv_text, markdown_table


def markdown(table: dict[str, Any]) -> str:
    """The table in Markdown: means, and standard deviations where there are several seeds."""
    tasks = list(dict.fromkeys(task for row in table["rows"] for task in row["tasks"]))
    heads = [f"{task} {metric}" for task in tasks for metric in METRICS]
    rows = []
    for row in table["rows"]:
        params = "–" if row["params"] is None else f"{row['params']:.2f}"
        spreads = [row["tasks"].get(task, {}).get(metric) for task in tasks for metric in METRICS]
        rows.append([row["name"], params, str(row["n"]), *map(_mean, spreads)])
    lines = [
        f"# {table['name']}",
        "",
        table["what"],
        "",
        f"{table['finished']} of {table['runs']} runs are finished. Per cent of the labelled test "
        "images; mean, and ± the standard deviation over seeds (n).",
        "",
        *markdown_table(["Net", "Params (M)", "n", *heads], "lrr" + "r" * len(heads), rows),
    ]
    return "\n".join(lines) + "\n"


def tabulated(
    plan: Grid, runs: list[tuple[Row, Run]], found: dict[int, dict[str, Any]], out: Path
) -> dict[str, Any]:
    """The content of grid.json: means and deviations by row, and the results `found` of `runs`."""
    rows, results = [], []
    names = [task.name for task in runs[0][1].training.data.tasks] if runs else []
    for row in plan.rows:
        mine = [
            {"row": row.name, "seed": run.training.solver["seed"], **_portable(found[i], out)}
            for i, (owner, run) in enumerate(runs)
            if owner is row and i in found
        ]
        results += mine
        tasks: dict[str, Any] = {}
        for task in names:
            for metric in METRICS:
                values = [
                    100 * r["outputs"][f"{metric}_{task}"]
                    for r in mine
                    if f"{metric}_{task}" in r["outputs"]
                ]
                if values:
                    tasks.setdefault(task, {})[metric] = _spread(values)
        rows.append(
            {
                "name": row.name,
                "n": len(mine),
                "params": mine[0]["params"] / 1e6 if mine else None,
                "tasks": tasks,
                "runs": [result["name"] for result in mine],
            }
        )
    return {
        "name": plan.name,
        "what": plan.what,
        "order": "a seed's own" if plan.shuffle else "the same for all seeds",
        "runs": len(runs),
        "finished": len(found),
        "arms": plan.arms,
        "primary": plan.primary,
        "exploratory": plan.exploratory,
        "rows": rows,
        "results": results,
    }


def _portable(result: dict[str, Any], out: Path) -> dict[str, Any]:
    """A result without this machine's folders: with its commands as typed in OUT."""
    here = f"{out.resolve()}/"
    commands = [command.replace(here, "") for command in result["commands"]]
    return {**result, "commands": commands}


def _spread(values: list[float]) -> dict[str, Any]:
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "sd": deviation, "values": values}


def write_table(table: dict[str, Any], out: Path) -> None:
    """Write grid.json, grid.md and grid.csv."""
    write_json(out / "grid.json", table)
    write(out / "grid.md", markdown(table))
    rows = [
        [row["name"], row["params"], task, metric, row["n"], spread["mean"], spread["sd"]]
        for row in table["rows"]
        for task, metrics in row["tasks"].items()
        for metric, spread in metrics.items()
    ]
    heads = ["net", "params", "task", "metric", "n", "mean", "sd"]
    write(out / "grid.csv", csv_text(heads, rows))


def _mean(spread: dict[str, Any] | None) -> str:
    if not spread:
        return "–"
    return f"{spread['mean']:.2f}" + (f" ± {spread['sd']:.2f}" if spread["sd"] is not None else "")
