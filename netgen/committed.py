"""The generated files that stand in the repository, and the commands that make them.

python -m netgen.committed        writes prototxt/, solvers/, docs/NETWORKS.md (`make nets`)
"""

from __future__ import annotations

from pathlib import Path

from netgen import gallery
from netgen.command import generate
from xresnet.basics import cli, files

SINGLE_TASK = ("caffenet", "inception_v1", "vggnet16", "resnet50")
NETS = {
    "x0": ["x0_resnet50"],
    "xi": ["xi_resnet50"],
    "xs": ["xs_resnet50"],
    **{
        f"{net}_{task}": [net, "--task", task]
        for net in SINGLE_TASK
        for task in ("adj", "anp", "noun")
    },
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
} | {
    f"prototxt/{net}_deploy.prototxt": [net, "--deploy"]
    for net in ("deepsentibank", "resnet50_imagenet")
}


def main(argv: list[str] | None = None) -> None:
    cli.Parser(
        prog="netgen.committed",
        description="Write prototxt/, solvers/, docs/NETWORKS.md and its pictures anew.",
        epilog="example:\n  python -m netgen.committed      what `make nets` does",
    ).parse_args(argv)
    root = Path(__file__).resolve().parent.parent
    for path, command in COMMANDS.items():
        files.write(root / path, generate(command))
        print(path)
    files.write(root / gallery.PAGE, gallery.page())
    print(gallery.PAGE)
    for path, source in gallery.figures().items():
        old = root / path
        if not old.exists() or gallery.stamp(source) not in files.read_text(old):
            files.write(old, gallery.svg(source))
            print(path)


if __name__ == "__main__":
    cli.run(main, "netgen.committed")
