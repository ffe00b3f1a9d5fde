"""What a run is known by: its plan must stay what it was, or finished studies are trained anew."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from data_prep.classes import Classes
from data_prep.folder import DataFolder
from xresnet import reproduce
from xresnet.basics.files import write
from xresnet.reproduce.data import Data
from xresnet.reproduce.grid_file import Grid
from xresnet.reproduce.run import Run
from xresnet.reproduce.start import Start
from xresnet.reproduce.table2 import SMOKE, nets_of
from xresnet.reproduce.training import Training

GRIDS = sorted(Path(reproduce.__file__).parent.glob("grids/*.json"))
# Of the first seed of each grid's rows, one digest of all names and plans.
PLANS = {
    "ablations": "b2da97bdd94127ff545fa2d4713ff23eab1a13e9cd14f79fa2f68006bdd06003",
    "cifar": "0d8a08f048b00acf7d8125ad9c38a20e65cf2e132f6bb11c4ff5f87ca9913707",
    "cross_weights": "5c6c60202fef17d8bc921b73b66a59b818b5be50ad28e2e800855758920892e5",
    "finetuned": "ca6923436e898abb0ce1ceb26487116bb41b4817b3b27f345d67b57366d1a608",
    "finetuned_thin": "1803293e5f175ec73c5778c307c6f708dc7c79cd9b1337ed48918145c11e67ca",
    "readings": "1272db15c7790e69b282571e59316552886a43782a7d3055f880e586b15ba636",
    "scratch": "f99d68c45eec1d778d71e3b0fa15acac37e80639c4372eb9c1bba5654c58d5ae",
    "scratch_sparse": "f99d68c45eec1d778d71e3b0fa15acac37e80639c4372eb9c1bba5654c58d5ae",
    "trunk": "a3dc783e0ae356d5996d9ed43a8db81ba2764143f6499f36f681137eb9095fff",
    "trunk_factors": "66357a995da6736645e0418c1fe9159dd4f593a38445b0656e0948c53a1ffb42",
    "trunk_thin": "894de072dd5d49637c56881a49427daa3d4a8d02c21372898a84c2f7a1ae2cda",
    "trunk_factors_thin": "965425674a69b6e76aea76981740bdcd77bb921f70b4b3319bb04300772082af",
    "readings_thin": "453d4275c34c89152f1fa3f82a1810485baadd3586dfcc945dafcc3fe531c7d1",
    "smoke": "d1a9b7d5edf16abaf9a46f5d686d4e064273ff0f0ff31ff0901f10d9f732c110",
}


def data(root: Path, counts: dict[str, int], key: str) -> Data:
    """29,044 and 7,282 images of 32 x 32 that nobody has, with that many classes."""
    lists = tuple(tuple(f"{task}{i}" for i in range(n)) for task, n in counts.items())
    names = Classes(tuple(counts), lists, ((0,) * len(counts),), by_anp=True)
    return Data(DataFolder(root), names, 29_044, 7_282, 32, key)


def test_the_plans_of_the_published_study_are_what_they_were(root, tmp_path):
    """Its finished runs: with other plans the study would begin anew."""
    study = json.loads((root / "docs/results/scratch/grid.json").read_text())
    key = "22462830d3448848e8ca886e065dc0e5d166956b17423cbbfede61ed8dda9883"  # CIFAR-ANP, 44 pairs
    cifar = data(tmp_path / "cifar", {"adj": 9, "anp": 44, "noun": 10}, key)
    (path,) = (path for path in GRIDS if path.stem == "scratch")
    plans = {run.name: run.plan for _, run in Grid.read(path).runs(cifar, tmp_path / "out")}
    finished = {result["name"]: result["plan"] for result in study["results"]}
    assert len(finished) >= 13
    assert {name: plans[name] for name in finished} == finished


@pytest.mark.parametrize("path", GRIDS, ids=lambda path: path.stem)
def test_the_plans_of_our_grids_are_what_they_were(path, tmp_path, monkeypatch):
    made = write(tmp_path / "imagenet.caffemodel", "weights")
    monkeypatch.setattr(Start, "made", lambda *_: made)
    monkeypatch.setattr(Start, "is_made", lambda *_: True)
    found = data(tmp_path / "data", {"adj": 9, "anp": 44, "noun": 10}, "a key")
    grid = Grid.read(path)
    beside = {row.data.name for row in grid.rows if row.data}
    real = Data.read
    monkeypatch.setattr(Data, "read", lambda root: found if root.name in beside else real(root))
    runs = grid.runs(found, tmp_path / "out")[: len(grid.rows)]
    lines = "".join(f"{run.name} {run.plan}\n" for _, run in runs)
    assert hashlib.sha256(lines.encode()).hexdigest() == PLANS[path.stem]


def test_the_plans_of_the_rehearsal_are_what_they_were(tmp_path):
    found = data(tmp_path / "data", {"adj": 9, "anp": 44, "noun": 10}, "a key")
    plans = [
        Run(Training(f"{net}_{task}", network, found, tmp_path, SMOKE.schedule, SMOKE.solver))
        for (net, task), network in nets_of(SMOKE, SMOKE.rows).items()
    ]
    lines = "".join(f"{run.name} {run.plan}\n" for run in plans)
    assert hashlib.sha256(lines.encode()).hexdigest() == PLANS["smoke"]
