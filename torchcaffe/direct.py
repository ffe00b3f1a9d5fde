"""A small net on a CPU without autograd: forward and backward layer by layer, as Caffe has it.

PyTorch's autograd and its kernels for convolutions take 5 to 300 us a layer before they compute,
which is most of what a small net takes. Here the memory of blobs is laid out once, pointwise
convolutions are matrix products written where their results belong, gradients land in one flat
array for the solver, and so do the statistics of all BatchNorms. Layers that have no operation
of their own below run through autograd one by one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import accumulate, compress
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from torchcaffe import graph, order
from torchcaffe.layers.base import Layer, Shape, count
from torchcaffe.layers.losses import LOG_TINY, SoftmaxWithLoss
from torchcaffe.layers.pointwise import Eltwise, ReLU
from torchcaffe.layers.weighted import BatchNorm, Convolution, InnerProduct, Scale, seen_as
from torchcaffe.layers.windows import Pooling
from torchcaffe.net import Learned, Net

PIXELS = 16  # of an image up to which it pays to gather windows
GATHERED = 1 << 16  # numbers in all up to which it does as well
NONE = torch.iinfo(torch.int64).min  # no label
# The gradient of large weights from few rows is written twice as fast by as few rows of its own
# at a time.
THIN, LARGE = 16, 1 << 20
LINE = 16  # floats of a line of the cache, where each array starts

_batch_norm_backward = torch.ops.aten.native_batch_norm_backward.default
_convolution_backward = torch.ops.aten.convolution_backward.default
_max_pool = torch.ops.aten.max_pool2d_with_indices.default
_max_pool_backward = torch.ops.aten.max_pool2d_with_indices_backward.default
_relu_backward = torch.ops.aten.threshold_backward.default
_relu_backward_in_place = torch.ops.aten.threshold_backward.grad_input


def serves(net: Net, choices: Any) -> bool:
    """Whether a net is to be run so: a small one where nothing else was chosen, or one with
    channels last whose blobs are few (all are held at once here, and gradients of many)."""
    if torch.device(choices.device).type != "cpu" or choices.bf16 or choices.compile:
        return False
    if choices.sync_bn or choices.channels_last is False:
        return False
    return order.small(net) or (bool(choices.channels_last) and order.light(net))


class Flat:
    """Learned arrays as one: the weights, their gradients and histories, each group in a row.

    A group is what shares lr_mult and decay_mult. The arrays themselves become views, in the
    memory order that they have, and so does each one's `grad`.

    Attributes:
        mults: lr_mult and decay_mult of each group.
        weights, gradients: a tensor a group.
        histories: of each group, for each history that the solver keeps.
    """

    def __init__(self, learned: Sequence[Learned], histories: Sequence[Sequence[Tensor]]) -> None:
        groups: dict[tuple[float, float], list[int]] = {}
        for i, one in enumerate(learned):
            groups.setdefault((one.lr_mult, one.decay_mult), []).append(i)
        self.mults = list(groups)
        self.weights: list[Tensor] = []
        self.gradients: list[Tensor] = []
        self.histories: list[list[Tensor]] = [[] for _ in histories]
        for members in groups.values():
            blobs = [learned[i].blob for i in members]
            self.weights.append(gather(blobs))
            self.gradients.append(torch.zeros_like(self.weights[-1]))
            for blob, piece in zip(blobs, pieces(self.gradients[-1], blobs)):
                blob.grad = piece
            for held, history in zip(self.histories, histories):
                held.append(gather([history[i] for i in members]))


@torch.no_grad()
def gather(arrays: Sequence[Tensor]) -> Tensor:
    """One flat array that holds all of `arrays`, which become views of it."""
    flat = torch.zeros(_offsets(arrays)[-1])
    for array, piece in zip(arrays, pieces(flat, arrays)):
        piece.copy_(array)
        array.data = piece
    return flat


def pieces(flat: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """The parts of a flat array that `gather` made, shaped and strided as `like`."""
    return [
        flat.as_strided(array.shape, array.stride(), start)
        for array, start in zip(like, _offsets(like))
    ]


def _offsets(arrays: Sequence[Tensor]) -> list[int]:
    """Where each starts, at a line of the cache, and the end."""
    return [0, *accumulate(-(-array.numel() // LINE) * LINE for array in arrays)]


class Statistics:
    """What BatchNorms of one moving_average_fraction keep, as one array, and the batch's own."""

    def __init__(self, norms: Sequence[BatchNorm]) -> None:
        kept = [blob for norm in norms for blob in norm.blobs]
        self.fraction = norms[0].fraction
        self.sums = gather(kept)
        self.batch = torch.zeros_like(self.sums)
        found = iter(pieces(self.batch, kept))
        self.of: dict[int, tuple[Tensor, Tensor]] = {}
        for norm, mean, var, weight in zip(norms, found, found, found):
            weight.fill_(1)
            # The unbiased variance of one sample is no number; Caffe has 0.
            self.of[id(norm)] = mean, var if norm.samples > 1 else torch.zeros_like(var)

    def update(self) -> None:
        """Take the batch's in."""
        torch.add(self.batch, self.sums, alpha=self.fraction, out=self.sums)


