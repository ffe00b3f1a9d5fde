"""Caffe's files on PyTorch: nets, solvers, databases and weights unchanged, Caffe's results.

    python -m torchcaffe train -solver solvers/xs.prototxt
    net = torchcaffe.load("deploy.prototxt", "w.caffemodel")

It knows layers, not nets. docs/ENGINE.md explains the design.
"""

from torchcaffe.export import load
from torchcaffe.net import Net

__all__ = ["Net", "load"]
