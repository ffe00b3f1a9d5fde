"""DeepSentiBank's row of Table 2: evaluated as published, not trained (section 5.2)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from netgen import Network
from netgen.deepsentibank import index_map, read_outputs
from xresnet.basics.cli import UserError
from xresnet.basics.files import fingerprint, sha256, write, write_json
from xresnet.reproduce.accuracy import summary
from xresnet.reproduce.data import Data
from xresnet.reproduce.engine import CAFFE, Engine
from xresnet.reproduce.evaluation import Evaluation
from xresnet.reproduce.forward import Transform, scores
from xresnet.reproduce.records import labels, records
from xresnet.reproduce.results import find_result

INPUT = (224, 227)  # pixels, from and to where its fc6 has the published shape
MEAN = (104.0, 117.0, 123.0)  # BGR
AMONG = ("ours", "all")


@dataclass(frozen=True)
class DeepSentiBank:
    """DeepSentiBank's files, and the outputs among which an image's ANP is ranked.

    `ours`: those of the data's own ANPs, "the subset of 553 ANP concepts" (section 5.2);
    `all`: all 2,089, so that an ANP that the data do not have can be its answer.
    """

    weights: Path
    classes: Path
    among: str = "ours"

    def result(self, data: Data, folder: Path, engine: Engine = CAFFE) -> dict[str, Any]:
        """The result of `evaluate`, or of an earlier call in `folder`.

        Raises:
            UserError: as of `evaluate`.
        """
        among = [] if self.among == "ours" else [self.among]
        files = (sha256(self.weights), sha256(self.classes))
        key = fingerprint(*files, data.key, engine.version(), *among)
        done = find_result(folder)
        if done and done.get("key") == key:
            return done
        made = {"key": key, **self.evaluate(data, folder, engine)}
        write_json(folder / "result.json", made)
        return made

    def evaluate(self, data: Data, folder: Path, engine: Engine = CAFFE) -> dict[str, Any]:
        """Rank each test image's ANP among the net's outputs, and write the evaluation.

        An ANP without an output is never right. There is no train/test net, so the accuracies are
        computed from the scores alone.

        Raises:
            UserError: the images are too small, the class list is wrong, or the engine fails.
        """
        least, most = INPUT
        if data.size < least:
            raise UserError(
                f"DeepSentiBank needs images of {least} x {least} or more, {data.folder.root} has "
                f"{data.size} x {data.size}: python -m data_prep lmdb --size {least}"
            )
        outputs = index_map(data.names.anp, read_outputs(self.classes))
        size = min(data.size, most)
        net = Network("deepsentibank", {"input_size": size})
        deploy = write(folder / "deploy.prototxt", net.deploy())
        mean = np.array(MEAN, np.float32).reshape(3, 1, 1)
        transform = Transform(mean, size if data.size > size else 0)
        pixels = (transform(image) for image in records(data.folder.root))
        (found,) = scores(deploy, self.weights, pixels, 24, engine).values()
        values = {"anp": self._ours_first(found, outputs["indices"])}
        truth = labels(data.folder.root)
        result = summary(values, truth, data.names) | {
            "name": "deepsentibank",
            "params": net.params()["total"],
            "missing": outputs["missing"],
            "among": self.among,
            "weights": {"file": self.weights.name, "sha256": sha256(self.weights)},
            "agrees": f"{engine.scorer}'s scores alone: there is no test net",
        }
        Evaluation.of(folder, self.weights).write(result, values, truth)
        return result

    def _ours_first(self, found: np.ndarray, places: list[int | None]) -> np.ndarray:
        """N x 2,089 scores as N x K: the data's K ANPs, then the other outputs if they count."""
        own = np.full((len(found), len(places)), -np.inf, np.float32)
        for label, place in enumerate(places):
            if place is not None:
                own[:, label] = found[:, place]
        if self.among == "ours":
            return own
        known = [place for place in places if place is not None]
        return np.hstack([own, np.delete(found, known, axis=1)])
