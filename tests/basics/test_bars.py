"""Progress where nobody has a terminal: lines, and none for what is soon done."""

from __future__ import annotations

import re
from time import sleep

from xresnet.basics import bars


def test_a_log_gets_whole_lines_now_and_then(capsys, monkeypatch):
    monkeypatch.setattr(bars, "EVERY", 0.05)
    for _ in bars.bar(range(40), "decode", 40, unit="img"):
        sleep(0.01)
    told = capsys.readouterr().err
    lines = told.splitlines()
    assert "\r" not in told and 1 < len(lines) < 20
    assert all(re.match(r"decode: +\d+%\|.*\| \d+/40 \[", line) for line in lines)
    assert "| 40/40 [" in lines[-1]


def test_what_is_soon_done_leaves_no_line(capsys):
    for _ in bars.bar(range(1000), "decode", 1000, unit="img"):
        pass
    assert capsys.readouterr().err == ""


def test_one_that_is_moved_by_hand_may_start_further_on(capsys, monkeypatch):
    monkeypatch.setattr(bars, "EVERY", 0.01)
    with bars.bar(what="train", total=10, unit="it", initial=8) as bar:
        sleep(0.03)
        bar.update(2)
    assert "| 10/10 [" in capsys.readouterr().err


def test_two_at_a_time_do_not_move_a_cursor(capsys, monkeypatch):
    monkeypatch.setattr(bars, "EVERY", 0.01)
    with bars.bar(what="adj", total=4) as first, bars.bar(what="noun", total=4) as second:
        for _ in range(4):
            sleep(0.02)
            first.update()
            second.update()
    lines = capsys.readouterr().err.splitlines()
    assert {line.split(":")[0] for line in lines} == {"adj", "noun"}
