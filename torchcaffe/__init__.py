"""Caffe's files on PyTorch: nets, solvers, databases and weights unchanged, Caffe's results.

    python -m torchcaffe train -solver solvers/xs.prototxt
    net = torchcaffe.load("deploy.prototxt", "w.caffemodel")

It knows layers, not nets. docs/ENGINE.md explains the design.
"""

from __future__ import annotations

from typing import Any

from basics import cores

__all__ = ["Net", "load"]

cores.share()  # before PyTorch, which starts OpenMP as it is loaded


def __getattr__(name: str) -> Any:
    """`Net` and `load`, imported when asked for: the package itself does without PyTorch."""
    if name == "load":
        from torchcaffe.export import load

        return load
    if name == "Net":
        from torchcaffe.net import Net

        return Net
    raise AttributeError(name)
