"""Layers that work element by element, on one bottom or several of one shape."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from torchcaffe.layers.base import Layer, Shape, layer


@layer("ReLU")
class ReLU(Layer):
    same_shape = True

    @property
    def plain(self) -> bool:
        """Whether negative numbers become 0."""
        return not self.param.relu_param.negative_slope

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x) if self.plain else F.leaky_relu(x, self.param.relu_param.negative_slope)


@layer("ELU")
class ELU(Layer):
    same_shape = True

    def forward(self, x: Tensor) -> Tensor:
        return F.elu(x, self.param.elu_param.alpha)


@layer("Sigmoid")
class Sigmoid(Layer):
    same_shape = True

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x)


@layer("Swish")
class Swish(Layer):
    """x * sigmoid(beta * x)."""

    same_shape = True

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x * self.param.swish_param.beta)


@layer("Clip")
class Clip(Layer):
    same_shape = True

    def forward(self, x: Tensor) -> Tensor:
        p = self.param.clip_param
        return x.clamp(p.min, p.max)


@layer("TanH")
class TanH(Layer):
    same_shape = True

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x)


@layer("AbsVal")
class AbsVal(Layer):
    same_shape = True

    def forward(self, x: Tensor) -> Tensor:
        return x.abs()


@layer("BNLL")
class BNLL(Layer):
    """log(1 + exp(x))."""

    same_shape = True

    def forward(self, x: Tensor) -> Tensor:
        return F.softplus(x)


@layer("Power")
class Power(Layer):
    """(shift + scale * x) ^ power."""

    same_shape = True

    def forward(self, x: Tensor) -> Tensor:
        p = self.param.power_param
        y = x * p.scale + p.shift
        return y if p.power == 1 else y.pow(p.power)


@layer("Exp")
class Exp(Layer):
    """base ^ (shift + scale * x); base -1 is e."""

    same_shape = True

    def forward(self, x: Tensor) -> Tensor:
        p = self.param.exp_param
        return torch.exp((x * p.scale + p.shift) * (1 if p.base == -1 else math.log(p.base)))


@layer("Log")
class Log(Layer):
    """log to `base` of shift + scale * x; base -1 is e."""

    same_shape = True

    def forward(self, x: Tensor) -> Tensor:
        p = self.param.log_param
        return torch.log(x * p.scale + p.shift) / (1 if p.base == -1 else math.log(p.base))


@layer("Threshold")
class Threshold(Layer):
    same_shape = True

    def forward(self, x: Tensor) -> Tensor:
        return (x > self.param.threshold_param.threshold).to(x.dtype)


@layer("Dropout")
class Dropout(Layer):
    """In TRAIN zeroes a share and scales the rest up; in TEST lets all through."""

    same_shape = True

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.param.dropout_param.dropout_ratio, self.train_phase)


@layer("Softmax")
class Softmax(Layer):
    same_shape = True

    def setup(self, shapes: list[Shape]) -> None:
        self.classes = self.axis(self.param.softmax_param.axis, len(shapes[0]))

    def forward(self, x: Tensor) -> Tensor:
        return x.softmax(self.classes)


@layer("MVN")
class MVN(Layer):
    """Mean 0 (and deviation 1) of each image, or of each of its channels."""

    same_shape = True

    def forward(self, x: Tensor) -> Tensor:
        p = self.param.mvn_param
        axes = list(range(1 if p.across_channels else 2, x.dim()))
        y = x - x.mean(axes, keepdim=True)
        if p.normalize_variance:  # Caffe adds eps to the deviation, not to the variance
            y = y / (y.square().mean(axes, keepdim=True).sqrt() + p.eps)
        return y


@layer("Eltwise")
class Eltwise(Layer):
    """Product, weighted sum or maximum of two bottoms or more."""

    bottoms = (2, math.inf)
    same_shape = True

    def setup(self, shapes: list[Shape]) -> None:
        p = self.param.eltwise_param
        self.adds, self.coeff = p.operation == p.SUM, list(p.coeff)
        if len(shapes) < 2 or len(set(shapes)) > 1:
            raise self.mistake(f"needs two or more bottoms of one shape, not {shapes}")
        if self.coeff and (len(self.coeff) != len(shapes) or not self.adds):
            raise self.mistake(f"{len(self.coeff)} coeff for {len(shapes)} bottoms of a SUM")
        if all(c == 1 for c in self.coeff):
            self.coeff = []

    @property
    def plain_sum(self) -> bool:
        """Whether it adds the bottoms as they are."""
        return self.adds and not self.coeff

    def forward(self, *bottoms: Tensor) -> Tensor:
        p = self.param.eltwise_param
        if self.adds:
            if self.coeff:
                bottoms = tuple(c * x for c, x in zip(self.coeff, bottoms))
            y = bottoms[0] + bottoms[1]
            for x in bottoms[2:]:
                y = y + x
            return y
        y = bottoms[0]
        for i, x in enumerate(bottoms[1:]):
            if p.operation == p.PROD:
                y = y * x
            else:  # the first two: a tie is the second's; later ones must be larger
                y = torch.where(y > x, y, x) if i == 0 else torch.where(x > y, x, y)
        return y
