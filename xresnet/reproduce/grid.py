"""Several nets, several seeds, one table: ablations, and studies.

A grid file is JSON:

    {"name": "...", "what": "...",
     "net": ["--width", "8", ...],         netgen's arguments, of all rows
     "solver": ["--display", ...],         netgen's solver arguments, of all rows (optional)
     "plateau": {"lr": 0.02, ...},         reproduce.plateau.Plateau's fields; or
     "stages": [{"lr": 0.02, "epochs": 7}, {"lr": 0.002, "epochs": 3}],     the same for all
     "shuffle": true,                      a seed is an order of the training images, too
     "seeds": [1, 2, 3],                   of rows that name none (default: 1)
     "weights": ["FILE", ...],             initial .caffemodels, of all rows; or ["imagenet"]:
     "branch_init": "fold", "bn_epsilon": 1e-5,     how those are made (all optional)
     "rows": [{"name": "XS", "net": ["xs_resnet50"]}, ...],
     "arms", "primary", "exploratory": what reproduce.compare compares (optional)}

A row may have `seeds`, `solver`, `weights`, `branch_init` and `data` (a folder beside that of
--data) of its own; what it says of net and solver outweighs what the grid says. Caffe reads a
database in its order, so `shuffle` makes a data folder a seed, OUT/data/order-SEED
(data_prep.reorder), and either engine trains on it.

Runs go seed by seed, so that each row has something early. Each has its own
folder; one that is done is taken as it is, and the table is written after each.
OUT/grid.json holds all results: with it alone, elsewhere, a grid goes on.
"""

from __future__ import annotations

import csv
import io
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from netgen import Network
from netgen.weights.plan import BRANCH_INITS
from xresnet.basics import shapes
from xresnet.basics.cli import UserError, near_miss
from xresnet.basics.files import read_json, write, write_json
from xresnet.basics.numbers import COUNT, POSITIVE, RATE, SEED
from xresnet.reproduce import choices
from xresnet.reproduce.data import Data
from xresnet.reproduce.engine import CAFFE, Engine
from xresnet.reproduce.estimate import estimate, spoken
from xresnet.reproduce.plateau import Plateau, Schedule, Stages
from xresnet.reproduce.run import Run, run_all
from xresnet.reproduce.start import Start, is_imagenet
from xresnet.reproduce.training import Training

METRICS = ("top1", "top5")
# What a grid file holds; the ranges of its numbers are held where they are used.
ROW = {
    **{"name": str, "net": [str], "seeds?": [int]},
    **{"solver?": [str], "weights?": [str], "branch_init?": str, "data?": str},
}
FILE = {
    **{"name": str, "what?": str, "net?": [str], "solver?": [str], "weights?": [str]},
    **{"branch_init?": str, "bn_epsilon?": float},
    **{"plateau?": {str: (float, str)}, "stages?": [{"lr": float, "epochs": int}]},
    **{"shuffle?": bool, "seeds?": [int], "rows": [ROW]},
    **{"arms?": {str: [str]}, "primary?": [[str]], "exploratory?": [[str]]},
}


@dataclass(frozen=True)
class Row:
    """A net, trained once a seed by a solver of these options."""

    name: str
    net: Network
    seeds: tuple[int, ...] = (1,)
    solver: dict[str, Any] = field(default_factory=dict)
    weights: tuple[Path, ...] | None = None  # None: the grid's
    data: Path | None = None  # None: the grid's
    branch_init: str | None = None  # None: the grid's


