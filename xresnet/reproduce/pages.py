"""HTML pages from templates/, in one style, each in one file.

All values are escaped, and invisible characters are spelled out, as names of runs, classes and
files may hold anything.
"""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from xresnet.basics.cli import printable
from xresnet.reproduce.pictures import COLOURS, render, task_title

SHOWN = 96  # pixels at least of a picture's side


def page(template: str, **values: Any) -> str:
    """The text of a template with these values."""
    return _ENVIRONMENT.get_template(template).render(values)


def chart(figure: Figure, label: str) -> Markup:
    """A figure as a part of a page, whose colours it takes, light or dark."""
    svg = render(figure, whole=True).decode()
    svg = svg[svg.index("<svg") :]
    own = hashlib.sha256(svg.encode()).hexdigest()[:8]  # no two figures share an identifier
    for pattern, new in (
        (r"<metadata>.*?</metadata>", ""),
        (r"<style.*?</style>", ""),
        (r' id="(?:figure|axes|patch|line2d|text|matplotlib|xtick|ytick|legend)[.\w]*"', ""),
        (r' id="', f' id="{own}'),
        (r' xlink:href="#', f' href="#{own}'),
        (r"url\(#", f"url(#{own}"),
        (r"stroke: #b0b0b0; stroke-opacity: [.\d]+", "stroke: currentColor; stroke-opacity: 0.13"),
        (r"(stroke|fill): #000000", r"\1: currentColor"),
        (r"fill: #ffffff(?=[;\"])", "fill: none"),
    ):
        svg = re.sub(pattern, new, svg, flags=re.DOTALL)
    box = re.findall(r'viewBox="[^"]*"', svg)[0]
    begin = Markup('<svg class="chart" role="img" aria-label="{}" ').format(printable(label))
    return begin + Markup(f"{box}>{svg[svg.index('>') + 1 :]}")


def photo(pixels: np.ndarray) -> str:
    """A 3 x H x W image as a data URL; large ones are resized."""
    image = pixels.transpose(1, 2, 0)
    if image.shape[0] > 2 * SHOWN:
        image = cv2.resize(image, (2 * SHOWN, 2 * SHOWN), interpolation=cv2.INTER_AREA)
    kind = "png" if image.shape[0] <= SHOWN else "jpeg"
    _, data = cv2.imencode(f".{kind}", image)
    return f"data:image/{kind};base64,{base64.b64encode(data.tobytes()).decode()}"


def legend(tasks: list[str]) -> list[dict[str, Any]]:
    """Name and look of each task's curves in `curves.small_curves`."""
    colours = (COLOURS[i % len(COLOURS)] for i in range(len(tasks)))
    return [{"name": task_title(t), "color": c, "linestyle": "-"} for t, c in zip(tasks, colours)]


def _number(value: float | None, digits: int = 2, sign: str = "") -> str:
    """`1,234.50`; a dash for None."""
    return "–" if value is None else f"{value:{sign},.{digits}f}"


def _shown(value: object) -> object:
    return value if isinstance(value, Markup) else printable(value)


_ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    undefined=StrictUndefined,
    finalize=_shown,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters |= {
    "task": task_title,
    "number": _number,
    "count": lambda value: f"{value:,}",
    "share": lambda value: f"{value:.0%}",
    "probability": lambda value: "<1%" if value < 0.005 else f"{value:.0%}",
    "p_value": lambda value: "< 0.0001" if value < 1e-4 else f"{value:.4f}",
    "sentence": lambda text: f"{text[:1].upper()}{text[1:].rstrip('.')}.",
}
