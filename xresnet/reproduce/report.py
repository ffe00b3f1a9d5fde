"""One page that shows what was made and how: no file beside it, nothing from elsewhere."""

from __future__ import annotations

import base64
import html
import json
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from data_prep.classes import MISSING, VSO
from data_prep.folder import DataFolder
from data_prep.lists import read_list
from netgen.paper import paper
from xresnet.basics import shapes
from xresnet.basics.cli import UserError, printable
from xresnet.basics.files import write
from xresnet.reproduce import figures, watch
from xresnet.reproduce.data import Data
from xresnet.reproduce.engine import CAFFE, ENGINES
from xresnet.reproduce.evaluate import Evaluation, compare, records
from xresnet.reproduce.kept import FACTS, Kept, read_record
from xresnet.reproduce.snapshots import snapshots
from xresnet.reproduce.table2 import METRICS, versions
from xresnet.reproduce.training import read_decisions, read_engines

EXAMPLES = 12  # images shown with what the net saw in them
SHOWN = 96  # pixels at least of an example's side

_RUN = {
    "name": str,
    "iterations": int,
    "sha256": {str: str},
    "commands": [str],
}
_PERCENT = {"mean": float, "sd": (float, None)}
_TABLE = {
    "table": [
        {
            "row": str,
            "task": str,
            "shared": bool,
            "params": (float, None),
            "paper_params": (float, None),
            **{f"{metric}{part}": float for metric in METRICS for part in ("", "_difference")},
            **{f"paper_{metric}": float for metric in METRICS},
            **{f"{metric}_{end}?": float for metric in METRICS for end in ("low", "high")},
        }
    ],
    "setting": {"name": str, "what": str},
    "data": FACTS,
    "runs": [_RUN],
    "engine?": str,
    "versions": dict,
}
_GRID = {
    "name": str,
    "what": str,
    "runs": int,
    "finished": int,
    "rows": [
        {
            "name": str,
            "params": (float, None),
            "n": int,
            "tasks": {str: dict.fromkeys(METRICS, _PERCENT)},
        }
    ],
    "results": [_RUN],
}


def report(out: Path, page: Path | None = None) -> Path:
    """Write the page about all that lies in `out`, the folder of `table2`, `grid` or `train`.

    Raises:
        UserError: none of them there.
    """
    table = _read(out / "table2.json", _TABLE)
    grid = _read(out / "grid.json", _GRID)
    alone = (out / "run.json").exists()
    if not table and not grid and not alone:
        raise UserError(
            f"{out}: neither table2.json nor grid.json; run `python -m xresnet table2` first"
        )
    runs = [out] if alone else [path.parent for path in sorted(out.glob("runs/*/run.json"))]
    facts = [read_record(run)["data"] for run in runs] + ([table["data"]] if table else [])
    if not facts:
        raise UserError(f"{out}: no run there (runs/*/run.json), which its tables tell of")
    engines = list(dict.fromkeys(name for run in runs for name in read_engines(run)))
    for name in engines:
        if name not in ENGINES:
            raise UserError(f"{out}: a run was trained by {name!r}; there are {', '.join(ENGINES)}")
    evaluated = {run: found[-1] for run in runs if (found := Evaluation.all(run))}
    star = _star(list(evaluated.values()))
    sections = [
        ("Table 2", _table2(table) if table else ""),
        (grid["name"] if grid else "", _grid(grid) if grid else ""),
        ("How sure the differences are", _comparisons(list(evaluated.values()))),
        ("What the net sees", _examples(star) if star else ""),
        ("Where ANPs go wrong", _confusions(star) if star else ""),
        ("Cross-residual weights (Figure 5)", _figure5(runs, evaluated)),
        ("Training", _curves(runs)),
        ("Classes", _classes(star) if star else ""),
        ("Data", _data(facts[0])),
        ("How to make it again", _commands(table, grid, runs, engines)),
    ]
    sections = [(title, body) for title, body in sections if body]
    return write(page or out / "report.html", _page(table, grid, facts[0], engines, sections))


