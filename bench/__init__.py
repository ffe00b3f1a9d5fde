"""Benchmarks, `python -m bench.NAME`; what one of them lacks here is told in one line."""

from __future__ import annotations

import sys
from types import TracebackType

from xresnet.basics.cli import UserError, printable

HOW = {
    "torch": "pip install '.[torch]'",
    "onnxruntime": "pip install '.[export]'",
    "onnx": "pip install '.[export]'",
    "caffe": "run it with pycaffe (python -m xresnet.realcaffe install)",
}


def tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """What ends a benchmark: a line for what the user can mend, a traceback for what is ours."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        how = HOW.get(package, f"pip install {package}")
        error = UserError(f"{package} is not installed here: {how}")
    if isinstance(error, OSError) and error.filename and error.strerror:
        error = UserError(f"{error.filename}: {error.strerror}")
    if isinstance(error, KeyboardInterrupt):
        print("bench: interrupted", file=sys.stderr)
    elif isinstance(error, UserError):
        print(f"bench: error: {printable(error)}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = tell
