"""A table of images and labels becomes a data folder: any tasks, odd names, missing labels."""

from __future__ import annotations

import csv
import json
import unicodedata
import warnings
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest

from data_prep.__main__ import main
from data_prep.classes import Classes
from data_prep.folder import DataFolder
from xresnet.basics.cli import UserError
from xresnet.caffeproto import Datum, databases

KINDS = ['cat, "small"', "dög & <b>cow</b>", "鳥"]
MAKERS = ["A/S Maker", "b maker"]


@pytest.fixture
def pictures(tmp_path) -> Path:
    """40 pictures, in folders that say nothing of them: one reads as a pair of VSO's."""
    random = np.random.default_rng(0)
    for i in range(40):
        path = tmp_path / "images" / ("happy_dog" if i % 2 else "a b") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), random.integers(0, 255, (20, 20, 3), np.uint8))
    return tmp_path / "images"


def rows() -> list[dict[str, str]]:
    """Of each picture its kind, its maker (every fifth unknown) and its size."""
    return [
        {
            "path": f"{'happy_dog' if i % 2 else 'a b'}/{i}.png",
            "Kind of thing": KINDS[i % 3],
            "maker": "" if i % 5 == 4 else MAKERS[i % 2],
            "size": "  extra   large " if i % 4 else "small",
        }
        for i in range(40)
    ]


