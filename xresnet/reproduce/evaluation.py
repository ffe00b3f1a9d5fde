"""The results that `eval` writes: reading, comparing and printing them.

RUN/eval_SNAPSHOT.json   accuracies and confusions of the weights SNAPSHOT.caffemodel
    eval_SNAPSHOT.npz    for each image and task the rank of the true class, and the five best
                         classes with their probabilities

Older runs have a single eval.json and eval.npz, which names its snapshot.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.classes import MISSING
from xresnet.basics import shapes
from xresnet.basics.cli import UserError
from xresnet.basics.files import write, write_json
from xresnet.reproduce.accuracy import KS, ranks
from xresnet.reproduce.forward import softmax
from xresnet.reproduce.records import labels
from xresnet.reproduce.stats import mcnemar, paired_bootstrap

_RIGHT = {"correct": int, "percent": float, "interval": [float]}
_CLASS = {"class": str, "images": int, "top1?": float, "top5?": float}
_SHARE = {"errors": int, "share": float, "by_chance": float}
RESULT = {  # the shape of an evaluation's JSON
    "name": str,
    "images": int,
    "weights": {"file": str, "sha256": str},
    "agrees": str,
    "tasks": {str: {"labelled?": int, "top1": _RIGHT, "top5": _RIGHT, "classes": [_CLASS]}},
    "confusion?": {
        "wrong": int,
        "same_noun": _SHARE,
        "same_adjective": _SHARE,
        "pairs": [{"truth": str, "guess": str, "images": int, "of": int}],
    },
}


@dataclass(frozen=True)
class Evaluation:
    """The evaluation of one snapshot: the .json at `path`, and an .npz beside it."""

    path: Path

    @classmethod
    def of(cls, folder: Path, weights: Path) -> Evaluation:
        """The evaluation of these weights in a run's folder, which need not exist yet."""
        return cls(folder / f"eval_{weights.stem}.json")

    @classmethod
    def all(cls, folder: Path) -> list[Evaluation]:
        """All evaluations in a run's folder, by iteration."""
        found = [folder / "eval.json", *folder.glob("eval_*.json")]
        whole = [path for path in found if path.is_file() and path.with_suffix(".npz").is_file()]
        return sorted(map(cls, whole), key=lambda one: (one.iteration, one.path.name))

    @classmethod
    def find(cls, place: Path) -> Evaluation:
        """The latest evaluation in a run's folder, or that of a .caffemodel in one.

        Raises:
            UserError: there is none.
        """
        if place.suffix == ".caffemodel":
            found = [e for e in cls.all(place.parent) if e.snapshot == place.stem]
        else:
            found = cls.all(place)
        if not found:
            raise UserError(f"{place}: not evaluated; run `python -m xresnet eval {place}`")
        return found[-1]

    @property
    def run(self) -> Path:
        return self.path.parent

    @property
    def snapshot(self) -> str:
        """The name of the file of weights, without .caffemodel."""
        if self.path.name == "eval.json":
            return Path(self.result()["weights"]["file"]).stem
        return self.path.stem[len("eval_") :]

    @property
    def iteration(self) -> int:
        """The snapshot's iteration; 0 if its name has none."""
        number = re.search(r"_iter_(\d+)$", self.snapshot)
        return int(number[1]) if number else 0

    @property
    def title(self) -> str:
        """The names of run and snapshot, to be read by people."""
        return f"{self.run.name}, {self.snapshot}"

    def result(self) -> dict[str, Any]:
        """The result as `evaluate` returned it.

        Raises:
            UserError: the file is damaged.
        """
        return shapes.read(self.path, RESULT)

    def arrays(self) -> dict[str, np.ndarray]:
        """rank_TASK (N), best_TASK (N x 5) and truth_TASK (N), int16, a row per test image.

        prob_TASK (N x 5, float32) are the probabilities of the classes in best_TASK; older
        evaluations have none.

        Raises:
            UserError: the file is damaged.
        """
        path = self.path.with_suffix(".npz")
        try:
            with np.load(path) as file:
                arrays = {name: file[name] for name in file.files}
            images = {len(array) for array in arrays.values()}
            kinds = {"prob": np.float32}
            if len(images) != 1 or not all(
                array.dtype == kinds.get(name[:4], np.int16) for name, array in arrays.items()
            ):
                raise ValueError("not as `eval` writes it")
        except (OSError, ValueError, KeyError, EOFError, zlib.error, zipfile.BadZipFile) as error:
            raise UserError(f"{path}: is damaged ({error}): evaluate the run again") from error
        return arrays

    def hold_images(self, root: Path) -> None:
        """Check that the images of a data folder were evaluated.

        Raises:
            UserError: other images were.
        """
        found = self.arrays()
        for task, own in labels(root).items():
            if not np.array_equal(found.get(f"truth_{task}", own), own):
                raise UserError(f"{self.title} was tested on other images than those of {root}")

    def write(
        self, result: dict[str, Any], found: dict[str, np.ndarray], truth: dict[str, np.ndarray]
    ) -> None:
        """Write both files; for each task `found` has scores N x K, `truth` labels N."""
        arrays: dict[str, Any] = {}
        for task, values in found.items():
            best = np.argsort(-values, axis=1, kind="stable")[:, :5]
            arrays[f"rank_{task}"] = ranks(values, truth[task]).astype(np.int16)
            arrays[f"best_{task}"] = best.astype(np.int16)
            arrays[f"prob_{task}"] = np.take_along_axis(softmax(values), best, 1).astype(np.float32)
            arrays[f"truth_{task}"] = truth[task].astype(np.int16)
        file = io.BytesIO()
        np.savez_compressed(file, **arrays)
        write(self.path.with_suffix(".npz"), file.getvalue())
        write_json(self.path, result)