# ---- sections -----------------------------------------------------------------


def _table2(table: dict[str, Any]) -> str:
    engine = ENGINES[table.get("engine", CAFFE.name)]
    rows, shown = [], None
    for row in table["table"]:
        first = row["row"] != shown
        shown = row["row"]
        params = "" if not first and row["shared"] else _ours(row["params"], row["paper_params"])
        cells = [f"<th scope=row>{_e(row['row']) if first else ''}", _e(_task(row["task"]))]
        cells.append(params)
        for metric in ("top1", "top5"):
            span = ""
            if f"{metric}_low" in row:
                span = f"<small>{row[f'{metric}_low']:.1f}–{row[f'{metric}_high']:.1f}</small>"
            cells.append(f"{_ours(row[metric], row[f'paper_{metric}'])} {span}")
            cells.append(f"{row[f'{metric}_difference']:+.2f}")
        rows.append(f"<tr{' class=first' if first else ''}>" + "<td>".join(cells))
    head = "<th>Net<th>Task<th>Params (M)<th>Top-1 (%)<th>Diff.<th>Top-5 (%)<th>Diff."
    note = (
        f"<p>{_e(table['setting']['what'].capitalize())}. Ours first; <span class=paper>grey: the "
        "paper's</span>, for full-size nets on its own data; small: our 95% interval over the "
        f"{table['data']['test']:,} test images. Each image was tested once, by <code>"
        f"{engine.typed[-1]} test</code> and from {engine.scorer}'s scores; both agree to the "
        "last image.</p>"
    )
    return note + _scroll(f"<table class=numbers><tr>{head}</tr>{''.join(rows)}</table>")


def _grid(grid: dict[str, Any]) -> str:
    tasks = list(dict.fromkeys(task for row in grid["rows"] for task in row["tasks"]))
    head = "<th>Net<th>Params (M)<th>n" + "".join(
        f"<th>{_task(t)} top-1<th>{_task(t)} top-5" for t in tasks
    )
    rows = []
    for row in grid["rows"]:
        params = "–" if row["params"] is None else f"{row['params']:.2f}"
        cells = [f"<th scope=row>{_e(row['name'])}", params, str(row["n"])]
        for task in tasks:
            for metric in ("top1", "top5"):
                s = row["tasks"].get(task, {}).get(metric)
                sd = f" <small>± {s['sd']:.2f}</small>" if s and s["sd"] is not None else ""
                cells.append(f"{s['mean']:.2f}{sd}" if s else "–")
        rows.append("<tr class=first>" + "<td>".join(cells))
    note = (
        f"<p>{_e(grid['what'])} {grid['finished']} of {grid['runs']} runs are finished. Mean over "
        "seeds, ± their standard deviation.</p>"
    )
    return note + _scroll(f"<table class=numbers><tr>{head}</tr>{''.join(rows)}</table>")


def _comparisons(evaluated: list[Evaluation]) -> str:
    """McNemar's test of each multitask net against XS, on the same images."""
    reference = next((one for one in evaluated if _net(one.run).startswith("xs_")), None)
    rows = []
    for one in evaluated:
        if reference is None or one == reference:
            continue
        for task, values in compare(reference, one)["tasks"].items():
            v = values["top1"]
            low, high = v["interval"]
            rows.append(
                f"<tr><th scope=row>{_e(one.title)}<td>{_task(task)}<td>{v['difference']:+.2f}"
                f"<td><small>{low:+.2f} to {high:+.2f}</small><td>{_p(v['p'])}"
            )
    if not rows:
        return ""
    return (
        f"<p>Top-1 of {_e(reference.title)} less that of each other net, on the same images, with "
        "95% interval (bootstrap over images) and McNemar's exact p. It speaks of these trained "
        "nets; another seed would make others.</p>"
        + _scroll(
            "<table class=numbers><tr><th>against<th>task<th>points<th>interval<th>p</tr>"
            f"{''.join(rows)}</table>"
        )
    )


