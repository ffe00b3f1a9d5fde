"""The report in a real browser, and the grid: small nets, real Caffe."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.test_reproduce import TINY
from xresnet.basics.cli import UserError
from xresnet.reproduce.__main__ import main
from xresnet.reproduce.data import Data
from xresnet.reproduce.grid import Grid
from xresnet.reproduce.table2 import table2

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
ROWS = [
    {"name": "XS", "net": ["xs_resnet50"], "seeds": [1, 2]},
    {"name": "ResNet noun", "net": ["resnet50", "--task", "noun"]},
]
PLAN = {
    "name": "a test",
    "what": "Nets of a few channels",
    "net": ["--width", "4", "--blocks", "1,1,1,2", "--batch", "8", "--bn-fraction", "0.9"],
    "plateau": {"lr": 0.01, "max_epochs": 1},
    "solver": ["--display", "5"],
    "rows": ROWS,
}


@pytest.fixture(scope="module")
def results(caffe_tools, drawn, tmp_path_factory) -> Path:
    """A folder with a table of two rows, and its report."""
    out = tmp_path_factory.mktemp("results")
    table2(drawn, out, TINY, ("x0_resnet50", "xs_resnet50"))
    assert main(["report", str(out)]) == 0
    return out


class Links(HTMLParser):
    """What a page asks for, and the tags it leaves open."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.asked += [v for k, v in attrs if k in ("src", "href", "data", "action", "srcset")]


@pytest.mark.caffe
def test_the_report_needs_nothing_beside_it(results):
    page = (results / "report.html").read_text()
    links = Links()
    links.feed(page)
    assert links.asked and all(re.match(r"#|data:image/", place) for place in links.asked)
    assert "@import" not in page and "url(" not in page
    assert not {"script", "link", "iframe"} & set(links.tags)


@pytest.mark.caffe
def test_the_report_tells_all(results):
    page = (results / "report.html").read_text()
    table = json.loads((results / "table2.json").read_text())
    for run in table["runs"]:
        for digest in run["sha256"].values():
            assert digest in page
        assert "caffe train -solver" in page
    for row in table["table"]:
        assert f"{row['top1']:.2f}" in page and f"{row['paper_top5']:.2f}" in page
    for heading in ("Table 2", "What the net sees", "Figure 5", "Training", "Data", "--seed 1"):
        assert heading in page
    assert page.count("<figure class=card>") == 12
    assert table["versions"]["commit"] in page


@pytest.mark.caffe
@pytest.mark.parametrize("width", [1280, 390])
def test_the_report_in_a_browser(results, tmp_path, width):
    browser = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if not browser:
        pytest.skip("SKIPPED FOR LACK OF A BROWSER: no chromium on PATH (apt-get install chromium)")
    picture = tmp_path / "page.png"
    command = [browser, *FLAGS, f"--user-data-dir={tmp_path}/profile", f"--screenshot={picture}"]
    command += [f"--window-size={width},3000", (results / "report.html").as_uri()]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert picture.exists(), ran.stderr[-2000:]
    pixels = cv2.imread(str(picture))
    assert pixels.shape[:2] == (3000, width)
    assert (pixels < 100).any(axis=2).mean() > 0.005, "text was drawn"
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100, "pictures were drawn"
    assert (pixels[:, -3:] == 255).all(), "nothing sticks out at the right"


def test_a_report_about_nothing_says_what_to_run(tmp_path):
    with pytest.raises(UserError, match="table2` first"):
        main(["report", str(tmp_path)])


@pytest.mark.caffe
def test_a_grid_is_resumed_and_reported(caffe_tools, drawn, tmp_path, capsys):
    file, out = tmp_path / "grid.json", tmp_path / "out"
    file.write_text(json.dumps(PLAN))
    arguments = ["grid", str(file), "--data", str(drawn), "--out", str(out)]
    with pytest.raises(UserError, match=r"no run .* finished"):
        main([*arguments, "--table"])
    assert main([*arguments, "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    xs, noun = table["rows"]
    assert (xs["n"], noun["n"], table["finished"]) == (2, 1, 3)
    spread = xs["tasks"]["anp"]["top1"]
    assert spread["mean"] == pytest.approx(np.mean(spread["values"]))
    assert spread["sd"] == pytest.approx(np.std(spread["values"], ddof=1))
    assert list(noun["tasks"]) == ["noun"] and noun["tasks"]["noun"]["top1"]["sd"] is None
    logs = {path: path.stat().st_size for path in out.glob("runs/*/*.log")}
    assert len(logs) == 6
    assert main(arguments) == 0
    assert {path: path.stat().st_size for path in logs} == logs, "nothing was trained again"
    assert "±" in (out / "grid.md").read_text()
    assert main(["report", str(out)]) == 0
    assert "3 of 3 runs are finished" in (out / "report.html").read_text()


def test_the_studys_grid_is_one_and_mistakes_in_a_grid_are_named(root, tmp_path):
    plan = Grid.read(root / "xresnet/reproduce/grids/cifar.json")
    seeds = {row.name: row.seeds for row in plan.rows}
    assert all(seeds[name] == (1, 2, 3) for name in ("XS", "X0", "XI"))
    assert {"Cross-stitch", "ROCK"} < seeds.keys() and len(seeds) == 8
    for wrong, words in (
        ({**PLAN, "plateu": {}}, r"'plateu' .did you mean 'plateau'"),
        ({**PLAN, "plateau": {"lr": 1, "patiense": 2}}, "did you mean 'patience'"),
        ({"name": "x"}, "'rows' is missing"),
        ({**PLAN, "rows": [ROWS[0], ROWS[0]]}, "same name"),
    ):
        (tmp_path / "grid.json").write_text(json.dumps(wrong))
        with pytest.raises(UserError, match=words):
            Grid.read(tmp_path / "grid.json")


@pytest.mark.parametrize("name", ["cifar", "ablations"])
def test_every_row_of_our_grids_is_a_net(drawn, root, tmp_path, name):
    plan = Grid.read(root / f"xresnet/reproduce/grids/{name}.json")
    runs = plan.runs(Data.read(drawn), tmp_path)
    assert len({run.folder for _, run in runs}) == len(runs) == sum(len(r.seeds) for r in plan.rows)
    made = {run.training.net_texts()["net.prototxt"] for _, run in runs}
    assert len(made) == len(plan.rows), "rows differ; seeds do not change the net"
