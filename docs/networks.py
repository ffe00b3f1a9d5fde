"""What is generated from netgen: prototxt/, solvers/, and docs/NETWORKS.md with its pictures.

    python docs/networks.py        `make nets`

In docs/NETWORKS.md it writes what stands between its two marks; the rest is written by hand.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Callable

from netgen import draw
from netgen.catalog import CATALOG, Entry
from netgen.network import Network
from xresnet.basics import cli, files

PAGE = "docs/NETWORKS.md"
TASKS = ("noun", "adj", "anp")  # as Table 2 orders them
SINGLE_TASK = ("caffenet", "inception_v1", "vggnet16", "resnet50")
NETS = {
    "x0": Network("x0_resnet50"),
    "xi": Network("xi_resnet50"),
    "xs": Network("xs_resnet50"),
    **{f"{net}_{task}": Network(net, {"task": task}) for net in SINGLE_TASK for task in TASKS},
}

# Path from the repository's root to what makes the file's text.
FILES: dict[str, Callable[[], str]] = {
    path: make
    for short, net in NETS.items()
    for path, make in [
        (f"prototxt/{short}.prototxt", net.prototxt),
        (f"prototxt/{short}_deploy.prototxt", net.deploy),
        (f"solvers/{short}.prototxt", net.solver),
    ]
} | {
    f"prototxt/{net}_deploy.prototxt": Network(net).deploy
    for net in ("deepsentibank", "resnet50_imagenet")
}

_BLOCK = re.compile(r"(?<=<!-- nets -->\n).*(?=<!-- end -->)", re.DOTALL)


def main(argv: list[str] | None = None) -> None:
    cli.Parser(
        prog="networks.py",
        description=f"Regenerate prototxt/, solvers/, {PAGE} and its pictures.",
        epilog="example:\n  python docs/networks.py      what `make nets` does",
    ).parse_args(argv)
    root = Path(__file__).resolve().parents[1]
    for path, make in FILES.items():
        files.write(root / path, make())
        print(path)
    files.write(root / PAGE, page(files.read_text(root / PAGE)))
    print(PAGE)
    for path, source in figures().items():
        old = root / path
        if not old.exists() or stamp(source) not in files.read_text(old):
            files.write(old, draw.render(source, "svg") + stamp(source).encode())
            print(path)


def page(text: str) -> str:
    """The page's text with the table and the sections of the catalogue's nets made anew.

    Raises:
        UserError: it has no marks.
    """
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
    head = (
        "| Net | Command | Parameters (million) | Table 2 | Multiply-adds (10^9) | Memory (GiB) |\n"
        "|---|---|---:|---:|---:|---:|\n"
    )
    made = f"\n{head}" + "\n".join([*rows, "", *sections, ""])
    whole, found = _BLOCK.subn(lambda _: made, text)
    if not found:
        raise cli.UserError(f"{PAGE}: the marks <!-- nets --> and <!-- end --> are missing")
    return whole


def networks(entry: Entry) -> list[Network]:
    """The entry's nets: a single-task entry has one for each task."""
    if not entry.single_task:
        return [Network(entry.name)]
    return [Network(entry.name, {"task": task}) for task in TASKS]


def figures() -> dict[str, str]:
    """Path of each picture to its source in Graphviz's language.

    Pictures of multitask nets show the shared trunk as one box.
    """
    found = {}
    for entry in CATALOG.values():
        options, branch = networks(entry)[0].options, not entry.single_task
        found[f"docs/figures/{entry.short}.svg"] = draw.source(entry, options, branch)
    return found


def stamp(source: str) -> str:
    """A comment that tells from which source a picture was drawn.

    Releases of Graphviz and Matplotlib draw differently, so a picture is compared by its source,
    not by its bytes.
    """
    return f"<!-- drawn from {hashlib.sha256(source.encode()).hexdigest()} -->\n"


def _each(numbers: Iterable[float]) -> str:
    return " / ".join(f"{number:.2f}" for number in numbers)


if __name__ == "__main__":
    cli.run(main, "networks.py")
