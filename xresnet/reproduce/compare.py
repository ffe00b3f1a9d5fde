"""Comparisons of a grid's arms over its seeds: paired differences, their intervals, a picture.

Only grid.json is read. Runs of two arms with the same seed are a pair. Of the pairs' differences
in accuracy, in points, `compare` computes the mean over the seeds and its 95% t-interval. The
primary figure of docs/STUDY.md is the mean over the tasks.

A grid file may say which comparisons decide and which rows make one arm:

    "arms": {"single": ["single adj", "single ANP", "single noun"]},
    "primary": [["XS", "X0"], ["X0", "XI"]],          corrected together, by Holm's method
    "exploratory": [["XS", "self"], ...]               uncorrected

Without either, each arm is compared with the first.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from xresnet.basics.cli import UserError, check_known
from xresnet.basics.files import write, write_json
from xresnet.reproduce.charts import differences
from xresnet.reproduce.pictures import save
from xresnet.reproduce.results import read_grid
from xresnet.reproduce.stats import holm, pairs_needed, t_interval, t_test
from xresnet.reproduce.tables import markdown_table

MEAN = "mean of tasks"
POINT = 1.0  # a difference of less is negligible; also what the number of seeds is planned for
TITLES = {"adj": "adjective", "anp": "ANP", "noun": "noun"}


def compare(path: Path, out: Path) -> dict[str, Any]:
    """Write compare.md, compare.json and compare.svg of a grid.json into the folder `out`.

    Returns:
        The content of compare.json.

    Raises:
        UserError: not a grid.json, no result in it, or comparisons of unknown arms.
    """
    made = comparison(read_grid(path), str(path))
    write_json(out / "compare.json", made)
    write(out / "compare.md", markdown(made))
    if made["comparisons"]:
        save(differences(made), out / "compare.svg")
    return made


def comparison(table: dict[str, Any], where: str = "grid.json") -> dict[str, Any]:
    """All arms and their comparisons, from the content of a grid.json.

    Args:
        where: the name of grid.json in errors.

    Raises:
        UserError: there is no result, or a comparison is of an unknown arm.
    """
    arms = _arms(table, where)
    kinds = {kind: table.get(kind, []) for kind in ("primary", "exploratory")}
    if not any(kinds.values()):
        kinds["exploratory"] = [[name, next(iter(arms))] for name in list(arms)[1:]]
    # Of some there may be no result yet.
    known = [*arms, *table.get("arms", {}), *(row["name"] for row in table.get("rows", ()))]
    made = []
    for kind, pairs in kinds.items():
        for pair in pairs:
            for name in pair:
                check_known(name, known, f"{where}, {kind}: no arm")
            if all(name in arms for name in pair) and (found := _pair(*(arms[n] for n in pair))):
                made.append({"kind": kind, **found})
    for measure in _measures(arms.values(), "test"):
        mine = [
            c["measures"][measure]
            for c in made
            if c["kind"] == "primary" and "p" in c["measures"].get(measure, {})
        ]
        for values, p in zip(mine, holm([v["p"] for v in mine], len(kinds["primary"]))):
            values["p_holm"] = p
    return {
        "name": table["name"],
        "what": table["what"],
        "order": table.get("order", ""),
        "finished": table["finished"],
        "runs": table["runs"],
        "arms": list(arms.values()),
        "comparisons": made,
    }


def _arms(table: dict[str, Any], where: str) -> dict[str, dict[str, Any]]:
    """Arm -> its parameters, its seeds, and for each measure the accuracies, seed by seed."""
    rows: dict[str, dict[int, dict[str, Any]]] = {}
    for result in table["results"]:
        rows.setdefault(result["row"], {})[result["seed"]] = result
    if not rows:
        raise UserError(f"{where}: no result in it")
    groups = table.get("arms", {})
    grouped = {row for members in groups.values() for row in members}
    members = {row: [row] for row in rows if row not in grouped}
    members |= {name: rows_ for name, rows_ in groups.items() if all(r in rows for r in rows_)}
    order = {row: i for i, row in enumerate(rows)}
    members = dict(sorted(members.items(), key=lambda item: order[item[1][0]]))
    tasks = _tasks(table["results"])
    arms = {}
    for name, names in members.items():
        seeds = sorted(set.intersection(*(set(rows[row]) for row in names)))
        if not seeds:
            continue
        merged = [_merged([rows[row][seed] for row in names], tasks) for seed in seeds]
        arms[name] = {
            "name": name,
            "params": sum(rows[row][seeds[0]]["params"] for row in names),
            "seeds": seeds,
            **{
                kind: _by_measure([values[kind] for values in merged], tasks)
                for kind in ("test", "train", "top5")
            },
        }
    return arms


def _tasks(results: Iterable[dict[str, Any]]) -> list[str]:
    """The tasks of all nets, in the order of Caffe's outputs."""
    tops = {name for result in results for name in result["outputs"] if name.startswith("top1_")}
    return sorted(name[len("top1_") :] for name in tops)


