"""Arm against arm: the statistics against SciPy's, the tables and the picture from a grid.json."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import results as docs_results
from scipy import stats as scipy

from xresnet.basics.cli import UserError
from xresnet.reproduce.__main__ import main
from xresnet.reproduce.compare import comparison, markdown
from xresnet.reproduce.stats import (
    holm,
    pairs_needed,
    t_interval,
    t_probability,
    t_quantile,
    t_test,
)

TASKS = ("adj", "anp", "noun")


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 9, 10, 29, 200])
def test_students_t_is_scipys(freedom):
    for t in (-30, -3, -0.1, 0, 0.5, 2, 12):
        assert t_probability(t, freedom) == pytest.approx(scipy.t.cdf(t, freedom), abs=1e-14)
    for share in (0.005, 0.3, 0.5, 0.8, 0.975):
        assert t_quantile(share, freedom) == pytest.approx(scipy.t.ppf(share, freedom), abs=1e-9)


def test_interval_and_test_of_a_mean_are_scipys():
    values = np.random.default_rng(0).normal(0.4, 1, 10).tolist()
    theirs = scipy.ttest_1samp(values, 0)
    assert t_test(values) == pytest.approx(theirs.pvalue, rel=1e-9)
    assert t_interval(values) == pytest.approx(tuple(theirs.confidence_interval(0.95)), rel=1e-9)
    assert t_test([1.0, 1.0]) == 0 and t_test([0.0, 0.0]) == 1


@pytest.mark.parametrize("deviation", [0.3, 0.5, 0.8, 1, 1.5, 2, 3])
def test_the_number_of_pairs_has_the_power(deviation):
    def power(n: int) -> float:
        critical, shift = scipy.t.ppf(0.975, n - 1), n**0.5 / deviation
        above = scipy.nct.sf(critical, n - 1, shift)
        return above + scipy.nct.cdf(-critical, n - 1, shift)

    exact = next(n for n in range(2, 1000) if power(n) >= 0.8)
    assert abs(pairs_needed(deviation, 1) - exact) <= 1


def test_holms_correction():
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []
    assert holm([0.01], tests=2) == [0.02]  # the other's result is not there yet


def result(row: str, seed: int, tops: dict[str, float], params: int, train: float) -> dict:
    return {
        "row": row,
        "seed": seed,
        "params": params,
        "outputs": {
            **{f"top1_{task}": top / 100 for task, top in tops.items()},
            **{f"top5_{task}": (top + 10) / 100 for task, top in tops.items()},
        },
        "train": {task: {"top1": train, "top5": 100.0} for task in tops},
    }


@pytest.fixture
def table() -> dict:
    """XS a point over X0 on adjectives alone; three nets, a task each; one seed of XS missing."""
    results = []
    for seed in (1, 2, 3, 4):
        tops = {"adj": 80.0 + seed, "anp": 50.0, "noun": 60.0}
        results.append(result("X0", seed, tops, 500, 90.0))
        if seed != 3:
            gain = {1: 0.5, 2: 1.0, 4: 1.5}[seed]
            results.append(result("XS", seed, {**tops, "adj": tops["adj"] + gain}, 510, 91.0))
        results += [result(f"one {t}", seed, {t: tops[t] - 2}, 300, 95.0) for t in TASKS]
    return {
        "name": "a study",
        "what": "What it is.",
        "order": "a seed's own",
        "runs": 20,
        "finished": 19,
        "arms": {"single": [f"one {task}" for task in TASKS]},
        "primary": [["XS", "X0"]],
        "exploratory": [["X0", "single"]],
        "rows": [],
        "results": results,
    }


def test_pairs_are_runs_of_the_same_seed(table):
    made = comparison(table)
    xs, single = made["comparisons"]
    assert (xs["a"], xs["b"], xs["kind"], xs["seeds"]) == ("XS", "X0", "primary", [1, 2, 4])
    adjective = xs["measures"]["adj"]
    assert adjective["differences"] == pytest.approx([0.5, 1.0, 1.5])
    assert adjective["mean"] == pytest.approx(1)
    assert adjective["interval"] == pytest.approx([1 - 4.3027 * 0.5 / 3**0.5, 1 + 1.2421], abs=1e-3)
    assert adjective["relative"] == pytest.approx(100 * 1 / (80 + 7 / 3))
    assert xs["measures"]["mean of tasks"]["mean"] == pytest.approx(1 / 3)
    assert xs["measures"]["noun"]["negligible"] and not adjective["negligible"]
    # Three nets count together: their parameters, and the mean over their tasks.
    arm = next(arm for arm in made["arms"] if arm["name"] == "single")
    assert arm["params"] == 900 and single["params"] == pytest.approx(500 / 900)
    assert single["measures"]["mean of tasks"]["differences"] == pytest.approx([2, 2, 2, 2])
    assert len(made["arms"]) == 3, "the single nets are one arm"


def test_primary_comparisons_are_corrected_together(table):
    table["primary"] = [["XS", "X0"], ["X0", "single"]]
    table["exploratory"] = []
    first, second = (c["measures"]["adj"] for c in comparison(table)["comparisons"])
    assert [first["p_holm"], second["p_holm"]] == pytest.approx(holm([first["p"], second["p"]]))
    assert first["p_holm"] >= first["p"]


def test_without_a_plan_each_arm_is_held_against_the_first(table):
    for name in ("arms", "primary", "exploratory"):
        del table[name]
    made = comparison(table)
    # A net of one task is compared on that task alone.
    pairs = {(c["a"], c["b"]): list(c["measures"]) for c in made["comparisons"]}
    assert pairs[("one adj", "X0")] == ["adj"]
    assert pairs[("XS", "X0")] == ["mean of tasks", *TASKS]


def test_the_command_writes_tables_and_picture(table, tmp_path, capsys):
    path = tmp_path / "grid.json"
    path.write_text(json.dumps(table))
    assert main(["compare", str(path), "--out", str(tmp_path / "out")]) == 0
    text = capsys.readouterr().out
    assert (tmp_path / "out" / "compare.md").read_text() + "\n" == text
    assert "| **XS − X0** | mean of tasks | 3 | +0.33 |" in text
    assert "|  | adjective | 3 | +1.00 | -0.24 to +2.24 | 0.0742 | no | +1.2% |" in text
    assert "| X0 | 74.17 ± 0.43 | 92.50 ± 1.29 | 60.00 ± 0.00 | 70.00 ± 0.00 |" in text
    assert "| single | 0.00 | 4 |" in text
    assert "Parameters: X0 -44.4% against single." in text
    assert json.loads((tmp_path / "out" / "compare.json").read_text()) == comparison(table)
    picture = ElementTree.parse(tmp_path / "out" / "compare.svg")
    words = {node.text for node in picture.iter() if node.text}
    assert {"XS − X0  (3 seeds)", "X0 − single  (4 seeds)", "mean of tasks"} <= words


def test_committed_results_are_made_from_their_data(root):
    """`make results` makes the page anew: each number in its blocks comes from a grid.json."""
    studies = docs_results.read(root)
    text = (root / docs_results.PAGE).read_text()
    assert docs_results.page(text, studies) == text, "run: make results"
    for name, made in studies.items():
        folder = root / docs_results.RESULTS / name
        if made["comparisons"]:
            drawn = (folder / docs_results.PICTURE).read_text()
            assert docs_results.stamp(made) in drawn, "run: make results"
        data = (folder / "grid.json").read_text()
        assert '"/' not in data and " /" not in data, f"{name}: paths of the machine that made it"
        assert f"<!-- {name}: " in text, f"{name}: {docs_results.PAGE} does not show it"


def test_the_page_follows_its_data(table, tmp_path, monkeypatch):
    study = tmp_path / docs_results.RESULTS / "made-up"
    study.mkdir(parents=True)
    (study / "grid.json").write_text(json.dumps(table))
    studies = docs_results.read(tmp_path)
    text = "before\n<!-- made-up: comparisons -->\nold\n<!-- end -->\nbetween\n"
    text += "<!-- made-up: picture -->\n<!-- end -->\nafter\n"
    made = docs_results.page(text, studies)
    assert "| **XS − X0** | mean of tasks | 3 | +0.33 |" in made and "old" not in made
    assert "![a study: differences over the seeds](results/made-up/compare.svg)" in made
    assert made.startswith("before\n") and made.endswith("after\n") and "\nbetween\n" in made
    assert docs_results.page(made, studies) == made
    drawn = docs_results.picture(studies["made-up"]).decode()
    assert docs_results.stamp(studies["made-up"]) in drawn and drawn.count("<svg") == 1
    table["results"][1]["outputs"]["top1_adj"] += 0.01
    (study / "grid.json").write_text(json.dumps(table))
    assert docs_results.page(made, docs_results.read(tmp_path)) != made
    assert docs_results.stamp(docs_results.read(tmp_path)["made-up"]) not in drawn
    for wrong, message in (
        ("<!-- made-op: arms -->\n<!-- end -->", "there is no study 'made-op' .*made-up"),
        ("<!-- made-up: arm -->\n<!-- end -->", "no part 'arm' .*arms"),
        ("<!-- made-up: arms -->\n", None),
        ("<!-- end -->", "a mark without"),
    ):
        if message:
            with pytest.raises(UserError, match=message):
                docs_results.page(wrong, studies)


def test_one_seed_has_no_interval(table):
    table["results"] = [r for r in table["results"] if r["seed"] == 1]
    made = comparison(table)
    assert "interval" not in made["comparisons"][0]["measures"]["adj"]
    assert "| +0.50 | – | – | – | +0.6% | – |" in markdown(made)


def test_arms_without_a_result_yet_are_left_out(table):
    table["rows"] = [{"name": "XI"}]
    table["primary"] = [["XS", "X0"], ["X0", "XI"]]
    table["results"] = [r for r in table["results"] if r["row"] != "one adj"]
    made = comparison(table)
    assert [(c["a"], c["b"]) for c in made["comparisons"]] == [("XS", "X0")]
    assert {arm["name"] for arm in made["arms"]} == {"X0", "XS"}


def test_what_is_no_grid_is_told(tmp_path, table):
    with pytest.raises(UserError, match=r"not a grid\.json"):
        main(["compare", str(tmp_path / "none.json")])
    with pytest.raises(UserError, match="no result in it"):
        comparison({**table, "results": []})
    with pytest.raises(UserError, match="no arm 'XZ'"):
        comparison({**table, "primary": [["XZ", "X0"]]})
