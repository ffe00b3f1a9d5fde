"""data_prep as a notebook uses it: functions that return results and print nothing."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

import data_prep
from data_prep import archives, databases, graph, prose, reorder, sample, table, verify, vso
from tests.data_prep.test_table import pictures, rows, write_csv  # noqa: F401
from xresnet.basics.cli import UserError


def test_vsos_way(tmp_path, capsys):
    drawn = sample.make(tmp_path / "vso", per_anp=5)
    assert drawn.facts["images"] == len(list(drawn.root.rglob("*.jpg")))
    images, out = drawn.root, tmp_path / "data"
    ontology = images / "ontology.txt"
    described = graph.describe(ontology, tmp_path / "described", images=images)
    assert described.facts["anps"] == 46 and described.picture.exists()

    chosen = vso.choose_classes(out, ontology=ontology, images=images, min_images=5)
    kept = [d for d in chosen.decisions if not d.criterion]
    assert sorted(d.anp.name for d in kept) == list(chosen.classes.anp)
    divided = vso.divide_images(out, images, train=0.6, seed=2)
    train, test = divided.parts
    assert len(train) == 3 * len(kept) and len(test) == 2 * len(kept)
    assert divided.missing == divided.untrained == divided.copies == []

    written = databases.write_databases(out, images, size=16)
    assert written.reports["train"].written == len(train) and not written.reports["train"].reused
    assert databases.write_databases(out, images, size=16).reports["test"].reused
    assert verify.verify(out).facts == {"train": len(train), "test": len(test)}
    other = reorder.reorder(out, tmp_path / "other", 4)
    assert other.facts["seed"] == 4 and verify.verify(other.folder).facts["train"] == len(train)
    for result in (drawn, described, chosen, divided, written, other):
        assert prose.of(result).count("\n") < 12
        assert len(repr(result)) < 500, "no list of all images where a notebook shows it"
    assert capsys.readouterr().out == ""


def test_a_tables_way(pictures, tmp_path, capsys):  # noqa: F811
    out, path = tmp_path / "data", write_csv(tmp_path / "t.csv", rows())
    for tasks in ("kind=Kind of thing,size", ["kind=Kind of thing", "size"],
                  {"kind": "Kind of thing", "size": "size"}):  # fmt: skip
        taken = table.take(out, path, pictures, tasks, stratify="size")
        assert taken.classes.tasks == ("kind", "size")
    assert taken.counts["size"]["train"] == len(taken.parts[0]) == 32
    assert databases.write_databases(out, pictures, size=16).reports["test"].written == 8
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p: sample.make(p, seed=-1), "seed: expected a seed from 0"),
        (lambda p: vso.choose_classes(p), "either an ontology or"),
        (lambda p: vso.choose_classes(p, ontology="x", min_nouns=-1), "min_nouns: expected"),
        (lambda p: vso.divide_images(p, p, train=1.5), "train: expected a fraction"),
        (lambda p: vso.divide_images(p, p), "classes is not there"),
        (lambda p: table.take(p, "t.csv", p, [], seed=0), "--tasks: name a column"),
        (lambda p: table.take(p, "t.csv", p, ["a"], train="x"), "train: expected a fraction"),
        (lambda p: table.take(p, "t.csv", p, {"a b": "c"}), "'a b' is no name of letters"),
        (lambda p: databases.write_databases(p, p, size=0), "size: expected pixels"),
        (lambda p: databases.write_databases(p, p, threads=0), "threads: expected"),
        (lambda p: archives.unpack_all([p / "a.zip"], p), "no such file"),
        (lambda p: reorder.reorder(p, p / "x", -1), "seed: expected"),
    ],
)
def test_wrong_values_are_one_line(call, words, tmp_path):
    with pytest.raises(UserError, match=words) as error:
        call(tmp_path)
    assert "\n" not in str(error.value)
    assert not [path for path in tmp_path.iterdir() if path.name != ".lock"]


def test_the_package_names_its_modules_and_its_example_runs(pictures, tmp_path, monkeypatch):  # noqa: F811
    told = data_prep.__doc__
    modules = {path.name for path in Path(data_prep.__file__).parent.glob("*.py")}
    assert set(re.findall(r"\w+\.py", told)) == modules - {"__init__.py"}
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").symlink_to(pictures)
    values = [{"path": row["path"], "colour": row["size"], "kind": row["maker"]} for row in rows()]
    write_csv(tmp_path / "labels.csv", values)
    example = textwrap.dedent(told[told.index("    from data_prep") : told.index("Images and")])
    *statements, last = example.strip().splitlines()
    names: dict = {}
    exec("\n".join(statements), names)
    assert eval(last, names) == 32
