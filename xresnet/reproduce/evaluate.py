"""Exact evaluation: every test image once, by `caffe test` and from the scores themselves.

The two ways share the weights and little else: `caffe test` reads both
databases with its Data layers and counts with its Accuracy layers; the other
reads the records with our own code, feeds the deploy net, and counts here. They
must agree on every image.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.classes import MISSING
from xresnet.basics.cli import UserError
from xresnet.basics.files import sha256
from xresnet.realcaffe import train_log
from xresnet.reproduce.accuracy import KS, ranks, summary
from xresnet.reproduce.caffe import Caffe
from xresnet.reproduce.engine import CAFFE, Engine
from xresnet.reproduce.evaluation import Evaluation
from xresnet.reproduce.forward import Transform, scores
from xresnet.reproduce.kept import Kept
from xresnet.reproduce.net import Net
from xresnet.reproduce.records import labels, records


def evaluate(net: Net, folder: Path, engine: Engine = CAFFE) -> dict[str, Any]:
    """Evaluate in both ways, check that they agree, and write the result into `folder`.

    Raises:
        UserError: the data are not those that the net was trained on, the two ways disagree,
            or Caffe fails.
    """
    kept = Kept.read(net.folder)
    root, names = kept.tested_on(), kept.names
    truth = labels(root)
    images = len(next(iter(truth.values())))
    tested = caffe_test(net, folder / "test.log", images, engine)
    found = _scores(net, root, "test", engine)
    result = summary(found, truth, names)
    exact = {}  # in place of Caffe's mean of batches, where labels are missing
    for task, values in result["tasks"].items():
        rank = ranks(found[task], truth[task])
        for k in KS:
            share = tested.outputs[f"top{k}_{task}"]
            theirs = share * images
            ours = images * _mean_of_batches(rank <= k, truth[task] != MISSING, net.batch)
            if abs(theirs - ours) > 0.5:
                raise UserError(
                    f"{net.name}: {engine.typed[-1]} test has {theirs:.1f} of {images:,} images "
                    f"right (top-{k} {task}), their scores {ours:.1f}: please report this"
                )
            values[f"top{k}"]["caffe_test"] = share
            if "labelled" in values:
                exact[f"top{k}_{task}"] = values[f"top{k}"]["percent"] / 100
    result |= {
        "name": net.name,
        "weights": {"file": net.weights.name, "sha256": sha256(net.weights)},
        "agrees": f"{engine.typed[-1]} test and {engine.scorer}'s scores, to the last image",
        "outputs": {**tested.outputs, **exact},
    }
    Evaluation.of(folder, net.weights).write(result, found, truth)
    return result


def _mean_of_batches(right: np.ndarray, labelled: np.ndarray, batch: int) -> float:
    """The accuracy that Caffe prints: the mean over batches of the share of right images.

    Each share is of the batch's labelled images, and 0 if there is none. Where labels are
    missing, this mean is not the share of all labelled images.
    """
    hits, counts = (x.reshape(-1, batch).sum(axis=1) for x in (right & labelled, labelled))
    return float((hits / np.maximum(counts, 1)).mean())


def on_training(net: Net, engine: Engine = CAFFE) -> dict[str, dict[str, float]]:
    """Task -> top1 and top5 in per cent on the training images, unflipped.

    The difference to the test images shows how well a net generalises.
    """
    root = Kept.read(net.folder).root
    truth = labels(root, "train")
    return {
        task: {f"top{k}": 100 * float((rank <= k).mean()) for k in KS}
        for task, values in _scores(net, root, "train", engine).items()
        for rank in [ranks(values, truth[task])[truth[task] != MISSING]]
    }


def _scores(net: Net, root: Path, part: str, engine: Engine) -> dict[str, np.ndarray]:
    """Task -> scores N x K of the images of a part of the data folder `root`."""
    transform = Transform.of(net.model)
    images = (transform(pixels) for pixels in records(root, part))
    # The test images in `caffe test`'s batches, to be held against its numbers.
    batch = net.batch if part == "test" else None
    return scores(net.deploy, net.weights, images, batch, engine)


def caffe_test(net: Net, log: Path, images: int, engine: Engine = CAFFE) -> train_log.TestResult:
    """Run `caffe test` over every test image once.

    Raises:
        UserError: the test batch does not divide the images, or Caffe fails.
    """
    command = caffe_test_arguments(net, images, engine)
    with Caffe(command, log, net.name, engine) as caffe:
        found = [e for e in caffe.events() if isinstance(e, train_log.TestResult)]
    if not found:
        raise UserError(f"{net.name}: caffe test gave no result; see {log}")
    # Caffe's Accuracy counts scores that are no numbers as right.
    if not all(map(math.isfinite, found[0].outputs.values())):
        raise UserError(f"{net.name}: the test loss is not a finite number; see {log}")
    return found[0]


def caffe_test_arguments(net: Net, images: int, engine: Engine = CAFFE) -> list[str]:
    """The arguments of a `caffe test` that reads each test image once."""
    iterations, rest = divmod(images, net.batch)
    if rest:
        raise UserError(
            f"{net.model}: batches of {net.batch} do not cover {images:,} test images exactly: "
            "write the net again with --test-images"
        )
    command = ["test", "-model", str(net.model.resolve()), "-weights", str(net.weights.resolve())]
    return [*command, "-iterations", str(iterations), *engine.one_gpu]