def _measures(arms: Iterable[dict[str, Any]], kind: str) -> list[str]:
    """The measures (the mean and the tasks) that the arms have of a `kind`."""
    found = {measure for arm in arms for measure in arm[kind]}
    return sorted(found, key=lambda measure: (measure != MEAN, measure))


def _merged(results: Sequence[dict[str, Any]], tasks: Sequence[str]) -> dict[str, dict[str, float]]:
    """The accuracies in per cent, by kind and task, of one seed's nets together."""
    test, train, top5 = {}, {}, {}
    for result in results:
        for task in tasks:
            if f"top1_{task}" in result["outputs"]:
                test[task] = 100 * result["outputs"][f"top1_{task}"]
                top5[task] = 100 * result["outputs"][f"top5_{task}"]
                if "train" in result:
                    train[task] = result["train"][task]["top1"]
    return {"test": test, "train": train, "top5": top5}


def _by_measure(seeds: Sequence[dict[str, float]], tasks: Sequence[str]) -> dict[str, list[float]]:
    """Measure -> its values, seed by seed; the mean only for nets with all tasks."""
    done = [task for task in tasks if all(task in values for values in seeds)]
    found = {task: [values[task] for values in seeds] for task in done}
    if done == list(tasks):
        found = {MEAN: [statistics.fmean(values[t] for t in tasks) for values in seeds], **found}
    return found


def _pair(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any] | None:
    """`a` minus `b` over the seeds that both have; None if there are none."""
    seeds = sorted(set(a["seeds"]) & set(b["seeds"]))
    measures = {}
    for measure in _measures([a, b], "test"):
        if seeds and measure in a["test"] and measure in b["test"]:
            ours, theirs = (
                [arm["test"][measure][arm["seeds"].index(seed)] for seed in seeds] for arm in (a, b)
            )
            measures[measure] = _paired(ours, theirs)
    if not measures:
        return None
    return {
        "a": a["name"],
        "b": b["name"],
        "seeds": seeds,
        "params": a["params"] / b["params"],
        "measures": measures,
    }


