"""Caffe's files on PyTorch: nets, solvers, databases and weights unchanged, Caffe's results.

    python -m torchcaffe train -solver solvers/xs.prototxt
    net = torchcaffe.load("deploy.prototxt", "w.caffemodel")           # to run
    model = torchcaffe.Model("train_val.prototxt", "w.caffemodel")     # to train in PyTorch
    model = torchcaffe.create_model("xs_resnet50", tasks={"kind": 2, "class": 10})

It knows layers, not nets: create_model alone asks netgen for them. docs/ENGINE.md explains the
design.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from xresnet.basics import cores

_HOME = {
    "Net": "torchcaffe.net",
    "Model": "torchcaffe.models",
    "create_model": "torchcaffe.models",
    "load": "torchcaffe.export",
}
__all__ = ["Model", "Net", "create_model", "load"]

cores.configure_openmp()  # before PyTorch, which starts OpenMP as it is loaded


def __getattr__(name: str) -> Any:
    """What is public, imported when asked for: the package itself does without PyTorch."""
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
