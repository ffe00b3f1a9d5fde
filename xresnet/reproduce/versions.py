"""The software versions and the machine behind a result."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from xresnet import realcaffe
from xresnet.basics import cores
from xresnet.basics.cli import UserError
from xresnet.reproduce.engine import ENGINES


def versions(engines: Iterable[str]) -> dict[str, Any]:
    """The versions of the software, and the machine; `engines` by name."""
    packages = ("numpy", "protobuf", "lmdb", "opencv-python-headless", "xresnet-caffe")
    return {
        **{name: _known(ENGINES[name]().version) for name in engines},
        **({"openblas": _known(realcaffe.kernels)} if "caffe" in engines else {}),
        "commit": _commit(),
        "python": platform.python_version(),
        **{package: _package(package) for package in packages},
        "platform": platform.platform(),
        "cores": cores.usable(),
    }


def _commit() -> str | None:
    """The commit of this code; None outside of a repository, or without git."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None


def _known(tell: Callable[[], str | None]) -> str | None:
    """What `tell` returns; None if that engine has been removed since it trained."""
    try:
        return tell()
    except UserError:
        return None


def _package(name: str) -> str | None:
    try:
        return version(name)
    except ImportError:  # PackageNotFoundError: run from a checkout, or another build of it
        return None
