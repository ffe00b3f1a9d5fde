"""Layers that learn, or keep statistics: convolutions, classifiers, norms, scales."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from torchcaffe import parallel
from torchcaffe.layers.base import Layer, Shape, count, layer, per_axis
from torchcaffe.layers.product import Windows, product

ENOUGH = 16  # images from which PyTorch takes oneDNN's kernels for pointwise convolutions
WIDE = 512  # channels from which products of matrices in bfloat16 are faster for windows, too
MANY, WORK = 256, 4e6  # pixels, and multiply-adds, from which those are worth it


class _Convolving(Layer):
    """What Convolution and Deconvolution share: kernel, stride, pad and dilation by axis."""

    bottoms = (1, math.inf)

    def setup(self, shapes: list[Shape]) -> None:
        p = self.param.convolution_param
        if self.axis(p.axis, len(shapes[0])) != 1:
            raise self.mistake("axis must be 1")
        self.dims = len(shapes[0]) - 2
        if not 1 <= self.dims <= 3:
            raise self.mistake(f"{self.dims} spatial axes; 1 to 3 are supported")
        self.kernel = self._sizes("kernel", p.kernel_size, None)
        self.stride = self._sizes("stride", p.stride, 1)
        self.pad = self._sizes("pad", p.pad, 0)
        self.dilation = self._sizes("dilation", p.dilation, 1)
        for name in ("kernel", "stride", "dilation"):
            if min(getattr(self, name)) < 1:
                raise self.mistake(f"{name} {getattr(self, name)}: at least 1 on each axis")
        self.group = p.group
        self.channels = shapes[0][1]
        if not p.group or self.channels % p.group or p.num_output % p.group or not p.num_output:
            raise self.mistake(
                f"{self.channels} channels and {p.num_output} outputs in {p.group} groups"
            )
        self.outputs = p.num_output
        self.add_blob(self.weight_shape(p.num_output) + self.kernel, p.weight_filler)
        if p.bias_term:
            self.add_blob([p.num_output], p.bias_filler)

    def weight_shape(self, outputs: int) -> Shape:
        raise NotImplementedError

    def _sizes(self, name: str, given: Any, default: int | None) -> Shape:
        """One number an axis; 2-D layers may say kernel_h and kernel_w instead."""
        p = self.param.convolution_param
        if name != "dilation":
            pair = [f"{name}_h", f"{name}_w"]
            if any(p.HasField(field) for field in pair):
                if self.dims != 2 or given:
                    raise self.mistake(f"{pair[0]} and {pair[1]} are for two axes, alone")
                return tuple(getattr(p, field) for field in pair)
        if not given:
            if default is None:
                raise self.mistake(f"no {name}_size")
            return (default,) * self.dims
        if len(given) not in (1, self.dims):
            raise self.mistake(f"{len(given)} values of {name} for {self.dims} axes")
        return tuple(given) * (self.dims if len(given) == 1 else 1)

    def shapes_of_tops(self, shapes: list[Shape]) -> list[Shape] | None:
        return None if len(set(shapes)) > 1 else [self.top_shape(shapes[0])] * len(shapes)

    def top_shape(self, shape: Shape) -> Shape:
        """The top's, of a bottom of `shape`."""
        windows = (self.kernel, self.stride, self.pad, self.dilation)
        sizes = tuple(map(self.size, shape[2:], *windows))
        if min(sizes) < 1:
            raise self.mistake(f"a kernel {self.kernel} does not fit into {shape[2:]}")
        return (shape[0], self.outputs, *sizes)

    @staticmethod
    def size(n: int, kernel: int, stride: int, pad: int, dilation: int) -> int:
        """The top's size along one axis."""
        raise NotImplementedError

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """The top of a bottom."""
        raise NotImplementedError

    def forward(self, *bottoms: Tensor) -> Any:
        tops = tuple(self.convolve(x, *self.blobs) for x in bottoms)
        return tops[0] if len(tops) == 1 else tops