class Running:
    """The running means and variances of several BatchNorms, reckoned from their sums at once."""

    def __init__(self, norms: Sequence[BatchNorm]) -> None:
        self.sums = [blob for norm in norms for blob in list(norm.blobs)[:2]]
        self.weights = [norm.blobs[2] for norm in norms]
        sizes = [blob.numel() for blob in self.sums]
        self.times = torch.tensor([2 * size for size in sizes[::2]])
        self.values = torch.empty(sum(sizes))
        found = iter(self.values.split(sizes))
        self.of = {id(norm): pair for norm, pair in zip(norms, zip(found, found))}

    def update(self) -> None:
        """Take the sums as they are now; nothing seen is 0."""
        weights = torch.cat(self.weights)
        factors = torch.where(weights == 0, 0.0, 1 / weights)
        factors = factors.repeat_interleave(self.times, output_size=len(self.values))
        torch.mul(torch.cat(self.sums), factors, out=self.values)


class Blob:
    """A value of the net: its numbers `x`, and their gradient `d` on the way back.

    `rows` and `drows` are the same memory as N H W x C, where it is held from the beginning.
    Memory that is not held is its maker's, and nobody changes it.
    """

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.x: Tensor = None  # type: ignore[assignment]  # written before it is read
        self.rows: Tensor | None = None
        self.d: Tensor = None  # type: ignore[assignment]  # likewise, where one comes
        self.drows: Tensor | None = None
        self.readers = 0  # that have a gradient for it
        self.asked = 0  # of them, while the backward pass is laid out

    def hold(self) -> Tensor:
        """Have memory for the numbers from now on; the rows."""
        self.x, self.rows = _held(self.shape)
        return self.rows

    def hold_gradient(self) -> Tensor:
        """Have memory for the gradient from now on; its rows."""
        if self.drows is None:
            self.d, self.drows = _held(self.shape)
        return self.drows

    def first(self) -> bool:
        """Whether the reader that asks, in the order of the backward pass, is the first."""
        self.asked += 1
        return self.asked == 1

    def take(self, gradient: Tensor, first: bool) -> None:
        """A reader's gradient."""
        if self.drows is None:
            self.d = gradient
        elif first:
            self.d.copy_(gradient)
        else:
            self.d.add_(gradient)


def _held(shape: Shape) -> tuple[Tensor, Tensor]:
    order = torch.channels_last if len(shape) == 4 else torch.contiguous_format
    x = torch.zeros(shape).contiguous(memory_format=order)
    return x, as_rows(x)


def as_rows(x: Tensor) -> Tensor:
    """N x C x H x W as N H W x C; without a copy where channels come last in memory."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1]) if x.dim() == 4 else x.flatten(1)


class Op:
    """A layer, or one and those behind it that are computed with it."""

    layer: Layer

    def __init__(self, layers: list[Layer], bottoms: list[Blob], tops: list[Blob],
                 needs: list[bool]) -> None:  # fmt: skip
        self.layers, self.bottoms, self.tops = layers, bottoms, tops
        self.needs = needs  # which bottoms want a gradient
        if layers:
            self.layer = layers[0]
        self.relu = len(layers) > 1 and isinstance(layers[-1], ReLU)
        self.learned: list[Tensor] = []  # what a gradient is wanted for

    def prepare(self, plan: Plan) -> None:
        """Have memory for the tops."""

    def prepare_backward(self, plan: Plan) -> None:
        """Note, in the order of the backward pass, what is written first and what is added."""
        self.firsts = [need and blob.first() for need, blob in zip(self.needs, self.bottoms)]

    def forward(self) -> None:
        """Tops from bottoms."""
        raise NotImplementedError

    def backward(self) -> None:
        """Gradients of bottoms and of learned arrays from those of tops."""
        raise NotImplementedError

    def gradients(self, weight: Tensor, bias: Tensor | None = None) -> list[Tensor | None]:
        """Where those of a layer's arrays belong; None for what has none."""
        wanted = {id(blob) for blob in self.learned}
        return [None if blob is None or id(blob) not in wanted else blob.grad
                for blob in (weight, bias)]  # fmt: skip

    def gradient(self) -> Tensor:
        """The top's, behind the ReLU where there is one."""
        top = self.tops[0]
        if not self.relu:
            return top.d
        if top.drows is None:
            return _relu_backward(top.d, top.x, 0)
        return _relu_backward_in_place(top.d, top.x, 0, grad_input=top.d)


