"""`xresnet grid`: nets and seeds of a grid file, and their means."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from xresnet import reproduce
from xresnet.basics.cli import printable
from xresnet.basics.numbers import SEED, at_least, several
from xresnet.reproduce.commands import common
from xresnet.reproduce.grid import grid, markdown

SHIPPED = {path.stem: path for path in sorted(Path(reproduce.__file__).parent.glob("grids/*.json"))}

EXAMPLES = """\
examples:
  python -m xresnet grid cifar --data data/cifar --out runs/study
  python -m xresnet grid cifar --data data/cifar --out runs/study --table
  python -m xresnet grid scratch --data data/cifar --out runs/scratch \\
      --jobs 2 --threads 1
  python -m xresnet grid scratch --data data/cifar --out runs/more \\
      --resume-from runs/scratch/grid.json
"""


def add(commands: common.Commands) -> None:
    p = commands.add_parser(
        "grid",
        help="train a grid of nets and seeds, and tabulate mean and deviation",
        description="Train every row and seed of a grid file and tabulate means and deviations "
        "after each run. What is done is taken as it is, so the same command goes on after any "
        "interruption; grid.json alone is enough for that.",
        epilog=EXAMPLES,
    )
    p.set_defaults(run=run)
    p.add_argument(
        "file",
        type=_file,
        metavar="FILE",
        help=f"a grid file, or one of ours by its name: {', '.join(SHIPPED)}",
    )
    p.add_argument("--data", type=Path, required=True, metavar="DIR", help="data_prep's folder")
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="where all results go")
    common.add_engine(p, trains=True)
    common.add_threads(p)
    p.add_argument(
        "--jobs",
        type=at_least(1, "jobs", most=1_024),
        default=1,
        metavar="N",
        help="runs at a time: 1",
    )
    p.add_argument(
        "--resume-from",
        type=common.paths,
        default=(),
        metavar="FILE,...",
        help="grid.jsons of other machines or engines: what they hold is not trained again",
    )
    p.add_argument(
        "--row",
        action="append",
        default=[],
        metavar="NAME",
        help="train this row only, and others so named",
    )
    p.add_argument(
        "--seeds",
        type=several(SEED),
        default=(),
        metavar="N,...",
        help="in place of the file's, as 0 to choose a plan by; give these an --out of their own",
    )
    p.add_argument("--table", action="store_true", help="train nothing: tabulate what is done")
    p.add_argument("--json", action="store_true", help="print the table as JSON")


def _file(word: str) -> Path:
    """A grid file's path; the name alone stands for one that comes with this package."""
    return Path(word) if word not in SHIPPED or Path(word).exists() else SHIPPED[word]


def run(args: argparse.Namespace) -> int:
    engine = common.engine(args)
    table = grid(
        args.file,
        args.data,
        args.out,
        engine,
        not args.table,
        args.jobs,
        args.resume_from,
        args.row,
        args.seeds,
        say=_tell,
    )
    print(json.dumps(table, indent=2) if args.json else printable(markdown(table)))
    return 0


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
