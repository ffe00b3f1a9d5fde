"""The split and the list format."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.__main__ import main
from data_prep.classes import Classes
from data_prep.duplicates import find
from data_prep.lists import Entry, in_no_class, read_list, write_list
from data_prep.split import split, train_count
from xresnet.basics.cli import UserError

_names = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="/\0\r\n"), min_size=1, max_size=8
)
_trees = st.dictionaries(
    st.sampled_from(["dark_moon", "dark_star", "tiny_star", "tiny_tree"]),
    st.sets(_names, max_size=30),
    min_size=1,
).map(lambda tree: {anp: [f"{anp}/{name}.jpg" for name in names] for anp, names in tree.items()})


def _numbers(tree: dict[str, list[str]]) -> dict[str, int]:
    """Path -> label of its ANP."""
    return {path: i for i, anp in enumerate(sorted(tree)) for path in tree[anp]}


@given(_trees, st.integers(0, 10**6), st.fractions(0, 1).filter(lambda f: 0 < f < 1))
def test_split_is_floor_disjoint_and_whole(tree, seed, fraction):
    labels = {anp: i for i, anp in enumerate(sorted(tree))}
    train, test = split(tree, _numbers(tree), seed, fraction)
    assert not set(train) & set(test)
    expected = {Entry(path, labels[anp]) for anp, paths in tree.items() for path in paths}
    assert set(train) | set(test) == expected
    assert len(train) + len(test) == len(expected)
    for anp, paths in tree.items():
        mine = sum(entry.label == labels[anp] for entry in train)
        assert mine == (fraction * len(paths)).__floor__()


@given(_trees, st.randoms(use_true_random=False))
def test_split_does_not_depend_on_order(tree, random):
    shuffled = list(tree.items())
    random.shuffle(shuffled)
    again = {anp: random.sample(paths, len(paths)) for anp, paths in shuffled}
    assert split(tree, _numbers(tree)) == split(again, _numbers(tree))


@given(_trees, st.integers(0, 10**6), st.data())
def test_identical_files_are_on_one_side(tree, seed, data):
    labels = {anp: i for i, anp in enumerate(sorted(tree))}
    paths = sorted(path for anp in tree.values() for path in anp)
    if not paths:
        return
    same = data.draw(st.lists(st.sampled_from(paths), unique=True, max_size=12))
    groups = [same[:3], same[3:8], same[8:]]
    train, test = split(tree, _numbers(tree), seed, duplicates=groups)
    trained, tested = ({entry.path for entry in part} for part in (train, test))
    assert trained | tested == set(paths)
    assert not trained & tested
    for group in groups:
        assert not (trained & set(group) and tested & set(group))
    for anp, mine in tree.items():
        n = sum(entry.label == labels[anp] for entry in train)
        copies = len(set(mine) & set(same))
        if not copies:
            assert n == train_count(len(mine), Fraction(4, 5))
        assert abs(n - train_count(len(mine), Fraction(4, 5))) <= copies


def test_copies_leave_the_numbers_alone():
    tree = {"dark_moon": [f"dark_moon/{i}.jpg" for i in range(100)]}
    groups = [[f"dark_moon/{i}.jpg", f"dark_moon/{i + 50}.jpg"] for i in range(20)]
    train, test = split(tree, _numbers(tree), duplicates=groups)
    assert (len(train), len(test)) == (80, 20)


def test_duplicates_are_found(tmp_path):
    folder = tmp_path / "dark_moon"
    folder.mkdir()
    big = bytes(range(256)) * 40
    files = {"a": big, "b": big, "c": big[:-1], "d": b"x" + big[1:], "e": b"", "f": b"", "g": big}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    paths = [f"dark_moon/{name}" for name in "gfedcba"]
    assert find(tmp_path, [*paths, "dark_moon/missing"]) == [[f"dark_moon/{n}" for n in "abg"]]


def test_given_lists(tmp_path):
    CLASSES.write(tmp_path / "data" / "classes")
    for anp in CLASSES.anp:
        (tmp_path / "images" / anp).mkdir(parents=True)
        (tmp_path / "images" / anp / "a.jpg").write_bytes(anp.encode())
    train, test = tmp_path / "a.txt", tmp_path / "b.txt"
    train.write_text("dark_moon/a.jpg 0\n")
    test.write_text("tiny_star/a.jpg 1\n")
    command = ["split", "--images", str(tmp_path / "images"), "--out", str(tmp_path / "data")]
    main([*command, "--lists", str(train), str(test)])
    assert (tmp_path / "data" / "test.txt").read_text() == test.read_text()
    test.write_text(train.read_text())
    with pytest.raises(UserError, match="in the training list and in the test list"):
        main([*command, "--lists", str(train), str(test)])


def test_another_seed_is_another_split_and_another_order():
    tree = {"dark_moon": [f"dark_moon/{i}.jpg" for i in range(100)]}
    train, _ = split(tree, _numbers(tree), seed=0)
    other, _ = split(tree, _numbers(tree), seed=1)
    assert set(train) != set(other)
    assert [entry.path for entry in train] != sorted(entry.path for entry in train)


def test_split_is_the_same_everywhere():
    """Written down once: a change here would break everybody's reruns."""
    paths = [f"a_b/{i}.jpg" for i in range(5)]
    train, test = split({"a_b": paths}, dict.fromkeys(paths, 7), seed=3)
    assert [*train, *test] == [Entry(f"a_b/{i}.jpg", 7) for i in (3, 4, 1, 2, 0)]