def _grad(blob: Tensor) -> Tensor:
    """Where a learned array's gradient belongs."""
    assert blob.grad is not None  # a `Flat` holds it
    return blob.grad


class Alone(Op):
    """Any layer, through autograd."""

    read: Sequence[Tensor]
    made: Sequence[Tensor]

    def prepare_backward(self, plan: Plan) -> None:
        super().prepare_backward(plan)
        self.fresh = [plan.first_gradient(blob) for blob in self.learned]

    def forward(self) -> None:
        self.read = [
            blob.x.detach().requires_grad_(need) for blob, need in zip(self.bottoms, self.needs)
        ]
        with torch.set_grad_enabled(bool(self.learned) or any(self.needs)):
            made = self.layer(*self.read)
        self.made = made if isinstance(made, tuple) else (made,)
        for blob, top in zip(self.tops, self.made):
            blob.x = top.detach()

    def backward(self) -> None:
        reached = [
            (top, blob.d)
            for top, blob in zip(self.made, self.tops)
            if top.requires_grad and blob.d is not None
        ]
        asking = [i for i, need in enumerate(self.needs) if need]
        wanted = [*(self.read[i] for i in asking), *self.learned]
        found: Sequence[Tensor | None] = [None] * len(wanted)
        if reached:
            tops, gradients = zip(*reached)
            found = torch.autograd.grad(tops, wanted, gradients, allow_unused=True)
        self.read = self.made = ()
        full = [torch.zeros_like(x) if g is None else g for x, g in zip(wanted, found)]
        for i, gradient in zip(asking, full):
            self.bottoms[i].take(gradient, self.firsts[i])
        for blob, gradient, first in zip(self.learned, full[len(asking) :], self.fresh):
            _grad(blob).copy_(gradient) if first else _grad(blob).add_(gradient)


class Conv(Op):
    """A convolution by PyTorch's kernels, and the ReLU behind it."""

    layer: Convolution

    def prepare(self, plan: Plan) -> None:
        made = self.layer
        arrays = list(made.blobs)
        self.weight, self.bias = arrays[0].data, arrays[1].data if len(arrays) > 1 else None
        self.sizes = ([*made.stride], [*made.pad], [*made.dilation])
        self.mask = [self.needs[0], *(blob.requires_grad for blob in arrays), False][:3]

    def forward(self) -> None:
        x = self.before(self.bottoms[0].x)
        y = torch.conv2d(x, self.weight, self.bias, *self.sizes, self.layer.group)
        self.tops[0].x = self.after(y.relu_() if self.relu else y)

    def backward(self) -> None:
        bottom = self.bottoms[0]
        gradient, x = self.before(self.gradient()), self.before(bottom.x)
        bias = None if self.bias is None else [len(self.bias)]
        dx, *found = _convolution_backward(
            gradient, x, self.weight, bias, *self.sizes, False, [0, 0], self.layer.group,
            self.mask,
        )  # fmt: skip
        if self.needs[0]:
            bottom.take(self.after(dx), self.firsts[0])
        for blob, gradient in zip(self.learned, compress(found, self.mask[1:])):
            _grad(blob).copy_(gradient)

    def before(self, x: Tensor) -> Tensor:
        """Images as the kernel shall see them."""
        return x

    def after(self, y: Tensor) -> Tensor:
        """What the kernel made of them as images again."""
        return y


