"""`xresnet COMMAND`: everything under one name; also `python -m xresnet COMMAND`."""

from __future__ import annotations

import runpy
import sys

from xresnet.basics import cli

# Commands that also stand on their own, as `python -m MODULE`.
MODULES = {
    "netgen": "netgen",
    "weights": "netgen.weights",
    "data_prep": "data_prep",
    "realcaffe": "xresnet.realcaffe",
    "torchcaffe": "torchcaffe",
}


def main() -> None:
    # The commands are imported within: Ctrl-C in their first second is told as at any other time.
    cli.run(start, "xresnet")


def start(argv: list[str] | None = None) -> int:
    """Start a module's own command, or else one of xresnet.reproduce's."""
    module = MODULES.get("".join(sys.argv[1:2]))
    if module:
        del sys.argv[1]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        return 0
    from xresnet.reproduce.__main__ import main

    return main(argv)


if __name__ == "__main__":
    main()