def compare(a: Evaluation, b: Evaluation) -> dict[str, Any]:
    """McNemar's test of two evaluations on the same test images, by task and k.

    Raises:
        UserError: they are of other images, or a file is damaged.
    """
    loaded = [one.arrays() for one in (a, b)]
    result: dict[str, Any] = {"a": a.title, "b": b.title, "tasks": {}}
    tasks = [name[len("rank_") :] for name in loaded[0] if name.startswith("rank_")]
    for task in tasks:
        if f"rank_{task}" not in loaded[1]:
            continue
        if not np.array_equal(loaded[0][f"truth_{task}"], loaded[1][f"truth_{task}"]):
            raise UserError(f"{a.title} and {b.title} were tested on different images")
        labelled = loaded[0][f"truth_{task}"] != MISSING
        rank_a, rank_b = (x[f"rank_{task}"][labelled] for x in loaded)
        result["tasks"][task] = {}
        for k in KS:
            only_a = int(((rank_a <= k) & (rank_b > k)).sum())
            only_b = int(((rank_a > k) & (rank_b <= k)).sum())
            low, high = paired_bootstrap(only_a, only_b, len(rank_a))
            result["tasks"][task][f"top{k}"] = {
                "only_a": only_a,
                "only_b": only_b,
                "difference": 100 * (only_a - only_b) / len(rank_a),
                "interval": [100 * low, 100 * high],
                "p": mcnemar(only_a, only_b),
            }
    if not result["tasks"]:
        raise UserError(f"{a.title} and {b.title} have no task in common")
    return result


def as_text(result: dict[str, Any]) -> str:
    """An evaluation as text."""
    lines = [f"{result['name']}: {result['images']:,} test images ({result['agrees']})"]
    for task, values in result["tasks"].items():
        of = f" of {values['labelled']:,} with a label" if "labelled" in values else ""
        for k in KS:
            v = values[f"top{k}"]
            low, high = v["interval"]
            lines.append(
                f"  {task:5} top-{k} {v['percent']:6.2f}%  [{low:.2f}, {high:.2f}]  "
                f"{v['correct']:,} right{of}"
            )
    if confused := result.get("confusion"):
        for kind, words in (("same_noun", "the same noun"), ("same_adjective", "the adjective")):
            part = confused[kind]
            lines.append(
                f"  of {confused['wrong']:,} wrong ANPs {part['share']:.1%} have {words} right "
                f"(by chance {part['by_chance']:.1%})"
            )
    for task, values in result.get("against", {}).get("tasks", {}).items():
        for k in KS:
            v = values[f"top{k}"]
            low, high = v["interval"]
            lines.append(
                f"  {task:5} top-{k} {v['difference']:+.2f} points against "
                f"{result['against']['b']} [{low:+.2f}, {high:+.2f}], McNemar p = {v['p']:.2g}"
            )
    return "\n".join(lines)