class Pointwise(Conv):
    """A large convolution of one pixel for one, seen as one of other images (see `images`)."""

    def prepare(self, plan: Plan) -> None:
        super().prepare(plan)
        n, _, height, width = self.tops[0].shape
        self.whole = (n, height, width)
        self.parts = (self.layer.images(n * height * width), -1, 1)
        self.sizes = ([1, 1], [0, 0], [1, 1])  # of what is there of the bottom, see `Every`

    def before(self, x: Tensor) -> Tensor:
        return seen_as(x, self.parts)

    def after(self, y: Tensor) -> Tensor:
        return seen_as(y, self.whole)


class Product(Op):
    """A convolution or classifier that is a product of matrices, and the ReLU behind it."""

    layer: Convolution | InnerProduct

    def prepare(self, plan: Plan) -> None:
        self.out = self.tops[0].hold()
        weight, *bias = self.layer.blobs
        self.weight = self._matrix(weight.data)
        self.by = self.weight.t()
        self.bias = bias[0].data if bias else None
        self.dweight, self.dbias = self.gradients(weight, *bias)
        self.dweight = None if self.dweight is None else self._matrix(self.dweight)
        rows, outputs = self.out.shape
        self.thin = 1 < rows <= THIN and self.weight.numel() >= LARGE and outputs % THIN == 0

    def _matrix(self, weight: Tensor) -> Tensor:
        """Outputs x inputs: of a window, the place that falls on an image of one pixel."""
        made = self.layer
        if isinstance(made, InnerProduct):
            return weight.t() if made.transposed else weight
        return weight[:, :, made.pad[0], made.pad[1]]

    def prepare_backward(self, plan: Plan) -> None:
        super().prepare_backward(plan)
        if self.needs[0]:
            self.back = self.bottoms[0].hold_gradient()

    def forward(self) -> None:
        bottom = self.bottoms[0]
        self.rows = as_rows(bottom.x) if bottom.rows is None else bottom.rows
        if self.bias is None:
            torch.mm(self.rows, self.by, out=self.out)
        else:
            torch.addmm(self.bias, self.rows, self.by, out=self.out)
        if self.relu:
            self.out.relu_()

    def backward(self) -> None:
        top = self.tops[0]
        gradient = self.gradient()
        gradient = as_rows(gradient) if top.drows is None else top.drows
        if self.thin and self.dweight is not None:
            several = gradient.t().contiguous().view(-1, THIN, len(gradient))
            rows = self.rows.expand(len(several), *self.rows.shape)
            torch.bmm(several, rows, out=self.dweight.unflatten(0, (-1, THIN)))
        elif self.dweight is not None:
            torch.mm(gradient.t(), self.rows, out=self.dweight)
        if self.dbias is not None:
            torch.sum(gradient, 0, out=self.dbias)
        if self.needs[0]:
            if self.firsts[0]:
                torch.mm(gradient, self.weight, out=self.back)
            else:
                self.back.addmm_(gradient, self.weight)


class Windows(Op):
    """A convolution of few or small images whose windows' numbers are gathered: a product too.

    Channels last, a row of all windows' numbers has the weights' own order; and the gradient
    of the image, where windows are odd and the size is kept, is the same convolution of the
    top's, with the window turned round.
    """

    layer: Convolution

    def prepare(self, plan: Plan) -> None:
        made = self.layer
        self.out = self.tops[0].hold()
        self.weight, *bias = made.blobs
        self.bias = bias[0].data if bias else None
        self.by = _by_window(self.weight.data).t()
        self.dweight, self.dbias = self.gradients(self.weight, *bias)
        self.dweight = None if self.dweight is None else _by_window(self.dweight)
        self.read = _Gather(self.bottoms[0].shape, made)
        if self.needs[0]:
            self.read_back = _Gather(self.tops[0].shape, made)
            o, c, *window = self.weight.shape
            self.turned = torch.empty(*window, o, c)

    def prepare_backward(self, plan: Plan) -> None:
        super().prepare_backward(plan)
        if self.needs[0]:
            self.back = self.bottoms[0].hold_gradient()

    def forward(self) -> None:
        rows = self.read(self.bottoms[0].x)
        if self.bias is None:
            torch.mm(rows, self.by, out=self.out)
        else:
            torch.addmm(self.bias, rows, self.by, out=self.out)
        if self.relu:
            self.out.relu_()

    def backward(self) -> None:
        gradient = self.gradient()
        rows = as_rows(gradient)
        if self.dweight is not None:
            torch.mm(rows.t(), self.read.rows, out=self.dweight)
        if self.dbias is not None:
            torch.sum(rows, 0, out=self.dbias)
        if self.needs[0]:
            self.turned.copy_(self.weight.data.permute(2, 3, 0, 1).flip(0, 1))
            by = self.turned.view(-1, self.turned.shape[-1])
            if self.firsts[0]:
                torch.mm(self.read_back(gradient), by, out=self.back)
            else:
                self.back.addmm_(self.read_back(gradient), by)


