"""`python -m reproduce table2`: the paper's results from LMDBs."""

from __future__ import annotations

import json
from pathlib import Path

from basics import cli
from reproduce.table2 import ROWS, SMOKE, markdown, table2

EXAMPLES = """\
examples:
  python -m reproduce table2 --smoke --data work/demo/data --out work/demo
  python -m reproduce table2 --smoke --data DATA --out OUT --rows x0_resnet50,xs_resnet50
"""


def parser() -> cli.Parser:
    p = cli.Parser(prog="reproduce", description="The paper's results from LMDBs.", epilog=EXAMPLES)
    commands = p.add_subparsers(dest="command", required=True, metavar="COMMAND")
    t = commands.add_parser(
        "table2",
        help="train and test the nets of Table 2",
        description="Train and test the nets of Table 2 with real Caffe, and set the table. "
        "A run that is done is taken as it is; one that was stopped goes on.",
        epilog=EXAMPLES,
    )
    t.add_argument("--smoke", action="store_true", help=SMOKE.what)
    t.add_argument("--data", type=Path, required=True, metavar="DIR", help="data_prep's folder")
    t.add_argument("--out", type=Path, required=True, metavar="DIR", help="where all results go")
    t.add_argument("--rows", type=_names, default=ROWS, metavar="NET,...", help=",".join(ROWS))
    t.add_argument("--jobs", type=int, metavar="N", help="nets trained at a time: one a core")
    t.add_argument("--json", action="store_true", help="print the table as JSON")
    return p


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    if not args.smoke:
        raise cli.UserError(
            "only the rehearsal is there so far: add --smoke. At full size, train a net by hand: "
            "caffe train -solver solvers/xs.prototxt"
        )
    table = table2(args.data, args.out, SMOKE, args.rows, args.jobs)
    if args.json:
        print(json.dumps(table, indent=2))
    else:
        print(f"\n{markdown(table)}\nalso in {args.out}/table2.md, table2.csv, table2.json")
    return 0


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


if __name__ == "__main__":
    cli.run(main, "reproduce")