def write_csv(path: Path, values: list[dict[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(
            file, list(values[0]), delimiter="\t" if path.suffix == ".tsv" else ","
        )
        writer.writeheader()
        writer.writerows(values)
    return path


TASKS = "kind=Kind of thing,maker,size"


def make(table: Path, images: Path, out: Path, *options: str) -> DataFolder:
    argv = ["table", str(table), "--images", str(images), "--out", str(out)]
    assert main([*argv, *(() if "--tasks" in options else ("--tasks", TASKS)), *options]) == 0
    return DataFolder(out)


def labels_of(folder: DataFolder) -> dict[str, tuple[str, ...]]:
    """Path -> the class of each task, by the lists; "" for none."""
    classes = Classes.read(folder.classes)
    found = {}
    for part in ("train", "test"):
        for line in folder.list(part).read_text(encoding="utf-8").splitlines():
            path, _, number = line.rpartition(" ")
            labels = classes.combinations[int(number)]
            found[path] = tuple("" if n < 0 else x[n] for x, n in zip(classes.lists, labels))
    return found


def expected() -> dict[str, tuple[str, ...]]:
    return {
        row["path"]: (row["Kind of thing"], row["maker"], " ".join(row["size"].split()))
        for row in rows()
    }


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_every_format_gives_the_same_lists(kind, pictures, tmp_path):
    table = tmp_path / f"t.{kind}"
    if kind == "jsonl":
        lines = [{k: v or None for k, v in row.items()} for row in rows()]
        table.write_text("\n".join(json.dumps(line) for line in lines))
    elif kind == "parquet":
        arrow = pytest.importorskip("pyarrow", reason="SKIPPED FOR LACK OF PYARROW")
        from pyarrow import parquet

        parquet.write_table(arrow.Table.from_pylist(rows()), table)
    else:
        write_csv(table, rows())
    folder = make(table, pictures, tmp_path / "data")
    assert labels_of(folder) == expected()
    classes = Classes.read(folder.classes)
    assert classes.tasks == ("kind", "maker", "size")
    assert classes["kind"] == tuple(sorted(KINDS)) and classes["maker"] == tuple(MAKERS)
    counts = folder.read_manifest()["filter"]["tasks"]["maker"]
    assert counts["train"] + counts["test"] == 32, "every fifth has no maker"


def test_a_table_as_programs_write_it(pictures, tmp_path):
    """Blanks behind commas, a header on two lines, and columns that nobody asks for."""
    lines = ['path, "Kind of\nthing",maker, size,image']
    lines += [
        f'{row["path"]}, "{row["Kind of thing"].replace(chr(34), 2 * chr(34))}",{row["maker"]},'
        f"{row['size']},{'x' * 200_000 if not i else ''}"
        for i, row in enumerate(rows())
    ]
    (tmp_path / "t.csv").write_text("\n".join(lines), encoding="utf-8")
    assert labels_of(make(tmp_path / "t.csv", pictures, tmp_path / "a")) == expected()
    lines = [json.dumps({**row, "box": [1, {"x": 2}], "image": None}) for row in rows()]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    assert labels_of(make(tmp_path / "t.jsonl", pictures, tmp_path / "b")) == expected()


def test_a_parquet_table_with_pictures_in_it(pictures, tmp_path):
    arrow = pytest.importorskip("pyarrow", reason="SKIPPED FOR LACK OF PYARROW")
    from pyarrow import parquet

    values = [{**row, "image": {"bytes": b"\xff", "path": None}, "tags": ["x"]} for row in rows()]
    parquet.write_table(arrow.Table.from_pylist(values), tmp_path / "t.parquet")
    assert labels_of(make(tmp_path / "t.parquet", pictures, tmp_path / "a")) == expected()
    twice = arrow.Table.from_arrays([arrow.array(["a"])] * 3, names=["path", "kind", "kind"])
    parquet.write_table(twice, tmp_path / "t.parquet")
    with pytest.raises(UserError, match=r"t\.parquet: two columns are named 'kind'$"):
        make(tmp_path / "t.parquet", pictures, tmp_path / "b", "--tasks", "kind")


def test_records_have_a_value_a_task_and_pass_verify(pictures, tmp_path, capsys):
    folder = make(write_csv(tmp_path / "t.csv", rows()), pictures, tmp_path / "data")
    out = ["--out", str(folder.root)]
    assert main(["lmdb", "--images", str(pictures), "--size", "16", *out]) == 0
    assert main(["verify", *out, "--sheet", str(tmp_path / "sheet.jpg")]) == 0
    assert cv2.imread(str(tmp_path / "sheet.jpg")) is not None
    classes, want = Classes.read(folder.classes), expected()
    seen = 0
    for part in ("train", "test"):
        for key, value in databases.items(folder.lmdb(part, "label")):
            datum = Datum.FromString(value)
            assert (datum.channels, datum.height, datum.width) == (3, 1, 1)
            names = tuple(
                "" if v == -1 else x[int(v)] for x, v in zip(classes.lists, datum.float_data)
            )
            assert names == want[key.decode().partition("_")[2]]
            seen += 1
    assert seen == 40
    # A label that is not the list's is found.
    database = str(folder.lmdb("test", "label"))
    with lmdb.open(database, map_size=1 << 24) as env, env.begin(write=True) as records:
        cursor = records.cursor()
        cursor.first()
        datum = Datum.FromString(cursor.value())
        datum.float_data[1] = 1 - abs(datum.float_data[1])
        records.put(cursor.key(), datum.SerializeToString())
    with pytest.raises(UserError, match="the classes have"):
        main(["verify", *out])


def test_a_given_list_has_the_labels_one_form(pictures, tmp_path):
    """Composed letters or not, blanks or more of them: what looks the same is the same."""
    (tmp_path / "lists").mkdir()
    names = [unicodedata.normalize("NFD", name).replace(" ", "  ") for name in reversed(KINDS)]
    (tmp_path / "lists" / "kind.txt").write_text("\n".join(names), encoding="utf-8")
    table = write_csv(tmp_path / "t.csv", rows())
    folder = make(table, pictures, tmp_path / "data", "--classes", str(tmp_path / "lists"))
    assert Classes.read(folder.classes)["kind"] == tuple(reversed(KINDS))
    assert labels_of(folder) == expected()


def test_marks_of_joined_files_are_no_part_of_a_label(pictures, tmp_path):
    """As the first of a class list it would be lost again, and the lists be others."""
    values = [{**row, "maker": "\ufeffa" if i % 2 else "a"} for i, row in enumerate(rows())]
    folder = make(write_csv(tmp_path / "t.csv", values), pictures, tmp_path / "data")
    assert Classes.read(folder.classes)["maker"] == ("a",)


def test_any_label_stands_on_the_sheet(pictures, tmp_path, capsys):
    """Emoji, directions of writing, formulas, more than fits; a box nowhere (a warning, then)."""
    odd = [
        "鳥",
        "سلام عليكم",
        "👩‍👧 x",
        "$x^2$ \\frac",
        "<b>\"a\", 'b'</b> &amp;",
        "=1+1",
        "long " * 40,
    ]
    values = [{"path": row["path"], "a": odd[i % 7], "0": "\u0378", "_": "b  c"}
              for i, row in enumerate(rows())]  # fmt: skip
    folder = make(
        write_csv(tmp_path / "t.csv", values), pictures, tmp_path / "d", "--tasks", "a,0,_"
    )
    out = ["--out", str(folder.root)]
    assert main(["lmdb", "--images", str(pictures), "--size", "16", *out]) == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert main(["verify", *out, "--sheet", str(tmp_path / "sheet.jpg")]) == 0
    said = capsys.readouterr().err
    assert "U+0378" in said and said.count("no font on this machine") == 1
    assert Classes.read(folder.classes)["a"] == tuple(sorted(" ".join(x.split()) for x in odd))
    sheet = cv2.imread(str(tmp_path / "sheet.jpg"))
    tiles = sheet.reshape(4, -1, 8, 160, 3)
    shown = len(folder.list("train").read_text(encoding="utf-8").splitlines())
    assert (tiles[:, 160:, :, :150] < 128).any(axis=(1, 3, 4)).sum() == shown
    assert (tiles[:, 162:, :, 157:] > 200).all(), "none runs into the next image's"


def test_a_folder_named_as_vsos_is_one_like_others(pictures, tmp_path):
    (pictures / "a b").rename(pictures / "bi_concepts")
    values = [{**row, "path": row["path"].replace("a b", "bi_concepts")} for row in rows()]
    folder = make(write_csv(tmp_path / "t.csv", values), pictures, tmp_path / "data")
    out = ["--images", str(pictures), "--out", str(folder.root)]
    assert main(["lmdb", "--size", "16", *out]) == 0
    assert folder.read_manifest()["lmdb"]["images"] == str(pictures)
    with pytest.raises(UserError, match="no such folder; name the one that the paths start from"):
        main(["lmdb", "--size", "16", "--images", "nowhere", "--out", str(folder.root)])


def test_a_name_in_another_unicode_form_is_told(pictures, tmp_path):
    values = rows()
    (pictures / values[0]["path"]).rename(pictures / unicodedata.normalize("NFD", "é.png"))
    values[0]["path"] = "é.png"
    table = write_csv(tmp_path / "t.csv", values)
    with pytest.raises(UserError, match=r"t.csv:2: 1 of 40 .* another Unicode form of that name"):
        make(table, pictures, tmp_path / "data")


def test_each_class_gives_its_share_to_training(pictures, tmp_path):
    table = write_csv(tmp_path / "t.csv", rows())
    for stratify, place in (("kind", 0), ("size", 2), ("all", None)):
        folder = make(table, pictures, tmp_path / stratify, "--stratify", stratify)
        train = folder.list("train").read_text(encoding="utf-8").splitlines()
        sides = {line.rpartition(" ")[0] for line in train}
        groups: dict = {}
        for path, labels in expected().items():
            groups.setdefault(labels if place is None else labels[place], []).append(path in sides)
        alone = [group[0] for group in groups.values() if len(group) == 1]
        for group in groups.values():
            if len(group) > 1:
                assert sum(group) == len(group) * 4 // 5
        assert sum(alone) == len(alone) * 4 // 5
    again = make(table, pictures, tmp_path / "again", "--stratify", "all")
    assert again.list("train").read_bytes() == folder.list("train").read_bytes()


def test_sides_of_the_table_are_taken(pictures, tmp_path):
    values = [{**row, "split": "test" if i % 3 == 0 else "Train"} for i, row in enumerate(rows())]
    folder = make(
        write_csv(tmp_path / "t.csv", values), pictures, tmp_path / "d", "--split", "split"
    )
    test = folder.list("test").read_text(encoding="utf-8").splitlines()
    assert {line.rpartition(" ")[0] for line in test} == {row["path"] for row in values[::3]}


def test_rare_classes_are_no_labels_and_lists_may_be_given(pictures, tmp_path, capsys):
    values = rows()
    values[0]["maker"] = "rare"
    values += [{"path": "a b/2.png/../0.png", "Kind of thing": "x", "maker": "", "size": ""}]
    values[-1]["path"] = "a b/./2.png"
    del values[2]
    values[-1]["Kind of thing"] = "another"
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "size.txt").write_text("small\nmiddle\nextra large\n")
    folder = make(
        write_csv(tmp_path / "t.csv", values),
        pictures,
        tmp_path / "data",
        *("--min-images", "2", "--classes", str(tmp_path / "lists")),
    )
    classes, found = Classes.read(folder.classes), labels_of(folder)
    assert classes["maker"] == tuple(MAKERS) and found["a b/0.png"][1] == ""
    assert classes["size"] == ("small", "middle", "extra large")
    assert "a b/2.png" not in found, "its only label was too rare"
    said = capsys.readouterr().out
    assert "left out: 1 images without any label" in said
    assert "size: 1 classes have no train image: middle" in said


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        (lambda v: v[1].update(path=v[0]["path"]), (), r"t.csv:3: a b/0.png is already at"),
        (lambda v: v[3].update(path="../x.png"), (), r"t.csv:5: ../x.png leaves the image folder"),
        (lambda v: v[3].update(path=" "), (), r"t.csv:5: no path in it"),
        (lambda v: v[3].update(path="no.png"), (), r"t.csv:5: 1 of 40 images are not in .*no.png"),
        (lambda v: v[3].update(maker="a\x1b[2J"), (), r"t.csv:5: maker holds '\\x1b'"),
        (lambda v: v[3].update(maker="\u200b"), (), r"t.csv:5: maker holds '\\u200b'"),
        (lambda v: [row.update(maker="") for row in v], (), "the task maker has no class in its"),
        (lambda v: None, ("--min-images", "41"), "the task kind has no class of 41 images or more"),
        (lambda v: None, ("--tasks", "makers"), r"no column 'makers' \(did you mean 'maker'\?\)"),
        (lambda v: None, ("--tasks", "Kind of thing"), "make a task so: --tasks 'kind=Kind"),
        (lambda v: None, ("--tasks", "size,size"), "'size' is listed twice"),
        (lambda v: None, ("--tasks", "image=size"), "'image' is reserved"),
        (lambda v: None, ("--stratify", "x"), "--stratify: 'x' is no task"),
        (lambda v: None, ("--split", "size"), "t.csv:2: expected train or test, found 'small'"),
        (lambda v: None, ("--split", "size", "--train", "0.5"), "leave out --stratify and --train"),
        (lambda v: None, ("--path", "file"), "no column 'file'"),
        (lambda v: None, ("--classes", "nowhere"), "none of kind.txt, maker.txt, size.txt there"),
    ],
)
def test_a_mistake_in_the_table_is_named(change, options, words, pictures, tmp_path):
    values = rows()
    change(values)
    table = write_csv(tmp_path / "t.csv", values)
    with pytest.raises(UserError, match=words):
        make(table, pictures, tmp_path / "data", *options)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("t.xlsx", "", "expected a table named"),
        ("t.csv", "", "no row in it"),
        ("t.csv", "path,kind\n", "no row in it"),
        ("t.csv", "path,kind,kind\n", "two columns are named 'kind'"),
        ("t.csv", "path,kind\na,b,c\n", "t.csv:2: 3 cells, the header has 2"),
        ("t.csv", 'path,kind\na,"b\n', "t.csv:2: no row of a table .* left open"),
        ("t.jsonl", '{"path": "a"\n', "t.jsonl:1: not JSON"),
        ("t.jsonl", '["a"]\n', "t.jsonl:1: expected an object"),
        ("t.jsonl", '{"path": "a", "kind": [1]}', "t.jsonl:1: kind is neither a text nor"),
        ("t.jsonl", '{"path": "a", "kind": "b", "kind": "c"}', "t.jsonl:1: not JSON .*twice"),
        ("t.jsonl", '{"path": "a", "kind ": "b", " kind": "c"}', "two columns are named 'kind'"),
        ("t.csv", "\npath;kind\na;b\n", "t.csv:2: there is one column, 'path;kind'; cells stand"),
        ("t.tsv", "path,kind\na,b\n", r"between commas in \*.csv, between tabs in \*.tsv"),
        ("t.csv", "path,kind\na," + 1001 * "x", "t.csv:2: kind has 1,001 characters"),
        ("t.parquet", "text", "no Parquet table|needs pyarrow"),
    ],
)
def test_what_is_no_table_is_named(name, text, words, pictures, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=words):
        make(tmp_path / name, pictures, tmp_path / "data", "--tasks", "kind")


