"""Layers that cut, join and reshape, and compute nothing."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from torchcaffe.layers.base import Layer, Shape, count, layer


@layer("Concat")
class Concat(Layer):
    bottoms = (1, math.inf)

    def setup(self, shapes: list[Shape]) -> None:
        p = self.param.concat_param
        axis = p.concat_dim if p.HasField("concat_dim") else p.axis
        self.along = self.axis(axis, len(shapes[0]))

    def shapes_of_tops(self, shapes: list[Shape]) -> list[Shape]:
        first, along = shapes[0], self.along
        rest = {(*shape[:along], *shape[along + 1 :]) for shape in shapes}
        if len(rest) > 1 or any(len(shape) != len(first) for shape in shapes):
            raise self.mistake(f"cannot join {shapes} along axis {along}")
        return [(*first[:along], sum(shape[along] for shape in shapes), *first[along + 1 :])]

    def forward(self, *bottoms: Tensor) -> Tensor:
        return torch.cat(bottoms, self.along)


@layer("Slice")
class Slice(Layer):
    """Cut at slice_point, or into equal parts."""

    def setup(self, shapes: list[Shape]) -> None:
        p = self.param.slice_param
        axis = p.slice_dim if p.HasField("slice_dim") else p.axis
        self.along = self.axis(axis, len(shapes[0]))
        size = shapes[0][self.along]
        if p.slice_point:
            if len(p.slice_point) != self.tops - 1:
                raise self.mistake(f"{len(p.slice_point)} slice_point for {self.tops} tops")
            points = [0, *p.slice_point, size]
            self.sizes = [b - a for a, b in zip(points, points[1:])]
        else:
            if size % self.tops:
                raise self.mistake(f"{size} does not divide into {self.tops} tops")
            self.sizes = [size // self.tops] * self.tops
        if min(self.sizes) < 1:
            raise self.mistake(f"slice_point {list(p.slice_point)} of {size}")

    def shapes_of_tops(self, shapes: list[Shape]) -> list[Shape]:
        before, after = shapes[0][: self.along], shapes[0][self.along + 1 :]
        return [(*before, size, *after) for size in self.sizes]

    def forward(self, x: Tensor) -> Any:
        parts = x.split(self.sizes, self.along)
        return parts if len(parts) > 1 else parts[0]


@layer("Flatten")
class Flatten(Layer):
    def setup(self, shapes: list[Shape]) -> None:
        p, dims = self.param.flatten_param, len(shapes[0])
        self.span = self.axis(p.axis, dims), self.axis(p.end_axis, dims)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(*self.span)


@layer("Reshape")
class Reshape(Layer):
    """Other axes from `axis` on, `num_axes` of them; 0 copies a dimension, -1 infers it."""

    def setup(self, shapes: list[Shape]) -> None:
        p, dims = self.param.reshape_param, len(shapes[0])
        first = p.axis if p.axis >= 0 else dims + p.axis + 1
        stop = dims if p.num_axes == -1 else first + p.num_axes
        if not 0 <= first <= stop <= dims:
            raise self.mistake(f"axis {p.axis}, num_axes {p.num_axes} of {dims} axes")
        wanted = [shapes[0][first + i] if dim == 0 else dim for i, dim in enumerate(p.shape.dim)]
        if wanted.count(-1) > 1:
            raise self.mistake("shape has more than one -1")
        self.head, self.middle, self.tail = first, wanted, dims - stop

    def forward(self, x: Tensor) -> Tensor:
        head, tail = x.shape[: self.head], x.shape[x.dim() - self.tail :]
        return x.reshape(*head, *self.middle, *tail)


@layer("Crop")
class Crop(Layer):
    """The first bottom cut to the second's size, from `axis` on."""

    bottoms = (2, 2)

    def setup(self, shapes: list[Shape]) -> None:
        p, dims = self.param.crop_param, len(shapes[0])
        first = self.axis(p.axis, dims)
        if len(p.offset) not in (0, 1, dims - first):
            raise self.mistake(f"{len(p.offset)} offset for {dims - first} axes")
        offsets = list(p.offset) or [0]
        offsets *= dims - first if len(offsets) == 1 else 1
        self.cuts = [(first + i, offset, shapes[1][first + i]) for i, offset in enumerate(offsets)]
        for axis, offset, size in self.cuts:
            if offset + size > shapes[0][axis]:
                raise self.mistake(f"{size} from {offset} of {shapes[0][axis]} on axis {axis}")

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        for axis, offset, size in self.cuts:
            x = x.narrow(axis, offset, size)
        return x


@layer("Tile")
class Tile(Layer):
    def setup(self, shapes: list[Shape]) -> None:
        p, dims = self.param.tile_param, len(shapes[0])
        self.repeats = [1] * dims
        self.repeats[self.axis(p.axis, dims)] = p.tiles

    def forward(self, x: Tensor) -> Tensor:
        return x.repeat(self.repeats)


@layer("BatchReindex")
class BatchReindex(Layer):
    """The first bottom's images by the numbers in the second."""

    bottoms = (2, 2)

    def forward(self, x: Tensor, numbers: Tensor) -> Tensor:
        return x[numbers.detach().flatten().long()]


@layer("Split")
class Split(Layer):
    def forward(self, x: Tensor) -> Any:
        return (x,) * self.tops if self.tops > 1 else x


@layer("Silence")
class Silence(Layer):
    """Swallows its bottoms, that they be no outputs of the net."""

    bottoms = (1, math.inf)

    def forward(self, *bottoms: Tensor) -> tuple[()]:
        return ()


@layer("Reduction")
class Reduction(Layer):
    """Sum, sum of magnitudes or squares, or mean, over the axes from `axis` on."""

    def setup(self, shapes: list[Shape]) -> None:
        self.first = self.axis(self.param.reduction_param.axis, len(shapes[0]))

    def forward(self, x: Tensor) -> Tensor:
        p = self.param.reduction_param
        if p.operation == p.ASUM:
            x = x.abs()
        elif p.operation == p.SUMSQ:
            x = x.square()
        y = x.sum(tuple(range(self.first, x.dim())))
        scale = p.coeff / (count(x.shape, self.first) if p.operation == p.MEAN else 1)
        return y * scale


@layer("ArgMax")
class ArgMax(Layer):
    """The top_k classes of each image, or of each place along `axis`; their scores too."""

    def forward(self, x: Tensor) -> Tensor:
        p = self.param.argmax_param
        x = x.detach()
        if p.HasField("axis"):
            values, places = x.topk(p.top_k, self.axis(p.axis, x.dim()))
            return values if p.out_max_val else places.to(x.dtype)
        values, places = x.flatten(1).topk(p.top_k, 1)
        rows = [places.to(x.dtype), values] if p.out_max_val else [places.to(x.dtype)]
        shape = (x.shape[0], len(rows), p.top_k) + (1,) * max(0, x.dim() - 3)
        return torch.stack(rows, 1).reshape(shape)
