"""The report: one self-contained page of all results and how they were made.

A section is a function here that gathers its values, and a template of its name in
templates/report/ that shows them.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from data_prep.classes import MISSING, VSO
from data_prep.folder import DataFolder
from data_prep.lists import read_list
from netgen.paper import paper
from xresnet.basics.cli import UserError
from xresnet.basics.files import sha256, write
from xresnet.reproduce import charts, curves, figures, pages, results
from xresnet.reproduce.accuracy import METRICS
from xresnet.reproduce.data import Data
from xresnet.reproduce.engine import CAFFE, ENGINES
from xresnet.reproduce.evaluation import Evaluation, compare
from xresnet.reproduce.folder import RunFolder
from xresnet.reproduce.kept import Kept, read_record
from xresnet.reproduce.pictures import task_title
from xresnet.reproduce.records import records
from xresnet.reproduce.snapshots import snapshots
from xresnet.reproduce.table2 import SMOKE
from xresnet.reproduce.versions import versions

EXAMPLES = 12  # images shown with what the net saw in them
EQUAL = 0.9  # the smallest class's share of the largest from which sizes need no picture
MANY = 12  # rows from which a table is folded; trainings, from twice as many


@dataclass(frozen=True)
class Section:
    """A part of the page: its heading, its template in templates/report/, and its values."""

    title: str
    template: str
    values: dict[str, Any] | None  # None: nothing to tell


@dataclass(frozen=True)
class Results:
    """The results in the folder of `table2`, `grid` or `train`."""

    out: Path
    table: dict[str, Any] | None
    grid: dict[str, Any] | None
    runs: list[Path]
    engines: list[str]
    evaluated: dict[Path, Evaluation]

    @classmethod
    def read(cls, out: Path) -> Results:
        """Read the results in `out`.

        Raises:
            UserError: there are none, or a file is damaged.
        """
        table = results.find(out / "table2.json", results.TABLE)
        shape = {**results.GRID, "results": [results.SHOWN]}
        grid = results.find(out / "grid.json", shape)
        alone = (out / "run.json").exists()
        if not table and not grid and not alone:
            raise UserError(
                f"{out}: neither table2.json nor grid.json; run `python -m xresnet table2` first"
            )
        runs = [out] if alone else [path.parent for path in sorted(out.glob("runs/*/run.json"))]
        engines = list(dict.fromkeys(name for run in runs for name in RunFolder(run).engines()))
        for name in engines:
            if name not in ENGINES:
                known = ", ".join(ENGINES)
                raise UserError(f"{out}: a run was trained by {name!r}; there are {known}")
        evaluated = {run: found[-1] for run in runs if (found := Evaluation.all(run))}
        return cls(out, table, grid, runs, engines, evaluated)

    @property
    def facts(self) -> dict[str, Any]:
        """Folder, counts and key of the data."""
        if self.runs:
            return read_record(self.runs[0])["data"]
        if self.table:
            return self.table["data"]
        raise UserError(f"{self.out}: no run there (runs/*/run.json), which its tables tell of")

    @property
    def star(self) -> Evaluation | None:
        """The evaluation whose examples are shown: of XS, else of several tasks, else any."""
        found = list(self.evaluated.values())
        best = [one for one in found if _net(one.run).startswith("xs_")]
        multi = [one for one in found if len(one.result()["tasks"]) > 1]
        return next(iter([*best, *multi, *found]), None)

    @property
    def alone(self) -> bool:
        """Whether it is a single run, without a table."""
        return not self.table and not self.grid


def report(out: Path, page: Path | None = None) -> Path:
    """Write the page about the results in `out`, the folder of `table2`, `grid` or `train`.

    Args:
        page: its file; OUT/report.html by default.

    Raises:
        UserError: there are no results, or a file is damaged.
    """
    found = Results.read(out)
    facts, star = found.facts, found.star
    sections = [
        Section("At a glance", "glance", _glance(found)),
        Section("Table 2", "table2", _table2(found.table) if found.table else None),
        Section(found.grid["name"] if found.grid else "", "grid", _grid(found.grid)),
        Section("Accuracy", "accuracy", _accuracy(found) if found.alone else None),
        Section("What the net sees", "examples", _examples(star) if star else None),
        Section("Training", "training", _training(found.runs)),
        Section("How sure the differences are", "comparisons", _comparisons(found)),
        Section("Where ANPs go wrong", "confusions", _confusions(star) if star else None),
        Section("Cross-residual weights (Figure 5)", "figure5", _figure5(found)),
        Section("Classes", "classes", _classes(star) if star else None),
        Section("Data", "data", _data(facts)),
        Section("How to make it again", "commands", _commands(found)),
    ]
    engines = found.engines or [CAFFE.name]
    text = pages.page(
        "report.html",
        name=found.runs[0].resolve().name if found.alone else None,
        what=_what(found),
        facts=facts,
        vso=list(facts["classes"]) == list(VSO),
        by=" and ".join(ENGINES[name].title for name in engines),
        sections=[section for section in sections if section.values is not None],
        source=paper()["source"],
        files=_files(found),
    )
    return write(page or out / "report.html", text)


# ---- sections -----------------------------------------------------------------


def _glance(found: Results) -> dict[str, Any] | None:
    """Top-1 of all nets, a chart per task; None without nets to compare."""
    panels: dict[str, list[charts.Dot]] = {}
    if found.table:
        for row in found.table["table"]:
            if "top1_low" in row:  # chance has none
                dot = charts.Dot(row["row"], row["top1"], (row["top1_low"], row["top1_high"]))
                panels.setdefault(row["task"], []).append(dot)
    elif found.grid:
        for row in found.grid["rows"]:
            for task, metrics in row["tasks"].items():
                seeds = tuple(metrics["top1"].get("values", ()))
                dot = charts.Dot(row["name"], metrics["top1"]["mean"], None, seeds)
                panels.setdefault(task, []).append(dot)
    panels = {task: dots for task, dots in panels.items() if len(dots) > 1}
    if not panels:
        return None
    drawn = {
        task: pages.chart(charts.dots(dots), f"Top-1 of {task_title(task)}")
        for task, dots in panels.items()
    }
    return {"charts": drawn, "seeds": not found.table}


def _table2(table: dict[str, Any]) -> dict[str, Any]:
    engine = ENGINES[table.get("engine", CAFFE.name)]
    rows, shown = [], None
    for row in table["table"]:
        first = row["row"] != shown
        shown = row["row"]
        rows.append({**row, "first": first, "counted": first or not row["shared"]})
    return {
        "rehearsal": table["setting"]["name"] == SMOKE.name,
        "images": table["data"]["test"],
        "command": f"{engine.typed[-1]} test",
        "scorer": engine.scorer,
        "rows": rows,
    }


def _grid(grid: dict[str, Any] | None) -> dict[str, Any] | None:
    if not grid:
        return None
    tasks = list(dict.fromkeys(task for row in grid["rows"] for task in row["tasks"]))
    return {"grid": grid, "tasks": tasks}


def _accuracy(found: Results) -> dict[str, Any]:
    """The accuracies of a single run."""
    run = found.runs[0]
    if run not in found.evaluated:
        return {"run": run, "one": None, "rows": []}
    one = found.evaluated[run]
    result = one.result()
    rows = [
        {
            "task": task,
            "classes": len(values["classes"]),
            "images": values.get("labelled", result["images"]),
            **{metric: values[metric] for metric in METRICS},
        }
        for task, values in result["tasks"].items()
    ]
    return {"run": run, "one": one, "rows": rows, "agrees": result["agrees"]}


def _comparisons(found: Results) -> dict[str, Any] | None:
    """McNemar's test of each multitask net against XS, on the same images."""
    evaluated = list(found.evaluated.values())
    reference = next((one for one in evaluated if _net(one.run).startswith("xs_")), None)
    if reference is None:
        return None
    rows = [
        {"name": one.run.name, "task": task, **values["top1"]}
        for one in evaluated
        if one != reference
        for task, values in compare(reference, one)["tasks"].items()
    ]
    return {"reference": reference, "rows": rows, "many": len(rows) > MANY} if rows else None


