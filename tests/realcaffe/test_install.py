"""Installing and removing: whole or not at all, once, and after what is there already."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.realcaffe_debs import SNAPSHOT, install_tiny, tiny_caffe
from xresnet.basics import cache
from xresnet.basics.cli import UserError
from xresnet.realcaffe import fetch, install, lock, mirrors, tools, wrappers
from xresnet.realcaffe.__main__ import main

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def own_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of our own, a PATH without Caffe, and the tiny archive as the only mirror."""
    locked = tiny_caffe(tmp_path / "archive")
    monkeypatch.setattr(lock, "read", lambda: locked)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "my cache"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:/usr/bin:/bin")
    monkeypatch.setenv(mirrors.VARIABLE, str(tmp_path / "archive"))
    monkeypatch.setattr(fetch, "PAUSE", 0.01)
    tools.version_of.cache_clear()


@pytest.fixture
def where(tmp_path: Path) -> install.Place:
    return install.place(tmp_path / "bin")


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return path


def test_install_path_and_remove(where, tmp_path, capsys) -> None:
    assert main(["install", "--bin", str(where.bin)]) == 0
    assert "caffe 1.0.0 is installed" in capsys.readouterr().out
    assert tools.find("pycaffe", where.bin) == where.bin / "pycaffe"

    main(["path", "--json", "--bin", str(where.bin)])
    facts = json.loads(capsys.readouterr().out)
    assert {tool: facts[tool] for tool in tools.TOOLS} == {
        tool: str(where.bin / tool) for tool in tools.TOOLS
    }
    assert (facts["version"], facts["lock"]) == ("1.0.0", "f" * 64)

    main(["remove", "--keep-packages", "--bin", str(where.bin)])
    assert not list(where.bin.iterdir()) and not where.prefix.exists()
    assert len(list(where.packages.iterdir())) == 10
    with pytest.raises(UserError, match=r"run: python -m xresnet\.realcaffe install"):
        tools.find("caffe", where.bin)

    capsys.readouterr()
    main(["install", "--bin", str(where.bin)])
    told = capsys.readouterr().err
    assert "unpacking Debian's Caffe: its 10 packages are in" in told and "fetching" not in told
    main(["remove", "--keep-packages", "--bin", str(where.bin)])
    next(where.packages.iterdir()).unlink()
    main(["install", "--bin", str(where.bin)])
    assert "fetching Debian's Caffe (1 package, " in capsys.readouterr().err

    main(["remove", "--bin", str(where.bin)])
    assert not where.packages.exists()


def test_the_second_time_nothing_is_done(where) -> None:
    assert install.install(where)
    before = time.perf_counter()
    assert not install.install(where)
    assert time.perf_counter() - before < 0.1


def test_quiet_says_nothing_when_there_is_nothing_to_do(where, capsys) -> None:
    install.install(where)
    capsys.readouterr()
    main(["install", "--quiet", "--bin", str(where.bin)])
    assert capsys.readouterr() == ("", "")


def test_a_lost_or_foreign_wrapper_is_written_again(where) -> None:
    install.install(where)
    (where.bin / "caffe").unlink()
    (where.bin / "pycaffe").write_text("old")
    assert install.install(where)
    assert wrappers.is_ours(where.bin / "caffe") and wrappers.is_ours(where.bin / "pycaffe")


def test_a_wrapper_whose_prefix_is_gone_says_so(where) -> None:
    install.install(where)
    where.prefix.rename(where.prefix.with_name("elsewhere"))
    done = subprocess.run([where.bin / "caffe"], capture_output=True, text=True)
    assert done.returncode == 127
    assert "python -m xresnet.realcaffe install" in done.stderr


def run_tiny(tmp_path: Path, before: str = "") -> subprocess.Popen:
    """Another process that installs from the tiny archive to `tmp_path`."""
    code = (
        f"{before}\nfrom tests.helpers.realcaffe_debs import install_tiny\n"
        f"install_tiny({str(tmp_path / 'archive')!r}, {str(tmp_path)!r})"
    )
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE)


