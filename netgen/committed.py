"""The generated files that stand in the repository, and the commands that make them.

python -m netgen.committed        writes prototxt/ and solvers/ (`make nets`)
"""

from __future__ import annotations

from pathlib import Path

from basics import cli, files
from netgen.command import generate

NETS = {
    "x0": ["x0_resnet50"],
    "xi": ["xi_resnet50"],
    "xs": ["xs_resnet50"],
    "resnet50_adj": ["resnet50", "--task", "adj"],
    "resnet50_anp": ["resnet50", "--task", "anp"],
    "resnet50_noun": ["resnet50", "--task", "noun"],
}

# Path from the repository's root to the arguments of `python -m netgen`.
COMMANDS = {
    path: argv
    for short, net in NETS.items()
    for path, argv in [
        (f"prototxt/{short}.prototxt", net),
        (f"prototxt/{short}_deploy.prototxt", [*net, "--deploy"]),
        (f"solvers/{short}.prototxt", [*net, "--solver"]),
    ]
}


def main(argv: object = None) -> None:
    root = Path(__file__).resolve().parent.parent
    for path, command in COMMANDS.items():
        files.write(root / path, generate(command))
        print(path)


if __name__ == "__main__":
    cli.run(main, "netgen.committed")