def test_other_commands_refuse_a_tables_folder_or_take_it_over(pictures, tmp_path):
    table = write_csv(tmp_path / "t.csv", rows())
    folder = make(table, pictures, tmp_path / "data")
    with pytest.raises(UserError, match="made by `python -m data_prep table`"):
        main(["split", "--images", str(pictures), "--out", str(folder.root)])
    listed = folder.list("train")
    listed.write_text(listed.read_text(encoding="utf-8") + "more.png 0\n", encoding="utf-8")
    with pytest.raises(UserError, match="not the list that `table` wrote"):
        main(["lmdb", "--images", str(pictures), "--size", "16", "--out", str(folder.root)])
    listed.unlink()
    with pytest.raises(UserError, match=r"train.txt is not there: run `python -m data_prep table`"):
        main(["lmdb", "--images", str(pictures), "--size", "16", "--out", str(folder.root)])
    make(table, pictures, folder.root)
    (folder.classes / "kind.txt").write_text("a\nb\nc\n")
    with pytest.raises(UserError, match="other classes than `table` wrote"):
        main(["lmdb", "--images", str(pictures), "--size", "16", "--out", str(folder.root)])


def test_a_tables_folder_takes_another_order(pictures, tmp_path):
    folder = make(write_csv(tmp_path / "t.csv", rows()), pictures, tmp_path / "data")
    assert main(["lmdb", "--images", str(pictures), "--size", "16", "--out", str(folder.root)]) == 0
    other, train = DataFolder(tmp_path / "other"), folder.list("train").read_bytes()
    assert main(["reorder", str(folder.root), "--seed", "3", "--out", str(other.root)]) == 0
    assert main(["verify", "--out", str(other.root)]) == 0
    assert labels_of(other) == labels_of(folder)
    make(tmp_path / "t.csv", pictures, folder.root, "--tasks", "size")
    with pytest.raises(UserError, match="made of other lists: run `python -m data_prep lmdb`"):
        main(["verify", "--out", str(folder.root)])
    assert other.list("train").read_bytes() != train
