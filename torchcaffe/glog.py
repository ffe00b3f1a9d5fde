"""Log lines as Caffe's: severity, date, thread, the source file that Caffe would name."""

from __future__ import annotations

import os
import sys
from datetime import datetime


def info(file: str, message: str) -> None:
    """`I1120 21:46:37.123456  4711 solver.cpp:1] message` on stderr."""
    now = datetime.now().strftime("%m%d %H:%M:%S.%f")
    print(f"I{now} {os.getpid():>5} {file}:1] {message}", file=sys.stderr, flush=True)


def number(value: float) -> str:
    """As C++ streams print a float: six digits."""
    return f"{value:.6g}"


def output(which: str, index: int, name: str, value: float, weight: float) -> str:
    """A net output's line; a loss says its weight and share."""
    share = ""
    if weight:
        share = f" (* {number(weight)} = {number(weight * value)} loss)"
    return f"    {which} net output #{index}: {name} = {number(value)}{share}"