def _examples(star: Evaluation) -> dict[str, Any]:
    """Right and wrong test images, each evenly spread over the test set."""
    kept = Kept.read(star.run)
    try:
        root = kept.tested_on()
    except UserError as error:
        return {"missing": str(error)}
    names, found = kept.names, star.arrays()
    star.hold_images(root)
    tasks = [task for task in names.tasks if f"best_{task}" in found]
    main = "anp" if "anp" in tasks else tasks[0]
    groups = _spread(found[f"rank_{main}"], found[f"truth_{main}"] != MISSING)
    cards: dict[int, dict[str, Any]] = {}
    wanted = {i for group in groups.values() for i in group}
    for i, pixels in enumerate(records(root)):
        if i not in wanted:
            continue
        if pixels.dtype != np.uint8:
            return {"missing": f"{star.title} sees the maps of a cached trunk"}
        cards[i] = {
            "photo": pages.photo(pixels),
            "truth": _truth(found, names, main, i),
            "tasks": [_seen(found, names, task, i) for task in tasks],
        }
        if len(cards) == len(wanted):
            break
    return {
        "missing": None,
        "one": star,
        "main": main,
        "probabilities": f"prob_{main}" in found,
        "groups": {name: [cards[i] for i in group] for name, group in groups.items() if group},
    }


