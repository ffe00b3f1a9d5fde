"""Exact evaluation: every test image once, by `caffe test` and from the scores themselves.

RUN/eval_SNAPSHOT.json   what came out, of the weights SNAPSHOT.caffemodel
    eval_SNAPSHOT.npz    each image's rank of the truth, and its five best classes with their
                         probabilities, a task

(Older runs have one eval.json and eval.npz, of the snapshot that is named in it.)

The two ways share the weights and little else: `caffe test` reads both
databases with its Data layers and counts with its Accuracy layers; the other
reads the records with our own code, feeds the deploy net, and counts here. They
must agree to the last image. Caffe's rule of ties: right within k is a truth
with no more than k scores as high as its own, itself counted.
"""

from __future__ import annotations

import math
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.classes import MISSING, Classes
from data_prep.folder import DataFolder
from data_prep.ontology import Anp
from xresnet.basics import shapes
from xresnet.basics.cli import UserError
from xresnet.basics.files import read_json, replacing, sha256, write_json
from xresnet.caffeproto.databases import items
from xresnet.caffeproto.datum import parse_datum
from xresnet.realcaffe import train_log
from xresnet.reproduce.caffe import Caffe
from xresnet.reproduce.engine import CAFFE, Engine
from xresnet.reproduce.folder import RunFolder
from xresnet.reproduce.forward import Transform, image_layer, scores, softmax
from xresnet.reproduce.kept import Kept
from xresnet.reproduce.snapshots import is_whole_weights, snapshots
from xresnet.reproduce.stats import bootstrap, mcnemar, paired_bootstrap

KS = (1, 5)
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
class Net:
    """A net to evaluate: its train/test form, its deploy form, and weights."""

    name: str
    model: Path
    deploy: Path
    weights: Path

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.model.parent

    @property
    def batch(self) -> int:
        return image_layer(self.model).data_param.batch_size


@dataclass(frozen=True)
class Evaluation:
    """What was written about one snapshot: `path`, .json, and .npz beside it."""

    path: Path

    @classmethod
    def of(cls, folder: Path, weights: Path) -> Evaluation:
        """That of the weights, in a run's folder, written or not."""
        return cls(folder / f"eval_{weights.stem}.json")

    @classmethod
    def all(cls, folder: Path) -> list[Evaluation]:
        """Those in a run's folder, by iteration."""
        found = [folder / "eval.json", *folder.glob("eval_*.json")]
        whole = [path for path in found if path.is_file() and path.with_suffix(".npz").is_file()]
        return sorted(map(cls, whole), key=lambda one: (one.iteration, one.path.name))

    @classmethod
    def find(cls, place: Path) -> Evaluation:
        """The newest of a run's folder, or that of a .caffemodel in one.

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
        """The weights' file's name, without .caffemodel."""
        if self.path.name == "eval.json":
            return Path(self.result()["weights"]["file"]).stem
        return self.path.stem[len("eval_") :]

    @property
    def iteration(self) -> int:
        """The snapshot's; 0 where its name tells none."""
        number = re.search(r"_iter_(\d+)$", self.snapshot)
        return int(number[1]) if number else 0

    @property
    def title(self) -> str:
        """The run and the snapshot, for people."""
        return f"{self.run.name}, {self.snapshot}"

    def result(self) -> dict[str, Any]:
        """What `evaluate` returned.

        Raises:
            UserError: the file is damaged.
        """
        return shapes.read(self.path, RESULT)

    def arrays(self) -> dict[str, np.ndarray]:
        """rank_TASK (N), best_TASK (N x 5) and truth_TASK (N), each an image of the test set.

        prob_TASK (N x 5, float32) are the probabilities of the classes in best_TASK;
        evaluations of before they were kept have none.

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
            raise UserError(f"{path}: damaged ({error}): evaluate the run again") from error
        return arrays

    def hold_images(self, root: Path) -> None:
        """Hold the evaluated images to be those of a data folder.

        Raises:
            UserError: they are others.
        """
        found = self.arrays()
        for task, own in labels(root).items():
            if not np.array_equal(found.get(f"truth_{task}", own), own):
                raise UserError(f"{self.title} was tested on other images than those of {root}")

    def write(
        self, result: dict[str, Any], found: dict[str, np.ndarray], truth: dict[str, np.ndarray]
    ) -> None:
        """Write both files; `found` holds scores N x K a task, `truth` labels N."""
        arrays = {}
        for task, values in found.items():
            best = np.argsort(-values, axis=1, kind="stable")[:, :5]
            arrays[f"rank_{task}"] = ranks(values, truth[task]).astype(np.int16)
            arrays[f"best_{task}"] = best.astype(np.int16)
            arrays[f"prob_{task}"] = np.take_along_axis(softmax(values), best, 1).astype(np.float32)
            arrays[f"truth_{task}"] = truth[task].astype(np.int16)
        with replacing(self.path.with_suffix(".npz")) as file:
            np.savez_compressed(file, **arrays)
        write_json(self.path, result)


def evaluate(net: Net, folder: Path, engine: Engine = CAFFE) -> dict[str, Any]:
    """Evaluate both ways, hold them together, and write what came out into `folder`.

    Raises:
        UserError: the data are not those that it was trained on, the two ways disagree, or
            Caffe fails.
    """
    kept = Kept.read(net.folder)
    root, names = kept.tested_on(), kept.names
    truth = labels(root)
    images = len(next(iter(truth.values())))
    tested = caffe_test(net, folder / "test.log", images, engine)
    transform = Transform.of(net.model)
    found = scores(
        net.deploy,
        net.weights,
        (transform(pixels) for pixels in records(root)),
        net.batch,
        engine,
    )
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
    """What Caffe's Accuracy tells of a test: the mean of the batches' shares of right images.

    Each share is of the batch's labelled images, 0 where there is none: with labels missing that
    is not the share of all.
    """
    hits, counts = (x.reshape(-1, batch).sum(axis=1) for x in (right & labelled, labelled))
    return float((hits / np.maximum(counts, 1)).mean())


def on_training(net: Net, engine: Engine = CAFFE) -> dict[str, dict[str, float]]:
    """Task -> top1 and top5 in per cent on the training images, as TEST has them: unflipped.

    Beside the same on the test images it tells how well a net generalises.
    """
    transform, root = Transform.of(net.model), Kept.read(net.folder).root
    images = (transform(pixels) for pixels in records(root, "train"))
    found = scores(net.deploy, net.weights, images, net.batch, engine)
    truth = labels(root, "train")
    return {
        task: {f"top{k}": 100 * float((rank <= k).mean()) for k in KS}
        for task, values in found.items()
        for rank in [ranks(values, truth[task])[truth[task] != MISSING]]
    }


def caffe_test(net: Net, log: Path, images: int, engine: Engine = CAFFE) -> train_log.TestResult:
    """Caffe's own test of every image once.

    Raises:
        UserError: the test batch does not divide the images, or Caffe fails.
    """
    command = test_command(net, images, engine)
    with Caffe(command, log, net.name, engine) as caffe:
        found = [e for e in caffe.events() if isinstance(e, train_log.TestResult)]
    if not found:
        raise UserError(f"{net.name}: caffe test gave no result; see {log}")
    # Caffe's Accuracy counts scores that are no numbers as right.
    if not all(map(math.isfinite, found[0].outputs.values())):
        raise UserError(f"{net.name}: the test loss is no number; see {log}")
    return found[0]


def test_command(net: Net, images: int, engine: Engine = CAFFE) -> list[str]:
    """`caffe`'s arguments for a test that sees each image once."""
    iterations, rest = divmod(images, net.batch)
    if rest:
        raise UserError(
            f"{net.model}: batches of {net.batch} do not cover {images:,} test images exactly: "
            "make the net anew with --test-images"
        )
    command = ["test", "-model", str(net.model.resolve()), "-weights", str(net.weights.resolve())]
    return [
        *command,
        *("-iterations", str(iterations)),
        *([] if engine.gpu is None else ["-gpu", engine.first_gpu]),
    ]


