"""`xresnet COMMAND`: the paper's results from LMDBs."""

from __future__ import annotations

from xresnet.basics import cli
from xresnet.reproduce import stop
from xresnet.reproduce.commands import (
    compare,
    evaluate,
    features,
    figure5,
    figure6,
    grid,
    pack,
    predict,
    report,
    table2,
    train,
    watch,
)

EXAMPLES = """\
examples:
  python -m xresnet train xs_resnet50 --data data/vso --out runs/xs --gpu 0
  python -m xresnet table2 --smoke --data work/demo/data --out work/demo
"""


def parser() -> cli.Parser:
    p = cli.Parser(prog="xresnet", description="The paper's results from LMDBs.", epilog=EXAMPLES)
    commands = p.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (
        *(train, table2, features, grid, compare, evaluate),
        *(figure5, figure6, predict, pack, watch, report),
    ):
        command = commands.add_parser(
            module.NAME,
            help=module.SUMMARY,
            description=module.DESCRIPTION,
            epilog=module.EXAMPLES,
        )
        command.set_defaults(run=module.run)
        module.add(command)
    return p


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    with stop.on_signals():  # Caffe takes its snapshot first
        return args.run(args)


if __name__ == "__main__":
    cli.run(main, "xresnet")
