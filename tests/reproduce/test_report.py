"""The report in a real browser, and the grid: small nets, real Caffe."""

from __future__ import annotations

import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.browser import seen
from tests.reproduce.test_reproduce import TINY
from xresnet.basics.cli import UserError
from xresnet.realcaffe.train_log import TestPass, TrainStep
from xresnet.reproduce import charts, curves, pages, pictures
from xresnet.reproduce.__main__ import main
from xresnet.reproduce.data import Data
from xresnet.reproduce.evaluation import Evaluation
from xresnet.reproduce.grid_file import Grid
from xresnet.reproduce.history import History
from xresnet.reproduce.report import Section
from xresnet.reproduce.table2 import Table2

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
    Table2(out, TINY, ("x0_resnet50", "xs_resnet50")).make(drawn)
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
    assert "@import" not in page and not re.search(r"url\((?!#)", page)
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
    assert page.count('<figure class="card ') == 12
    assert "<figcaption>" in page and "_<wbr>" in page  # a pair breaks between its words
    assert "%</span>" in page, "probabilities"
    assert page.count('class="chart"') == 3 + 2 + 1 + 1, "glance, trainings, Figure 5, sizes"
    assert table["versions"]["commit"] in page


@pytest.mark.caffe
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_report_in_a_browser(results, tmp_path, width, scheme):
    wide, pixels = seen(results / "report.html", tmp_path, width, scheme)
    assert wide == width, "nothing scrolls the page sideways"
    background = pixels[0, 0].astype(int)
    assert (background < 60).all() if scheme == "dark" else (background == 255).all()
    text = abs(pixels.astype(int) - background).max(axis=2) > 120
    assert text.mean() > 0.005, "text was drawn"
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100, "pictures were drawn"
    assert (pixels[:, -3:] == background).all(), "nothing sticks out at the right"


@pytest.mark.caffe
def test_a_report_of_one_run_is_whole(results, tmp_path):
    run = next((results / "runs").glob("xs_*"))
    assert main(["report", str(run), "--out", str(tmp_path / "one.html")]) == 0
    page = (tmp_path / "one.html").read_text()
    result = Evaluation.find(run).result()
    for values in result["tasks"].values():
        assert f"<td>{values['top1']['percent']:.2f}</td>" in page
    made = json.loads((run / "result.json").read_text())
    for name, digest in made["sha256"].items():
        assert f'{name}</th><td class="word"><code>{digest}' in page
    for command in made["commands"]:
        assert html.escape(command) in page, "as the logs have it"
    assert Evaluation.find(run).path.name in page, "where programs find the numbers"
    arrays = Evaluation.find(run).arrays()
    for task in result["tasks"]:
        shares = arrays[f"prob_{task}"]
        assert shares.shape == arrays[f"best_{task}"].shape and (np.diff(shares) <= 0).all()
        assert (shares[:, 0] >= 1 / len(result["tasks"][task]["classes"]) - 1e-6).all()
        assert (shares.sum(axis=1) <= 1 + 1e-5).all()


def test_names_are_text_on_every_page():
    name = "<script>alert('\"&')</script>\x1b[2J\u202e"
    chart = pages.chart(charts.dots([charts.Dot(name, 50), charts.Dot("Hund 犬", 51)]), name)
    values = {"charts": {name: chart}, "seeds": True}
    section = Section(name, "glance", values)
    facts = {"train": 1, "test": 1, "classes": {name: 2}}
    page = pages.page(
        "report.html",
        **{"name": name, "what": name, "facts": facts, "vso": False, "by": name},
        **{"sections": [section], "source": name, "files": [name]},
    )
    links = Links()
    links.feed(page)
    assert "script" not in links.tags and page.count("&lt;script&gt;") >= 8
    assert "\x1b" not in page and "\u202e" not in page and "Hund 犬" in page


def test_one_outlier_does_not_set_the_scale():
    dots = [charts.Dot(str(i), value) for i, value in enumerate((2.0, 53.0, 54.0, 55.0))]
    figure = charts.dots(dots)
    low, high = figure.axes[0].get_xlim()
    assert low > 50 and high < 60
    assert "2.0" in pictures.render(figure).decode()

    steps = {i: TrainStep(i, 0.1, 1.0, {"loss_a": 1 - i / 1000}) for i in range(240)}
    calm = History(dict(steps))
    assert curves.loss_top(calm) == pytest.approx(1.05, rel=1e-2)
    for i in range(100, 104):
        steps[i] = TrainStep(i, 0.1, 1.0, {"loss_a": 9000.0})
    wild = History(steps)
    assert curves.loss_top(wild) < 1.2
    figure = curves.small_curves(wild, [], 100, ["a"])
    assert figure.axes[0].get_ylim()[1] < 1.2 and "↑ 9e+03" in pictures.render(figure).decode()
    diverged = History({i: TrainStep(i, 0.1, 1.0, {"loss_a": 80.0}) for i in range(99)})
    assert curves.shared_top([calm, calm, diverged]) < 3
    lost = History({1: TrainStep(1, 0.1, float("nan"), {"loss_a": float("nan")})})
    assert curves.loss_top(lost) is None and pictures.render(curves.small_curves(lost, [], 9, []))


def test_a_test_is_told_of_where_there_is_one():
    steps = {i: TrainStep(i, 0.1, 1.0, {"loss_a": 1.0}) for i in (1, 2)}
    assert "dashed" not in pictures.render(curves.curves("r", History(steps), [], 1)).decode()
    tests = {2: TestPass(2, 0, {"loss_a": 1.0, "top1_a": 0.5})}
    assert (
        "dashed: test" in pictures.render(curves.curves("r", History(steps, tests), [], 1)).decode()
    )


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
        ({"name": "x"}, "no row, nothing to train"),
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
