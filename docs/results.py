"""Write the tables and pictures in docs/RESULTS.md from docs/results/.

    python docs/results.py        `make results`

docs/results/NAME/grid.json has the results of a study, as written by `xresnet grid`. From each
this makes docs/results/NAME/compare.svg, and the part of docs/RESULTS.md between

    <!-- NAME: arms -->
    <!-- end -->

where `arms`, `top5`, `comparisons` and `seeds` are the tables of `xresnet compare`, and `picture`
is the picture. The text around them is written by hand. To commit a study, copy its grid.json,
place the marks, and run this.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import networks

from xresnet.basics import cli
from xresnet.basics.cli import UserError, check_known
from xresnet.basics.files import read_text, write
from xresnet.reproduce.charts import differences
from xresnet.reproduce.compare import TABLES, comparison
from xresnet.reproduce.pictures import render
from xresnet.reproduce.results import read_grid

PAGE = "docs/RESULTS.md"
RESULTS = "docs/results"
PICTURE = "compare.svg"
_BLOCK = re.compile(r"(<!-- ([\w.-]+): (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def main(argv: list[str] | None = None) -> None:
    cli.Parser(
        prog="results.py",
        description=f"Regenerate the tables and pictures of {PAGE}.",
        epilog="example:\n  python docs/results.py      what `make results` does",
    ).parse_args(argv)
    root = Path(__file__).resolve().parents[1]
    studies = read(root)
    for name, made in studies.items():
        path = root / RESULTS / name / PICTURE
        if made["comparisons"] and not (path.exists() and stamp(made) in read_text(path)):
            write(path, picture(made))
            print(f"{RESULTS}/{name}/{PICTURE}")
    write(root / PAGE, page(read_text(root / PAGE), studies))
    print(PAGE)


def read(root: Path) -> dict[str, dict[str, Any]]:
    """The comparison of each study, by name, as `xresnet compare` makes it from its grid.json.

    Raises:
        UserError: a file is not a grid.json.
    """
    paths = sorted((root / RESULTS).glob("*/grid.json"))
    return {path.parent.name: comparison(read_grid(path), str(path)) for path in paths}


def page(text: str, studies: dict[str, dict[str, Any]]) -> str:
    """The page with all marked parts made anew.

    Raises:
        UserError: a mark names no study or no part of one, or lacks its end.
    """

    def made(block: re.Match[str]) -> str:
        begin, name, part, _, end = block.groups()
        check_known(name, studies, f"{PAGE}: in {RESULTS} there is no study")
        return f"{begin}\n{_part(studies[name], name, part)}\n\n{end}"

    if text.count("<!-- end -->") != len(_BLOCK.findall(text)):
        raise UserError(f"{PAGE}: a mark without its `<!-- end -->`, or the reverse")
    return _BLOCK.sub(made, text)


def _part(study: dict[str, Any], name: str, part: str) -> str:
    if part == "picture":
        return f"![{study['name']}: differences over the seeds](results/{name}/{PICTURE})"
    check_known(part, [*TABLES, "picture"], f"{PAGE}: {name}: no part")
    return "\n".join(TABLES[part](study))


def stamp(made: dict[str, Any]) -> str:
    """A comment that tells from which numbers a picture was drawn."""
    return networks.stamp(json.dumps(made["comparisons"], sort_keys=True))


def picture(made: dict[str, Any]) -> bytes:
    """The study's picture as SVG, with its stamp."""
    return render(differences(made)) + stamp(made).encode()


if __name__ == "__main__":
    cli.run(main, "results.py")
