"""The grid files: every row is a net that real Caffe trains, and the way to its table is open."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_prep.folder import DataFolder
from data_prep.reorder import reorder
from xresnet import reproduce
from xresnet.basics.cli import UserError
from xresnet.basics.files import write
from xresnet.reproduce import grid as grid_module
from xresnet.reproduce.__main__ import main
from xresnet.reproduce.data import Data
from xresnet.reproduce.grid_file import Grid
from xresnet.reproduce.schedule import Stage, Stages
from xresnet.reproduce.start import Start

GRIDS = sorted(Path(reproduce.__file__).parent.glob("grids/*.json"))


@pytest.mark.parametrize("path", GRIDS, ids=lambda path: path.stem)
def test_rows_differ_in_what_is_trained(path, drawn, tmp_path, monkeypatch):
    def made(start, argv, folder):  # as if ImageNet's weights had been fetched and made its own
        digest = hashlib.sha256(repr((start, argv)).encode()).hexdigest()
        return write(tmp_path / f"{digest}.caffemodel", digest)

    monkeypatch.setattr(Start, "made", made)
    monkeypatch.setattr(Start, "is_made", lambda *_: True)
    for row in Grid.read(path).rows:
        if row.data:  # another folder beside: of other maps
            reorder(DataFolder(drawn), DataFolder(drawn.parent / row.data), 99)
    runs = Grid.read(path).runs(Data.read(drawn), Path("out"))
    keys = [run.training.key for _, run in runs]
    assert len(set(keys)) == len(keys), "two rows are the same net and seed"
    assert len({run.folder for _, run in runs}) == len(runs)


@pytest.mark.parametrize(
    ("common", "row", "message"),
    [
        ([], ["--cross-blocks", "1"], "row 2: --cross-blocks does not apply to rock_resnet50"),
        (["--branch-after", "res5a"], [], "row 2: --branch-after does not apply"),
    ],
)
def test_a_row_that_cannot_be_is_told_before_any_is_trained(common, row, message, drawn, tmp_path):
    rows = [{"name": "XS", "net": ["xs_resnet50"]}]
    rows += [{"name": "ROCK", "net": ["rock_resnet50", *row]}]
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({"name": "x", "net": common, "rows": rows}))
    with pytest.raises(UserError, match=message):
        main(["grid", str(path), "--data", str(drawn), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


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


SMALL = {
    "name": "small",
    "net": ["--width", "4", "--blocks", "1,1,1,3", "--batch", "60"],
    "stages": [{"lr": 0.02, "epochs": 2}, {"lr": 0.002, "epochs": 1}],
    "shuffle": True,
    "seeds": [1, 2],
    "rows": [
        {"name": "X0", "net": ["x0_resnet50"]},
        {"name": "self, wide", "net": ["xself_resnet50", "--width", "6"], "seeds": [2]},
    ],
}


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("small") / "small.json"
    path.write_text(json.dumps(SMALL))
    return path


@pytest.fixture(scope="module")
def trained(small, drawn, caffe_tools, tmp_path_factory) -> Path:
    """The folder of the small grid, trained by real Caffe, two runs at a time."""
    out = tmp_path_factory.mktemp("grid")
    command = ["grid", str(small), "--data", str(drawn), "--out", str(out)]
    assert main([*command, "--threads", "1", "--jobs", "2"]) == 0
    return out


def test_rows_outweigh_the_grid_and_take_its_seeds(small, drawn, tmp_path):
    runs = Grid.read(small).runs(Data.read(drawn), tmp_path)
    assert [run.name for _, run in runs] == ["X0-1", "self,_wide-2", "X0-2"]
    options = {run.name: run.training.options for _, run in runs}
    assert (options["X0-1"].width, options["self,_wide-2"].width) == (4, 6)


@pytest.mark.caffe
def test_every_arm_takes_the_same_steps_over_its_seeds_order(trained, drawn):
    table = json.loads((trained / "grid.json").read_text())
    assert (table["finished"], table["runs"]) == (3, 3)
    epoch = -(-Data.read(drawn).train // 60)
    for result in table["results"]:
        assert result["iterations"] == 3 * epoch
        assert set(result["train"]) == {"adj", "anp", "noun"}
        assert all(0 <= v["top1"] <= v["top5"] <= 100 for v in result["train"].values())
        assert str(trained) not in json.dumps(result)
    lists = [DataFolder(trained / "data" / f"order-{seed}").list("train") for seed in (1, 2)]
    lists.append(DataFolder(drawn).list("train"))
    texts = [path.read_text() for path in lists]
    assert len(set(texts)) == 3 and len({tuple(sorted(text.split("\n"))) for text in texts}) == 1
    for name, seed in (("X0-1", 1), ("X0-2", 2), ("self,_wide-2", 2)):
        net = (trained / "runs" / name / "net.prototxt").read_text()
        assert f"{trained}/data/order-{seed}/train_image_lmdb" in net


@pytest.mark.caffe
def test_a_grid_goes_on_from_its_json_alone(trained, small, drawn, tmp_path, capsys):
    """As copied to another machine; where the engine is another one, if it is told to."""
    (tmp_path / "grid.json").write_bytes((trained / "grid.json").read_bytes())
    command = ["grid", str(small), "--data", str(drawn), "--json"]
    assert main([*command, "--out", str(tmp_path)]) == 0
    ours = json.loads(capsys.readouterr().out)
    assert not (tmp_path / "runs").exists() and not (tmp_path / "data").exists()
    assert ours == json.loads((trained / "grid.json").read_text())
    told = ["--resume-from", str(trained / "grid.json"), "--engine", "torch"]
    assert main([*command, "--out", str(tmp_path / "other"), *told]) == 0
    assert json.loads(capsys.readouterr().out) == ours
    with pytest.raises(UserError, match=r"by torchcaffe is finished.* other results are there"):
        main([*command, "--out", str(trained), "--engine", "torch", "--table"])
    table = dict(ours, results=ours["results"][:1])
    (tmp_path / "grid.json").write_text(json.dumps(table))
    assert main([*command, "--out", str(tmp_path), "--table"]) == 0
    assert json.loads(capsys.readouterr().out)["finished"] == 1
    with pytest.raises(UserError, match=r"not a grid\.json"):
        main([*command, "--out", str(tmp_path), "--resume-from", str(small)])
    before = (tmp_path / "grid.json").read_bytes()
    with pytest.raises(UserError, match=r"alone has 1 results \(X0-1\) of another engine"):
        main([*command, "--out", str(tmp_path), "--engine", "torch"])
    assert (tmp_path / "grid.json").read_bytes() == before
    (tmp_path / "grid.json").write_bytes(before[:-100])
    with pytest.raises(UserError, match=r"not JSON, or cut short .*not a grid\.json"):
        main([*command, "--out", str(tmp_path)])


@pytest.mark.caffe
def test_two_grids_on_one_folder_make_one_table(trained, small, drawn, tmp_path, monkeypatch):
    """What another process finishes meanwhile is in the table of either."""
    out = shutil.copytree(trained, tmp_path / "out")
    (out / "grid.json").unlink()
    theirs = out / "runs" / "X0-1" / "result.json"
    aside = theirs.rename(tmp_path / "result.json")
    result = out / "runs" / "X0-2" / "result.json"
    result.unlink()

    def all_of(runs, jobs, done):
        assert [run.name for run in runs.values()] == ["X0-1", "X0-2"]
        aside.rename(theirs)  # another process has trained it
        (i,) = (i for i, run in runs.items() if run.name == "X0-2")
        done(i, runs[i].result())

    monkeypatch.setattr(grid_module, "run_all", all_of)
    command = ["grid", str(small), "--data", str(drawn), "--out", str(out), "--threads", "1"]
    assert main(command) == 0
    table = json.loads((out / "grid.json").read_text())
    assert table["finished"] == table["runs"] == 3


@pytest.mark.caffe
def test_rows_and_seeds_can_be_chosen_and_the_last_snapshot_is_kept(
    trained, small, drawn, tmp_path, capsys
):
    command = ["grid", str(small), "--data", str(drawn), "--out", str(tmp_path), "--threads", "1"]
    assert main([*command, "--seeds", "0", "--row", "X0", "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert [(r["row"], r["seed"]) for r in table["results"]] == [("X0", 0)]
    assert (table["finished"], table["runs"]) == (1, 2)
    for out in (trained, tmp_path):
        for run in (out / "runs").iterdir():
            assert len(list(run.glob("*.caffemodel"))) == 1, run
    with pytest.raises(UserError, match="no row 'X1'"):
        main([*command, "--row", "X1"])


@pytest.mark.caffe
def test_what_is_missing_is_trained_with_an_estimate_before_it(
    trained, small, drawn, tmp_path, capsys
):
    out = tmp_path / "out"
    shutil.copytree(trained, out)
    shutil.rmtree(out / "runs" / "X0-2")
    (out / "grid.json").unlink()
    command = ["grid", str(small), "--data", str(drawn), "--out", str(out), "--threads", "1"]
    assert main(command) == 0
    said = capsys.readouterr().err.splitlines()
    told = [line for line in said if "to train" in line or line.startswith("X0-2: top1")]
    assert told[0].startswith("2 runs are there; 1 to train: about ")
    assert told[1].endswith("; all are done")
    before, after = (json.loads((f / "grid.json").read_text()) for f in (trained, out))
    for old, new in zip(before["results"], after["results"]):
        assert old["outputs"] == new["outputs"], "real Caffe repeats a seed to the last digit"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"plateau": {"lr": 0.1}}, "`plateau` or `stages`, not both"),
        ({"stages": [{"lr": 0.1}]}, r"stages\[0\]: 'epochs' is missing"),
        ({"stages": [{"lr": 0, "epochs": 1}]}, "a learning rate above 0"),
        ({"seeds": [1, 1]}, "a list of different numbers"),
        ({"seeds": [-1]}, "expected a seed"),
        ({"rows": [{"name": "X0", "net": ["x0_resnet50"], "seed": 1}]}, "unknown 'seed'.*seeds"),
    ],
)
def test_a_wrong_grid_file_is_told(change, message, tmp_path):
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({**SMALL, **change}))
    with pytest.raises(UserError, match=message):
        Grid.read(path)


def test_a_long_epoch_of_a_fixed_plan_has_snapshots_within():
    plan = Stages((Stage(0.1, 20_000),))
    found = [plan.intervals(epoch, None)[0] for epoch in (511, 2000, 12_800, 12_803, 2003)]
    assert found == [511, 2000, 1600, 1829, 2003]  # 2003 is a prime


@pytest.mark.caffe
def test_a_grid_that_was_killed_goes_on_in_the_middle_of_its_runs(drawn, tmp_path, caffe_tools):
    plan = {**SMALL, "stages": [{"lr": 0.01, "epochs": 24}], "solver": ["--display", "5"]}
    plan["rows"] = plan["rows"][:1]
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    out = tmp_path / "out"
    words = ["grid", str(tmp_path / "plan.json"), "--data", str(drawn), "--out", str(out)]
    words += ["--threads", "1", "--jobs", "2"]
    logs = [out / "runs" / f"X0-{seed}" / "train.log" for seed in (1, 2)]
    with subprocess.Popen(
        [sys.executable, "-m", "xresnet", *words], stderr=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        until = time.monotonic() + 120
        while not all(log.exists() and "Iteration 20 " in log.read_text() for log in logs):
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=120)
    assert process.returncode and b"interrupted" in said.splitlines()[-1]
    assert not (out / "grid.json").exists()
    assert main(words) == 0
    table = json.loads((out / "grid.json").read_text())
    epoch = -(-Data.read(drawn).train // 60)
    assert [r["iterations"] for r in table["results"]] == [24 * epoch] * 2
    for log in logs:
        calls = re.findall(r"reproduce\.py:1\] caffe train.*", log.read_text())
        assert len(calls) == 2 and "-snapshot" in calls[1]
