"""Grid files with a wrong value at each of their places: one line, never a traceback."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator

import pytest

from xresnet.basics.cli import UserError
from xresnet.reproduce.grid_file import Grid

GOOD = {
    "name": "a",
    "what": "b",
    "net": ["--width", "4"],
    "solver": ["--display", "5"],
    "plateau": {"lr": 0.01, "on": "train", "max_epochs": 3},
    "shuffle": True,
    "weights": ["w.caffemodel"],
    "seeds": [1, 2],
    "arms": {"both": ["XS", "X0"]},
    "primary": [["XS", "both"]],
    "rows": [{"name": "XS", "net": ["xs_resnet50"]}, {"name": "X0", "net": ["x0_resnet50"]}],
}
WRONG = (None, True, -1, 0, float("nan"), float("inf"), 10**400, "", "\x1b[2J", [], [1], [[]], {})


def places(value, at: tuple = ()) -> Iterator[tuple]:
    yield at
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*at, key))


def with_value(at: tuple, value):
    if not at:
        return value
    made = copy.deepcopy(GOOD)
    inner = made
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = value
    return made


@pytest.mark.parametrize("at", list(places(GOOD)), ids=str)
def test_a_wrong_value_is_told_with_its_place(at, tmp_path):
    path = tmp_path / "grid.json"
    path.write_text(json.dumps(GOOD))
    Grid.read(path)
    then = GOOD
    for key in at:
        then = then[key]
    refused = 0
    for wrong in WRONG:
        path.write_text(json.dumps(with_value(at, wrong)))
        try:
            Grid.read(path)
        except UserError as error:
            refused += 1
            assert str(path) in str(error) or "plateau" in str(error) or "loss" in str(error)
        else:  # taken: of the kind that belongs there
            assert isinstance(wrong, type(then)) or (type(then) is float and type(wrong) is int)
            assert not isinstance(wrong, float), "nan and inf belong nowhere"
    assert refused >= len(WRONG) - 4


@pytest.mark.parametrize("names", [("a b", "a_b"), ("", "b"), ("a\x07", "b"), ("a\udc80", "b")])
def test_names_are_folders_of_their_own(names, tmp_path):
    rows = [{"name": name, "net": ["xs_resnet50"]} for name in names]
    (tmp_path / "grid.json").write_text(json.dumps({"name": "x", "rows": rows}))
    with pytest.raises(UserError, match=r"the same name|can be printed"):
        Grid.read(tmp_path / "grid.json")


def test_a_grid_file_like_another_says_only_what_differs(tmp_path):
    (tmp_path / "wide.json").write_text(json.dumps(GOOD))
    thin = {"like": "wide", "name": "c", "net": ["--width", "2", "--batch", "3"], "seeds": [7]}
    path = tmp_path / "thin.json"
    path.write_text(json.dumps(thin))
    wide, read = Grid.read(tmp_path / "wide.json"), Grid.read(path)
    assert (read.name, read.what, read.plateau) == ("c", "b", wide.plateau)
    assert [row.seeds for row in read.rows] == [(7,), (7,)]
    assert [row.net.options.width for row in read.rows] == [2, 2]
    assert [row.net.options.batch for row in read.rows] == [3, 3]


@pytest.mark.parametrize(
    ("like", "message"),
    [("none", "is no file"), ("a", "leads back to"), ("b", "leads back to"), (1, "expected text")],
)
def test_a_grid_file_like_none_is_refused(like, message, tmp_path):
    for name, other in (("a", like), ("b", "a")):
        (tmp_path / f"{name}.json").write_text(json.dumps({"like": other, "name": name}))
    with pytest.raises(UserError, match=message):
        Grid.read(tmp_path / "a.json")


def test_a_grid_file_without_rows_is_refused(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"name": "a"}))
    with pytest.raises(UserError, match="no row, nothing to train"):
        Grid.read(path)
