"""Entry point of `python -m torchcaffe`."""

from __future__ import annotations

from basics import cli


def main(argv: list[str] | None = None) -> int:
    try:
        import torch  # noqa: F401
    except ImportError:
        raise cli.UserError("PyTorch is not installed here: pip install '.[torch]'") from None
    from torchcaffe import command

    return command.main(argv)


if __name__ == "__main__":
    cli.run(main, "torchcaffe")
