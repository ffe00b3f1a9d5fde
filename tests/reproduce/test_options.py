"""The options of `python -m xresnet`: their ranges, and what the driver keeps to itself."""

from __future__ import annotations

import argparse
import json

import pytest

from netgen import Network
from netgen.option import flag
from netgen.options import words
from tests.reproduce.test_train import training
from xresnet.basics.cli import UserError
from xresnet.basics.numbers import Number
from xresnet.reproduce.__main__ import main, parser
from xresnet.reproduce.choices import OURS
from xresnet.reproduce.data import Data
from xresnet.reproduce.grid_file import Grid
from xresnet.reproduce.schedule import Plateau
from xresnet.reproduce.snapshots import Snapshot
from xresnet.reproduce.training import Training

TRAIN = ("train", "xs_resnet50", "--data", "none", "--out", "none")
TABLE = ("table2", "--data", "none", "--out", "none")


@pytest.mark.parametrize(
    "wrong",
    [
        (*TRAIN, "--lr", "nan"),
        (*TRAIN, "--lr", "-1"),
        (*TRAIN, "--keep", "-1"),
        (*TRAIN, "--snapshot", "0"),
        (*TRAIN, "--threads", "0"),
        (*TRAIN, "--max-epochs", "0"),
        (*TRAIN, "--min-gain", "1"),
        (*TRAIN, "--drops", "-1"),
        (*TRAIN, "--weights", "a,,b"),
        (*TRAIN, "--weights", ""),
        (*TABLE, "--jobs", "0"),
        (*TABLE, "--rows", ","),
        ("predict", "run", "x.jpg", "--top", "-2"),
        ("predict", "run", ""),
        ("watch", "run", "--every", "-3"),
        ("watch", "run", "--every", "inf"),
    ],
)
def test_what_is_out_of_range_is_one_line(wrong, capsys):
    with pytest.raises(SystemExit) as ended:
        main(list(wrong))
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "error: argument" in error


def test_every_help_tells_range_and_default():
    (commands,) = (a for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
    assert commands.choices.keys() >= {"train", "table2", "grid", "eval"}
    for name, command in commands.choices.items():
        for action in command._actions:
            if action.help == argparse.SUPPRESS:  # one that is refused
                continue
            where = f"{name} {' '.join(action.option_strings)}: {action.help}"
            if isinstance(action.type, Number):
                assert str(action.type) in action.help, where
            shown = action.help != argparse.SUPPRESS  # not one that is refused
            if shown and action.option_strings and action.nargs != 0 and not action.required:
                assert "; default: " in action.help, where


def test_the_solvers_options_are_part_of_what_is_trained(drawn, tmp_path, monkeypatch):
    """Another momentum is another training: it must not go on from the first one's snapshots."""
    made: list[Training] = []
    monkeypatch.setattr(
        "xresnet.reproduce.commands.train.train",
        lambda training: made.append(training) or Snapshot(0, tmp_path),
    )
    for more in ([], ["--momentum", "0.5"], ["--momentum", "0.6", "--display", "7"]):
        command = ["train", "xs_resnet50", "--data", str(drawn), "--out", str(tmp_path), *more]
        assert main([*command, "--width", "8"]) == 0
        assert words(made[-1].solver) == more
        assert made[-1].net == Network("xs_resnet50", {"width": 8})
        assert "num_output: 8" in made[-1].net_texts()["net.prototxt"]
    assert "momentum: 0.6" in made[-1].solver_text(0, 0.1)
    assert len({one.key for one in made}) == 3


def test_a_plateau_rule_from_a_file_has_the_same_ranges():
    for wrong in ({"lr": float("nan")}, {"drops": -1}, {"patience": 0}, {"factor": 1.0}):
        with pytest.raises(UserError, match=f"rule's {next(iter(wrong))}: expected"):
            Plateau(**wrong)


def test_netgens_options_that_the_driver_sets_are_not_the_users(drawn, tmp_path):
    one = training(drawn, tmp_path)
    made = [*one.net_texts().values(), one.solver_text(0, 0.1)]
    typed = {word for text in made for word in text.split("\n\n")[0].split()}
    users = {flag(name) for name in {**one.net.choices, **one.solver}}
    own = {"--lr", "--data"}  # the command itself has these
    set_by_driver = {word for word in typed if word.startswith("--")} - users
    assert {"--input-size", "--tasks", "--max-iter", "--deploy"} <= set_by_driver
    assert set_by_driver <= OURS.keys() | own
    for option in OURS:
        for given in ([option, "1"], [f"{option}=1"]):
            for command in (TRAIN,) if option == "--json" else (TRAIN, TABLE):  # table2's own
                with pytest.raises(UserError, match=f"{option} is set by the driver"):
                    main([*command, *given])
    row = {"name": "XS", "net": ["xs_resnet50"]}
    sized = {**row, "net": ["xs_resnet50", "--input-size", "64"]}
    for plan, message in (
        ({"rows": [sized]}, "row 1: --input-size is set by the driver"),
        ({"rows": [row], "net": ["--crop"]}, "net: --crop is set by the driver"),
        ({"rows": [row], "solver": ["--max-iter=5"]}, "solver: --max-iter is set by the driver"),
        ({"rows": [row], "solver": ["--seed", "5"]}, "solver: --seed stands in `seeds`"),
        ({"rows": [{**row, "solver": ["--lr", "1"]}]}, "row 1, solver: --lr stands in `plateau`"),
    ):
        (tmp_path / "grid.json").write_text(json.dumps({"name": "x", **plan}))
        with pytest.raises(UserError, match=message):
            Grid.read(tmp_path / "grid.json")


def test_options_that_do_not_apply_are_refused():
    for wrong, message in (
        ((*TABLE, "--smoke", "--lr", "0.1"), "chooses its own plan: leave out --lr"),
        ((*TABLE, "--smoke", "--max-epochs", "3"), "leave out --max-epochs"),
        ((*TABLE, "--task", "noun"), "for each task"),
        (("eval", "run", "--classes", "c.json"), "need --deepsentibank"),
    ):
        with pytest.raises(UserError, match=message):
            main(list(wrong))


def test_table2_refuses_an_option_that_one_row_does_not_take(drawn, tmp_path):
    rows = ["--rows", "xs_resnet50,caffenet", "--branch-after", "res4f"]
    with pytest.raises(UserError, match="--branch-after does not apply to caffenet; it is for x0"):
        main(["table2", "--data", str(drawn), "--out", str(tmp_path / "out"), *rows])
    assert not (tmp_path / "out").exists()


def test_what_the_data_say_is_chosen_nowhere_else(drawn):
    data = Data.read(drawn)
    for choices in ({"input_size": 64}, {"tasks": data.tasks}):
        with pytest.raises(UserError, match=r"--(input-size|tasks) is determined by the data"):
            data.network(Network("xs_resnet50", choices))
    net = data.network(Network("xs_resnet50", {"width": 4}), "DATA")
    assert net.options.tasks == data.tasks and net.options.data == "DATA"
    with pytest.raises(UserError, match="--width does not apply to caffenet"):
        data.network(Network("caffenet", {"task": "adj", "width": 4}))