def test_train_count_is_exact():
    # In floating point, 0.29 * 100 is 28.999...: floor would lose one.
    assert train_count(100, Fraction("0.29")) == 29
    assert [train_count(n, Fraction(4, 5)) for n in range(11)] == [0, 0, 1, 2, 3, 4, 4, 5, 6, 7, 8]


# --- lists --------------------------------------------------------------------------------------

CLASSES = Classes.of(["dark_moon", "tiny_star"])


@given(st.sets(_names, min_size=1))
def test_list_round_trip(tmp_path_factory, names):
    path = tmp_path_factory.getbasetemp() / "list.txt"
    entries = [Entry(f"tiny_star/{name}.jpg", 1) for name in names if name != ".."]
    if entries:
        write_list(path, entries)
        assert read_list(path, CLASSES) == entries


def test_list_splits_at_the_last_space(tmp_path):
    path = tmp_path / "train.txt"
    path.write_bytes("dark_moon/full moon 2.jpg 0\r\ntiny_star/ü.jpg 1\n".encode())
    assert read_list(path, CLASSES) == [("dark_moon/full moon 2.jpg", 0), ("tiny_star/ü.jpg", 1)]


def test_folders_around_and_in_that_of_the_class(tmp_path):
    path = tmp_path / "train.txt"
    path.write_text("my_set/tiny_star/best_of/a.jpg 1\nall/b.jpg 0\nc_d.jpg 1\n")
    entries = read_list(path, CLASSES)
    assert len(entries) == 3
    assert in_no_class(entries, CLASSES) == 2


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("dark_moon/a.jpg", "expected `path label`"),
        ("dark_moon/a.jpg x", "expected `path label`"),
        ("dark_moon/a.jpg -1", "expected `path label`"),
        (" 1", "expected `path label`"),
        ("dark_moon/a\0.jpg 0", "expected `path label`"),
        ("dark_moon/a.jpg 2", "there are 2 ANP classes"),
        ("dark_moon/a.jpg 1", "label 1 is tiny_star, not dark_moon"),
        ("golden_horse/a.jpg 1", "label 1 is tiny_star, not golden_horse"),
        ("set/golden_horse/a.jpg 1", "label 1 is tiny_star, not golden_horse"),
        ("tiny_star/dark_moon/a.jpg 1", "label 1 is tiny_star, not dark_moon"),
        ("../dark_moon/a.jpg 0", "leaves the image folder"),
        ("dark_moon/../../a.jpg 0", "leaves the image folder"),
        ("/dark_moon/a.jpg 0", "leaves the image folder"),
        ("tiny_star/a.jpg 1", "is already on line 1"),
    ],
)
def test_wrong_line_is_named(tmp_path, line, complaint):
    path = tmp_path / "train.txt"
    path.write_text(f"tiny_star/a.jpg 1\n{line}\n")
    with pytest.raises(UserError, match=r"train\.txt:2: ") as error:
        read_list(path, CLASSES)
    assert complaint in str(error.value)


def test_empty_and_missing_lists(tmp_path):
    with pytest.raises(UserError, match="run `python -m data_prep split` first"):
        read_list(tmp_path / "train.txt", CLASSES)
    (tmp_path / "train.txt").write_text("\n")
    with pytest.raises(UserError, match="no image in it"):
        read_list(tmp_path / "train.txt", CLASSES)