def _by_window(weight: Tensor) -> Tensor:
    """O x C x h x w, channels last, as O x h w C."""
    return weight.permute(0, 2, 3, 1).view(len(weight), -1)


class _Gather:
    """The numbers in each window of an image, a row a window: N H W x h w C."""

    def __init__(self, shape: Shape, made: Convolution) -> None:
        n, c, height, width = shape
        (top, left), window = made.pad, made.kernel
        padded = torch.zeros(n, height + 2 * top, width + 2 * left, c)
        self.inside = padded[:, top : top + height, left : left + width].permute(0, 3, 1, 2)
        image, line, place, _ = padded.stride()
        down, right = made.stride
        self.windows = padded.as_strided(
            (n, *made.top_shape(shape)[2:], *window, c),
            (image, down * line, right * place, line, place, 1),
        )
        self.held = torch.empty(self.windows.shape)
        self.rows = self.held.view(-1, c * count(window))

    def __call__(self, x: Tensor) -> Tensor:
        self.inside.copy_(x)
        self.held.copy_(self.windows)
        return self.rows


class Largest(Op):
    """The largest of each window, where PyTorch's sizes are Caffe's."""

    layer: Pooling

    def prepare(self, plan: Plan) -> None:
        made = self.layer
        self.sizes = ([*made.kernel], [*made.stride], [*made.pad], [1, 1], True)

    def forward(self) -> None:
        self.tops[0].x, self.places = _max_pool(self.bottoms[0].x, *self.sizes)

    def backward(self) -> None:
        bottom = self.bottoms[0]
        gradient = _max_pool_backward(self.tops[0].d, bottom.x, *self.sizes, self.places)
        bottom.take(gradient, self.firsts[0])


class Mean(Op):
    """The mean of each channel of an image."""

    def prepare(self, plan: Plan) -> None:
        self.out = self.tops[0].hold()
        self.places = count(self.bottoms[0].shape, 2)

    def forward(self) -> None:
        rows, out = as_rows(self.bottoms[0].x), self.out
        if self.places == 1:
            out.copy_(rows)
        else:
            torch.mean(rows.view(len(out), self.places, -1), 1, out=out)

    def backward(self) -> None:
        bottom, gradient = self.bottoms[0], self.tops[0].d
        if self.places > 1:
            gradient = (gradient / self.places).expand(bottom.shape)
            if bottom.drows is None:
                gradient = gradient.contiguous(memory_format=torch.channels_last)
        bottom.take(gradient, self.firsts[0])


class Loss(Op):
    """SoftmaxWithLoss of N x K scores without ignore_label, and no second top."""

    layer: SoftmaxWithLoss

    def prepare(self, plan: Plan) -> None:
        self.images = self.bottoms[0].shape[0]
        self.minus = torch.full((self.images, 1), -1.0)
        self.share = float(self._divided(torch.ones(())))

    def _divided(self, total: Tensor) -> Tensor:
        return self.layer.divide(total, self.images, self.images, 1)

    def forward(self) -> None:
        scores, label = self.bottoms
        self.log_p = torch.log_softmax(scores.x.flatten(1), 1)
        self.label = label.x.flatten().long()
        floored = self.log_p.clamp(min=LOG_TINY)
        # No label is ignored: what is no class shall be an error, as for other numbers.
        nll = F.nll_loss(floored, self.label, ignore_index=NONE, reduction="sum")
        self.tops[0].x = self._divided(nll)

    def backward(self) -> None:
        bottom = self.bottoms[0]
        gradient = self.log_p.exp_().scatter_add_(1, self.label[:, None], self.minus)
        gradient.mul_(self.tops[0].d * self.share)
        bottom.take(gradient.view(bottom.shape), self.firsts[0])


