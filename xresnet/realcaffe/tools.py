"""Find real Caffe's commands: those installed in the venv, or those of a build on PATH."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from xresnet.basics.cli import UserError, near_miss
from xresnet.realcaffe import wrappers

TOOLS = tuple(wrappers.PROGRAMS)  # caffe, convert_imageset, compute_image_mean, pycaffe


def venv_bin() -> Path | None:
    """The folder of commands of the active venv; None outside a venv."""
    return Path(sys.prefix) / "bin" if sys.prefix != sys.base_prefix else None


def find(tool: str, bin_folder: Path | None = None) -> Path:
    """The path of a command: our wrapper in `bin_folder` (default: the venv's), else PATH's.

    Args:
        tool: one of TOOLS.
        bin_folder: where our wrappers may be.

    Raises:
        UserError: it is not installed; the message says how to install it.
    """
    if tool not in TOOLS:
        raise UserError(f"{tool!r} is not one of {', '.join(TOOLS)}{near_miss(tool, TOOLS)}")
    bin_folder = bin_folder or venv_bin()
    if bin_folder and wrappers.is_ours(bin_folder / tool):
        return bin_folder / tool
    on_path = shutil.which(tool)
    if on_path and wrappers.is_ours(Path(on_path)):  # installed with --bin
        return Path(on_path)
    foreign = foreign_caffe()
    if foreign:
        # The tools of a build are in one folder, of which only caffe may be on PATH.
        place = shutil.which(tool, path=str(foreign.resolve().parent)) or on_path
        if place:
            return Path(place)
    raise UserError(f"{tool} is not installed; run: python -m xresnet.realcaffe install")


def version(caffe: Path | None = None) -> str:
    """Caffe's version, such as "1.0.0".

    Raises:
        UserError: Caffe is not installed, or does not start.
    """
    caffe = caffe or find("caffe")
    found = version_of(caffe)
    if not found:
        raise UserError(
            f"{caffe} --version does not work; run: python -m xresnet.realcaffe install --own"
        )
    return found


_CORE_NAME = """
import ctypes, caffe
blas = next(line.split()[-1] for line in open("/proc/self/maps") if "libopenblas" in line)
name = ctypes.CDLL(blas).openblas_get_corename
name.restype = ctypes.c_char_p
print(name().decode())
"""


def kernels() -> str | None:
    """The CPU whose kernels Caffe's OpenBLAS uses, such as "SkylakeX"; None without OpenBLAS.

    The kernels decide how sums are rounded, and so the last digits of a training's results.
    """
    name = _output(find("pycaffe"), "-c", _CORE_NAME)
    return name.strip() if name else None


def foreign_caffe() -> Path | None:
    """The first `caffe` on PATH that works and is not our wrapper."""
    return next((path for path in on_path("caffe") if version_of(path)), None)


def foreign_pycaffe() -> Path | None:
    """A Python that can `import caffe`: PATH's `pycaffe`, else PATH's or the system's Python."""
    pythons = [*on_path("pycaffe"), *on_path("python3"), Path("/usr/bin/python3")]
    return next((path for path in pythons if _imports_caffe(path)), None)


def on_path(name: str) -> Iterator[Path]:
    """The places of `name` on PATH, in order, without our wrappers."""
    for folder in os.get_exec_path():
        found = shutil.which(name, path=folder) if folder else None
        if found and not wrappers.is_ours(Path(found)):
            yield Path(found).absolute()


@cache
def version_of(caffe: Path) -> str | None:
    """The version of a Caffe; None if it is not Caffe or does not start."""
    output = _output(caffe, "--version")
    found = re.search(r"caffe version (\S+)", output or "")
    return found[1] if found else None


def _imports_caffe(python: Path) -> bool:
    return _output(python, "-c", "import caffe; caffe.Net") is not None


def _output(*command: object) -> str | None:
    """What a command prints; None if it fails or takes more than a minute."""
    try:
        done = subprocess.run(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=60,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
