"""What every layer is: a module of bottoms to tops that holds its blobs in Caffe's order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Callable

import torch
from torch import Tensor, nn

from torchcaffe.blobs import sound
from torchcaffe.fillers import fill
from xresnet.basics.cli import UserError, near_miss

Shape = tuple[int, ...]

# What reckoning with a layer's numbers may end in, where they fit neither bottoms nor PyTorch.
UNFIT = (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError, MemoryError)


class Blobs(nn.Module):
    """A layer's arrays in the order of the .caffemodel: parameters, or statistics as buffers."""

    def __init__(self, learned: bool) -> None:
        super().__init__()
        self.learned = learned

    def append(self, array: Tensor) -> None:
        """One more array."""
        if self.learned:
            self.register_parameter(str(len(self)), nn.Parameter(array))
        else:
            self.register_buffer(str(len(self)), array)

    def __getitem__(self, i: int) -> Tensor:
        return list(self)[i]

    def __setitem__(self, i: int, array: Tensor) -> None:
        setattr(self, str(i), array)

    def __len__(self) -> int:
        return len(self._parameters) + len(self._buffers)

    def __iter__(self) -> Iterator[Tensor]:
        held = self._parameters if self.learned else self._buffers
        return iter(held.values())  # type: ignore[arg-type]  # none of them is None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Blobs:
        """Move or convert the arrays, each staying the object that it is: others may share it."""
        for buffer in self.buffers(recurse=False):
            buffer.data = fn(buffer.data)
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # PyTorch's


class Layer(nn.Module):
    """One Caffe layer.

    A subclass creates its blobs in `setup` and computes in `forward`, which takes the bottoms
    and returns the top, or a tuple of tops where there are several or none. Tops that do not
    contribute to a loss need no gradient.

    Attributes:
        param: the LayerParameter.
        train_phase: whether it computes as in TRAIN. `train()` and `eval()` change it where
            `follows_mode` is set, as in a Model; a net of one phase stays in it.
        blobs: learned arrays or statistics, in the order of the .caffemodel.
        tops: how many tops are wanted.
        bottoms: how many bottoms it takes, at least and at most.
    """

    bottoms: tuple[int, float] = (1, 1)
    loss = False  # the first top counts with weight 1 unless loss_weight says otherwise
    learns = True  # False: blobs are statistics, no gradient reaches them
    same_shape = False  # True: the one top is shaped as the first bottom

    def __init__(self, param: Any, train_phase: bool, shapes: Sequence[Shape]) -> None:
        super().__init__()
        self.param = param
        self.train_phase = train_phase
        self.follows_mode = False
        self.tops = len(param.top)
        self.blobs = Blobs(self.learns)
        self.setup([tuple(shape) for shape in shapes])
        if len(param.param) > len(self.blobs):
            raise self.mistake(f"{len(param.param)} param messages for {len(self.blobs)} blobs")
        for spec, blob in zip(param.param, self.blobs):
            if self.learns:
                blob.requires_grad_(spec.lr_mult != 0)

    def setup(self, shapes: list[Shape]) -> None:
        """Check the bottoms' shapes and make the blobs."""

    def train(self, mode: bool = True) -> Layer:
        """As PyTorch's; see `train_phase`."""
        if self.follows_mode:
            self.train_phase = mode
        return super().train(mode)

    def shapes_of_tops(self, shapes: list[Shape]) -> list[Shape] | None:
        """The tops' shapes, where they are known without running; a shortcut for common layers."""
        return [shapes[0]] if self.same_shape and self.tops == 1 else None

    def add_blob(self, shape: Sequence[int], filler: Any | None = None) -> None:
        """Append a blob, filled as the FillerParameter says (zeros without one)."""
        sound(shape, self.mistake)
        make = torch.zeros if filler is None else torch.empty
        blob = make(tuple(shape))
        if filler is not None:
            try:
                fill(blob, filler)
            except UserError as error:
                raise self.mistake(str(error)) from error
        self.blobs.append(blob)

    def mistake(self, what: str) -> UserError:
        """An error that names the layer."""
        return UserError(f"layer {self.param.name!r} ({self.param.type}): {what}")

    def axis(self, axis: int, dims: int) -> int:
        """A possibly negative axis as one in [0, dims)."""
        if not -dims <= axis < dims:
            raise self.mistake(f"axis {axis} of a bottom with {dims} axes")
        return axis % dims

    def extra_repr(self) -> str:
        return ", ".join("x".join(map(str, blob.shape)) or "1" for blob in self.blobs)


