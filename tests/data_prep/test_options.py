"""Every option of every command with values that nobody means: one line, no traceback."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import pytest

from data_prep.__main__ import _parser, main
from xresnet.basics.cli import UserError
from xresnet.basics.numbers import Number

NOWHERE = "http://127.0.0.1:9/labels"
(_COMMANDS,) = (a for a in _parser()._actions if isinstance(a, argparse._SubParsersAction))
OPTIONS = [
    (name, action)
    for name, command in _COMMANDS.choices.items()
    for action in command._actions
    if action.nargs != 0 and action.dest != "help"
]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """An image set and a finished data folder."""
    place = tmp_path_factory.mktemp("options")
    sample = str(place / "vso")
    main(["sample", "--per-anp", "5", "--out", sample])
    main(["run", *_commands(place)["run"]])
    images = sorted((place / "vso").rglob("*.jpg"))
    rows = [f"{path.relative_to(place / 'vso')},{i % 2}" for i, path in enumerate(images)]
    (place / "labels.csv").write_text("\n".join(["path,half", *rows]) + "\n")
    return place


def _commands(place: Path) -> dict[str, list[str]]:
    """Command -> arguments with which it works."""
    vso, data = str(place / "vso"), str(place / "data")
    source = ["--ontology", f"{vso}/ontology.txt", "--min-images", "4"]
    images = ["--images", vso]
    table = [f"{place}/labels.csv", *images, "--tasks", "half"]
    return {
        "sample": ["--per-anp", "1", "--out", str(place / "drawn")],
        "labels": ["--source", NOWHERE, "--out", str(place / "labels")],
        "ontology": [f"{vso}/ontology.txt", "--out", str(place / "described")],
        "download": [f"{vso}/ontology.txt", "--out", str(place / "downloaded")],
        "unpack": [f"{vso}/ontology.txt", "--out", str(place / "unpacked")],
        "filter": [*source, *images, "--out", data],
        "split": [*images, "--out", data],
        "lmdb": [*images, "--size", "16", "--out", data],
        "verify": ["--out", data],
        "reorder": [data, "--seed", "1", "--out", str(place / "reordered")],
        "table": [*table, "--out", str(place / "tabled")],
        "run-table": [*table, "--size", "16", "--out", str(place / "prepared")],
        "run": [*source, *images, "--size", "16", "--out", data],
    }


def _with(argv: list[str], action: argparse.Action, value: str) -> list[str]:
    values = [value] * (action.nargs if isinstance(action.nargs, int) else 1)
    if not action.option_strings:
        return [*values, *argv[1:]]
    option = action.option_strings[0]
    instead = {"--labels": "--ontology"}.get(option, option)  # one of the two
    if instead in argv:
        at = argv.index(instead)
        argv = [*argv[:at], *argv[at + 2 :]]
    return [*argv, option, *values]


def test_every_help_tells_range_and_default():
    for name, action in OPTIONS:
        where = f"{name} {action.option_strings}: {action.help}"
        if isinstance(action.type, Number):
            assert str(action.type) in action.help, where
        either = action.option_strings in (["--ontology"], ["--labels"])  # one has to be given
        if action.option_strings and not (action.required or either or action.dest == "version"):
            assert "; default: " in action.help, where


@pytest.mark.parametrize(
    "value",
    [
        "0",
        "-1",
        "nan",
        "1000000000",
        "",
        "missing/file",
        os.fsdecode(b"caf\xe9"),
        "a\0b",
        "n" * 300,
    ],
)
@pytest.mark.parametrize(
    ("name", "action"), OPTIONS, ids=[f"{n} {a.option_strings or a.dest}" for n, a in OPTIONS]
)
def test_no_value_gives_a_traceback(place, tmp_path, monkeypatch, name, action, value):
    """Relative names lie in a folder of this test's own: nothing else of the machine is named."""
    monkeypatch.chdir(tmp_path)
    try:
        status = main([name, *_with(_commands(place)[name], action, value)])
    except UserError as error:
        status, said = 1, str(error)
        assert "\n" not in said
    except OSError as error:  # `run` of basics makes one line of it
        status = 1
        assert error.strerror
    except SystemExit as stopped:
        status = stopped.code
    if value in ("", "a\0b"):
        assert status != 0
    if value in ("-1", "nan") and action.type is not None:
        assert status == 2