def test_killed_while_unpacking_then_installed_again(tmp_path: Path) -> None:
    # Each of the threads unpacks one package and gets no further.
    held = "import signal; from xresnet.realcaffe import unpack; one = unpack.unpack\n"
    held += "unpack.unpack = lambda *a: (one(*a), signal.pause())"
    process = run_tiny(tmp_path, held)
    cache = tmp_path / "cache"
    deadline = time.monotonic() + 30
    while not list(cache.glob("prefix-*.new/usr/lib/filler*")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert [p.name for p in cache.glob("prefix-*")] == [f"prefix-{'f' * 12}.new"]

    install_tiny(str(tmp_path / "archive"), str(tmp_path))
    assert [p.name for p in cache.glob("prefix-*")] == [f"prefix-{'f' * 12}"]
    assert len(list(cache.glob("prefix-*/usr/lib/filler*"))) == 9


def test_two_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    processes = [run_tiny(tmp_path) for _ in range(4)]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors.decode()
    cache = tmp_path / "cache"
    assert len(list(cache.glob("prefix-*"))) == 1
    assert len(list(cache.glob("prefix-*/usr/lib/filler*"))) == 9


def test_a_caffe_on_path_is_preferred(where, tmp_path, capsys) -> None:
    mine = program(tmp_path / "path" / "caffe", "echo caffe version 9.9\n")
    python = program(tmp_path / "path" / "python3", "echo mine\n")
    other = program(tmp_path / "path" / "convert_imageset", "true\n")
    main(["install", "--bin", str(where.bin)])
    assert f"caffe 9.9 is on PATH: {mine}; nothing to install" in capsys.readouterr().out
    assert not where.cache.exists()
    assert tools.find("caffe", where.bin) == mine
    assert tools.find("convert_imageset", where.bin) == other
    with pytest.raises(UserError, match="compute_image_mean is not installed"):
        tools.find("compute_image_mean", where.bin)
    assert tools.version(mine) == "9.9"

    pycaffe = tools.find("pycaffe", where.bin)
    assert pycaffe == where.bin / "pycaffe" and str(python) in pycaffe.read_text()
    assert subprocess.run([pycaffe], capture_output=True).stdout == b"mine\n"

    main(["path", "--bin", str(where.bin)])
    assert "on PATH" in capsys.readouterr().out

    main(["install", "--own", "--bin", str(where.bin)])
    assert tools.find("caffe", where.bin) == where.bin / "caffe"
    main(["install", "--bin", str(where.bin)])
    assert f"not used: {mine}" in capsys.readouterr().out


def test_a_caffe_on_path_that_does_not_work_is_not(where, tmp_path, capsys) -> None:
    program(tmp_path / "path" / "caffe", "exit 1\n")
    main(["install", "--bin", str(where.bin)])
    assert "is installed" in capsys.readouterr().out


def test_a_caffe_on_path_without_any_python_is_said(where, tmp_path, monkeypatch, capsys) -> None:
    program(tmp_path / "path" / "caffe", "echo caffe version 9.9\n")
    monkeypatch.setattr(tools, "_imports_caffe", lambda python: False)
    main(["install", "--bin", str(where.bin)])
    assert "no Python on this machine can import caffe" in capsys.readouterr().out


def test_our_wrappers_on_path_are_found(where, tmp_path, monkeypatch) -> None:
    install.install(where)
    monkeypatch.setenv("PATH", f"{where.bin}:{os.environ['PATH']}")
    assert tools.foreign_caffe() is None
    monkeypatch.setattr(tools, "venv_bin", lambda: None)
    assert tools.find("caffe") == where.bin / "caffe"


def test_mistakes_are_said_in_one_message(where, tmp_path, monkeypatch) -> None:
    with pytest.raises(UserError, match="did you mean 'pycaffe'"):
        tools.find("pycafe")
    with pytest.raises(UserError, match=r"not in a venv.*--bin"):
        monkeypatch.setattr(tools, "venv_bin", lambda: None)
        install.place(None)
    with pytest.raises(UserError, match="not a mirror"):
        install.install(where, "nonsense")
    with monkeypatch.context() as patch, pytest.raises(UserError, match="Linux on x86-64"):
        patch.setattr("platform.machine", lambda: "aarch64")
        install.install(where)
    with monkeypatch.context() as patch, pytest.raises(UserError, match="XDG_CACHE_HOME"):
        patch.setenv("XDG_CACHE_HOME", str(tmp_path / "a:b"))
        install.place(tmp_path)
    with monkeypatch.context() as patch, pytest.raises(UserError, match="noexec"):
        patch.setattr(tools, "version_of", lambda caffe: None)
        install.install(where)
    (tmp_path / "file").touch()
    with monkeypatch.context() as patch, pytest.raises(UserError, match="cannot install"):
        patch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        install.install(install.place(tmp_path / "bin"))


def test_nothing_to_fetch_from_ends_with_one_message_and_status_1(tmp_path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "xresnet.realcaffe", "install", "--bin", tmp_path / "bin"],
        cwd=ROOT,
        env={**os.environ, mirrors.VARIABLE: "http://127.0.0.1:9/debian", "no_proxy": "*"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "127.0.0.1:9/debian" in done.stderr and mirrors.VARIABLE in done.stderr
    assert not (tmp_path / "bin").exists()


@pytest.mark.parametrize("command", [[], ["install"], ["path"], ["remove"], ["lock"]])
def test_help_has_examples(command, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    assert ended.value.code == 0
    assert "example" in capsys.readouterr().out


LOADER = """\
#!{python} -E
import os, signal, sys, time
def stop(number, frame):
    os.write(1, b"got %d\\n" % number)
    os._exit(7)
for number in (signal.SIGINT, signal.SIGHUP):
    signal.signal(number, stop)
os.write(1, f"ready {{sys.argv[-2:]}}\\n".encode())
time.sleep(30)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("arguments", [["train", "-gpu=0"], ["train", "-solver", "s"]])
def test_signals_and_status_pass_through(where, arguments, number) -> None:
    """To the wrapper alone, as `kill` sends it, with and without a parent that stays."""
    install.install(where)
    (where.prefix / wrappers.LOADER).write_text(LOADER.format(python=sys.executable))
    process = subprocess.Popen(
        [where.bin / "caffe", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == f"ready {arguments[-2:]}\n"
    process.send_signal(number)
    output, errors = process.communicate(timeout=20)
    assert (process.returncode, output) == (7, f"got {int(number)}\n")
    assert ("CPU-only build" in errors) == ("-gpu=0" in arguments)


@pytest.mark.parametrize(
    ("arguments", "solver", "explained"),
    [
        (["train", "-solver", "s", "-gpu", "0"], "", True),
        (["time", "--gpu=all"], "", True),
        (["device_query"], "", True),
        (["train", "-solver", "s"], "base_lr: 1\nsolver_mode: GPU\n", True),
        (["train", "--solver=s"], "solver_mode:GPU", True),
        (["train", "--solver=s"], "base_lr: 1 solver_mode : 1", True),
        (["train", "-solver", "s"], "solver_mode: CPU", False),
        (["train", "-solver", "s"], "# solver_mode: GPU\n", False),
        (["train", "-solver", "s"], "", False),  # Caffe takes the CPU where nothing is said
        (["train", "-solver", "missing"], "", False),
        (["test", "-model", "-gpus"], "", False),
        ([], "", False),
    ],
)
def test_who_asks_for_a_gpu_gets_an_explanation(
    where, tmp_path, arguments, solver, explained
) -> None:
    install.install(where)
    program(where.prefix / wrappers.LOADER, "echo fatal >&2; exit 134\n")
    (tmp_path / "s").write_text(solver)
    command = [where.bin / "caffe", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 134
    assert done.stderr.startswith("fatal\n")
    assert ("solver_mode: CPU" in done.stderr) == explained


def test_the_cache_folder_follows_the_standard(monkeypatch, tmp_path) -> None:
    monkeypatch.delenv("XRESNET_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.folder("caffe") == tmp_path / ".cache" / "xresnet" / "caffe"
    assert lock.read().snapshot == SNAPSHOT
