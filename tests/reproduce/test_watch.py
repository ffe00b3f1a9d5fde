"""The page of trainings: what it tells of a log, its server, and a browser's view of it."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import pytest

from tests.helpers.browser import after, seen
from xresnet.basics.cli import UserError
from xresnet.reproduce import watch
from xresnet.reproduce.__main__ import main

ROOT = Path(__file__).resolve().parents[2]
HEAD = "I1120 21:00:00.000000  7 "


def step(iteration: int, loss: float, task: str = "anp", iterations: int = 20) -> list[str]:
    """Caffe's words about a displayed iteration, 2 s after the one before."""
    return [
        f"{HEAD}solver.cpp:239] Iteration {iteration} (10 iter/s, 2s/{iterations} iters), "
        f"loss = {loss}",
        f"{HEAD}solver.cpp:258]     Train net output #0: loss_{task} = {loss} (* 1 = {loss} loss)",
        f"{HEAD}sgd_solver.cpp:112] Iteration {iteration}, lr = 0.001",
    ]


def test_pass(iteration: int, share: float, task: str = "anp") -> list[str]:
    return [
        f"{HEAD}solver.cpp:347] Iteration {iteration}, Testing net (#0)",
        f"{HEAD}solver.cpp:414]     Test net output #0: top1_{task} = {share}",
    ]


test_pass.__test__ = False  # for pytest: no test of ours


def write_log(folder: Path, *parts: list[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{HEAD}caffe.cpp:204] Initializing solver", "max_iter: 100", *chain(*parts)]
    (folder / "train.log").write_text("\n".join(lines) + "\n")
    return folder


def test_the_state_of_a_training_is_its_logs(tmp_path):
    write_log(tmp_path / "xs", step(0, 6.5), step(20, 5.5), test_pass(40, 0.25), step(40, 4.5))
    state = watch.look(tmp_path / "xs", "xs").state
    assert (state.state, state.iteration, state.total, state.epoch) == ("at work", 40, 100, None)
    assert (state.loss, state.rate, state.top1) == (4.5, 0.001, {"anp": 0.25})
    assert state.left == pytest.approx(60 * 2 / 20), "at the speed of the last steps"
    old = time.time() - 2 * watch.SILENT
    os.utime(tmp_path / "xs" / "train.log", (old, old))
    assert watch.look(tmp_path / "xs", "xs").state.state == "silent"
    with (tmp_path / "xs" / "train.log").open("a") as file:
        file.write(f"{HEAD}solver.cpp:375] Optimization Done.\n")
    done = watch.look(tmp_path / "xs", "xs").state
    assert (done.state, done.left) == ("finished", None)
    assert (done.iteration, done.total) == (100, 100), "the last displayed one is not the last"
    with (tmp_path / "xs" / "train.log").open("a") as file:
        file.write(f"{HEAD}caffe.cpp:248] Starting Optimization\n")
    assert watch.look(tmp_path / "xs", "xs").state.state == "at work", "taken up again"


@pytest.mark.parametrize(
    ("plan", "total", "at_most"),
    [
        ({"stages": [{"lr": 1, "until": 50}, {"lr": 0.1, "until": 80}]}, 80, False),
        ({"max_epochs": 6, "patience": 2}, 120, True),
        ({"stages": None, "max_epochs": "six"}, 100, False),
    ],
)
def test_the_end_is_the_plans(tmp_path, plan, total, at_most):
    decision = {"action": "start", "iteration": 0, "lr": 0.1, "why": "", "numbers": plan}
    run = write_log(tmp_path, step(0, 6.5), step(20, 5.5))
    (run / "decisions.jsonl").write_text(json.dumps(decision) + "\n")
    (run / "run.json").write_text(json.dumps(RECORD))
    state = watch.look(run, "run").state
    assert (state.total, state.at_most, state.epoch) == (total, at_most, 1.0)
    with (run / "decisions.jsonl").open("a") as file:
        file.write(json.dumps({**decision, "action": "stop", "iteration": 40}) + "\n")
    done = watch.look(run, "run").state
    assert (done.state, done.iteration, done.total, done.epoch) == ("finished", 40, 40, 2.0)
    assert not done.at_most and done.left is None


RECORD = {
    **{"key": "", "name": "", "net": [], "solver": [], "epoch": 20},
    "data": {"folder": "", "classes": {}, "train": 1, "test": 1, "key": ""},
}


def test_a_damaged_run_hides_no_other(tmp_path):
    write_log(tmp_path / "good", step(0, 6.5))
    write_log(tmp_path / "bad", step(0, 6.5))
    (tmp_path / "bad" / "decisions.jsonl").write_text('{"action": "dance"}\n')
    write_log(tmp_path / "nan", step(0, float("nan")))
    page = watch.Trainings(tmp_path).live()
    assert page.count("<figure>") == 3 and "no decision of this driver" in page
    assert page.count('class="chart"') == 2


def test_a_log_is_read_anew_only_when_it_has_changed(tmp_path, monkeypatch):
    write_log(tmp_path / "xs", step(0, 6.5))
    write_log(tmp_path / "x0", step(0, 6.5))
    trainings, read = watch.Trainings(tmp_path), []
    monkeypatch.setattr(
        watch, "look", lambda run, name, old=watch.look: read.append(name) or old(run, name)
    )
    first = trainings.live()
    assert trainings.live() == first and sorted(read) == ["x0", "xs"]
    write_log(tmp_path / "xs", step(0, 6.5), step(20, 5.25))
    assert "5.250" in trainings.live() and sorted(read) == ["x0", "xs", "xs"]


@contextmanager
def serving(folder: Path) -> Iterator[tuple[int, subprocess.Popen]]:
    """The port and the process of `xresnet watch` on a folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "xresnet", "watch", str(folder), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as server:
        try:
            assert server.stdout.readline().startswith(f"http://127.0.0.1:{port} ")
            yield port, server
        finally:
            server.terminate()


def asked(port: int, place: str, method: str = "GET", **headers: str) -> tuple:
    """Status, headers and text of the answer of a server on this machine."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, place, headers={k.replace("_", "-"): v for k, v in headers.items()})
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read().decode()


def test_the_server_is_for_this_machine_and_hangs_on_nothing(tmp_path):
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "train.log")
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "train.log").symlink_to("train.log")
    write_log(tmp_path / "<b>'\"&", test_pass(0, 0.25), step(0, 6.5))
    with serving(tmp_path) as (port, server):
        status, headers, page = asked(port, "/")
        assert status == 200 and page.count("<figure>") == 1
        assert "Curves of &lt;b&gt;&#39;&#34;&amp;" in page and "<b>'" not in page
        assert "25.0 %" in page and "6.500" in page and "<svg" in page
        assert asked(port, "/", "HEAD")[2] == ""
        status, headers, live = asked(port, "/live")
        assert status == 200 and live in page
        assert asked(port, "/live", If_None_Match=headers["ETag"])[::2] == (304, "")
        write_log(tmp_path / "<b>'\"&", step(0, 6.5), step(20, 3.25))
        status, _, live = asked(port, "/live", If_None_Match=headers["ETag"])
        assert status == 200 and "3.250" in live, "what is new comes without a new start"
        (state,) = json.loads(asked(port, "/state.json")[2])
        assert (state["name"], state["loss"]) == ("<b>'\"&", 3.25)
        assert asked(port, "/../../etc/passwd")[0] == 404
        listening = Path(f"/proc/{server.pid}/net/tcp").read_text()
        assert f" 0100007F:{port:04X} " in listening  # 127.0.0.1, not 0.0.0.0
        with pytest.raises(UserError, match="already in use; --port names another"):
            main(["watch", str(tmp_path), "--port", str(port)])


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--every", "3"], "--every needs --out"),
        (["--out", "x.svg", "--port", "1"], "--port is for the page"),
        (["--out", "x.html"], "svg, not .html"),
        (["--host", "no such host"], "cannot listen on no such host"),
    ],
)
def test_mistakes_have_one_line(tmp_path, more, words):
    with pytest.raises(UserError, match=re.escape(words)):
        main(["watch", str(tmp_path), *more])
    write_log(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps(RECORD))
    with pytest.raises(UserError, match="no iteration in its"):
        main(["watch", str(tmp_path), "--out", str(tmp_path / "x.svg")])
    with pytest.raises(UserError, match="no folder"):
        main(["watch", str(tmp_path / "none")])