@layer("Convolution")
class Convolution(_Convolving):
    def weight_shape(self, outputs: int) -> Shape:
        return (outputs, self.channels // self.group)

    @staticmethod
    def size(n: int, kernel: int, stride: int, pad: int, dilation: int) -> int:
        return (n + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """N x C x ... to N x num_output x ..., rounded down."""
        if self._a_product(x):
            top = self.top_shape(x.shape)[2:]
            windows = Windows(self.kernel, self.stride, self.pad, self.dilation, top)
            return product(x.to(torch.bfloat16), weight, bias, windows)
        images = self._images(x)
        if images:
            y = F.conv2d(seen_as(x, (images, -1, 1)), weight, bias)
            return seen_as(y, (x.shape[0], *x.shape[2:]))
        run = (F.conv1d, F.conv2d, F.conv3d)[self.dims - 1]
        return run(x, weight, bias, self.stride, self.pad, self.dilation, self.group)

    def _a_product(self, x: Tensor) -> bool:
        """Whether a product of matrices is faster, see `product`."""
        if not (self.point or self.channels >= WIDE) or self.dims != 2 or self.group != 1:
            return False
        if x.device.type != "cpu" or _traced():
            return False
        cast = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu")
        return torch.bfloat16 in (x.dtype, cast) and x.is_contiguous(
            memory_format=torch.channels_last
        )

    @property
    def point(self) -> bool:
        """Whether it reads one pixel for one of its top: a product of matrices."""
        plain = self.dims == 2 and self.group == 1
        return plain and self.kernel == (1, 1) and self.pad == (0, 0)

    def images(self, pixels: int) -> int:
        """As how many images to see all pixels of one with a point, 0 for as they are.

        For fewer than 16 images PyTorch does not take oneDNN's kernels, which are twice as fast;
        but channels last in memory it is the pixels that count, however many images they make.
        """
        worth = pixels >= MANY and pixels * self.blobs[0].numel() >= WORK
        return _parts(pixels) if worth else 0

    def _images(self, x: Tensor) -> int:
        """The same for a tensor, where it applies."""
        if not self.point or self.stride != (1, 1) or x.device.type != "cpu":
            return 0
        if _traced():  # any number of images
            return 0
        if x.dtype != torch.float32 or len(x) >= ENOUGH:
            return 0
        last = x.is_contiguous(memory_format=torch.channels_last)
        return self.images(x.numel() // x.shape[1]) if last else 0


def _traced() -> bool:
    """Whether others make a net of what is called."""
    tracing: bool = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]  # public
    return tracing or torch.compiler.is_compiling()


@cache
def _parts(number: int) -> int:
    """The smallest divisor that is enough, 0 if there is none but for single pixels."""
    found = (n for n in range(ENOUGH, number // 2 + 1) if number % n == 0)
    return next(found, 0)


def seen_as(x: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """N x C x H x W as another N x C x H x W of as many pixels; channels last, the same memory."""
    rows = x.permute(0, 2, 3, 1).reshape(*shape, x.shape[1])
    return rows.permute(0, 3, 1, 2)


@layer("Deconvolution")
class Deconvolution(_Convolving):
    def weight_shape(self, outputs: int) -> Shape:
        return (self.channels, outputs // self.group)

    @staticmethod
    def size(n: int, kernel: int, stride: int, pad: int, dilation: int) -> int:
        return stride * (n - 1) + dilation * (kernel - 1) + 1 - 2 * pad

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """A convolution's gradient as a layer: sizes grow by the stride."""
        run = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[self.dims - 1]
        return run(x, weight, bias, self.stride, self.pad, 0, self.group, self.dilation)


@layer("InnerProduct")
class InnerProduct(Layer):
    def setup(self, shapes: list[Shape]) -> None:
        p = self.param.inner_product_param
        self.first = self.axis(p.axis, len(shapes[0]))
        inputs = count(shapes[0], self.first)
        shape = (inputs, p.num_output) if p.transpose else (p.num_output, inputs)
        self.add_blob(shape, p.weight_filler)
        if p.bias_term:
            self.add_blob([p.num_output], p.bias_filler)
        self.transposed = p.transpose
        self.outputs = p.num_output

    def shapes_of_tops(self, shapes: list[Shape]) -> list[Shape]:
        return [(*shapes[0][: self.first], self.outputs)]

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.blobs[0], self.blobs[1] if len(self.blobs) > 1 else None
        return F.linear(x.flatten(self.first), weight.t() if self.transposed else weight, bias)


@layer("Embed")
class Embed(Layer):
    def setup(self, shapes: list[Shape]) -> None:
        p = self.param.embed_param
        if not (p.input_dim and p.num_output):
            raise self.mistake("input_dim and num_output: at least 1 each")
        self.add_blob([p.input_dim, p.num_output], p.weight_filler)
        if p.bias_term:
            self.add_blob([p.num_output], p.bias_filler)

    def forward(self, x: Tensor) -> Tensor:
        rows = F.embedding(x.detach().long(), self.blobs[0])
        return rows + self.blobs[1] if len(self.blobs) > 1 else rows


@layer("BatchNorm")
class BatchNorm(Layer):
    """Normalises by channel: the batch's statistics in TRAIN, else the running ones.

    Blobs: the sums of means and of unbiased variances, each decaying by
    moving_average_fraction, and the sum of the weights, which divides both.
    """

    learns = False
    same_shape = True

    def setup(self, shapes: list[Shape]) -> None:
        p = self.param.batch_norm_param
        if any(spec.lr_mult for spec in self.param.param if spec.HasField("lr_mult")):
            raise self.mistake("statistics are not learned: leave lr_mult out, or 0")
        channels = 1 if len(shapes[0]) == 1 else shapes[0][1]
        for size in (channels, channels, 1):
            self.add_blob([size])
        self.eps, self.fraction = p.eps, p.moving_average_fraction
        self.given = p.use_global_stats if p.HasField("use_global_stats") else None
        # Samples a channel; the unbiased variance of one sample is taken as the biased one.
        self.samples = count(shapes[0]) // channels

    def forward(self, x: Tensor, gamma: Tensor | None = None, beta: Tensor | None = None) -> Tensor:
        """(x - mean) / sqrt(var + eps), with a Scale's gamma and beta where one is fused."""
        flat = x.dim() == 1
        if flat:  # one channel
            x = x[:, None]
        if self.frozen:
            mean, var = self.running()
            y = F.batch_norm(x, mean, var, gamma, beta, False, 0.0, self.eps)
        else:
            y = self._batch_norm(x, gamma, beta)
        return y[:, 0] if flat else y

    @property
    def frozen(self) -> bool:
        """Whether the running statistics normalise: where the prototxt says so, or in TEST."""
        return not self.train_phase if self.given is None else self.given

    def begin_at_one(self) -> None:
        """Mean 0 and variance 1 while nothing has been seen, by a weight that any batch outdoes."""
        for blob in list(self.blobs)[1:]:
            blob.fill_(1e-6)

    def running(self) -> tuple[Tensor, Tensor]:
        """The running mean and variance, C each; zeros while nothing has been seen."""
        mean, var, weight = self.blobs
        factor = torch.where(weight == 0, 0.0, 1 / weight)
        return mean * factor, var * factor

    def affine(self) -> tuple[Tensor, Tensor]:
        """The running statistics as a factor and a term, C each."""
        mean, var = self.running()
        factor = (var + self.eps).rsqrt()
        return factor, -mean * factor

    def _batch_norm(self, x: Tensor, gamma: Tensor | None, beta: Tensor | None) -> Tensor:
        if parallel.sync_bn():
            y, mean, unbiased = parallel.batch_norm(x, gamma, beta, self.eps)
        elif x.numel() == x.shape[1]:  # one sample, of which PyTorch knows no variance
            y = torch.batch_norm(x, gamma, beta, None, None, True, 1.0, self.eps, True)
            mean, unbiased = (
                x.detach().flatten().to(self.blobs[0].dtype),
                torch.zeros_like(self.blobs[1]),
            )
        else:
            # With momentum 1 PyTorch's running statistics are this batch's own.
            mean, unbiased = (torch.zeros_like(self.blobs[i]) for i in (0, 1))
            y = torch.batch_norm(x, gamma, beta, mean, unbiased, True, 1.0, self.eps, True)
        with torch.no_grad():
            sums = list(self.blobs)
            torch._foreach_mul_(sums, self.fraction)
            torch._foreach_add_(sums, [mean, unbiased, torch.ones_like(sums[2])])
        return y


@layer("Scale")
class Scale(Layer):
    """x * a (+ b), the factor learned or a second bottom, broadcast from `axis`."""

    bottoms = (1, 2)
    same_shape = True

    def setup(self, shapes: list[Shape]) -> None:
        p = self.param.scale_param
        self.first = self.axis(p.axis, len(shapes[0]))
        if len(shapes) > 1:
            shape = shapes[1]
            if shapes[0][self.first : self.first + len(shape)] != shape:
                raise self.mistake(f"the factor's shape {shape} does not fit {shapes[0]}")
        else:
            shape = _covered(self, shapes[0], self.first, p.num_axes)
            self.add_blob(shape, p.filler if p.HasField("filler") else None)
            if not p.HasField("filler"):
                torch.nn.init.ones_(self.blobs[0])
        self.bias = p.bias_term
        if self.bias:
            self.add_blob(shape, p.bias_filler if p.HasField("bias_filler") else None)

    @property
    def channelwise(self) -> bool:
        """Whether it is a BatchNorm's gamma (and beta)."""
        return self.first == 1 and len(self.param.bottom) == 1 and self.blobs[0].dim() == 1

    def forward(self, x: Tensor, factor: Tensor | None = None) -> Tensor:
        factor = self.blobs[0] if factor is None else factor
        y = x * per_axis(factor, self.first, x.dim())
        return y + per_axis(self.blobs[-1], self.first, x.dim()) if self.bias else y


@layer("Bias")
class Bias(Layer):
    """x + b, the term learned or a second bottom."""

    bottoms = (1, 2)

    def setup(self, shapes: list[Shape]) -> None:
        p = self.param.bias_param
        self.first = self.axis(p.axis, len(shapes[0]))
        if len(shapes) == 1:
            shape = _covered(self, shapes[0], self.first, p.num_axes)
            self.add_blob(shape, p.filler if p.HasField("filler") else None)

    def forward(self, x: Tensor, term: Tensor | None = None) -> Tensor:
        term = self.blobs[0] if term is None else term
        return x + per_axis(term, self.first, x.dim())


@layer("PReLU")
class PReLU(Layer):
    same_shape = True

    def setup(self, shapes: list[Shape]) -> None:
        p = self.param.prelu_param
        self.add_blob([] if p.channel_shared else [shapes[0][1]], p.filler)
        if not p.HasField("filler"):
            torch.nn.init.constant_(self.blobs[0], 0.25)

    def forward(self, x: Tensor) -> Tensor:
        return F.prelu(x, self.blobs[0].reshape(-1))


def _covered(owner: Layer, shape: Shape, first: int, axes: int) -> Shape:
    """The dimensions that a learned factor covers; all the rest for -1, none for 0."""
    stop = len(shape) if axes == -1 else first + axes
    if stop > len(shape) or axes < -1:
        raise owner.mistake(f"num_axes {axes} from axis {first} of {len(shape)}")
    return shape[first:stop]
