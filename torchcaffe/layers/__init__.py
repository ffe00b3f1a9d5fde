"""Caffe's layer types, each with Caffe's own meaning: docs/ENGINE.md lists where that is odd."""

from torchcaffe.layers import losses, pointwise, recurrent, reshaping, sources, weighted, windows
from torchcaffe.layers.base import LAYERS, Layer, make, top_shapes

__all__ = [
    "LAYERS",
    "Layer",
    "losses",
    "make",
    "pointwise",
    "recurrent",
    "reshaping",
    "sources",
    "top_shapes",
    "weighted",
    "windows",
]
