"""The committed results: docs/RESULTS.md's tables and pictures, made from docs/results/.

python -m xresnet.reproduce.committed        `make results`

docs/results/NAME/grid.json is a study's results, as `xresnet grid` left them. Of each
this makes docs/results/NAME/compare.svg, and in docs/RESULTS.md what stands between

    <!-- NAME: arms -->
    <!-- end -->

`arms`, `top5`, `comparisons` or `seeds` (the tables of `xresnet compare`), or `picture`. The
text around them is written by hand. To commit a study: copy its grid.json, place the
marks, run this.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from xresnet.basics import cli
from xresnet.basics.cli import UserError, near_miss
from xresnet.basics.files import read_text, write
from xresnet.reproduce.compare import TABLES, comparison
from xresnet.reproduce.figures import differences, render

PAGE = "docs/RESULTS.md"
RESULTS = "docs/results"
PICTURE = "compare.svg"
_BLOCK = re.compile(r"(<!-- ([\w.-]+): (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def main(argv: object = None) -> None:
    root = Path(__file__).resolve().parents[2]
    studies = read(root)
    for name, made in studies.items():
        path = root / RESULTS / name / PICTURE
        if made["comparisons"] and not (path.exists() and stamp(made) in read_text(path)):
            write(path, picture(made))
            print(f"{RESULTS}/{name}/{PICTURE}")
    write(root / PAGE, page(read_text(root / PAGE), studies))
    print(PAGE)


def read(root: Path) -> dict[str, dict[str, Any]]:
    """Study -> what `xresnet compare` tells of its committed grid.json.

    Raises:
        UserError: a file is not a grid.json.
    """
    found = {}
    for path in sorted((root / RESULTS).glob("*/grid.json")):
        try:
            found[path.parent.name] = comparison(json.loads(read_text(path)), str(path))
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise UserError(f"{path}: not a grid.json ({error!r})") from error
    return found


def page(text: str, studies: dict[str, dict[str, Any]]) -> str:
    """The page with every marked block made anew.

    Raises:
        UserError: a mark that names no study or no part of one, or has no end.
    """

    def made(block: re.Match[str]) -> str:
        begin, name, part, _, end = block.groups()
        if name not in studies:
            raise UserError(f"{PAGE}: no study {name!r} in {RESULTS}{near_miss(name, studies)}")
        return f"{begin}\n{_part(studies[name], name, part)}\n\n{end}"

    if text.count("<!-- end -->") != len(_BLOCK.findall(text)):
        raise UserError(f"{PAGE}: a mark without its `<!-- end -->`, or the reverse")
    return _BLOCK.sub(made, text)


def _part(study: dict[str, Any], name: str, part: str) -> str:
    if part == "picture":
        return f"![{study['name']}: differences over the seeds](results/{name}/{PICTURE})"
    if part not in TABLES:
        known = [*TABLES, "picture"]
        raise UserError(f"{PAGE}: {name}: no part {part!r}{near_miss(part, known)}")
    return "\n".join(TABLES[part](study))


def stamp(made: dict[str, Any]) -> str:
    """A comment that tells from which numbers a picture was drawn.

    Releases of Matplotlib draw the same numbers in other bytes, so a picture is held to them.
    """
    numbers = json.dumps(made["comparisons"], sort_keys=True)
    return f"<!-- drawn from {hashlib.sha256(numbers.encode()).hexdigest()} -->\n"


def picture(made: dict[str, Any]) -> bytes:
    """The study's picture as SVG, with its stamp."""
    return render(differences(made)) + stamp(made).encode()


if __name__ == "__main__":
    cli.run(main, "xresnet.reproduce.committed")
