"""Resume `caffe train` from its last complete snapshot, for docker/entrypoint.sh.

    python3 -m xresnet.reproduce.resume caffe train -solver solver.prototxt

prints that command as a shell reads it: with `-snapshot`, and without the initial weights,
which Caffe refuses beside it; as it is where there is no snapshot, or where it names one.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from xresnet.basics import cli
from xresnet.caffeproto import upgrade
from xresnet.reproduce.snapshots import snapshots


def resumed(command: Sequence[str]) -> list[str]:
    """A `caffe train` with the snapshot to go on from, which is made ready for it.

    Raises:
        UserError: its solver is invalid, or the snapshot cannot be written.
    """
    flags = _flags(command)
    solver = Path(flags.get("solver", ""))
    if "snapshot" in flags or not solver.is_file():  # if there is none, Caffe says so
        return list(command)
    prefix = Path(upgrade.load_solver(solver).snapshot_prefix)
    found = snapshots(prefix.parent, prefix=prefix.name)
    if not found:
        return list(command)
    found[-1].settle()
    return [*_without(command, "weights"), "-snapshot", str(found[-1].state)]


def _flags(command: Sequence[str]) -> dict[str, str]:
    """What gflags makes of `-solver X`, `--solver X`, `-solver=X` and `--solver=X`."""
    found = {}
    for word, following in zip(command, [*command[1:], ""]):
        if word.startswith("-"):
            name, is_whole, value = word.lstrip("-").partition("=")
            found[name] = value if is_whole else following
    return found


def _without(command: Sequence[str], flag: str) -> list[str]:
    kept, words = [], iter(command)
    for word in words:
        if word in (f"-{flag}", f"--{flag}"):
            next(words, None)
        elif not word.startswith((f"-{flag}=", f"--{flag}=")):
            kept.append(word)
    return kept


def main(argv: list[str] | None = None) -> int:
    p = cli.Parser(prog="resume", description="`caffe train`, from its last whole snapshot.")
    p.add_argument("command", nargs=argparse.REMAINDER, help="caffe train -solver FILE ...")
    command = p.parse_args(argv).command
    made = resumed(command)
    if made != command:
        print(f"xresnet: going on from {made[-1]} (RESUME=0 starts anew)", file=sys.stderr)
    print(shlex.join(made))
    return 0


if __name__ == "__main__":
    cli.run(main, "resume")
