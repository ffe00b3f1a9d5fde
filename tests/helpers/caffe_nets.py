"""For tests that run nets in real Caffe: its commands, random databases, OpenCV beside it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import cv2
import numpy as np

from data_prep.lmdb_writer import Writer
from xresnet.caffeproto.datum import image_datum, label_datum


def run(*command: object, **kwargs) -> str:
    """What the command prints, both streams; fails with its last words."""
    ran = subprocess.run([*map(str, command)], capture_output=True, text=True, **kwargs)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran.stdout + ran.stderr


def pycaffe(tools: dict[str, Path], script: str, *arguments: object) -> str:
    """What `script` prints in pycaffe, without Caffe's log."""
    command = [tools["pycaffe"], "-c", script, *map(str, arguments)]
    quiet = {**os.environ, "GLOG_minloglevel": "2"}
    ran = subprocess.run(command, capture_output=True, text=True, env=quiet)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran.stdout


def write_lmdbs(folder: Path, classes: tuple[int, ...], count: int, size: int) -> None:
    """Image and label databases of random records, laid out as data_prep lays them out."""
    rng = np.random.default_rng(0)
    for phase in ("train", "test"):
        places = (folder / f"{phase}_{kind}_lmdb" for kind in ("image", "label"))
        images, labels = map(Writer, places)
        with images, labels:
            for i in range(count):
                key = f"{i:08d}".encode()
                pixels = rng.integers(0, 256, 3 * size * size, np.uint8).reshape(3, size, size)
                image = np.ascontiguousarray(pixels.transpose(1, 2, 0))
                images.put(key, image_datum(image, 0)[0])
                labels.put(key, label_datum([int(rng.integers(k)) for k in classes]))
            for writer in (images, labels):
                writer.commit(last=True)


def assert_opencv_agrees(model: Path, weights: Path, outputs: Path, heads: int = 1) -> None:
    """OpenCV's softmaxes are Caffe's, which `outputs` holds beside the image `data`."""
    expected = np.load(outputs)
    reader = cv2.dnn.readNetFromCaffe(str(model), str(weights))
    # Without it OpenCV may run in half precision or Winograd, which round otherwise.
    reader.enableWinograd(False)
    reader.setInput(expected["data"])
    names = [name for name in expected.files if name.startswith("prob")]
    assert len(names) == heads
    for name in names:
        found, wanted = reader.forward(name), expected[name]
        assert np.ptp(wanted) > 1e-4, "a flat softmax would prove nothing"
        assert np.abs(found - wanted).max() / np.abs(wanted).max() < 1e-4