def _examples(star: Evaluation) -> str:
    """Test images, evenly spread over the test set, with the five best classes a task."""
    kept = Kept.read(star.run)
    try:
        root = kept.tested_on()
    except UserError as error:
        return f"<p>No examples: {_e(error)}.</p>"
    names, found = kept.names, star.arrays()
    star.hold_images(root)
    total = len(next(iter(found.values())))
    chosen = set(np.linspace(0, total - 1, min(EXAMPLES, total)).astype(int).tolist())
    tasks = [task for task in names.tasks if f"best_{task}" in found]
    cards = []
    for i, pixels in enumerate(records(root)):
        if i not in chosen:
            continue
        if pixels.dtype != np.uint8:
            return f"<p>No examples: {_e(star.title)} sees the maps of a cached trunk.</p>"
        labels = {task: found[f"truth_{task}"][i] for task in tasks}
        truth = {task: names[task][n] for task, n in labels.items() if n != MISSING}
        columns = ""
        for task in tasks:
            words = [names[task][label] for label in found[f"best_{task}"][i]]
            items = "".join(
                f"<li{' class=right' if word == truth.get(task) else ''}>{_e(_words(word))}"
                for word in words
            )
            columns += f"<div><h4>{_task(task)}</h4><ol>{items}</ol></div>"
        title = _words(truth.get("anp", "")) or ", ".join(truth.values())
        cards.append(
            f"<figure class=card><img src='{_png(pixels)}' alt='{_e(title)}'>"
            f"<figcaption>{_e(title)}</figcaption><div class=best>{columns}</div></figure>"
        )
    return (
        f"<p>Test images, evenly spread over the test set, as {_e(star.title)} sees them: five "
        "best classes a task, the true one marked (Figure 6).</p>"
        f"<div class=cards>{''.join(cards)}</div>"
    )


def _confusions(star: Evaluation) -> str:
    confused = star.result().get("confusion")
    if not confused:
        return ""
    same, adjective = confused["same_noun"], confused["same_adjective"]
    rows = "".join(
        f"<tr><td>{_e(_words(p['truth']))}<td>{_e(_words(p['guess']))}<td>{p['images']}"
        f"<td>{p['of']}"
        for p in confused["pairs"][:12]
    )
    return (
        f"<p>Of {confused['wrong']:,} wrong pairs of {_e(star.title)}, {same['share']:.0%} have "
        f"the noun right (by chance {same['by_chance']:.0%}) and {adjective['share']:.0%} the "
        f"adjective ({adjective['by_chance']:.0%}). The commonest of these, the paper's “sad dog” "
        "and “happy dog” (section 5.2.1):</p>"
        + _scroll(f"<table><tr><th>truth<th>taken for<th>images<th>of</tr>{rows}</table>")
    )


def _figure5(runs: list[Path], evaluated: dict[Path, Evaluation]) -> str:
    parts = []
    for run in runs:
        if not _net(run).startswith("xs_") or parts:
            continue
        whole = {s.weights.stem: s for s in snapshots(run)}
        if not whole:  # not trained far enough for a snapshot
            continue
        last = max(whole.values())
        # That of which the page tells errors, as long as it is there.
        shown = whole.get(evaluated[run].snapshot, last) if run in evaluated else last
        weights = shown.weights
        parts.append(f"<p>{_e(run.name)}, {_e(weights.stem)}:</p>")
        parts.append(_picture(figures.figure5(weights), "Cross-residual weights, sorted"))
        if len(whole) > 1:
            change = figures.figure5_change([(s.iteration, s.weights) for s in whole.values()])
            parts.append(_picture(change, "How the cross-residual weights moved"))
        rows = "".join(
            f"<tr><td>{_e(block)}<td>{_e(pair)}<td>{v['mean']:+.3f}<td>{v['sd']:.3f}"
            f"<td>{v['near_zero']:.0%}<td>{v['near_one']:.0%}<td>{v['non_negative']:.0%}"
            for block, pairs in figures.cross_statistics(weights).items()
            for pair, v in pairs.items()
        )
        head = "<tr><th>layer<th>Source-Target<th>mean<th>deviation"
        head += f"<th>within {figures.NEAR:g} of 0<th>of 1<th>≥ 0</tr>"
        parts.append(_fold("In numbers", _scroll(f"<table class=numbers>{head}{rows}</table>")))
    return "".join(parts)


