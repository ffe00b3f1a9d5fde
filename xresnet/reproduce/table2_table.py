"""Table 2 itself: rows with our figures and the paper's, as Markdown, LaTeX and CSV."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from netgen.paper import paper
from xresnet.reproduce.accuracy import METRICS
from xresnet.reproduce.tables import csv_text, markdown_table

REHEARSAL = "smoke"  # the setting of small nets, whose difference to the paper would mean nothing


def tabulated(
    classes: dict[str, int], results: dict[tuple[str, str | None], dict[str, Any]]
) -> list[dict[str, Any]]:
    """A record per net and task: parameters, top-1 and top-5, ours and the paper's."""
    found = []
    for line in paper()["table2"]:
        chance = line["row"] == "Chance"
        for task in paper()["tasks"]:
            result = results.get((line["net"], task)) or results.get((line["net"], None))
            if not (chance or result) or task not in line["top1"]:
                continue
            record: dict[str, Any] = {"row": line["row"], "task": task, "shared": False}
            if not result:
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


def markdown(table: dict[str, Any]) -> str:
    """The table in Markdown: our figure, the paper's in brackets, our 95% interval.

    A table that is no rehearsal has the difference to the paper, too.
    """
    data, compared = table["data"], table["setting"]["name"] != REHEARSAL
    classes = ", ".join(f"{n} {task}" for task, n in data["classes"].items())
    rows = []
    for row, net, params in _shown(table):
        cells = [net, paper()["tasks"][row["task"]], params]
        for metric in METRICS:
            cells += [_cell(row, metric), _interval(row, metric)]
            cells += [_difference(row, metric)] * compared
        rows.append(cells)
    heads = ["Net", "Task", "Params (M)"]
    for metric in ("Top-1 (%)", "Top-5 (%)"):
        heads += [metric, "Interval", *["Diff."] * compared]
    lines = [
        f"# Table 2 ({table['setting']['name']})",
        "",
        f"{table['setting']['what'][0].upper()}{table['setting']['what'][1:]}. In brackets: "
        "the paper's figures, for full-size nets on its own data; then our 95% interval over "
        f"test images{', and the difference to the paper' if compared else ''}.",
        "",
        f"{data['train']:,} training and {data['test']:,} test images; classes: {classes}.",
        "",
        *markdown_table(heads, "llr" + 2 * ("rlr" if compared else "rl"), rows),
    ]
    return "\n".join(lines) + "\n"


def latex(table: dict[str, Any]) -> str:
    """The table in LaTeX (with the package booktabs)."""
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
    """Each row with its net's name and parameters, unless they are those of the row above."""
    shown = None
    for row in table["table"]:
        net = "" if row["row"] == shown else row["row"]
        yield row, net, "" if net == "" and row["shared"] else _cell(row, "params")
        shown = row["row"]


def _chance(classes: int) -> dict[str, float]:
    """Chance in per cent as in the paper: for top-5, five guesses with replacement."""
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


def as_csv(rows: list[dict[str, Any]]) -> str:
    """The table as CSV, each row with our figures and the paper's."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return csv_text(columns, [[row.get(name) for name in columns] for row in rows])
