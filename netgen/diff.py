"""Compare two nets layer by layer: `python -m netgen diff A B`."""

from __future__ import annotations

import json
import os
import shlex
import sys
from typing import Any

from netgen.command import read
from xresnet.basics.cli import Parser, UserError
from xresnet.caffeproto import TEST, NetParameter, text

EXAMPLES = """\
examples:
  python -m netgen diff x0_resnet50 xs_resnet50
  python -m netgen diff xs_resnet50 prototxt/xs.prototxt
  python -m netgen diff xs_resnet50 "xs_resnet50 --branch-norm branch2c"
  python -m netgen diff old.prototxt new.prototxt --json
"""


def main(argv: list[str] | None = None) -> int:
    """Print the differences between two nets; the exit status is 1 if there are any, as diff's."""
    p = Parser(
        prog="netgen diff",
        description="Show what differs between two nets, layer by layer.",
        epilog=EXAMPLES,
    )
    p.add_argument("a", metavar="A", help="a prototxt file, or a net's name with any options")
    p.add_argument("b", metavar="B", help="another")
    p.add_argument("--json", action="store_true", help="print it as JSON")
    args = p.parse_args(argv)
    found = diff(_layers(args.a), _layers(args.b))
    sys.stdout.write(json.dumps(found, indent=2) + "\n" if args.json else _text(found))
    return int(any(found.values()))


def diff(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """Compare layers by name.

    Returns:
        `{"only_a": [names], "only_b": [names], "changed": {name: [[lines of a], [lines of b]]}}`.
    """
    changed = {}
    for name in (name for name in a if name in b):
        ours, theirs = (text.dump(layers[name]).splitlines() for layers in (a, b))
        if ours != theirs:
            changed[name] = [
                [line.strip() for line in ours if line not in theirs],
                [line.strip() for line in theirs if line not in ours],
            ]
    return {
        "only_a": [name for name in a if name not in b],
        "only_b": [name for name in b if name not in a],
        "changed": changed,
    }


def _layers(net: str) -> dict[str, Any]:
    """A net's layers by name; TEST's layers of a name that TRAIN has are marked."""
    if os.path.exists(net):
        proto = text.load(net, NetParameter)
    elif net.endswith(".prototxt") or os.sep in net:
        raise UserError(f"cannot read {net}: no such file")
    else:
        proto = _made(shlex.split(net))
    layers: dict[str, Any] = {}
    for layer in proto.layer:
        tested = any(rule.phase == TEST for rule in layer.include)
        layers[f"{layer.name} (TEST)" if tested and layer.name in layers else layer.name] = layer
    return layers


def _made(argv: list[str]) -> Any:
    request = read(argv)
    if request is None or request.form not in ("net", "deploy"):
        raise UserError(f"diff compares nets, but {shlex.join(argv)} does not make one")
    return request.network.proto(request.form == "deploy")


def _text(found: dict[str, Any]) -> str:
    lines = [f"- {name}" for name in found["only_a"]] + [f"+ {name}" for name in found["only_b"]]
    for name, (ours, theirs) in found["changed"].items():
        lines += [f"~ {name}", *(f"    - {line}" for line in ours)]
        lines += [f"    + {line}" for line in theirs]
    return "\n".join([*lines, ""]) if lines else ""