def _curves(runs: list[Path]) -> str:
    parts = []
    for run in runs:
        try:
            picture = _picture(watch.curves(run), f"Curves of {run.name}")
        except UserError:  # nothing trained yet
            continue
        rows = "".join(
            f"<tr><td>{d.iteration:,}<td>{_e(d.action)}<td>{d.lr:g}<td>{_e(d.why)}"
            f"<td>{_number(d.numbers.get('smoothed'))}<td>{_number(d.numbers.get('best_in_stage'))}"
            for d in read_decisions(run)
        )
        head = "<tr><th>iteration<th>decision<th>rate<th>why<th>loss<th>best</tr>"
        table = _scroll(f"<table class=numbers>{head}{rows}</table>")
        parts.append(f"<h3>{_e(run.name)}</h3>{picture}" + _fold("Decisions", table))
    return "".join(parts)


def _classes(star: Evaluation) -> str:
    result = star.result()
    parts = []
    for task, values in result["tasks"].items():
        rows = "".join(
            f"<tr><td>{_e(_words(c['class']))}<td>{c['images']}<td>{_number(c.get('top1'), 1)}"
            f"<td>{_number(c.get('top5'), 1)}"
            for c in sorted(values["classes"], key=lambda c: -c.get("top1", -1))
        )
        head = "<tr><th>class<th>test images<th>top-1 (%)<th>top-5 (%)</tr>"
        table = _scroll(f"<table class=numbers>{head}{rows}</table>")
        parts.append(_fold(f"{_task(task)}: {len(values['classes'])} classes", table))
    return f"<p>Accuracy of {_e(star.title)} by class, best first.</p>" + "".join(parts)


def _data(facts: dict[str, Any]) -> str:
    folder = DataFolder(facts["folder"])
    classes = ", ".join(f"{n} {_task(task)}" for task, n in facts["classes"].items())
    body = (
        f"<p>{facts['train']:,} training and {facts['test']:,} test images; classes: {classes}. "
        f"Key of lists, classes and sizes: <code>{facts['key'][:16]}</code>.</p>"
    )
    try:
        data = Data.read(folder.root)
    except UserError:  # the folder has gone since
        return body
    if data.key != facts["key"]:
        return f"{body}<p>{_e(folder.root)} holds other data by now.</p>"
    counts = Counter(
        e.label for p in ("train", "test") for e in read_list(folder.list(p), data.names)
    )
    manifest = folder.read_manifest()
    figure, axis = figures.plt.subplots(figsize=(7, 2.4))
    axis.bar(range(len(counts)), sorted(counts.values(), reverse=True), color=figures.COLOURS[0])
    axis.set(xlabel="ANP, by size", ylabel="images")
    axis.margins(x=0.01)
    body += _picture(figure, "Images a pair")
    steps = manifest.get("filter", {}).get("steps", [])
    if steps:
        rows = "".join(
            f"<tr><td>{_e(s['criterion'])}<td>{s['dropped']:,}<td>{s['anps']:,}"
            f"<td>{s['adjectives']:,}<td>{s['nouns']:,}"
            for s in steps
        )
        head = "<tr><th>criterion<th>dropped<th>ANPs<th>adjectives<th>nouns</tr>"
        body += _scroll(f"<table class=numbers>{head}{rows}</table>")
    return body + _fold("Manifest", f"<pre>{_e(json.dumps(manifest, indent=2))}</pre>")