def _paired(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    found = [x - y for x, y in zip(ours, theirs)]
    values: dict[str, Any] = {
        "differences": found,
        "mean": statistics.fmean(found),
        "relative": 100 * (statistics.fmean(ours) / statistics.fmean(theirs) - 1),
    }
    if len(found) > 1:
        deviation = statistics.stdev(found)
        low, high = t_interval(found)
        values |= {
            "sd": deviation,
            "interval": [low, high],
            "p": t_test(found),
            "seeds_for_a_point": pairs_needed(deviation, POINT),
            "negligible": low > -POINT and high < POINT,
        }
    if len(found) > 2:
        values["seeds_planned"] = pairs_needed(statistics.stdev(found[:3]), POINT)
    return values


# ---- the page --------------------------------------------------------------------


def markdown(made: dict[str, Any]) -> str:
    """The tables: arms, comparisons, every seed."""
    lines = [
        f"# {made['name']}",
        "",
        made["what"],
        "",
        f"{made['finished']} of {made['runs']} runs are finished. Order of the training images: "
        f"{made['order']}.",
        "",
    ]
    for table in TABLES.values():
        lines += [*table(made), ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def _arms_table(made: dict[str, Any]) -> list[str]:
    arms = made["arms"]
    measures = _measures(arms, "test")
    rows = []
    for arm in arms:
        cells = [arm["name"], f"{arm['params'] / 1e6:.2f}", str(len(arm["seeds"]))]
        for measure in measures:
            test, train = arm["test"].get(measure), arm["train"].get(measure)
            trained = f" ({statistics.fmean(train):.1f})" if train else ""
            cells.append(_spread(test) + trained if test else "–")
        rows.append(cells)
    heads = ["Arm", "Params (M)", "seeds", *map(_title, measures)]
    return [
        "Top-1 in per cent of the labelled test images, mean ± standard deviation over the seeds; "
        "in brackets on the training images.",
        "",
        *markdown_table(heads, "lrr" + "r" * len(measures), rows),
    ]


def _top5_table(made: dict[str, Any]) -> list[str]:
    arms = made["arms"]
    measures = _measures(arms, "top5")
    rows = [
        [arm["name"], *(_spread(arm["top5"][m]) if m in arm["top5"] else "–" for m in measures)]
        for arm in arms
    ]
    return [
        "Top-5 in per cent of the labelled test images, mean ± standard deviation over the seeds.",
        "",
        *markdown_table(["Arm", *map(_title, measures)], "l" + "r" * len(measures), rows),
    ]


def _comparisons_table(made: dict[str, Any]) -> list[str]:
    comparisons = made["comparisons"]
    if not comparisons:
        return []
    rows = []
    for c in comparisons:
        name = f"{c['a']} − {c['b']}"
        name = f"**{name}**" if c["kind"] == "primary" else name
        for measure, v in c["measures"].items():
            interval, p, within, needed = "–", "–", "–", "–"
            if "interval" in v:
                interval = f"{v['interval'][0]:+.2f} to {v['interval'][1]:+.2f}"
                p = _p(v.get("p_holm", v["p"]))
                within = "yes" if v["negligible"] else "no"
                needed = f"{v.get('seeds_planned', '–')}, {v['seeds_for_a_point']}"
            cells = [name, _title(measure), str(len(c["seeds"])), f"{v['mean']:+.2f}"]
            cells += [interval, p, within, f"{v['relative']:+.1f}%", needed]
            rows.append(cells)
            name = ""
    heads = ["Comparison", "of", "pairs", "difference", "95% interval", "p"]
    heads += [f"within ± {POINT:g}", "relative", "seeds needed"]
    unequal = [c for c in comparisons if abs(c["params"] - 1) >= 0.05]
    told = [f"{c['a']} {100 * (c['params'] - 1):+.1f}% against {c['b']}" for c in unequal]
    return [
        "Differences in points over pairs of the same seed, their 95% t-interval, p of the paired "
        "t-test (of the primary comparisons after Holm's correction), whether the interval lies "
        f"within ± {POINT:g} point, the relative gain, and how many seeds find {POINT:g} point "
        "with 80% power: by the first three, by all.",
        "",
        *markdown_table(heads, "llrrrrlrr", rows),
        *(["", f"Parameters: {', '.join(told)}."] if told else []),
    ]


def _seeds_table(made: dict[str, Any]) -> list[str]:
    arms = made["arms"]
    seeds = sorted({seed for arm in arms for seed in arm["seeds"]})
    rows = []
    for arm in arms:
        name = arm["name"]
        for measure, values in arm["test"].items():
            by_seed = dict(zip(arm["seeds"], values))
            cells = [f"{by_seed[seed]:.2f}" if seed in by_seed else "–" for seed in seeds]
            rows.append([name, _title(measure), *cells])
            name = ""
    table = markdown_table(["Arm", "of", *map(str, seeds)], "ll" + "r" * len(seeds), rows)
    return ["Every seed, top-1:", "", *table]


TABLES = {
    "arms": _arms_table,
    "top5": _top5_table,
    "comparisons": _comparisons_table,
    "seeds": _seeds_table,
}


def _title(measure: str) -> str:
    return TITLES.get(measure, measure)


def _spread(values: Sequence[float]) -> str:
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.2f}{deviation}"


def _p(p: float) -> str:
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}"