class Every(Op):
    """Every n-th place on both axes: what a pointwise convolution with a stride reads.

    It stands for no layer: several convolutions may read it.
    """

    def __init__(self, bottom: Blob, need: bool, stride: Shape) -> None:
        self.stride = stride
        n, c, *size = bottom.shape
        top = Blob((n, c, *(-(-a // s) for a, s in zip(size, stride))))
        super().__init__([], [bottom], [top], [need])

    def prepare(self, plan: Plan) -> None:
        self.tops[0].hold()

    def prepare_backward(self, plan: Plan) -> None:
        super().prepare_backward(plan)
        self.bottoms[0].hold_gradient()

    def forward(self) -> None:
        self.tops[0].x.copy_(self._places(self.bottoms[0].x))

    def backward(self) -> None:
        d = self.bottoms[0].d
        if self.firsts[0]:
            d.zero_()
        self._places(d).add_(self.tops[0].d)

    def _places(self, x: Tensor) -> Tensor:
        return x[:, :, :: self.stride[0], :: self.stride[1]]


class Norm(Op):
    """BatchNorm by the batch's statistics, with the Scale and the ReLU behind it."""

    layer: BatchNorm

    def prepare(self, plan: Plan) -> None:
        self.tops[0].hold()
        norm = self.layer
        blobs = [blob for made in self.layers if isinstance(made, Scale) for blob in made.blobs]
        self.gamma, self.beta = ([blob.data for blob in blobs] + [None, None])[:2]
        self.mask = [self.needs[0], *(blob.requires_grad for blob in blobs), False, False][:3]
        self.batch = plan.batch_statistics[id(norm)]
        self.eps = norm.eps
        self.saved = tuple(torch.empty_like(blob) for blob in list(norm.blobs)[:2])

    def forward(self) -> None:
        y = self.tops[0].x
        # With momentum 1 PyTorch's running statistics are this batch's own.
        torch.native_batch_norm(
            self.bottoms[0].x, self.gamma, self.beta, *self.batch, True, 1.0, self.eps,
            out=(y, *self.saved),
        )  # fmt: skip
        if self.relu:
            y.relu_()

    def backward(self) -> None:
        bottom = self.bottoms[0]
        dx, *found = _batch_norm_backward(
            self.gradient(), bottom.x, self.gamma, *self.batch, *self.saved, True, self.eps,
            self.mask,
        )  # fmt: skip
        if self.needs[0]:
            bottom.take(dx, self.firsts[0])
        for blob, gradient in zip(self.learned, compress(found, self.mask[1:])):
            _grad(blob).copy_(gradient)


class Frozen(Op):
    """BatchNorm by the running statistics, with the Scale and the ReLU behind it; no way back."""

    layer: BatchNorm

    def prepare(self, plan: Plan) -> None:
        self.tops[0].hold()
        blobs = [blob for made in self.layers if isinstance(made, Scale) for blob in made.blobs]
        self.gamma, self.beta = ([blob.data for blob in blobs] + [None, None])[:2]
        self.running = plan.running_statistics[id(self.layer)]
        self.eps = self.layer.eps
        self.unused = torch.empty(0), torch.empty(0)

    def forward(self) -> None:
        y = self.tops[0].x
        torch.native_batch_norm(
            self.bottoms[0].x, self.gamma, self.beta, *self.running, False, 0.0, self.eps,
            out=(y, *self.unused),
        )  # fmt: skip
        if self.relu:
            y.relu_()


class Sum(Op):
    """An Eltwise sum and the ReLU behind it."""

    def prepare(self, plan: Plan) -> None:
        self.tops[0].hold()

    def forward(self) -> None:
        first, second, *others = self.bottoms
        y = torch.add(first.x, second.x, out=self.tops[0].x)
        for blob in others:
            y.add_(blob.x)
        if self.relu:
            y.relu_()

    def backward(self) -> None:
        gradient = self.gradient()
        for blob, need, first in zip(self.bottoms, self.needs, self.firsts):
            if need:
                blob.take(gradient, first)


class Factor(Op):
    """A Scale by a factor a channel, without bias."""

    def prepare(self, plan: Plan) -> None:
        self.tops[0].hold()
        factor = self.layer.blobs[0]
        self.factor = factor.data.view(1, -1, *[1] * (len(self.tops[0].shape) - 2))
        self.dfactor, _ = self.gradients(factor)

    def forward(self) -> None:
        torch.mul(self.bottoms[0].x, self.factor, out=self.tops[0].x)

    def backward(self) -> None:
        bottom, gradient = self.bottoms[0], self.tops[0].d
        if self.dfactor is not None:
            torch.sum(as_rows(gradient * bottom.x), 0, out=self.dfactor)
        if self.needs[0]:
            if bottom.drows is None:
                bottom.d = gradient * self.factor
            elif self.firsts[0]:
                torch.mul(gradient, self.factor, out=bottom.d)
            else:
                bottom.d.addcmul_(gradient, self.factor)


class Plan:
    """Both passes of a net on a CPU; gradients go into each blob's `grad`.

    Args:
        net: its weights' channels last in memory.
        learn: whether there is a pass backward; then learned arrays are views of a `Flat`.
    """

    def __init__(self, net: Net, learn: bool) -> None:
        self.net, self._learn = net, learn
        self._blobs: dict[graph.Value, Blob] = {}
        self._needed: set[graph.Value] = set()
        self._begun: set[int] = set()  # the learned arrays whose gradient somebody writes, by id
        self._every: dict[tuple[int, bool, Shape], Blob] = {}
        users = Counter(id(blob) for made in net.layers() for blob in made.blobs)
        self._shared = {id(made) for made in net.layers()
                        if any(users[id(blob)] > 1 for blob in made.blobs)}  # fmt: skip
        last = {value.name: value for step in net.steps for value in step.tops}
        self._kept = {last[name] for name in net.outputs}
        self._kept.update(v for step in net.steps for v in step.tops if v.name in net.losses)
        self._readers = graph.readers(net.steps)
        self.ops: list[Op] = []
        done: set[int] = set()
        for step in net.steps:
            if step.param.type not in graph.FED and id(step) not in done:
                done.update(map(id, self._add(step)))
        self.fed = {name: self._blob(last[name]) for name in net.inputs}
        self.wanted = {name: self._blob(last[name]) for name in [*net.outputs, *net.losses]}
        norms: dict[float, list[BatchNorm]] = {}
        for op in self.ops:
            if isinstance(op, Norm):
                norms.setdefault(op.layer.fraction, []).append(op.layer)
        self.statistics = [Statistics(several) for several in norms.values()]
        frozen = [op.layer for op in self.ops if isinstance(op, Frozen)]
        self.running = Running(frozen) if frozen else None
        self.running_statistics = self.running.of if self.running else {}
        self.batch_statistics = {k: v for one in self.statistics for k, v in one.of.items()}
        self.back = self._reached()
        for op in self.ops:
            op.prepare(self)
        for op in self.back:
            op.prepare_backward(self)
        for name, weight in net.losses.items():
            self.wanted[name].d = torch.full(self.wanted[name].shape, weight)

    @torch.no_grad()
    def forward(self, **fed: Tensor) -> dict[str, Tensor]:
        """The net's outputs and losses by name, good until the next pass."""
        for name, blob in self.fed.items():
            x = fed[name]
            blob.x = x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x
        if self.running is not None:
            self.running.update()
        for op in self.ops:
            op.forward()
        for one in self.statistics:
            one.update()
        return {name: blob.x for name, blob in self.wanted.items()}

    @torch.no_grad()
    def backward(self) -> None:
        """The gradients of the pass before, in place of those there were."""
        for op in self.back:
            op.backward()

    def first_gradient(self, blob: Tensor) -> bool:
        """Whether who asks, in the order of the backward pass, is the first to have one."""
        first = id(blob) not in self._begun
        self._begun.add(id(blob))
        return first

    def _reached(self) -> list[Op]:
        """The operations that have a gradient to compute, last first."""
        reached = {id(self.wanted[name]) for name in self.net.losses}
        back = []
        for op in reversed(self.ops):
            if (op.learned or any(op.needs)) and not reached.isdisjoint(map(id, op.tops)):
                back.append(op)
                for blob, need in zip(op.bottoms, op.needs):
                    if need:
                        blob.readers += 1
                        reached.add(id(blob))
        for op in back:
            for blob in op.bottoms:
                if blob.readers > 1:
                    blob.hold_gradient()
        return back

    # ---- from layers to operations ------------------------------------------

    def _blob(self, value: graph.Value) -> Blob:
        if value not in self._blobs:
            self._blobs[value] = Blob(self.net.shapes[value.name])
        return self._blobs[value]

    def _add(self, step: graph.Step) -> list[graph.Step]:
        """Add the operation that begins with `step`; the steps that it computes."""
        steps, kind = self._chain(step)
        layers = [self.net.layer_named(one.param.name) for one in steps]
        needs = [value in self._needed and not stopped
                 for value, stopped in zip(step.bottoms, graph.stopped(step))]  # fmt: skip
        bottoms = [self._blob(value) for value in step.bottoms]
        if kind in (Product, Pointwise) and isinstance(layers[0], Convolution):
            bottoms = [self._sampled(bottoms[0], needs[0], layers[0])]
        op = kind(layers, bottoms, [self._blob(value) for value in steps[-1].tops], needs)
        if self._learn:
            op.learned = [blob for made in layers for blob in made.blobs if blob.requires_grad]
        self.ops.append(op)
        if op.learned or any(needs):
            self._needed.update(steps[-1].tops)
        return steps

    def _sampled(self, bottom: Blob, need: bool, made: Convolution) -> Blob:
        """What a convolution of one place reads of `bottom`."""
        if max(made.stride) == 1 or bottom.shape[2:] == (1, 1):
            return bottom
        key = (id(bottom), need, made.stride)
        if key not in self._every:
            op = Every(bottom, need, made.stride)
            self.ops.append(op)
            self._every[key] = op.tops[0]
        return self._every[key]

    def _chain(self, step: graph.Step) -> tuple[list[graph.Step], type[Op]]:
        """The steps that one operation computes, and which."""
        made = self.net.layer_named(step.param.name)
        shapes = [self.net.shapes[value.name] for value in step.bottoms]
        need = not self._needed.isdisjoint(step.bottoms)
        kind = Alone if id(made) in self._shared else _kind(made, shapes, self._learn, need)
        steps = [step]
        if kind in (Norm, Frozen):
            scale = self._behind(step, "Scale")
            if scale and self.net.layer_named(scale.param.name).channelwise:
                steps.append(scale)
        if kind in (Conv, Pointwise, Product, Windows, Norm, Frozen, Sum):
            relu = self._behind(steps[-1], "ReLU")
            if relu and not relu.param.relu_param.negative_slope:
                steps.append(relu)
        return steps, kind

    def _behind(self, step: graph.Step, kind: str) -> graph.Step | None:
        """The layer of that kind that alone reads what `step` makes, shared arrays aside."""
        found = graph.follower(step, self._readers, self._kept)
        if found is None or found.param.type != kind:
            return None
        return None if id(self.net.layer_named(found.param.name)) in self._shared else found


def _kind(made: Layer, shapes: list[Shape], learn: bool, need: bool) -> type[Op]:
    """What computes a layer, of a net that is to learn, a gradient of its bottoms needed."""
    shape, *others = shapes or [()]
    if isinstance(made, Convolution) and not others and made.dims == 2:
        kept = all(kernel == 2 * pad + 1 for kernel, pad in zip(made.kernel, made.pad))
        pixel = shape[2:] == (1, 1) and kept
        top = made.top_shape(shape)
        if made.point and made.images(top[0] * count(top, 2)):
            return Pointwise
        if made.point or (pixel and made.group == max(made.dilation) == 1):
            return Product
        plain = made.group == max(made.dilation) == 1
        back = kept and max(made.stride) == 1  # there is a way back
        numbers = count(top) // made.outputs * made.blobs[0][0].numel()
        small = count(shape, 2) <= PIXELS or numbers <= GATHERED
        return Windows if plain and small and (back or not need) else Conv
    if isinstance(made, Pooling) and made.maximum:
        return Largest if made.plain else Alone
    if isinstance(made, Pooling) and made.out == (1, 1):
        return Mean if made.kernel == shape[2:] and made.pad == (0, 0) else Alone
    if isinstance(made, SoftmaxWithLoss) and made.ignore is None and made.tops == 1:
        return Loss if made.classes == 1 and count(shape, 2) == 1 else Alone
    if isinstance(made, InnerProduct) and made.first == 1 and count(shape, 2) == 1:
        return Product
    if isinstance(made, BatchNorm) and len(shape) in (2, 4):
        return Norm if not made.frozen else Alone if learn else Frozen
    if isinstance(made, Eltwise) and made.operation == made.param.eltwise_param.SUM:
        return Alone if made.coeff else Sum
    if isinstance(made, Scale) and made.channelwise and not made.bias and len(shape) in (2, 4):
        return Factor
    return Alone