def _commands(table: dict | None, grid: dict | None, runs: list[Path], engines: list[str]) -> str:
    results = [
        r for t in (table, grid) if t for r in t.get("runs" if t is table else "results", [])
    ]
    parts = []
    for result in results:
        hashes = "".join(
            f"<tr><td>{_e(name)}<td><code>{digest}</code>"
            for name, digest in result["sha256"].items()
        )
        commands = "\n".join(result["commands"])
        parts.append(
            _fold(
                f"{result['name']}, after {result['iterations']:,} iterations",
                f"<pre>{_e(commands)}</pre>"
                + _scroll(f"<table><tr><th>file<th>SHA-256</tr>{hashes}</table>"),
            )
        )
    known = table["versions"] if table else versions(engines)
    rows = "".join(f"<tr><td>{_e(k)}<td>{_e(v)}" for k, v in known.items())
    seeds = "".join(
        f"<tr><td>{_e(run.name)}<td>{_e(' '.join(record['net']))}"
        f"<td>{_e(' '.join(record['solver'])) or '–'}"
        for run, record in ((run, read_record(run)) for run in runs)
    )
    nets = _scroll(f"<table><tr><th>run<th>net<th>solver</tr>{seeds}</table>")
    return (
        "<p>Nets and solvers come from netgen; with the same files, seed and engine the commands "
        "below repeat each run by hand.</p>"
        + "".join(parts)
        + _fold("Nets, solvers, seeds", nets)
        + _fold("Versions", _scroll(f"<table>{rows}</table>"))
    )


# ---- the page -------------------------------------------------------------------

_STYLE = """
:root{--ink:#1b1f24;--soft:#6a737d;--line:#e3e6ea;--blue:#0072b2;--green:#00734f}
*{box-sizing:border-box}
body{font:16px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif;color:var(--ink);margin:0}
main,header{max-width:62rem;margin:auto;padding:0 1.2rem}
header{padding-top:2.2rem}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 .4rem}
h2{font-size:1.3rem;margin:2.6rem 0 .5rem;padding-top:.6rem;border-top:1px solid var(--line)}
h3{font-size:1rem;margin:1.6rem 0 .2rem}
nav{margin:1rem 0;display:flex;flex-wrap:wrap;gap:.3rem 1rem;font-size:.9rem}
a{color:var(--blue)}p{max-width:44rem}
.lead,.paper,small,figcaption{color:var(--soft)}
.scroll{overflow-x:auto;margin:.8rem 0}
table{border-collapse:collapse;font-size:.92rem}
td,th{padding:.22rem .9rem .22rem 0;text-align:left;vertical-align:baseline}
tr:first-child th{border-bottom:1.5px solid var(--ink);white-space:nowrap}
th[scope=row]{font-weight:600;white-space:nowrap}
.numbers td{font-variant-numeric:tabular-nums;white-space:nowrap}
tr.first td,tr.first th{border-top:1px solid var(--line)}
.picture{display:block;width:100%;max-width:56rem;height:auto;margin:.6rem 0}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(22rem,100%),1fr));gap:1rem}
.card{margin:0;border:1px solid var(--line);border-radius:.5rem;padding:.8rem;display:grid;
grid-template-columns:6rem 1fr;gap:0 .9rem}
.card img{width:6rem;height:6rem;object-fit:cover;border-radius:.3rem;image-rendering:pixelated}
.card figcaption{grid-column:1;font-size:.85rem;overflow-wrap:anywhere}
.best{grid-column:2;grid-row:1/3;display:grid;grid-template-columns:auto auto auto;gap:0 .7rem;
font-size:.8rem;white-space:nowrap}
.best h4{margin:0;font-size:.75rem;color:var(--soft)}
.best ol{list-style:none;margin:0;padding:0}
.right{color:var(--green);font-weight:700}
details{margin:.4rem 0}summary{cursor:pointer;color:var(--blue)}
pre{overflow-x:auto;background:#f6f8fa;padding:.8rem;border-radius:.4rem;font-size:.8rem}
code{font-size:.85em}
footer{margin:3rem auto 2rem;max-width:62rem;padding:0 1.2rem;color:var(--soft);font-size:.85rem}
@media(max-width:40rem){body{font-size:15px}.card{grid-template-columns:5rem 1fr}
.card img{width:5rem;height:5rem}td,th{padding-right:.6rem}}
@media print{details{display:none}}
"""


