"""Layers over neighbourhoods: pooling and local response normalisation."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchcaffe.layers.base import Layer, Shape, layer
from xresnet.caffeproto import LayerParameter

LOWEST = torch.finfo(torch.float32).min  # what Caffe's maximum starts from


@layer("Pooling")
class Pooling(Layer):
    """Maximum or mean of windows. Sizes round up; a last window is cut at the border.

    A mean divides by the window's size with padding, cut where the padded
    image ends; a maximum never sees padding.
    """

    def setup(self, shapes: list[Shape]) -> None:
        p = self.param.pooling_param
        if len(shapes[0]) != 4:
            raise self.mistake(f"needs N x C x H x W, not {shapes[0]}")
        if p.pool == p.STOCHASTIC:
            raise self.mistake("pool: STOCHASTIC is not supported (nor is it by Caffe on a CPU)")
        size = shapes[0][2:]
        self.whole = p.global_pooling
        if not self.whole:
            self.kernel = self._pair("kernel", "kernel_size", None)
            self.stride = self._pair("stride", "stride", 1)
            self.pad = self._pair("pad", "pad", 0)
        else:
            self.kernel, self.stride, self.pad = size, (1, 1), (0, 0)
        if min(*self.kernel, *self.stride) < 1:
            raise self.mistake(f"kernel {self.kernel}, stride {self.stride}: at least 1 each")
        if any(pad >= kernel for pad, kernel in zip(self.pad, self.kernel)):
            raise self.mistake(f"pad {self.pad} is not below kernel {self.kernel}")
        self.out = tuple(
            _pooled(*sizes, p.round_mode == p.CEIL, any(self.pad))
            for sizes in zip(size, self.kernel, self.stride, self.pad)
        )
        # PyTorch's own ceil mode counts alike, but wants the padding within half a kernel.
        self.native = all(
            2 * pad <= kernel and out == _torch_pooled(n, kernel, stride, pad)
            for n, kernel, stride, pad, out in zip(
                size, self.kernel, self.stride, self.pad, self.out
            )
        )
        self.maximum = p.pool == p.MAX
        torch_out = tuple(map(_torch_pooled, size, self.kernel, self.stride, self.pad))
        self.plain = self.native and torch_out == self.out  # PyTorch's layer, and no more

    def shapes_of_tops(self, shapes: list[Shape]) -> list[Shape] | None:
        return [(*shapes[0][:2], *self.out)]

    def _pair(self, name: str, both: str, default: int | None) -> Shape:
        p = self.param.pooling_param
        if p.HasField(f"{name}_h") or p.HasField(f"{name}_w"):
            if p.HasField(both):
                raise self.mistake(f"{both} beside {name}_h and {name}_w")
            return getattr(p, f"{name}_h"), getattr(p, f"{name}_w")
        if default is None and not p.HasField(both):
            raise self.mistake(f"no {both}")
        return (getattr(p, both),) * 2

    def forward(self, x: Tensor) -> Tensor:
        if self.whole and not self.maximum:
            return x.mean((2, 3), keepdim=True)
        pad = self.pad
        if not self.native:
            (top, left), border = pad, LOWEST if self.maximum else 0.0
            x, pad = F.pad(x, (left, left, top, top), value=border), (0, 0)
        if self.maximum:
            y = F.max_pool2d(x, self.kernel, self.stride, pad, ceil_mode=True)
        else:
            y = F.avg_pool2d(x, self.kernel, self.stride, pad, ceil_mode=True)
        if y.shape[2:] != self.out:  # windows that lie beyond the image, or too many of them
            more = [want - got for want, got in zip(self.out, y.shape[2:])]
            y = F.pad(y, (0, more[1], 0, more[0]), value=LOWEST if self.maximum else 0.0)
        return y


@layer("SPP")
class SPP(Layer):
    """Spatial pyramid pooling: 1 x 1, 2 x 2, 4 x 4 ... windows over the image, in one row."""

    def setup(self, shapes: list[Shape]) -> None:
        p = self.param.spp_param
        if len(shapes[0]) != 4 or not p.pyramid_height:
            raise self.mistake("needs N x C x H x W and a pyramid_height")
        self.levels = nn.ModuleList()
        for level in range(p.pyramid_height):
            bins = 2**level
            sizes = [-(-n // bins) for n in shapes[0][2:]]
            pads = [(size * bins - n + 1) // 2 for size, n in zip(sizes, shapes[0][2:])]
            names = ("kernel_h", "kernel_w", "stride_h", "stride_w", "pad_h", "pad_w")
            windows = dict(zip(names, [*sizes, *sizes, *pads]), pool=p.pool)
            made = LayerParameter(name=self.param.name, type="Pooling", pooling_param=windows)
            made.top.append("")
            self.levels.append(Pooling(made, self.train_phase, shapes))

    def forward(self, x: Tensor) -> Tensor:
        tops = [level(x) for level in self.levels]
        return torch.cat([top.flatten(1) for top in tops], 1) if len(tops) > 1 else tops[0]


def _pooled(n: int, kernel: int, stride: int, pad: int, ceil: bool, padded: bool) -> int:
    """Caffe's output size along one axis."""
    windows = (n + 2 * pad - kernel) / stride
    out = (math.ceil(windows) if ceil else math.floor(windows)) + 1
    if padded and (out - 1) * stride >= n + pad:  # the last would start in the padding
        out -= 1
    return out


def _torch_pooled(n: int, kernel: int, stride: int, pad: int) -> int:
    return _pooled(n, kernel, stride, pad, ceil=True, padded=True)


@layer("LRN")
class LRN(Layer):
    """x / (k + alpha/n * sum of squares)^beta over n channels, or an n x n window."""

    same_shape = True

    def setup(self, shapes: list[Shape]) -> None:
        p = self.param.lrn_param
        if len(shapes[0]) != 4:
            raise self.mistake(f"needs N x C x H x W, not {shapes[0]}")
        if p.local_size % 2 == 0:
            raise self.mistake(f"local_size {p.local_size} is not odd")

    def forward(self, x: Tensor) -> Tensor:
        p = self.param.lrn_param
        half = p.local_size // 2
        if p.norm_region == p.ACROSS_CHANNELS:
            squares = F.pad(x.square(), (0, 0, 0, 0, half, half))
            near = [squares.narrow(1, i, x.shape[1]) for i in range(p.local_size)]
            return x * (sum(near[1:], near[0]) * (p.alpha / p.local_size) + p.k).pow(-p.beta)
        # Within a channel Caffe takes the window's mean with padding, and 1 for k.
        mean = F.avg_pool2d(x.square(), p.local_size, 1, half)
        return x * (mean * p.alpha + 1).pow(-p.beta)
