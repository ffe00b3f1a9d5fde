"""Layers without bottoms. Input, and what reads files, is fed from outside: data.py."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torchcaffe.fillers import fill
from torchcaffe.layers.base import Layer, Shape, layer


@layer("DummyData")
class DummyData(Layer):
    """Filled arrays: constants once, all other fillers anew at every pass."""

    bottoms = (0, 0)

    def setup(self, shapes: list[Shape]) -> None:
        p = self.param.dummy_data_param
        if p.shape:
            made = [tuple(s.dim) for s in p.shape]
        else:
            made = list(zip(p.num, p.channels, p.height, p.width))
        fillers = list(p.data_filler)
        for given, what in ((made, "shape"), (fillers, "data_filler")):
            if len(given) not in ((1, self.tops) if what == "shape" else (0, 1, self.tops)):
                raise self.mistake(f"{len(given)} {what} for {self.tops} tops")
        self.shapes = made * (self.tops if len(made) == 1 else 1)
        self.fillers = fillers * (self.tops if len(fillers) == 1 else 1)
        for i, shape in enumerate(self.shapes):
            array = torch.zeros(shape)
            if self.fillers:
                fill(array, self.fillers[i])
            self.register_buffer(f"array{i}", array, persistent=False)

    def forward(self) -> Any:
        arrays: list[Tensor] = []
        for i in range(self.tops):
            array = getattr(self, f"array{i}")
            if self.fillers and self.fillers[i].type != "constant" and not array.is_meta:
                array = torch.empty(array.shape)
                fill(array, self.fillers[i])
                array = array.to(getattr(self, f"array{i}").device)
            arrays.append(array)
        return tuple(arrays) if self.tops > 1 else arrays[0]


@layer("Parameter")
class Parameter(Layer):
    """An array that is learned, as a blob of its own."""

    bottoms = (0, 0)

    def setup(self, shapes: list[Shape]) -> None:
        self.add_blob(tuple(self.param.parameter_param.shape.dim))

    def forward(self) -> Tensor:
        return self.blobs[0].clone()
