"""`xresnet grid`: nets and seeds of a grid file, and their means."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from xresnet import reproduce
from xresnet.basics.numbers import SEED, several
from xresnet.reproduce.commands import common
from xresnet.reproduce.grid import grid
from xresnet.reproduce.grid_table import markdown

SHIPPED = {path.stem: path for path in sorted(Path(reproduce.__file__).parent.glob("grids/*.json"))}

NAME = "grid"
SUMMARY = "train a grid of nets and seeds, and tabulate means and deviations"
DESCRIPTION = (
    "Train every row and seed of a grid file and tabulate means and deviations "
    "after each run. Finished runs are kept, so the same command continues after any "
    "interruption; it needs only grid.json for that."
)
EXAMPLES = """\
examples:
  python -m xresnet grid cifar --data data/cifar --out runs/study
  python -m xresnet grid cifar --data data/cifar --out runs/study --table
  python -m xresnet grid scratch --data data/cifar --out runs/scratch \\
      --jobs 2 --threads 1
  python -m xresnet grid scratch --data data/cifar --out runs/more \\
      --resume-from runs/scratch/grid.json
"""


def add(p: ArgumentParser) -> None:
    p.add_argument(
        "file",
        type=_file,
        metavar="FILE",
        help=f"a grid file, or the name of one of the project's: {', '.join(SHIPPED)}",
    )
    common.add_data(p)
    common.add_out(p, "where all results go")
    common.add_engine(p, trains=True)
    common.add_threads(p)
    common.add_jobs(p, "number of parallel runs", default=1)
    what = "grid.jsons of other machines or engines: their results are not trained again"
    common.option(p, "--resume-from", what, common.paths, (), metavar="FILE,...")
    what = "train only this row; may be repeated"
    common.option(p, "--row", what, default=[], unset="all", action="append", metavar="NAME")
    what = "seeds in place of the file's, such as 0 to choose a plan; needs its own --out"
    common.option(p, "--seeds", what, several(SEED), (), "the file's", metavar="N,...")
    p.add_argument("--table", action="store_true", help="train nothing: tabulate the finished runs")
    common.add_json(p, "the table")


def _file(word: str) -> Path:
    """A grid file's path; the name alone stands for one that comes with this package."""
    return Path(word) if word not in SHIPPED or Path(word).exists() else SHIPPED[word]


def run(args: Namespace) -> int:
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
    return common.show(table, args.json, markdown(table))


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
