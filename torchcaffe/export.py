"""Export of a Caffe net: as an nn.Module, folded for inference, or as ONNX."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from torchcaffe import blobs, order, packed
from torchcaffe.graph import Step, Value
from torchcaffe.layers.weighted import BatchNorm
from torchcaffe.models import Model
from torchcaffe.net import Net
from xresnet.basics import files, memory
from xresnet.basics.cli import UserError
from xresnet.caffeproto import TEST, NetParameter, text


def load(
    model: str | Path, weights: str | Path | None = None, fold: bool = True, pack: bool = False
) -> Net | packed.Packed:
    """The inference net of a prototxt as an nn.Module, `net(data=images)["prob"]`.

    Args:
        fold: multiply BatchNorm and Scale into the convolutions before them; equal
            up to rounding, and faster. The folded net is for inference only.
        pack: lay the convolutions' weights out for this CPU as well: fastest here, but
            the net can be neither moved nor saved, and the process keeps the memory it
            frees. Where PyTorch lacks what it takes, the net is only folded, and a line on
            stderr says so.

    Raises:
        UserError: files that cannot be read, or that do not fit each other.
    """
    net = read(model, weights)
    if fold or pack:
        net = folded(net).requires_grad_(False)
        order.arrange(net, True)  # images follow, half as fast again on a CPU
    if not pack:
        return net
    if not packed.available():
        print(
            f"torchcaffe: pack: PyTorch {torch.__version__} has not oneDNN's operators for it; "
            "the net is folded only, and slower",
            file=sys.stderr,
        )
        return net
    memory.keep_freed()
    return packed.Packed(net)


def read(model: str | Path, weights: str | Path | None = None) -> Net:
    """The net of a prototxt for inference, layer by layer; errors are those of `load`."""
    net = Net(text.load(model, NetParameter), TEST)
    if weights is not None:
        net.copy_from(blobs.read_net(weights), str(weights))
    return net.requires_grad_(False)


@torch.no_grad()
def folded(net: Net) -> Net:
    """`net` with every Convolution, BatchNorm, Scale in a row made one Convolution."""
    steps = net.steps
    readers: dict[Value, list[Step]] = {}
    for step in steps:
        for value in step.bottoms:
            readers.setdefault(value, []).append(step)

    def sole(step: Step, kind: str) -> Step | None:
        after = readers.get(step.tops[0], []) if len(step.tops) == 1 else []
        one = len(after) == 1 and after[0].param.type == kind and len(after[0].bottoms) == 1
        return after[0] if one else None

    proto = NetParameter()
    proto.CopyFrom(net.proto)
    dropped: set[str] = set()
    renamed: dict[str, tuple[str, int]] = {}
    arrays: dict[str, list[Tensor]] = {}
    for step in steps:
        if step.param.type != "Convolution":
            continue
        norm = sole(step, "BatchNorm")
        scale = sole(norm, "Scale") if norm is not None else None
        statistics = net.layer_named(norm.param.name) if norm is not None else None
        if norm is None or not isinstance(statistics, BatchNorm) or not statistics.frozen:
            continue
        conv = net.layer_named(step.param.name)
        mean, var = statistics.running()
        factor = (var + statistics.eps).rsqrt()
        shift = -mean * factor
        last = norm
        if scale is not None and net.layer_named(scale.param.name).channelwise:
            made = net.layer_named(scale.param.name)
            factor, shift = factor * made.blobs[0], shift * made.blobs[0]
            shift = shift + made.blobs[1] if made.bias else shift
            last = scale
            dropped.add(scale.param.name)
        dropped.add(norm.param.name)
        weight = conv.blobs[0] * factor.view(-1, *[1] * (conv.blobs[0].dim() - 1))
        if len(conv.blobs) > 1:
            shift = shift + conv.blobs[1] * factor
        arrays[step.param.name] = [weight, shift]
        renamed[step.param.name] = last.tops[0].name, 0
    kept = NetParameter(name=proto.name)
    for layer in proto.layer:
        if layer.name in dropped:
            continue
        layer_kept = kept.layer.add()
        layer_kept.CopyFrom(layer)
        if layer.name in renamed:
            layer_kept.top[0] = renamed[layer.name][0]
            layer_kept.convolution_param.bias_term = True
            del layer_kept.param[:]
    small = Net(kept, TEST)
    for name in small._keys:
        source = arrays.get(name) or list(net.layer_named(name).blobs)
        for mine, theirs in zip(small.layer_named(name).blobs, source):
            mine.copy_(theirs)
    return small


class _InOrder(nn.Module):
    """The net with its inputs in order and its outputs as a tuple, as exporters want them."""

    def __init__(self, net: Net | Model) -> None:
        super().__init__()
        self.net = net

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        tops = self.net(*inputs)
        return tuple(tops[name] for name in self.net.outputs)


def onnx(net: Net | Model, path: str | Path) -> float:
    """Write `net` as ONNX for inference, its first axis free, and run it in onnxruntime.

    Returns:
        The largest relative difference, at the prototxt's batch and at batches 1 and 7.

    Raises:
        UserError: a package is missing, the net reads databases or computes nothing, or
            onnxruntime disagrees by more than 1e-4: then nothing is written.
        OSError: the place cannot be written.
    """
    for feed in net.feeds:
        if feed.type != "Input":
            raise UserError(
                f"layer {feed.name!r} ({feed.type}) reads files: export the deploy form, whose "
                "images are an Input (python -m netgen NET --deploy)"
            )
    if not (net.inputs and net.outputs):
        raise UserError(
            f"net {net.name!r} has no input or no output, so there is nothing to export"
        )
    try:
        import onnx as _  # noqa: F401
        import onnxruntime
    except ImportError as error:
        raise UserError(f"--onnx needs {error.name}: pip install '.[export]'") from None
    training = net.training
    run = _InOrder(net).eval()
    free = _any_batch(net)
    axes = {name: {0: "batch"} for name in [*net.inputs, *net.outputs]} if free else None
    written = io.BytesIO()
    try:
        with files.replacing(path) as file:
            try:
                torch.onnx.export(
                    run,
                    _noise(net),
                    written,  # type: ignore[arg-type]  # any file will do without dynamo
                    input_names=list(net.inputs),
                    output_names=list(net.outputs),
                    dynamic_axes=axes,
                    dynamo=False,
                )
            except (RuntimeError, ValueError, TypeError, IndexError) as error:
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                raise UserError(f"net {net.name!r} cannot be put into ONNX: {reason}") from error
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 3
            session = onnxruntime.InferenceSession(
                written.getvalue(), options, providers=["CPUExecutionProvider"]
            )
            sizes = (None, 1, 7) if free else (None,)
            worst = max(_apart(session, run, _noise(net, size), str(path)) for size in sizes)
            file.write(written.getvalue())
    finally:
        net.train(training)
    return worst


def _noise(net: Net | Model, batch: int | None = None) -> tuple[Tensor, ...]:
    """Images to run with, of the net's own batch or another; the same ones each time."""
    random = torch.Generator().manual_seed(0)
    shapes = [(batch or shape[0], *shape[1:]) for shape in net.inputs.values()]
    return tuple(torch.randn(shape, generator=random) * 50 for shape in shapes)


@torch.no_grad()
def _any_batch(net: Net | Model) -> bool:
    """Whether its first axes are one and free: not where a Reshape, say, has the batch in it."""
    try:
        return all(len(top) == 3 for top in _InOrder(net)(*_noise(net, 3)))
    except (RuntimeError, TypeError):  # no such shape; a top without axes
        return False


@torch.no_grad()
def _apart(session: Any, run: _InOrder, inputs: tuple[Tensor, ...], where: str) -> float:
    """The largest relative difference between onnxruntime and PyTorch, if it is small."""
    found = session.run(None, {k: x.numpy() for k, x in zip(run.net.inputs, inputs)})
    worst = 0.0
    for name, a, b in zip(run.net.outputs, found, run(*inputs)):
        difference = float(np.abs(a - b.numpy()).max() / max(float(b.abs().max()), 1e-6))
        worst = max(worst, difference)
        if not difference < 1e-4:
            raise UserError(f"{where}: onnxruntime's {name!r} differs by {difference:.1e}")
    return worst
