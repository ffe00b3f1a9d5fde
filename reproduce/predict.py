"""What a trained net sees in images: the best classes of each task (Figure 6)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from basics.cli import UserError
from caffeproto import NetParameter, text
from data_prep.classes import Classes
from data_prep.folder import DataFolder
from reproduce.engine import CAFFE, Engine
from reproduce.evaluate import Net
from reproduce.forward import Transform, read_image, scores, softmax

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
BATCH = 16


def images_of(paths: Sequence[Path]) -> list[Path]:
    """The image files among `paths` and, in order, in the folders among them.

    Raises:
        UserError: a path that is not there, or no image at all.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
            if not inside:
                raise UserError(f"{path}: no image in this folder")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise UserError(f"{path} is not there")
    return found


def predict(
    net: Net, images: Sequence[Path], top: int = 5, engine: Engine = CAFFE
) -> list[dict[str, Any]]:
    """The `top` classes of each task with their probabilities, an entry an image.

    Images are read and resized as data_prep's are.

    Raises:
        UserError: an image that cannot be read.
    """
    names = Classes.read(net.root / "classes")
    size = input_size(net)
    transform = Transform.of(net.model)
    whole = transform.crop and stored_size(net)
    pixels = (transform(read_image(path, whole or size)) for path in images)
    found = scores(net.deploy, net.weights, pixels, BATCH, engine)
    return [
        {
            "image": str(path),
            **{task: best(v[i], getattr(names, task), top) for task, v in found.items()},
        }
        for i, path in enumerate(images)
    ]


def best(values: np.ndarray, names: Sequence[str], top: int = 5) -> list[dict[str, Any]]:
    """The `top` classes by score, best first, with their softmax probabilities."""
    probabilities = softmax(values[None])[0]
    order = np.argsort(-values, kind="stable")[:top]
    return [{"class": names[i], "probability": round(float(probabilities[i]), 6)} for i in order]


def input_size(net: Net) -> int:
    """Side of the square image that the deploy net takes."""
    (shape,) = text.load(net.deploy, NetParameter).layer[0].input_param.shape
    return shape.dim[2]


def stored_size(net: Net) -> int:
    """Side of the images in the net's database, before a crop."""
    return DataFolder(net.root).read_manifest()["lmdb"]["size"]
