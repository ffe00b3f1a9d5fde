"""The grid files: every row is a net that real Caffe trains, and the way to its table is open."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reproduce.__main__ import main
from reproduce.data import Data
from reproduce.grid import Grid

GRIDS = sorted((Path(__file__).parent.parent / "reproduce" / "grids").glob("*.json"))


@pytest.mark.parametrize("path", GRIDS, ids=lambda path: path.stem)
def test_rows_differ_in_what_is_trained(path, drawn):
    runs = Grid.read(path).runs(Data.read(drawn), Path("out"))
    keys = [run.training.key for _, run in runs]
    assert len(set(keys)) == len(keys), "two rows are the same net and seed"
    assert len({run.folder for _, run in runs}) == len(runs)


@pytest.mark.caffe
@pytest.mark.slow
def test_every_ablation_is_trained_to_the_table(caffe_tools, drawn, tmp_path, capsys):
    """The grid as it is, but for one seed and one epoch (eleven iterations) of drawn images."""
    plan = json.loads((GRIDS[0].parent / "ablations.json").read_text())
    plan["plateau"]["max_epochs"] = 1
    for row in plan["rows"]:
        row["seeds"] = [1]
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    out = tmp_path / "out"
    command = ["grid", str(tmp_path / "plan.json"), "--data", str(drawn), "--out", str(out)]
    assert main([*command, "--threads", "1", "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert table["finished"] == table["runs"] == len(plan["rows"])
    params = {row["name"]: row["params"] for row in table["rows"]}
    for row in table["rows"]:
        assert row["n"] == 1 and set(row["tasks"]) == {"adj", "anp", "noun"}, row["name"]
    assert params["X0 (zero)"] == params["XI (identity)"] < params["XS, 1 cross-residual block"]
    assert params["XS, 1 cross-residual block"] < params["XS (scale)"] == params["XG (gated)"]
    assert params["XS (scale)"] < params["Cross-stitch"] < params["XP (projection)"]
    lines = (out / "grid.md").read_text().splitlines()
    assert [line.split(" | ")[0][2:] for line in lines[-len(params) :]] == list(params)
