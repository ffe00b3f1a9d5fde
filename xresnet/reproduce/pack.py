"""A trained net to share: what `predict`, `figure5` and `figure6` need, and a model card.

OUT/net.prototxt, deploy.prototxt   with DATA in place of the data folder
    snapshot_iter_N.caffemodel      the weights
    classes/, mean.binaryproto      what a run keeps of its data (xresnet.reproduce.kept)
    run.json, result.json           what was trained, and what came out
    README.md                       the card
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from xresnet.basics.cli import UserError, printable
from xresnet.basics.files import read_text, sha256, write, write_json
from xresnet.caffeproto import caffemodel
from xresnet.reproduce.accuracy import METRICS
from xresnet.reproduce.evaluation import Evaluation
from xresnet.reproduce.forward import MEAN, mean_file
from xresnet.reproduce.kept import CLASSES, Kept, read_record
from xresnet.reproduce.net import Net
from xresnet.reproduce.results import find_result
from xresnet.reproduce.tables import markdown_table

DATA = "DATA"


def pack(net: Net, out: Path) -> Path:
    """Write the packed run into the folder `out`, made anew, and return its card's path.

    No path of this machine is in it, and no solver's state: it can be used, not trained on.

    Raises:
        UserError: `out` is there already, or the net was not evaluated.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} already exists: choose a new or empty folder")
    place = out.resolve()
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{place.name}.") as aside:
        made = Path(aside) / "packed"
        _write(net, made)
        made.replace(place)
    return out / "README.md"


def _write(net: Net, out: Path) -> None:
    """Write the packed run into a folder that does not exist yet."""
    kept, record = Kept.read(net.folder), read_record(net.folder)
    evaluation = Evaluation.find(net.weights).result()
    kept.names.write(out / CLASSES)
    mean = mean_file(net.model)
    if mean:
        shutil.copyfile(net.folder / MEAN, out / MEAN)
    for path in (net.model, net.deploy):
        text = read_text(path).replace(str(kept.root), DATA)
        write(out / path.name, (text.replace(str(mean), MEAN) if mean else text).encode())
    # Caffe's file has the training net's layers in it, with the paths of their databases.
    learned = [layer for layer in caffemodel.load(net.weights) if layer.blobs]
    caffemodel.save(out / net.weights.name, record["name"], learned)
    write_json(out / "run.json", {**record, "data": {**record["data"], "folder": DATA}})
    of_run = find_result(net.folder) or {}
    result: dict[str, Any] = {
        "name": record["name"],
        "tasks": {
            task: {metric: values[metric] for metric in METRICS}
            for task, values in evaluation["tasks"].items()
        },
        "images": evaluation["images"],
        **{k: of_run[k] for k in ("params", "trained_by", "tested_by", "version") if k in of_run},
        "sha256": {
            path.name: sha256(path)
            for path in sorted(out.iterdir())
            if path.suffix in (".prototxt", ".caffemodel")
        },
    }
    write_json(out / "result.json", result)
    write(out / "README.md", card(record, result, kept).encode())


def card(record: dict[str, Any], result: dict[str, Any], kept: Kept) -> str:
    """What people want to know of a net before they use it, as Markdown."""
    data, engines = record["data"], " and ".join(record.get("engines") or ["caffe"])
    (weights,) = (name for name in result["sha256"] if name.endswith(".caffemodel"))
    rows = [
        [task, str(data["classes"][task]), _told(v["top1"]), _told(v["top5"])]
        for task, v in result["tasks"].items()
    ]
    options = printable(" ".join([*record["net"], *record["solver"]]))
    return "\n".join(
        [
            f"# {printable(record['name'])}",
            "",
            f"    python -m netgen {options}",
            "",
            f"Trained by {engines}, on {data['train']:,} images of {kept.size} x {kept.size} "
            f"pixels; tested on {result['images']:,} others (`result.json`):",
            "",
            *markdown_table(["Task", "Classes", "Top-1 (%)", "Top-5 (%)"], "lrrr", rows),
            "",
            "In brackets: 95% intervals over the test images.",
            "",
            "To use it: `python -m xresnet predict FOLDER photo.jpg`, where FOLDER is this folder. "
            f"An image is resized to {kept.size} x {kept.size}, and the mean in `net.prototxt` is "
            "subtracted from its BGR values; the class names are in `classes/`.",
            "",
            f"Weights: `{weights}`, SHA-256 `{result['sha256'][weights]}`.",
            "",
        ]
    )


def _told(right: dict[str, Any]) -> str:
    low, high = right["interval"]
    return f"{right['percent']:.2f} ({low:.2f}–{high:.2f})"