@dataclass(frozen=True)
class Grid:
    """What a grid file says."""

    name: str
    rows: tuple[Row, ...]
    what: str = ""
    plateau: Plateau = field(default_factory=Plateau)
    stages: tuple[tuple[float, int], ...] = ()  # (rate, epochs); none: the plateau rule
    shuffle: bool = False
    weights: tuple[Path, ...] = ()
    branch_init: str | None = None
    bn_epsilon: float | None = None
    arms: dict[str, list[str]] = field(default_factory=dict)
    primary: tuple[list[str], ...] = ()
    exploratory: tuple[list[str], ...] = ()

    @classmethod
    def read(cls, path: Path) -> Grid:
        """Read a grid file.

        Raises:
            UserError: no such file, or what is wrong in it.
        """
        values = shapes.read(path, FILE)
        _know(path, values, _keys(FILE))
        if "plateau" in values and "stages" in values:
            raise UserError(f"{path}: `plateau` or `stages`, not both")
        rules = {f.name for f in fields(Plateau)}
        _know(f"{path}, plateau", values.get("plateau", {}), rules)
        shared, solver = _shared(values, path)
        seeds = _seeds(values.get("seeds", [1]), str(path))
        rows = []
        for row in values["rows"]:
            where = f"{path}, row {len(rows) + 1}"
            _know(where, row, _keys(ROW))
            if not row["net"] or not row["name"] or not row["name"].isprintable():
                raise UserError(f"{where}: a row has a name that can be printed, and a net")
            own = choices.of_solver(row.get("solver", ()), f"{where}, solver")
            rows.append(
                Row(
                    row["name"],
                    _network(row["net"], shared, where),
                    _seeds(row["seeds"], where) if "seeds" in row else seeds,
                    {**solver, **own},
                    _paths(row["weights"]) if "weights" in row else None,
                    Path(row["data"]) if "data" in row else None,
                    branch_init=_branch_init(row, where),
                )
            )
        if not rows:
            raise UserError(f"{path}: no row, nothing to train")
        names = [row.name for row in rows]
        if len(set(map(_folder, names))) != len(names):
            raise UserError(f"{path}: two rows have the same name")
        return cls(
            name=values["name"],
            rows=tuple(rows),
            what=values.get("what", ""),
            plateau=Plateau(**values.get("plateau", {})),
            stages=tuple(_stage(v, f"{path}, stages") for v in values.get("stages", ())),
            shuffle=bool(values.get("shuffle", False)),
            weights=_paths(values.get("weights", ())),
            branch_init=_branch_init(values, str(path)),
            bn_epsilon=_bn_epsilon(values, str(path)),
            **_comparisons(values, names, path),
        )

    def runs(self, data: Data, out: Path, engine: Engine = CAFFE) -> list[tuple[Row, Run]]:
        """All runs, seed by seed.

        Raises:
            UserError: a row's own data folder has no databases, or its net cannot be; nothing
                is made by then.
        """
        beside = data.folder.root.parent
        folders = {row.data: Data.read(beside / row.data) for row in self.rows if row.data}
        for row in self.rows:
            try:
                folders.get(row.data, data).network(row.net).net()
            except UserError as error:
                raise UserError(f"row {row.name!r}: {error}") from error
        most = max(len(row.seeds) for row in self.rows)
        weights = {
            row.name: self._weights(row, folders.get(row.data, data), out) for row in self.rows
        }
        return [
            (row, self._run(row, i, folders.get(row.data, data), weights[row.name], out, engine))
            for i in range(most)
            for row in self.rows
            if i < len(row.seeds)
        ]

    def _weights(self, row: Row, data: Data, out: Path) -> tuple[Path, ...]:
        """What all seeds of a row start from."""
        weights = self.weights if row.weights is None else row.weights
        start = Start(row.branch_init or self.branch_init, self.bn_epsilon)
        start = start if any(map(is_imagenet, weights)) else Start()  # another row's business
        return start.weights(weights, data.network(row.net, "DATA"), out / "weights")

    def _run(
        self, row: Row, i: int, data: Data, weights: tuple[Path, ...], out: Path, engine: Engine
    ) -> Run:
        """A row's run of its seed number `i`."""
        seed = row.seeds[i]
        name = f"{_folder(row.name)}-{seed}"
        if self.shuffle:
            folder = f"{row.data.name}-order-{seed}" if row.data else f"order-{seed}"
            data = data.reordered(seed, out / "data" / folder)
        training = Training(
            name=name,
            net=row.net,
            data=data,
            folder=out / "runs" / name,
            schedule=self._schedule(row, data),
            solver={**row.solver, "seed": seed},
            weights=weights,
            engine=engine,
        )
        return Run(training, both=True)

    def _schedule(self, row: Row, data: Data) -> Schedule:
        if not self.stages:
            return self.plateau
        options = data.network(row.net).options
        return Stages.of_epochs(self.stages, -(-options.train_images // options.batch))


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
        table = _table(plan, runs, found, out)
        _write(table, out)
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
        UserError: one is no grid.json.
    """
    found = {}
    for path in files:
        table = read_json(path)
        if not isinstance(table, dict) or "results" not in table:
            raise UserError(f"{path}: not there, or no grid.json")
        found.update({r["plan"]: r for r in table["results"] if "plan" in r})
    return found


def markdown(table: dict[str, Any]) -> str:
    """The table; each figure a mean, and the seeds' standard deviation where there are several."""
    tasks = list(dict.fromkeys(task for row in table["rows"] for task in row["tasks"]))
    heads = [f"{task} {metric}" for task in tasks for metric in METRICS]
    lines = [
        f"# {table['name']}",
        "",
        table["what"],
        "",
        f"{table['finished']} of {table['runs']} runs are finished. Per cent of the labelled test "
        "images; mean, and ± the standard deviation over seeds (n).",
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


def _table(
    plan: Grid, runs: list[tuple[Row, Run]], found: dict[int, dict[str, Any]], out: Path
) -> dict[str, Any]:
    rows, results = [], []
    classes = runs[0][1].training.data.classes if runs else {}
    for row in plan.rows:
        mine = [
            {"row": row.name, "seed": run.training.solver["seed"], **_portable(found[i], out)}
            for i, (owner, run) in enumerate(runs)
            if owner is row and i in found
        ]
        results += mine
        tasks: dict[str, Any] = {}
        for task in classes:
            for metric in METRICS:
                values = [
                    100 * r["outputs"][f"{metric}_{task}"]
                    for r in mine
                    if f"{metric}_{task}" in r["outputs"]
                ]
                if values:
                    tasks.setdefault(task, {})[metric] = _spread(values)
        params = mine[0]["params"] / 1e6 if mine else None
        names = [r["name"] for r in mine]
        rows.append(
            {"name": row.name, "n": len(mine), "params": params, "tasks": tasks, "runs": names}
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
    """A result without this machine's folders: its commands are as typed in OUT."""
    here = f"{out.resolve()}/"
    commands = [command.replace(here, "") for command in result["commands"]]
    return {**result, "commands": commands}


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


def _folder(name: str) -> str:
    """A row's name as part of a folder's."""
    return name.replace(" ", "_").replace("/", "_")


def _keys(shape: dict[str, Any]) -> set[str]:
    return {name.rstrip("?") for name in shape}


def _know(where: object, values: dict[str, Any], known: set[str]) -> None:
    for name in values:
        if name not in known:
            raise UserError(f"{where}: unknown {name!r}{near_miss(name, known)}")


def _comparisons(values: dict[str, Any], rows: list[str], path: Path) -> dict[str, Any]:
    """The grid file's arms and the pairs of them that are compared."""
    arms = values.get("arms", {})
    for name, members in arms.items():
        for row in members:
            if row not in rows:
                raise UserError(f"{path}, arms, {name}: no row {row!r}{near_miss(row, rows)}")
    known = [*rows, *arms]
    found: dict[str, Any] = {"arms": arms}
    for kind in ("primary", "exploratory"):
        for pair in values.get(kind, ()):
            if len(pair) != 2:
                raise UserError(f"{path}, {kind}: a comparison is a pair of arms, not {pair!r}")
            for name in pair:
                if name not in known:
                    raise UserError(f"{path}, {kind}: no arm {name!r}{near_miss(name, known)}")
        found[kind] = tuple(values.get(kind, ()))
    return found


def _shared(values: dict[str, Any], path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of net and solver that all rows share."""
    name, net = choices.of_net(values.get("net", ()), f"{path}, net")
    if name:
        raise UserError(f"{path}, net: {name!r} is no option; each row names its net")
    return net, choices.of_solver(values.get("solver", ()), f"{path}, solver")


def _network(words: Sequence[str], shared: dict[str, Any], where: str) -> Network:
    """The net that a row's words name, with the shared options that they do not outweigh."""
    name, own = choices.of_net(words, where)
    if not name:
        raise UserError(f"{where}: its `net` names none")
    try:
        return Network(name, {**shared, **own})
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _seeds(values: Any, where: str) -> tuple[int, ...]:
    if not values or len(set(values)) != len(values):
        raise UserError(f"{where}: seeds are a list of different numbers")
    return tuple(SEED.check(value, f"{where}, seeds") for value in values)


def _stage(values: Any, where: str) -> tuple[float, int]:
    _know(where, values, {"lr", "epochs"})
    return RATE.check(values["lr"], f"{where}, lr"), COUNT.check(values["epochs"], where)


def _branch_init(values: dict[str, Any], where: str) -> str | None:
    chosen = values.get("branch_init")
    if chosen is not None and chosen not in BRANCH_INITS:
        raise UserError(f"{where}: branch_init is {' or '.join(BRANCH_INITS)}, not {chosen!r}")
    return chosen


def _bn_epsilon(values: dict[str, Any], where: str) -> float | None:
    chosen = values.get("bn_epsilon")
    return None if chosen is None else POSITIVE.check(chosen, f"{where}, bn_epsilon")


def _paths(values: Sequence[str]) -> tuple[Path, ...]:
    return tuple(map(Path, values))