def _spread(ranks: np.ndarray, labelled: np.ndarray) -> dict[str, list[int]]:
    """Places of right and wrong images, half of `EXAMPLES` each if there are enough."""
    right, wrong = (np.flatnonzero(labelled & ((ranks <= 1) == hit)) for hit in (True, False))
    half = EXAMPLES // 2
    counts = {
        "right": min(len(right), max(half, EXAMPLES - len(wrong))),
        "wrong": min(len(wrong), max(half, EXAMPLES - len(right))),
    }
    return {
        name: group[np.linspace(0, len(group) - 1, counts[name]).astype(int)].tolist()
        for name, group in (("right", right), ("wrong", wrong))
    }


def _truth(found: dict[str, np.ndarray], names: Any, task: str, i: int) -> str:
    label = found[f"truth_{task}"][i]
    return "" if label == MISSING else names[task][label]


def _seen(found: dict[str, np.ndarray], names: Any, task: str, i: int) -> dict[str, Any]:
    """The net's best classes for an image, and the rank of the true one."""
    best, truth = found[f"best_{task}"][i], found[f"truth_{task}"][i]
    shares = found[f"prob_{task}"][i].tolist() if f"prob_{task}" in found else [None] * len(best)
    return {
        "task": task,
        "best": [
            {"name": names[task][label], "share": share, "true": label == truth}
            for label, share in zip(best, shares)
        ],
        "truth": _truth(found, names, task, i),
        "rank": int(found[f"rank_{task}"][i]),
    }


def _confusions(star: Evaluation) -> dict[str, Any] | None:
    confused = star.result().get("confusion")
    return {"one": star, **confused, "pairs": confused["pairs"][:12]} if confused else None


def _figure5(found: Results) -> dict[str, Any] | None:
    """Of the first XS that has a snapshot."""
    for run in found.runs:
        whole = {s.weights.stem: s for s in snapshots(run)} if _net(run).startswith("xs_") else {}
        if not whole:  # not trained far enough for a snapshot
            continue
        last = max(whole.values())
        # That of which the page tells errors, as long as it is there.
        one = found.evaluated.get(run)
        weights = (whole.get(one.snapshot, last) if one else last).weights
        moved = {}
        if len(whole) > 1:
            moved = figures.figure5_change_panels(
                [(s.iteration, s.weights) for s in whole.values()]
            )
        return {
            "run": run,
            "weights": weights,
            "near": figures.NEAR,
            "pairs": [{"name": n, **look} for n, look in figures.pairs(weights).items()],
            "panels": _charts(figures.figure5_panels(weights), "Cross-residual weights of"),
            "moved": _charts(moved, "How the mean weights moved in"),
            "statistics": figures.cross_statistics(weights),
        }
    return None


