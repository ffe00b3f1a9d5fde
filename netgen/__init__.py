"""Generators of the paper's networks and solvers, as Caffe prototxt.

    python -m netgen xs_resnet50 > prototxt/xs.prototxt

and the same from Python:

    import netgen

    net = netgen.build("xs_resnet50", tasks=(netgen.Task("style", 25), netgen.Task("artist", 600)))
    print(net.prototxt(), net.solver(lr=0.01), net.params()["total"])

A net is one function on one screen (`resnet.py`, `classics.py`, `neighbours.py`), what joins two
tasks another (`joints.py`); `options.py` declares what can be chosen, `catalog.py` names them all.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import xresnet.basics  # noqa: F401  # sets OpenCV's limit

if TYPE_CHECKING:
    from netgen.network import Network, build
    from netgen.tasks import Task

__all__ = ["Network", "Task", "build"]
_HOMES = {"Network": "network", "Task": "tasks", "build": "network"}


def __getattr__(name: str) -> Any:
    """Import the names above when they are first used.

    So `python -m netgen` is at work before most of the package is loaded, and ends with one line
    when it is interrupted meanwhile.
    """
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"netgen.{_HOMES[name]}"), name)
