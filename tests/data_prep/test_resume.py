"""kill -9 at any moment, full disks and full maps: nothing half-written, nothing done twice."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from data_prep import databases, lmdb_writer
from data_prep.verify import verify_pair
from tests.data_prep.test_lmdb import NAMES, Data, encoded, picture, records
from xresnet.basics.cli import UserError

KILLS = 50
IMAGES = 300


def _run(data: Data, begun, *options: str) -> None:
    """In a process of its own: commits every few records, so that kills fall between them."""
    begun.set()
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    lmdb_writer.BATCH_RECORDS = 23
    data.lmdb("--threads", "2", *options)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """The data, and what an undisturbed run makes of it."""
    files = {f"{i}.jpg": encoded(".jpg", picture(i, 480, 640)) for i in range(IMAGES)}
    files["cut.jpg"] = encoded(".jpg", picture(1, 300, 400))[:6000]
    files["empty.jpg"] = b""
    data = Data(tmp_path_factory.mktemp("killed"), files)
    whole = Data(tmp_path_factory.mktemp("whole"), files)
    whole.lmdb("--allow-dropped")
    return data, whole


@pytest.mark.slow
def test_fifty_kills(corpus, tmp_path_factory, monkeypatch):
    # The server of forks keeps a folder until this process ends: where that can still remove it.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.getbasetemp().parent))
    data, whole = corpus
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["data_prep.databases", "tests.data_prep.test_lmdb"])
    rng = random.Random(5)
    killed = resumed = 0
    fresh: tuple[str, ...] = ()
    window = 0.25  # seconds in which a kill falls; grows and shrinks with the machine's speed
    while killed < KILLS:
        partial = data.folder.partial
        before = {part: (partial / part / "progress").exists() for part in ("train", "test")}
        begun = context.Event()
        process = context.Process(target=_run, args=(data, begun, "--allow-dropped", *fresh))
        process.start()
        begun.wait()
        process.join(rng.uniform(0, window))
        process.kill()
        process.join()
        if process.exitcode == -signal.SIGKILL:
            killed += 1
            resumed += any(before.values()) and not fresh
            window *= 1 if any(before.values()) else 1.1
            fresh = ()
        else:
            assert process.exitcode == 0
            window /= 1.1
            fresh = ("--fresh",) if rng.random() < 0.3 else ()  # replace it all, or begin anew
            for name in NAMES if not fresh else ():
                shutil.rmtree(data.out / name)
        for part in ("train", "test"):  # what has a name is whole at every moment
            if data.folder.lmdb(part, "image").exists():
                count, wrong = verify_pair(data.folder, part, data.classes)
                assert (count, [w for w in wrong if "manifest" not in w]) == (IMAGES + 1, [])
    assert resumed >= KILLS // 10
    data.lmdb("--allow-dropped")
    assert not data.folder.partial.exists()
    for name in NAMES:
        assert records(data.out / name) == records(whole.out / name)
    ours, theirs = (d.folder.read_manifest()["lmdb"] for d in (data, whole))
    assert {k: v for k, v in ours.items() if k != "images"} == {
        k: v for k, v in theirs.items() if k != "images"
    }
    assert data.folder.mean.read_bytes() == whole.folder.mean.read_bytes()


def test_a_run_goes_on_where_it_was(corpus, tmp_path, monkeypatch, capsys):
    """A failure in the middle, then the same command: only the rest is decoded."""
    files = {f"{i}.jpg": encoded(".jpg", picture(i)) for i in range(100)}
    data = Data(tmp_path, files)
    monkeypatch.setattr(lmdb_writer, "BATCH_RECORDS", 10)
    decode = databases.records

    def fails(*args, **options):
        for record in decode(*args, **options):
            if record.index == 57:
                raise OSError(28, "No space left on device")
            yield record

    monkeypatch.setattr(databases, "records", fails)
    with pytest.raises(UserError, match=r"cannot write the train .*No space left .*goes on there"):
        data.lmdb()
    assert data.there() == []
    monkeypatch.setattr(databases, "records", decode)
    capsys.readouterr()
    data.lmdb()
    assert "(taken up at 50)" in capsys.readouterr().out
    assert verify_pair(data.folder, "train", data.classes) == (100, [])


def test_a_leftover_of_another_job_is_not_taken_up(tmp_path, monkeypatch, capsys):
    data = Data(tmp_path, {f"{i}.jpg": encoded(".jpg", picture(i)) for i in range(40)})
    monkeypatch.setattr(lmdb_writer, "BATCH_RECORDS", 10)
    monkeypatch.setattr(databases, "_publish", lambda *_: (_ for _ in ()).throw(OSError(5, "x")))
    with pytest.raises(UserError):
        data.lmdb()
    monkeypatch.undo()
    (data.images / data.entries[3].path).write_bytes(encoded(".jpg", picture(77)))
    capsys.readouterr()
    data.lmdb()
    assert "taken up" not in capsys.readouterr().out
    assert verify_pair(data.folder, "train", data.classes) == (40, [])


def test_a_full_map(corpus, tmp_path, monkeypatch):
    data = Data(tmp_path, {f"{i}.jpg": encoded(".jpg", picture(i)) for i in range(60)})
    monkeypatch.setattr(lmdb_writer, "MAP_SIZE", 1 << 18)
    monkeypatch.setattr(lmdb_writer, "BATCH_RECORDS", 10)
    with pytest.raises(UserError, match=r"cannot write the train databases.*limit"):
        data.lmdb()
    monkeypatch.undo()
    data.lmdb()
    assert verify_pair(data.folder, "train", data.classes) == (60, [])


@pytest.fixture
def mounted(tmp_path):
    """A function that mounts a tmpfs; only root can."""
    places = []

    def mount(*options: str) -> Path:
        place = tmp_path / f"mount{len(places)}"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", *options, "tmpfs", place]
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode:
            pytest.skip("SKIPPED FOR LACK OF RIGHTS: cannot mount a tmpfs here (root can)")
        places.append(place)
        return place

    yield mount
    for place in places:
        subprocess.run(["umount", "-l", place], check=False)


def test_a_full_disk(mounted, tmp_path):
    place = mounted("-o", "size=2m")
    files = {f"{i}.jpg": encoded(".jpg", picture(i)) for i in range(300)}
    data = Data(tmp_path, files)
    out = place / "data"
    data.out.rename(tmp_path / "lists")
    subprocess.run(["cp", "-r", tmp_path / "lists", out], check=True)
    data.out, data.folder = out, type(data.folder)(out)
    with pytest.raises(UserError, match=r"No space left on device.*goes on there"):
        data.lmdb()
    assert "test_image_lmdb" not in data.there()
    subprocess.run(["mount", "-o", "remount,size=40m", place], check=True)
    data.lmdb()
    assert verify_pair(data.folder, "train", data.classes) == (300, [])


def test_read_only_output(mounted, tmp_path):
    place = mounted("-o", "ro")
    data = Data(tmp_path, {"0.jpg": encoded(".jpg", picture(0))})
    data.out = place / "data"
    with pytest.raises(UserError, match=r"filter|cannot write"):
        data.lmdb()
    command = [sys.executable, "-m", "data_prep", "sample", "--out", place / "new"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "Read-only file system" in done.stderr


def test_an_interrupt_is_one_line(tmp_path):
    data = Data(tmp_path, {f"{i}.jpg": encoded(".jpg", picture(i, 900, 900)) for i in range(200)})
    process = subprocess.Popen(data.command(), stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (data.folder.partial / "train").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert (process.returncode, said) == (130, "data_prep: interrupted\n")
