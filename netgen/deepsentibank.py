"""The index of each of our ANPs among DeepSentiBank's 2,089 outputs.

    python -m netgen.deepsentibank --classes classes.json --labels data/vso/classes

The paper evaluates DeepSentiBank on the paper's 553 ANPs without retraining it (section 5.2): of
the net's scores, only those at `indices` count.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from netgen.classics import DEEPSENTIBANK_CLASSES
from xresnet.basics import cli, shapes
from xresnet.basics.cli import UserError
from xresnet.basics.files import PathLike, read_text

EXAMPLES = """\
examples:
  python -m netgen.deepsentibank --classes classes.json --labels data/vso/classes
  python -m netgen.deepsentibank --classes classes.json --labels anp.txt
"""


def index_map(anps: Sequence[str], outputs: Sequence[str]) -> dict[str, list[Any]]:
    """`{"indices": [...], "missing": [...]}`: the index of each ANP's output, in the ANPs' order.

    An ANP without an output has the index None and is listed in `missing`.
    """
    places = {name: place for place, name in enumerate(outputs)}
    return {
        "indices": [places.get(anp) for anp in anps],
        "missing": [anp for anp in anps if anp not in places],
    }


def read_outputs(path: PathLike) -> list[str]:
    """DeepSentiBank's published class list: a JSON list of 2,089 ANPs, in the outputs' order.

    Raises:
        UserError: the file cannot be read, is not such a list, or repeats a name.
    """
    names = shapes.read(path, [str])
    if len(names) != DEEPSENTIBANK_CLASSES:
        raise UserError(f"{path}: {len(names):,} names, but the net has {DEEPSENTIBANK_CLASSES:,}")
    return _unique(names, path)


def read_anps(path: PathLike) -> list[str]:
    """The ANPs in label order, one per line of a file, or of a folder's `anp.txt` or `*_anp.txt`.

    Raises:
        UserError: the folder has no or several lists, or the list is empty, repeats a name, or has
            a line that is not one word.
    """
    path = Path(path)
    if path.is_dir():
        found = [path / "anp.txt"] if (path / "anp.txt").is_file() else [*path.glob("*_anp.txt")]
        if len(found) != 1:
            what = "several class lists" if found else "no class list"
            raise UserError(f"{path}: {what} named anp.txt or *_anp.txt")
        path = found[0]
    lines = read_text(path).lstrip("\ufeff").rstrip().splitlines()
    for number, line in enumerate(lines, 1):
        if len(line.split()) != 1:  # a blank line would shift the labels after it
            raise UserError(f"{path}:{number}: expected one ANP, found {line!r}")
    if not lines:
        raise UserError(f"{path}: it contains no ANP")
    return _unique([line.strip() for line in lines], path)


def _unique(names: list[str], path: Any) -> list[str]:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise UserError(f"{path}: {name} is listed twice")
        seen.add(name)
    return names


def main(argv: list[str] | None = None) -> int:
    p = cli.Parser(
        prog="netgen.deepsentibank",
        description="The index of each of our ANPs among DeepSentiBank's outputs, as JSON.",
        epilog=EXAMPLES,
    )
    p.add_argument(
        "--classes", required=True, metavar="FILE", help="DeepSentiBank's published list (JSON)"
    )
    p.add_argument(
        "--labels", required=True, metavar="DIR", help="folder of our class lists, or the ANP list"
    )
    args = p.parse_args(argv)
    found = index_map(read_anps(args.labels), read_outputs(args.classes))
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    cli.run(main, "netgen.deepsentibank")
