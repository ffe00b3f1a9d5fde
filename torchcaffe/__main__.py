"""Entry point of `python -m torchcaffe`."""

from __future__ import annotations

import sys

from torchcaffe import arguments
from xresnet.basics import cli


def main(argv: list[str] | None = None) -> int:
    args = arguments.parser().parse_args(sys.argv[1:] if argv is None else argv)
    try:
        import torch  # noqa: F401
    except ImportError:
        raise cli.UserError("PyTorch is not installed here: pip install '.[torch]'") from None
    from torchcaffe import command

    return command.run(args)


if __name__ == "__main__":
    cli.run(main, "torchcaffe")