def test_ctrl_c_is_how_the_server_ends(tmp_path):
    with serving(tmp_path) as (port, server):
        assert "No train.log below" in asked(port, "/")[2]
        server.send_signal(signal.SIGINT)
        assert server.wait(60) == 0
        with pytest.raises(ConnectionRefusedError):
            asked(port, "/")


def test_an_open_page_renews_itself(tmp_path):
    write_log(tmp_path / "<b>", step(0, 6.5))
    served = watch.server(tmp_path, "127.0.0.1", 0)
    first, asked_for = served.trainings.live, []

    def live() -> str:
        """More of the log each time."""
        asked_for.append(write_log(tmp_path / "<b>", step(0, 6.5), step(20, 5.0 - len(asked_for))))
        return first()

    served.trainings.live = live
    threading.Thread(target=served.serve_forever, daemon=True).start()
    try:
        page = after(f"http://127.0.0.1:{served.server_address[1]}/", tmp_path, 4 * watch.REFRESH)
    finally:
        served.shutdown()
        served.server_close()
    losses = re.findall(r"<b>(\d\.\d{3})</b>", page)
    assert len(asked_for) >= 3 and len(losses) == 1
    assert float(losses[0]) <= 3, "as of the second or a later question"
    assert "does not answer" not in page.split("<script>")[0]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_in_a_browser(tmp_path, width, scheme):
    for name in ("a", "b" * 60):
        write_log(tmp_path / "runs" / name, step(0, 6.5), step(20, 5.5), test_pass(40, 0.25))
    with serving(tmp_path / "runs") as (port, _):
        (tmp_path / "page.html").write_text(asked(port, "/")[2])
    wide, pixels = seen(tmp_path / "page.html", tmp_path, width, scheme)
    assert wide == width, "nothing scrolls the page sideways"
    background = pixels[0, 0].astype(int)
    assert (background < 60).all() if scheme == "dark" else (background == 255).all()
    assert (abs(pixels.astype(int) - background).max(axis=2) > 120).mean() > 0.002, "text"
    assert (pixels[:, -3:] == background).all(), "nothing sticks out at the right"
