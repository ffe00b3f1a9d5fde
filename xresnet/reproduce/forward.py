"""Scores of images from a deploy net, with images transformed as by Caffe's Data layer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xresnet.basics.cli import UserError
from xresnet.caffeproto import NetParameter, caffemodel, text
from xresnet.reproduce.engine import CAFFE, Engine

AT_ONCE = 1 << 20  # numbers of images that a pass takes where nothing else says how many
MEAN = "mean.binaryproto"  # a run's own copy, in its folder


@dataclass(frozen=True)
class Transform:
    """The transform of Caffe's Data layer in the TEST phase.

    `mean`: one value, three (blue, green, red), or an array C x H x W;
    `crop`: side of the square cut from the centre, 0 for none.
    """

    mean: np.ndarray
    crop: int = 0

    @classmethod
    def of(cls, net: Path) -> Transform:
        """The transform of a net's TEST Data layer, with the mean image that its run kept.

        Raises:
            UserError: the net has no such layer, or its mean image cannot be read.
        """
        param = image_layer(net).transform_param
        kept, named = net.parent / MEAN, mean_file(net)
        if named:
            mean = caffemodel.load_mean(kept if kept.is_file() else named)
        else:
            mean = np.array(list(param.mean_value) or [0], np.float32).reshape(-1, 1, 1)
        return cls(mean, param.crop_size)

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """C x H x W uint8 to float32: the mean is subtracted, then the centre is cut."""
        values = pixels.astype(np.float32)
        if self.mean.shape[1] > 1:  # a mean image has the uncut size
            values -= self.mean
        if self.crop:
            top, left = ((side - self.crop) // 2 for side in values.shape[1:])
            values = values[:, top : top + self.crop, left : left + self.crop]
        return values if self.mean.shape[1] > 1 else values - self.mean


def mean_file(net: Path) -> Path | None:
    """The mean image that the net subtracts; None if it subtracts values, or nothing."""
    named = image_layer(net).transform_param.mean_file
    return Path(named) if named else None


def image_layer(net: Path) -> Any:  # LayerParameter
    """The Data layer of the test images.

    Raises:
        UserError: the net has none.
    """
    for layer in text.load(net, NetParameter).layer:
        if layer.type == "Data" and layer.top[0] == "data" and layer.include[0].phase == 1:
            return layer
    raise UserError(f"{net}: no Data layer `data` for the TEST phase")


def heads(deploy: Path) -> dict[str, str]:
    """Task -> blob of its scores before softmax, of a deploy net of ours.

    Raises:
        UserError: the net has no softmax.
    """
    found = {
        layer.name[len("prob_") :] if layer.name.startswith("prob_") else layer.name: layer.bottom[
            0
        ]
        for layer in text.load(deploy, NetParameter).layer
        if layer.type == "Softmax"
    }
    if not found:
        raise UserError(f"{deploy}: no softmax in it: not a deploy net")
    return found


def scores(
    deploy: Path,
    weights: Path,
    images: Iterable[np.ndarray],
    batch: int | None = None,
    engine: Engine = CAFFE,
) -> dict[str, np.ndarray]:
    """Each image's scores before softmax: task -> float32 N x K.

    Args:
        images: float32, C x H x W, transformed for the net.
        batch: images per pass; with the batch of `caffe test` the scores are the same. None: as
            many as are fast, which matters where a net has many weights for an image's pixels.

    Raises:
        UserError: the engine fails (its last line), or a score is not finite.
    """
    blobs = heads(deploy)
    rows = engine.scores(deploy, weights, _batches(images, batch), list(blobs.values()))
    parts = np.split(rows, np.cumsum(_widths(deploy, blobs))[:-1], axis=1)
    for task, part in zip(blobs, parts):
        if not np.isfinite(part).all():  # Caffe's Accuracy counts them as right
            raise UserError(f"{weights}: scores of {task} that are no numbers")
    return dict(zip(blobs, parts))


def softmax(values: np.ndarray) -> np.ndarray:
    """The probabilities of scores N x K."""
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _batches(images: Iterable[np.ndarray], batch: int | None) -> Iterator[np.ndarray]:
    group: list[np.ndarray] = []
    for image in images:
        group.append(image)
        if len(group) == (batch or max(1, AT_ONCE // image.size)):
            yield np.stack(group)
            group = []
    if group:
        yield np.stack(group)


def _widths(deploy: Path, blobs: dict[str, str]) -> list[int]:
    """The number of classes of each head."""
    layers = {top: la for la in text.load(deploy, NetParameter).layer for top in la.top}
    widths = []
    for blob in blobs.values():
        layer = layers[blob]
        while layer.type not in ("InnerProduct", "Convolution"):  # ROCK averages maps
            layer = layers[layer.bottom[0]]
        param = layer.inner_product_param
        widths.append(
            param.num_output if layer.type == "InnerProduct" else layer.convolution_param.num_output
        )
    return widths
