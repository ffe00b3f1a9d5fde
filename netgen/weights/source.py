"""Read a file of published weights, of any kind, as layers with their published names."""

from __future__ import annotations

from dataclasses import dataclass, field

from netgen.catalog import BVLC_MEAN
from netgen.weights import keras, pth, published, tfjs
from xresnet.basics.cli import UserError
from xresnet.caffeproto import caffemodel
from xresnet.caffeproto.caffemodel import Layer


@dataclass(frozen=True)
class Source:
    """The contents of a file.

    Attributes:
        path: the file.
        kind: the framework that it is from.
        layers: its layers by published name.
        ignored: names in the file that are not used.
        demands: the options without which a net computes something else than the framework.
        mean: the mean to subtract (B, G, R), if it is known.
        advice: a note for the user.
    """

    path: str
    kind: str
    layers: dict[str, Layer]
    ignored: list[str] = field(default_factory=list)
    demands: dict[str, str] = field(default_factory=dict)
    mean: tuple[float, ...] | None = None
    advice: str = ""


def load(path: str, epsilon: float | None = None) -> Source:
    """Read a .caffemodel, a torchvision .pth, a Keras .h5, or npm's .tgz of a Keras net.

    The first bytes determine the kind. `epsilon` overrides that of the BatchNorms in a Keras file.

    Raises:
        UserError: the file cannot be read, is of another kind, or is damaged.
    """
    return loads(caffemodel.read(path), path, epsilon)


def loads(data: bytes, path: str, epsilon: float | None = None) -> Source:
    """Read weights from memory; `path` names the file in errors."""
    if data.startswith((b"PK\x03\x04", b"\x80\x02")):
        layers, ignored = published.torchvision(pth.load(data, path), path)
        mean = tuple(round(255 * m, 3) for m in reversed(published.TORCH_MEAN))
        demands = {"stride_in": "3x3", "pool1": "padded"}
        return Source(path, "torchvision", layers, ignored, demands, mean)
    if data.startswith((b"\x89HDF\r\n", b"\x1f\x8b")):
        file = (keras if data.startswith(b"\x89HDF") else tfjs).load(data, path)
        layers, ignored = published.keras(file.layers, epsilon, path, file.epsilon)
        mean = (103.939, 116.779, 123.68)
        return Source(path, "Keras", layers, ignored, {"stride_in": "1x1"}, mean, KERAS_POOL)
    if foreign := caffemodel.kind_of_file(data):
        raise UserError(f"{path} is {foreign}: there are .caffemodel, .pth and .h5 to start from")
    # As in Caffe, the last of two layers of one name counts.
    layers = {layer.name: layer for layer in caffemodel.loads(data, path) if layer.blobs}
    if published.is_pynetbuilder(layers):
        layers, ignored = published.pynetbuilder(layers, path)
        return Source(path, "pynetbuilder", layers, ignored, {"stride_in": "1x1"}, BVLC_MEAN)
    return Source(path, "Caffe", layers)


KERAS_POOL = (
    "Keras pads pool1, the Caffe net that its weights come from does not: "
    "--pool1 padded computes what Keras computes, without it the net is the published one"
)
