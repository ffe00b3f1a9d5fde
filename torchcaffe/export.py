"""Export of a Caffe net: as an nn.Module, folded for inference, or as ONNX."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from torchcaffe import blobs, packed
from torchcaffe.folded import Folded
from torchcaffe.models import Model
from torchcaffe.net import Net
from xresnet.basics import files, memory
from xresnet.basics.cli import UserError
from xresnet.caffeproto import TEST, NetParameter, text


def load(
    model: str | Path, weights: str | Path | None = None, fold: bool = True, pack: bool = False
) -> Net | packed.Packed:
    """Loads the net of a prototxt for inference, as an nn.Module: `net(data=images)["prob"]`.

    Args:
        model: the path of the prototxt.
        weights: the path of a .caffemodel to copy by layer name.
        fold: multiply BatchNorm and Scale into the convolutions before them, which is equal
            up to rounding and faster. The folded net is for inference only. On a CPU a small
            one runs without PyTorch's convolutions and on one thread (see `folded.Folded`).
        pack: also lay the weights of convolutions out for this CPU, which is fastest. A packed
            net can be neither moved nor saved, and the process keeps the memory that it frees.
            Where PyTorch lacks the operators, the net is only folded, and a line on stderr
            says so.

    Raises:
        UserError: a file cannot be read, or the files do not fit each other.
    """
    net = read(model, weights)
    if not (fold or pack):
        return net
    folded = Folded(net)
    if not pack:
        return folded
    if not packed.available():
        print(
            f"torchcaffe: pack: PyTorch {torch.__version__} has not oneDNN's operators for it; "
            "the net is folded only, and slower",
            file=sys.stderr,
        )
        return folded
    memory.keep_freed()
    return packed.Packed(folded)


def read(model: str | Path, weights: str | Path | None = None) -> Net:
    """Reads the net of a prototxt for inference, without folding; it raises what `load` does."""
    net = Net(text.load(model, NetParameter), TEST)
    if weights is not None:
        net.copy_from(blobs.read_net(weights), str(weights))
    return net.requires_grad_(False)


class _InOrder(nn.Module):
    """The net with its inputs in order and its outputs as a tuple, as exporters want them."""

    def __init__(self, net: Net | Model) -> None:
        super().__init__()
        self.net = net

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        tops = self.net(*inputs)
        return tuple(tops[name] for name in self.net.outputs)


def onnx(net: Net | Model, path: str | Path) -> float:
    """Writes `net` as ONNX for inference, with a dynamic batch axis, and runs it in onnxruntime.

    Returns:
        The largest relative difference between onnxruntime's outputs and PyTorch's, at the
        batch size of the prototxt and at 1 and 7.

    Raises:
        UserError: a package is missing, the net reads databases or computes nothing, or the
            relative difference is above 1e-4. Nothing is written then.
        OSError: the file cannot be written.
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
