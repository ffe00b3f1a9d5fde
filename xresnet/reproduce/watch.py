"""A training's curves so far, as a picture or as a page that shows itself anew."""

from __future__ import annotations

import html
from pathlib import Path

from xresnet.basics.cli import UserError, printable
from xresnet.basics.files import write
from xresnet.reproduce import figures
from xresnet.reproduce.folder import RunFolder
from xresnet.reproduce.kept import read_record

REFRESH = 30  # seconds


def watch(run: Path, out: Path, every: float | None = None) -> Path:
    """Write the curves of the run in folder `run` to `out`.

    Raises:
        UserError: no training there yet.
    """
    picture = curves(run)
    suffix = out.suffix.lower()
    if suffix in (".html", ".htm"):
        return write(out, _page(run, figures.render(picture).decode(), every or REFRESH))
    return figures.save(picture, out)


def curves(run: Path) -> figures.Figure:
    """The run's curves."""
    history = RunFolder(run).history()
    if not history.steps:
        raise UserError(f"{run}: no iteration in its train.log yet")
    return figures.curves(printable(run.name), history, RunFolder(run).decisions(), epoch_of(run))


def epoch_of(run: Path) -> int:
    """Iterations of an epoch of the run."""
    return read_record(run)["epoch"]


def _page(run: Path, svg: str, every: float) -> str:
    rows = "".join(
        f"<tr><td>{d.iteration:,}<td>{_e(d.action)}<td>{d.lr:g}<td>{_e(d.why)}"
        for d in reversed(RunFolder(run).decisions())
    )
    return f"""<!doctype html><html lang="en"><meta charset="utf-8">
<meta http-equiv="refresh" content="{every:g}"><title>{_e(run.name)}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body{{font:15px system-ui,sans-serif;margin:1rem auto;max-width:60rem;padding:0 1rem}}
svg{{width:100%;height:auto}}td,th{{padding:.15rem .8rem .15rem 0;text-align:left}}</style>
<h1>{_e(run.name)}</h1>{svg[svg.index("<svg") :]}
<table><tr><th>iteration<th>decision<th>rate<th>why</tr>{rows}</table></html>
"""


def _e(value: object) -> str:
    return html.escape(printable(value))
