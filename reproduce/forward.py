"""Scores of images, from a deploy net in pycaffe: a process of its own, fed through a pipe.

pycaffe lives in its own, older Python; so its script below imports nothing of
ours. Images go in as float32 batches, scores come back in a file: memory does
not grow with the number of images.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

import realcaffe
from basics.cli import UserError
from caffeproto import BlobProto, NetParameter, text

# argv: deploy net, weights, file for the scores, device or "cpu", their blobs' names.
# stdin: batches, each a line "N C H W" and N x C x H x W float32. A row of the
# output holds the blobs' values of one image, one blob after the other.
_SCRIPT = """
import sys
import numpy as np
import caffe
deploy, weights, out, device, *blobs = sys.argv[1:]
if device == "cpu":
    caffe.set_mode_cpu()
else:
    caffe.set_device(int(device))
    caffe.set_mode_gpu()
net = caffe.Net(deploy, weights, caffe.TEST)
with open(out, "wb") as file:
    while True:
        head = sys.stdin.buffer.readline().split()
        if not head:
            break
        shape = tuple(map(int, head))
        batch = np.frombuffer(sys.stdin.buffer.read(4 * int(np.prod(shape))), np.float32)
        if net.blobs["data"].data.shape != shape:
            net.blobs["data"].reshape(*shape)
            net.reshape()
        net.blobs["data"].data[...] = batch.reshape(shape)
        net.forward()
        rows = [net.blobs[name].data.reshape(shape[0], -1) for name in blobs]
        np.concatenate(rows, axis=1).astype(np.float32).tofile(file)
"""


@dataclass(frozen=True)
class Transform:
    """What Caffe's Data layer does to an image in the TEST phase.

    `mean`: one value, three (blue, green, red), or an array C x H x W;
    `crop`: side of the square cut from the centre, 0 for none.
    """

    mean: np.ndarray
    crop: int = 0

    @classmethod
    def of(cls, net: Path) -> Transform:
        """That of the net's TEST Data layer of images."""
        param = image_layer(net).transform_param
        if param.mean_file:
            blob = BlobProto.FromString(Path(param.mean_file).read_bytes())
            shape = tuple(blob.shape.dim) or (blob.num, blob.channels, blob.height, blob.width)
            mean = np.array(blob.data, np.float32).reshape(shape[-3:])
        else:
            mean = np.array(list(param.mean_value) or [0], np.float32).reshape(-1, 1, 1)
        return cls(mean, param.crop_size)

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """C x H x W uint8 to float32, mean off, cut."""
        values = pixels.astype(np.float32)
        if self.mean.shape[1] > 1:  # a mean image has the uncut size
            values -= self.mean
        if self.crop:
            top, left = ((side - self.crop) // 2 for side in values.shape[1:])
            values = values[:, top : top + self.crop, left : left + self.crop]
        return values if self.mean.shape[1] > 1 else values - self.mean


def image_layer(net: Path):
    """The Data layer from which the net tests.

    Raises:
        UserError: it has none.
    """
    for layer in text.load(net, NetParameter).layer:
        if layer.type == "Data" and layer.top[0] == "data" and layer.include[0].phase == 1:
            return layer
    raise UserError(f"{net}: no Data layer `data` for the TEST phase")


def heads(deploy: Path) -> dict[str, str]:
    """Task -> blob of its scores, before softmax, of a deploy net of ours."""
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
    batch: int,
    gpu: str | None = None,
    threads: int | None = None,
) -> dict[str, np.ndarray]:
    """Each image's scores before softmax, task -> float32 N x K.

    Args:
        images: C x H x W float32, as the net wants them.
        batch: images a pass; of the size of `caffe test`'s it gives its very numbers.

    Raises:
        UserError: pycaffe fails; its last words.
    """
    blobs = heads(deploy)
    environment = {**os.environ, "GLOG_minloglevel": "2"}
    if threads:
        environment["OPENBLAS_NUM_THREADS"] = str(threads)
    widths = _widths(deploy, blobs)
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as said:
        out = Path(folder) / "scores"
        device = "cpu" if gpu is None else gpu.split(",")[0]
        command = [realcaffe.find("pycaffe"), "-c", _SCRIPT, deploy, weights, out, device]
        process = subprocess.Popen(
            [*map(str, command), *blobs.values()],
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=said,
            env=environment,
        )
        try:
            for group in _batches(images, batch):
                process.stdin.write(" ".join(map(str, group.shape)).encode() + b"\n")
                process.stdin.write(np.ascontiguousarray(group, np.float32).data)
            process.stdin.close()
        except BrokenPipeError:
            pass  # it has failed: it will say why
        except BaseException:
            process.kill()
            raise
        finally:
            process.wait()
        if process.returncode:
            said.seek(0)
            words = said.read().decode(errors="replace").strip().splitlines() or ["no word"]
            raise UserError(f"pycaffe failed on {deploy} with {weights}: {words[-1]}")
        rows = np.fromfile(out, np.float32).reshape(-1, sum(widths))
    parts = np.split(rows, np.cumsum(widths)[:-1], axis=1)
    for task, part in zip(blobs, parts):
        if not np.isfinite(part).all():  # Caffe's Accuracy counts them as right
            raise UserError(f"{weights}: scores of {task} that are no numbers")
    return dict(zip(blobs, parts))


def read_image(path: Path, size: int) -> np.ndarray:
    """An image file as convert_imageset would store it: 3 x size x size uint8, BGR.

    Raises:
        UserError: no image that can be read.
    """
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if pixels is None:
        raise UserError(f"{path}: not there, or no image")
    return cv2.resize(pixels, (size, size), interpolation=cv2.INTER_LINEAR).transpose(2, 0, 1)


def softmax(values: np.ndarray) -> np.ndarray:
    """Scores N x K to probabilities."""
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _batches(images: Iterable[np.ndarray], batch: int) -> Iterator[np.ndarray]:
    group: list[np.ndarray] = []
    for image in images:
        group.append(image)
        if len(group) == batch:
            yield np.stack(group)
            group = []
    if group:
        yield np.stack(group)


def _widths(deploy: Path, blobs: dict[str, str]) -> list[int]:
    """How many classes each head has."""
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
