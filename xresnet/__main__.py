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
    """Start a module's own command, or else one of xresnet.reproduce's."""
    module = MODULES.get("".join(sys.argv[1:2]))
    if module:
        del sys.argv[1]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        from xresnet.reproduce.__main__ import main

        cli.run(main, "xresnet")


if __name__ == "__main__":
    main()