test_command.__test__ = False  # for pytest: no test of ours


def records(root: Path, part: str = "test") -> Iterator[np.ndarray]:
    """The images of a part, 3 x H x W uint8 BGR, in the database's order; or cached maps."""
    database = root / f"{part}_image_lmdb"
    for key, value in items(database):
        try:
            yield parse_datum(value).array()
        except ValueError as error:
            raise UserError(f"{database}: {key.decode(errors='replace')}: {error}") from error


def keys(root: Path, part: str = "test") -> list[str]:
    """The records' names: `%08d_<path>`."""
    return [key.decode(errors="replace") for key, _ in items(root / f"{part}_label_lmdb")]


def labels(root: Path, part: str = "test") -> dict[str, np.ndarray]:
    """Task -> the labels of a part, in the database's order."""
    rows = [parse_datum(value).floats for _, value in items(root / f"{part}_label_lmdb")]
    array = np.array(rows, np.int64)
    tasks = Classes.read(DataFolder(root).classes).tasks
    return {task: array[:, i] for i, task in enumerate(tasks)}


def ranks(values: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """How many scores are as high as the true class's, itself counted: N x K, N to N.

    Of an image without a label, and of a class that the net does not know (DeepSentiBank), it is
    more than K and than any k.
    """
    own = values[np.arange(len(truth)), truth]
    found = (values >= own[:, None]).sum(axis=1)
    return np.where(np.isneginf(own) | (truth == MISSING), max(values.shape[1], *KS) + 1, found)


def summary(
    found: dict[str, np.ndarray], truth: dict[str, np.ndarray], names: Classes
) -> dict[str, Any]:
    """Accuracies with intervals, by task and class, and the confusion of ANPs."""
    images = len(next(iter(truth.values())))
    tasks: dict[str, Any] = {}
    for task, values in found.items():
        rank, labelled = ranks(values, truth[task]), int((truth[task] != MISSING).sum())
        if not labelled:
            raise UserError(f"no test image has a label of the task {task}")
        tasks[task] = {} if labelled == images else {"labelled": labelled}
        for k in KS:
            correct = int((rank <= k).sum())
            low, high = bootstrap(correct, labelled)
            tasks[task][f"top{k}"] = {
                "correct": correct,
                "percent": 100 * correct / labelled,
                "interval": [100 * low, 100 * high],
            }
        tasks[task]["classes"] = [
            {
                "class": name,
                "images": int(own.sum()),
                **{f"top{k}": 100 * float((rank[own] <= k).mean()) for k in KS if own.any()},
            }
            for label, name in enumerate(names[task])
            for own in [truth[task] == label]
        ]
    result: dict[str, Any] = {"images": images, "tasks": tasks}
    if names.by_anp and "anp" in found:
        own = found["anp"][:, : len(names.anp)]  # DeepSentiBank may have more
        result["confusion"] = confusion(own.argmax(axis=1), truth["anp"], names)
    return result


def confusion(guess: np.ndarray, truth: np.ndarray, names: Classes, most: int = 20) -> dict:
    """Where wrong ANPs go: to the same noun ("sad dog" for "happy dog"), adjective, or neither.

    `by_chance` is the share that guesses spread evenly over the other ANPs would
    have. `pairs` are the commonest confusions of ANPs that share a half.
    """
    anps = [Anp(name) for name in names.anp]
    adjectives = np.array([names["adj"].index(anp.adjective) for anp in anps])
    nouns = np.array([names["noun"].index(anp.noun) for anp in anps])
    wrong = guess != truth
    t, g = truth[wrong], guess[wrong]
    kinds = {
        "same_noun": (nouns[t] == nouns[g], nouns),
        "same_adjective": (adjectives[t] == adjectives[g], adjectives),
    }
    result: dict[str, Any] = {"wrong": int(wrong.sum())}
    for kind, (mask, halves) in kinds.items():
        others = np.array([(halves == halves[label]).sum() - 1 for label in range(len(anps))])
        result[kind] = {
            "errors": int(mask.sum()),
            "share": float(mask.mean()) if len(t) else 0.0,
            "by_chance": float(others[t].mean() / max(1, len(anps) - 1)) if len(t) else 0.0,
        }
    shared = (nouns[t] == nouns[g]) | (adjectives[t] == adjectives[g])
    pairs, counts = np.unique(np.stack([t[shared], g[shared]]), axis=1, return_counts=True)
    totals = np.bincount(truth, minlength=len(anps))
    result["pairs"] = [
        {
            "truth": names.anp[pairs[0, i]],
            "guess": names.anp[pairs[1, i]],
            "images": int(counts[i]),
            "of": int(totals[pairs[0, i]]),
        }
        for i in np.argsort(-counts, kind="stable")[:most]
    ]
    return result


def compare(a: Evaluation, b: Evaluation) -> dict[str, Any]:
    """McNemar's test between two evaluations on the same test images, by task and k.

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
    """An evaluation for people."""
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


def net_of(place: Path, snapshot: str | None = None) -> Net:
    """The net in a run's folder at `snapshot`: last (None), best, or an iteration.

    `place` may also be a .caffemodel in a run's folder.

    Raises:
        UserError: no run there, or no such snapshot.
    """
    folder = place.parent if place.suffix == ".caffemodel" else place
    model, deploy = folder / "net.prototxt", folder / "deploy.prototxt"
    for path in (model, deploy):
        if not path.exists():
            raise UserError(f"{folder}: no {path.name} there: not a run's folder")
    if folder != place:
        if snapshot:
            raise UserError(f"--snapshot {snapshot}: {place} is one already")
        if not is_whole_weights(place):
            raise UserError(f"{place}: not there, or not a whole .caffemodel")
        return Net(folder.name, model, deploy, place)
    found = {s.iteration: s.weights for s in snapshots(folder)} or _kept_alone(folder)
    if not found:
        raise UserError(f"{folder}: no whole snapshot there yet")
    if snapshot in (None, "last"):
        at = max(found)
    elif snapshot == "best":
        at = RunFolder(folder).history().best(set(found)) or max(found)
    elif re.fullmatch(r"[0-9]+", snapshot) and int(snapshot) in found:
        at = int(snapshot)
    else:
        there = ", ".join(map(str, sorted(found)))
        raise UserError(f"{folder}: no snapshot {snapshot!r}; there are {there}, last and best")
    return Net(folder.name, model, deploy, found[at])


def _kept_alone(folder: Path) -> dict[int, Path]:
    """Iteration -> the weights of a finished run that keeps no solver's state: a model to use.

    Raises:
        UserError: they are not those that its result is of.
    """
    result = read_json(folder / "result.json") or {}
    found = {}
    for name, digest in result.get("sha256", {}).items():
        path = folder / name
        if path.suffix == ".caffemodel" and path.is_file():
            if sha256(path) != digest:
                raise UserError(f"{path}: damaged, or of another run than {folder}/result.json")
            found[int(path.stem.rpartition("_")[2])] = path
    return found
