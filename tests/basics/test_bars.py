"""Progress where nobody has a terminal: lines, and none for what is soon done."""

from __future__ import annotations

import re

import pytest

from xresnet.basics import bars


class Clock:
    """tqdm's time, in seconds, which the test advances."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    one = Clock()
    monkeypatch.setattr("tqdm.std.time", one)
    return one


def test_a_log_gets_whole_lines_now_and_then(capsys, clock):
    for _ in bars.bar(range(40), "decode", 40, unit="img"):
        clock.now += bars.EVERY / 5
    told = capsys.readouterr().err
    lines = told.splitlines()
    assert "\r" not in told and 5 < len(lines) < 10
    assert all(re.match(r"decode: +\d+%\|.*\| \d+/40 \[", line) for line in lines)
    assert "| 40/40 [" in lines[-1]


def test_what_is_soon_done_leaves_no_line(capsys):
    for _ in bars.bar(range(1000), "decode", 1000, unit="img"):
        pass
    assert capsys.readouterr().err == ""


def test_one_that_is_moved_by_hand_may_start_further_on(capsys, clock):
    with bars.bar(what="train", total=10, unit="it", initial=8) as bar:
        clock.now += bars.EVERY + 1
        bar.update(2)
    assert "| 10/10 [" in capsys.readouterr().err


def test_two_at_a_time_do_not_move_a_cursor(capsys, clock):
    with bars.bar(what="adj", total=4) as first, bars.bar(what="noun", total=4) as second:
        for _ in range(4):
            clock.now += bars.EVERY + 1
            first.update()
            second.update()
    lines = capsys.readouterr().err.splitlines()
    assert {line.split(":")[0] for line in lines} == {"adj", "noun"}
