"""The generated files in the repository, and the code that makes them.

python -m netgen.committed        writes prototxt/, solvers/, docs/NETWORKS.md (`make nets`)
"""

from __future__ import annotations

from pathlib import Path
from typing import Callable

from netgen import gallery
from netgen.network import Network
from xresnet.basics import cli, files

SINGLE_TASK = ("caffenet", "inception_v1", "vggnet16", "resnet50")
NETS = {
    "x0": Network("x0_resnet50"),
    "xi": Network("xi_resnet50"),
    "xs": Network("xs_resnet50"),
    **{
        f"{net}_{task}": Network(net, {"task": task})
        for net in SINGLE_TASK
        for task in ("adj", "anp", "noun")
    },
}

# Path from the repository's root to what makes the file's text.
FILES: dict[str, Callable[[], str]] = {
    path: make
    for short, net in NETS.items()
    for path, make in [
        (f"prototxt/{short}.prototxt", net.prototxt),
        (f"prototxt/{short}_deploy.prototxt", net.deploy),
        (f"solvers/{short}.prototxt", net.solver),
    ]
} | {
    f"prototxt/{net}_deploy.prototxt": Network(net).deploy
    for net in ("deepsentibank", "resnet50_imagenet")
}


def main(argv: list[str] | None = None) -> None:
    cli.Parser(
        prog="netgen.committed",
        description="Regenerate prototxt/, solvers/, docs/NETWORKS.md and its pictures.",
        epilog="example:\n  python -m netgen.committed      what `make nets` does",
    ).parse_args(argv)
    root = Path(__file__).resolve().parent.parent
    for path, make in FILES.items():
        files.write(root / path, make())
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