def _training(runs: list[Path]) -> dict[str, Any] | None:
    """Each run's curves; all losses on one scale."""
    histories = {run: RunFolder(run).history() for run in runs}
    histories = {run: history for run, history in histories.items() if history.steps}
    if not histories:
        return None
    tasks, top = curves.loss_tasks(histories.values()), curves.shared_top(histories.values())
    cards = []
    for run, history in histories.items():
        taken, epoch = RunFolder(run).decisions(), read_record(run)["epoch"]
        drawn = curves.small_curves(history, taken, epoch, tasks, top)
        chart = pages.chart(drawn, f"Curves of {run.name}")
        cards.append({"name": run.resolve().name, "chart": chart, "decisions": taken})
    dashed = any(map(curves.has_test_losses, histories.values()))
    return {"cards": cards, "shown": 2 * MANY, "legend": pages.legend(tasks), "dashed": dashed}


def _classes(star: Evaluation) -> dict[str, Any]:
    tasks = {
        task: sorted(values["classes"], key=lambda c: -c.get("top1", -1))
        for task, values in star.result()["tasks"].items()
    }
    return {"one": star, "tasks": tasks}


def _data(facts: dict[str, Any]) -> dict[str, Any]:
    folder = DataFolder(facts["folder"])
    told: dict[str, Any] = {
        "facts": facts,
        "other": None,
        "sizes": None,
        "steps": [],
        "manifest": None,
    }
    try:
        data = Data.read(folder.root)
    except UserError:  # the folder has gone since
        return told
    if data.key != facts["key"]:
        return {**told, "other": folder.root}
    counts = Counter(
        e.label for p in ("train", "test") for e in read_list(folder.list(p), data.names)
    ).values()
    manifest, chart = folder.read_manifest(), None
    what = "adjective-noun pairs" if data.names.by_anp else "combinations of labels"
    if min(counts) < EQUAL * max(counts):
        chart = pages.chart(charts.sizes(list(counts), f"{what}, by size"), "Images of each")
    return {
        **told,
        "sizes": {
            "what": what,
            "count": len(counts),
            "low": min(counts),
            "high": max(counts),
            "chart": chart,
        },
        "steps": manifest.get("filter", {}).get("steps", []),
        "manifest": json.dumps(manifest, indent=2, ensure_ascii=False),
    }


def _commands(found: Results) -> dict[str, Any]:
    made = [
        *(found.table["runs"] if found.table else []),
        *(found.grid["results"] if found.grid else []),
    ]
    return {
        "results": [_made(found.runs[0])] if found.alone else made,
        "records": {run.resolve().name: read_record(run) for run in found.runs},
        "versions": found.table["versions"] if found.table else versions(found.engines),
    }


def _made(run: Path) -> dict[str, Any]:
    """A run's commands, from its logs, and the hashes of its files."""
    trained, tested = (
        re.findall(r" reproduce\.py:1\] (.+)", log.read_text("utf-8", errors="replace"))
        if log.is_file()
        else []
        for log in (run / "train.log", run / "test.log")
    )
    commands = [*trained, *tested[-1:]]  # earlier tests were of other weights
    last = snapshots(run)[-1:]
    files = [run / "net.prototxt", run / "deploy.prototxt", *sorted(run.glob("solver_*.prototxt"))]
    files += [snapshot.weights for snapshot in last]
    return {
        "name": run.resolve().name,
        "iterations": last[0].iteration if last else 0,
        "commands": commands,
        "sha256": {path.name: sha256(path) for path in files if path.is_file()},
    }


# ---- the page -------------------------------------------------------------------


def _what(found: Results) -> str:
    if found.table:
        return found.table["setting"]["what"]
    if found.grid:
        return found.grid["what"]
    return f"one training: {' '.join(read_record(found.runs[0])['net'])}"


def _files(found: Results) -> list[str]:
    """The files with the page's numbers, for programs."""
    names = ["table2.json", "table2.csv", "grid.json", "grid.csv", "result.json", "decisions.jsonl"]
    there = [name for name in names if (found.out / name).is_file()]
    for one in found.evaluated.values():
        there.append(str(one.path.relative_to(found.out)))
    return there if len(there) <= MANY else [*there[:MANY], "…"]


def _charts(panels: dict[str, Figure], label: str) -> list[Any]:
    return [pages.chart(figure, f"{label} {name}") for name, figure in panels.items()]


def _net(run: Path) -> str:
    return next(iter(read_record(run)["net"]), "")