LAYERS: dict[str, type[Layer]] = {}


REFUSED = {  # Caffe's other types, and why
    "Filter": "its tops' sizes depend on the values in its bottoms",
    "HDF5Output": "write the net's outputs in your own code",
    "Im2col": "a step inside Caffe's convolution",
    "LSTMUnit": "a step inside Caffe's LSTM",
    "Python": "it runs code beside the prototxt",
    "WindowData": "it cuts windows out of images by a list; train on the cut images",
}


def layer(*types: str) -> Callable[[type[Layer]], type[Layer]]:
    """Class decorator: this is what Caffe calls `types`."""

    def register(kind: type[Layer]) -> type[Layer]:
        LAYERS.update(dict.fromkeys(types, kind))
        return kind

    return register


def make(param: Any, train_phase: bool, shapes: Sequence[Shape]) -> Layer:
    """Creates the layer that `param` describes, for bottoms of `shapes`.

    Raises:
        UserError: the type is unknown or not supported, a field has a value that is not, or the
            bottoms do not fit.
    """
    kind = LAYERS.get(param.type)
    if kind is None and param.type in REFUSED:
        raise UserError(
            f"layer {param.name!r}: {param.type} is not supported: {REFUSED[param.type]}"
        )
    if kind is None:
        hint = near_miss(param.type, LAYERS)
        raise UserError(f"layer {param.name!r}: unknown layer type {param.type!r}{hint}")
    low, high = kind.bottoms
    if not low <= len(shapes) <= high:
        wanted = f"{low}" if high == low else f"{low} or more" if high > 2 else f"{low} to {high}"
        raise UserError(
            f"layer {param.name!r} ({param.type}): takes {wanted} bottoms, not {len(shapes)}"
        )
    try:
        return kind(param, train_phase, shapes)
    except UNFIT as error:
        raise _unfit(param, shapes, error) from error


def top_shapes(made: Layer, shapes: Sequence[Shape]) -> list[Shape]:
    """The shapes of a layer's tops.

    Where the layer does not compute them itself, it is run once on PyTorch's meta device, whose
    import takes two seconds.

    Raises:
        UserError: the bottoms do not fit.
    """
    shapes = [tuple(shape) for shape in shapes]
    try:
        found = made.shapes_of_tops(shapes) or _run_without_memory(made, shapes)
    except UNFIT as error:
        raise _unfit(made.param, shapes, error) from error
    if len(found) != made.tops:
        raise made.mistake(f"makes {len(found)} tops, not {made.tops}")
    for shape in found:
        sound(shape, made.mistake)
    return found


def _run_without_memory(made: Layer, shapes: Sequence[Shape]) -> list[Shape]:
    blobs = {name: blob.to("meta") for name, blob in made.state_dict(keep_vars=True).items()}
    bottoms = [torch.empty(shape, device="meta") for shape in shapes]
    with torch.no_grad():
        tops = torch.func.functional_call(made, blobs, tuple(bottoms))
    return [tuple(top.shape) for top in (tops if isinstance(tops, tuple) else (tops,))]


def _unfit(param: Any, shapes: Sequence[Shape], error: Exception) -> UserError:
    told = ", ".join("x".join(map(str, shape)) or "a scalar" for shape in shapes) or "no bottoms"
    first = (str(error).splitlines() or [type(error).__name__])[0]
    return UserError(f"layer {param.name!r} ({param.type}): cannot work on {told}: {first}")


def count(shape: Sequence[int], start: int = 0, stop: int | None = None) -> int:
    """The product of the dimensions from `start` to `stop`."""
    total = 1
    for dim in shape[start:stop]:
        total *= dim
    return total


def per_axis(x: Tensor, axis: int, dims: int) -> Tensor:
    """`x` of shape S viewed for broadcasting from `axis` of a tensor with `dims` axes."""
    return x.reshape(tuple(x.shape) + (1,) * (dims - axis - x.dim()))