def _page(
    table: dict | None,
    grid: dict | None,
    facts: dict,
    engines: list[str],
    sections: list[tuple[str, str]],
) -> str:
    links = "".join(f"<a href='#s{i}'>{_e(t)}</a>" for i, (t, _) in enumerate(sections))
    body = "".join(
        f"<section id=s{i}><h2>{_e(title)}</h2>{content}</section>"
        for i, (title, content) in enumerate(sections)
    )
    by = " and ".join(ENGINES[name].title for name in engines or [CAFFE.name])
    counts = facts["classes"]
    if list(counts) == list(VSO):
        classes = f"{counts['anp']} adjective-noun pairs"
    else:
        classes = "classes: " + ", ".join(f"{n:,} {task}" for task, n in counts.items())
    what = table["setting"]["what"] if table else grid["what"] if grid else "one training"
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>X-ResNet in Caffe: results</title><style>{_STYLE}</style></head>
<body><header><h1>Deep Cross Residual Learning, in Caffe</h1>
<p class=lead>{_e(what[:1].upper() + what[1:].rstrip("."))}. {facts["train"]:,} training and
{facts["test"]:,} test images, {_e(classes)}. Every number on this
page was measured by {by} on this machine, unless it is marked as the paper's.</p>
<nav>{links}</nav></header><main>{body}</main>
<footer>The paper's figures: {_e(paper()["source"])}.</footer></body></html>
"""


def _picture(figure: figures.Figure, alt: str) -> str:
    data = base64.b64encode(figures.render(figure)).decode()
    return f"<img class=picture alt='{_e(alt)}' src='data:image/svg+xml;base64,{data}'>"


def _png(pixels: np.ndarray) -> str:
    """A 3 x H x W image as a data address; small ones as they are, large ones made small."""
    image = pixels.transpose(1, 2, 0)
    if image.shape[0] > 2 * SHOWN:
        image = cv2.resize(image, (2 * SHOWN, 2 * SHOWN), interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".png" if image.shape[0] <= SHOWN else ".jpg", image)
    kind = "png" if image.shape[0] <= SHOWN else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data.tobytes()).decode()}"


def _star(evaluated: list[Evaluation]) -> Evaluation | None:
    """That whose examples are shown: the first XS, else the first with several tasks, else any."""
    best = [one for one in evaluated if _net(one.run).startswith("xs_")]
    multi = [one for one in evaluated if len(one.result()["tasks"]) > 1]
    return next(iter([*best, *multi, *evaluated]), None)


def _net(run: Path) -> str:
    return next(iter(read_record(run)["net"]), "")


def _read(path: Path, shape: Any) -> Any:
    return shapes.read(path, shape) if path.exists() else None


def _scroll(table: str) -> str:
    return f"<div class=scroll>{table}</div>"


def _fold(title: str, body: str) -> str:
    return f"<details><summary>{_e(title)}</summary>{body}</details>"


def _ours(ours: float | None, papers: float | None) -> str:
    grey = "" if papers is None else f" <span class=paper>{papers:.2f}</span>"
    return "–" if ours is None else f"{ours:.2f}{grey}"


def _number(value: float | None, digits: int = 4) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _p(value: float) -> str:
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}"


def _task(task: str) -> str:
    return paper()["tasks"].get(task, task)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _e(value: object) -> str:
    return html.escape(printable(value))
