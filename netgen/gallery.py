"""docs/NETWORKS.md and its pictures: every net of the catalog, as it is now."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from netgen import draw
from netgen.catalog import CATALOG, Entry
from netgen.network import Network

PAGE = "docs/NETWORKS.md"
HEAD = """\
# Networks

Made by `make nets` from the generator; `python -m netgen NET --params` gives the same by
layer and block, `python -m netgen NET --draw FILE.svg` the picture, and
`python -m netgen diff A B` what differs between two. Parameters are all that Caffe
stores, BatchNorm's statistics included; multiply-adds are for one image of the net's
input size; memory is for training at the paper's batch of 24. Pictures of nets that share
resnet50's blocks show them as one box; `--draw` draws them all.

| Net | Command | Parameters (million) | Table 2 | Multiply-adds (10^9) | Memory (GiB) |
|---|---|---:|---:|---:|---:|
"""
TAIL = """\
## From Python

What the command writes is a value, too; the options are the command's, by name:

    import netgen

    tasks = (netgen.Task("style", 25), netgen.Task("artist", 600))
    net = netgen.build("xs_resnet50", tasks=tasks, width=32, data="data/art")
    print(net.params()["total"])
    with open("xs.prototxt", "w") as file:
        file.write(net.prototxt())
    with open("xs_solver.prototxt", "w") as file:
        file.write(net.solver(net="xs.prototxt", lr=0.01, cpu=True))
    wide = net.choose(width=64)
    assert wide.words()[-2:] == ["--data", "data/art"]

`deploy()` is the inference net, `proto()` a NetParameter, `draw("xs.svg")` a picture, `options`
every choice with its default. A mistake raises `UserError` with the line that the command says.
The header of each file has the command that makes it.

## A joint of your own

What joins two tasks, the term that a target adds of a source's shortcut, can be a function of
yours, in any module that Python finds. This one, in `my_joints.py`, halves the shortcut:

    from netgen.joints import CROSS


    def half(net, x, block, source, target, options):
        name = f"res{block.name}{CROSS}{source}-{target}"
        return net.layer("Power", name, x, power_param={"scale": 0.5})

It stands in for the net's own, and that is recorded in the file:

    python -m netgen xs_resnet50 --joint my_joints:half > xh.prototxt
    python -m netgen xs_resnet50 --joint my_joints:half --params

`x` is the blob of the source's shortcut, `block` has its `name` (`5b`) and `width`, a quarter of
its channels; `options` are all choices. The function returns the blob of the term, as large as
`x`, or None where it joins nothing. Names of its layers carry `CROSS`, so that `--freeze-towers`,
`--cross-lr` and the pictures know them. `train`, `table2` and grid files take `--joint`, too.

## A new net

A new baseline in the package is a function from `Options` to `Net` and an `Entry` of
`netgen/catalog.py`: see `netgen/neighbours.py`. It then has solver, deploy net, parameter table
and picture, and the options of the families that the entry names; any other is refused, with the
names of the nets it is for. A new option is one declaration in a family of `netgen/options.py`:
default, help and range; the command lines are made of it.
"""


def page() -> str:
    """The page's text, from the catalog."""
    rows, sections = [], []
    for entry in CATALOG.values():
        nets = networks(entry)
        reports = [net.params() for net in nets]
        form = [] if entry.trained else ["--deploy"]
        command = " ".join(["python -m netgen", *nets[0].words(), *form])
        memory = f"{reports[0]['training_memory'] / 2**30:.1f}" if entry.trained else "–"
        papers = [report["paper_millions"] for report in reports]
        rows.append(
            f"| [{entry.name}](#{entry.name}) | `{command}` "
            f"| {_each(report['total'] / 1e6 for report in reports)} "
            f"| {_each(papers) if all(papers) else '–'} "
            f"| {reports[0]['macs'] / 1e9:.2f} | {memory} |"
        )
        exact = ", ".join(
            f"{report['total']:,}" + (f" ({report['task']})" if len(reports) > 1 else "")
            for report in reports
        )
        lines = [f"## {entry.name}", "", f"{entry.what[0].upper()}{entry.what[1:]}.", ""]
        lines.append(f"Parameters: {exact}.")
        without = reports[0]["inference_total"]
        if without != reports[0]["total"]:
            lines.append(f"Without what serves training only: {without:,}.")
        lines += ["", f"![{entry.name}](figures/{entry.short}.svg)", ""]
        sections.append("\n".join(lines))
    return HEAD + "\n".join(rows) + "\n\n" + "\n".join([*sections, TAIL])


def networks(entry: Entry) -> list[Network]:
    """The entry's nets: one a task if it does one, as Table 2 orders them."""
    if not entry.single_task:
        return [Network(entry.name)]
    return [Network(entry.name, {"task": task}) for task in ("noun", "adj", "anp")]


def figures() -> dict[str, str]:
    """Path of each picture to its source in Graphviz's language: of many tasks the branch alone."""
    found = {}
    for entry in CATALOG.values():
        options, branch = networks(entry)[0].options, not entry.single_task
        found[f"docs/figures/{entry.short}.svg"] = draw.source(entry, options, branch)
    return found


def stamp(source: str) -> str:
    """A comment that tells from which source a picture was drawn.

    Graphviz's releases place things differently, so a picture is held to its
    source, not to its bytes.
    """
    return f"<!-- drawn from {hashlib.sha256(source.encode()).hexdigest()} -->\n"


def svg(source: str) -> bytes:
    """The picture of `source`, with its stamp."""
    return draw.render(source, "svg") + stamp(source).encode()


def _each(numbers: Iterable[float]) -> str:
    return " / ".join(f"{number:.2f}" for number in numbers)
