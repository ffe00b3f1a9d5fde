"""What every command rests on: numbers with ranges, whole files, errors that can be shown."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from xresnet.basics import bars, cache, files, numbers, shapes
from xresnet.basics.cli import Parser, UserError, printable

PRINTS = "from xresnet.basics.cli import run; run(lambda _: print('x' * 20), 'prog')"


@pytest.mark.parametrize("package", ["data_prep", "netgen", "torchcaffe", "xresnet"])
def test_opencvs_limit_stands_before_a_module_loads_opencv(package):
    told = f"import sys, {package}; print(*({{'xresnet.basics', 'cv2'}} & {{*sys.modules}}))"
    ran = subprocess.run([sys.executable, "-c", told], stdout=subprocess.PIPE, text=True)
    assert ran.stdout == "xresnet.basics\n"


def test_the_cache_lies_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XRESNET_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # the standard has it ignored
    assert cache.folder("weights") == tmp_path / ".cache" / "xresnet" / "weights"
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache")
    assert cache.folder("weights") == Path("/var/cache/xresnet/weights")
    monkeypatch.setenv("XRESNET_CACHE", "/opt/kept")
    assert cache.folder("weights") == Path("/opt/kept/weights")


@pytest.mark.parametrize(
    ("number", "good", "bad"),
    [
        (numbers.COUNT, ["1", "2147483647"], ["0", "-1", "1.5", "nan", "", "1e3", "2147483648"]),
        (numbers.NATURAL, ["0", "7"], ["-1", "x"]),
        (numbers.RATE, ["0.1", "1e-9"], ["0", "-1", "nan", "inf", "-inf", ""]),
        (numbers.FACTOR, ["0", "10"], ["-0.1", "nan", "inf"]),
        (numbers.FRACTION, ["0.999"], ["0", "1", "nan", "-0.5", "2"]),
        (numbers.FINITE, ["-3", "0"], ["nan", "inf"]),
    ],
)
def test_numbers_know_their_range(number, good, bad):
    for text in good:
        number(text)
    for text in bad:
        with pytest.raises(argparse.ArgumentTypeError, match="expected a"):
            number(text)


def test_real_numbers_are_those_that_caffe_can_hold():
    assert not numbers.RATE.holds(1e-46)  # 0 in its floats
    assert not numbers.FRACTION.holds(1 - 1e-9)  # 1
    assert not numbers.FINITE.holds(1e39)
    assert not numbers.FINITE.holds(10**400)
    assert numbers.FINITE.holds(-3e38)


def test_values_from_files_are_held_to_the_same_range():
    assert numbers.RATE.check(0.01, "grid.json, lr") == 0.01
    for value in (float("nan"), True, "0.1", None, [1], -1):
        with pytest.raises(UserError, match="lr: expected a learning rate above 0"):
            numbers.RATE.check(value, "grid.json, lr")


def test_a_word_may_stand_in_a_numbers_place():
    number = dataclasses.replace(numbers.FACTOR, word="mean")
    assert [number("mean"), number("0.5")] == ["mean", 0.5]
    assert number.check("mean", "--factor") == "mean"
    with pytest.raises(UserError, match="--factor: expected a number from 0 or mean, not 'median'"):
        number.check("median", "--factor")


def test_several_numbers():
    four = numbers.several(numbers.COUNT, exactly=(4,))
    assert four("3,4, 6,3") == (3, 4, 6, 3)
    for text in ("1,2,3", "1,2,3,0", "1,,2,3"):
        with pytest.raises(argparse.ArgumentTypeError):
            four(text)


def test_a_device_is_written_to_not_replaced(tmp_path):
    with pytest.raises(UserError, match="cannot write /dev/full: No space left"):
        files.write("/dev/full", "text")
    assert not os.path.isfile("/dev/full")
    files.write("/dev/null", "text")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    files.write(pipe, "through the pipe")
    reader.join()
    assert read == [b"through the pipe"] and not pipe.is_file()


def test_standard_output_by_its_name_is_written_to(tmp_path):
    """Redirected to a file too: the shell holds that file open, another would go unread."""
    command = "from xresnet.basics import files; files.write('/dev/stdout', 'said')"
    target = tmp_path / "out"
    with target.open("wb") as out:
        subprocess.run([sys.executable, "-c", command], stdout=out, check=True)
    assert target.read_text() == "said"


def test_a_link_stays_a_link(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    files.write(link, "new")
    assert link.is_symlink() and target.read_text() == "new"


def test_long_names_and_folders(tmp_path):
    name = tmp_path / ("n" * 250)
    files.write(name, "text")
    assert name.read_text() == "text"
    with pytest.raises(UserError, match="Is a directory"):
        files.write(tmp_path, "text")
    assert [p.name for p in tmp_path.iterdir()] == [name.name]


def test_a_full_disk_under_standard_output_is_one_line():
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", PRINTS], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1
    assert done.stderr == "prog: error: cannot write the output: No space left on device\n"


def test_names_that_terminals_cannot_show():
    assert printable("caf\u00e9 a\nb") == "caf\u00e9 a\nb"
    assert printable("\x1b[2J") == "\\x1b[2J"
    assert printable(os.fsdecode(b"caf\xe9.jpg")) == "caf\\xe9.jpg"
    assert printable("\u202egpj.exe") == "\\u202egpj.exe"


def test_json_is_held_to_a_shape(tmp_path):
    shape = {"name": str, "count?": int, "rows": [{"x": (float, None)}], "by": {str: bool}}
    good = {"name": "a", "rows": [{"x": 1}, {"x": None}], "by": {"q": True}, "more": 1}
    assert shapes.check(good, shape, "f") is good
    for changed, words in (
        ({"name": 1}, "f: name: expected text, not 1"),
        ({"count": True}, "f: count: expected an integer, not true"),
        ({"rows": {}}, "f: rows: expected a list"),
        ({"rows": [{"x": "1"}]}, r"f: rows\[0\]: x: expected a number or null, not \"1\""),
        ({"rows": [{}]}, r"f: rows\[0\]: 'x' is missing"),
        ({"by": {"q": 0}}, "f: by: q: expected true or false"),
    ):
        with pytest.raises(UserError, match=words):
            shapes.check({**good, **changed}, shape, "f")
    path = tmp_path / "f.json"
    path.write_text(json.dumps(good)[:-3])
    with pytest.raises(UserError, match=r"f\.json:1: not JSON, or cut short"):
        shapes.read(path, shape)
    path.write_text("[" * 100_000)
    with pytest.raises(UserError, match="nested too deep"):
        shapes.read(path, shape)


def test_an_empty_value_is_no_value(capsys):
    p = Parser("p")
    p.add_argument("--cluster", default="")  # an empty default is the command's own
    p.add_argument("files", nargs="*")
    assert p.parse_args(["a"]).cluster == ""
    for wrong in (["--cluster", ""], ["--cluster="], ["a", " "]):
        with pytest.raises(SystemExit):
            p.parse_args(wrong)
        assert "the value is empty" in capsys.readouterr().err


def test_a_file_in_a_memory_disk_is_replaced_whole():
    """/dev/shm is no device."""
    if not os.path.isdir("/dev/shm"):
        pytest.skip("SKIPPED FOR LACK OF /dev/shm")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        path = files.write(os.path.join(folder, "a"), "old")
        before = path.stat().st_ino
        with pytest.raises(RuntimeError), files.replacing(path) as file:
            file.write(b"half")
            raise RuntimeError
        assert path.read_text() == "old"
        files.write(path, "new")
        assert path.stat().st_ino != before


def test_json_holds_any_name_and_shows_no_escapes(tmp_path):
    names = [
        os.fsdecode(b"caf\xe9"),
        "\x1b[2J\x7f\x9b",
        "\u202egpj.exe",
        "\U000e0001",
        "größe 東京",
    ]
    path = files.write_json(tmp_path / "names.json", names)
    assert json.loads(path.read_bytes()) == names
    text = path.read_text(encoding="utf-8")
    assert "größe 東京" in text
    assert printable(text) == text


def test_text_without_an_end_is_refused(monkeypatch):
    monkeypatch.setattr(files, "MOST_TEXT", 1 << 22)
    with pytest.raises(UserError, match="/dev/zero: over 4 MiB"):
        files.read_text("/dev/zero")


def test_a_line_is_added_below_one_that_was_cut(tmp_path):
    path = tmp_path / "log"
    assert files.append_line(path, "a") == 2
    path.write_text("a\nb")
    assert files.append_line(path, "ü", sync=True) == len("a\nb\nü\n".encode())
    assert path.read_text() == "a\nb\nü\n"
    with pytest.raises(UserError, match="cannot write /dev/full: No space left"):
        files.append_line("/dev/full", "a")


def test_text_is_read_with_any_line_ends(tmp_path):
    (tmp_path / "a").write_bytes("ü\r\nb\rc\n".encode())
    assert files.read_text(tmp_path / "a") == "ü\nb\nc\n"
    (tmp_path / "a").write_bytes(b"ab\xff")
    with pytest.raises(UserError, match=r"not UTF-8 text \(byte 2\)"):
        files.read_text(tmp_path / "a")
    with pytest.raises(UserError, match="cannot read"):
        files.read_text("nul\0")


def test_exact_fractions():
    assert numbers.exact_fraction("0.29") * 100 == 29
    assert numbers.exact_fraction("4/5") == numbers.exact_fraction(".8")
    for text in ("1", "0", "1.2", "-0.5", "x", "1/0", "0/1", "nan", "80", "1e-999999999", "٠.٥"):
        with pytest.raises(argparse.ArgumentTypeError, match="expected a fraction above 0"):
            numbers.exact_fraction(text)


def test_lines_beside_a_bar_show_no_escapes(capsys):
    bars.say("left out \x1b[2J" + os.fsdecode(b"caf\xe9"))
    assert capsys.readouterr().err == "left out \\x1b[2Jcaf\\xe9\n"


def test_every_option_that_is_a_number_has_a_range(root):
    """Python's own int and float take -1 for a count, and nan for a rate."""
    bare = re.compile(r"type=(int|float)\b")
    folders = [path.parent for path in root.glob("*/__init__.py")] + [root / "docker"]
    sources = [path for folder in folders for path in folder.rglob("*.py")]
    assert len(sources) > 100
    found = [
        f"{path.relative_to(root)}: {line.strip()}"
        for path in sources
        if path.relative_to(root).parts[0] != "tests"
        for line in path.read_text().splitlines()
        if bare.search(line)
    ]
    assert found == []


def test_a_file_without_a_name_is_read_by_whoever_is_started(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with files.unnamed([b"wei", bytearray(b"ghts")]) as path:
        assert not list(tmp_path.iterdir()), "a kill leaves nothing behind"
        for _ in range(2):
            assert subprocess.run(["cat", path], capture_output=True).stdout == b"weights"
        assert path.read_text() == "weights"
    assert not path.exists()


def test_a_file_matches_by_size_and_digest(tmp_path):
    path = files.write(tmp_path / "a", "text")
    digest = files.sha256(path)
    assert files.matches(path, 4, digest)
    assert not files.matches(path, 5, digest) and not files.matches(path, 4, digest[::-1])
    assert not files.matches(tmp_path, 4, digest) and not files.matches(tmp_path / "b", 4, digest)


def test_what_lies_in_a_folder(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "inner").mkdir()
    (tmp_path / "in" / "out").symlink_to(tmp_path / "inner")
    root = os.path.realpath(tmp_path / "in")
    assert files.inside(root, root) and files.inside(f"{root}/not/there", root)
    assert not files.inside(tmp_path / "inner", root), "its name only begins so"
    assert not files.inside(tmp_path / "in" / "out" / "file", root)
    assert files.inside(tmp_path, "/")


@pytest.mark.parametrize(
    ("command", "loaded"),
    [
        ("data_prep", "lmdb"),
        ("netgen", "google"),
        ("netgen.weights", "google"),
        ("xresnet.realcaffe", "tarfile"),
        ("xresnet netgen", "google"),
    ],
)
def test_ctrl_c_while_a_command_is_loaded_is_one_line(command, loaded, tmp_path):
    (tmp_path / f"{loaded}.py").write_text("raise KeyboardInterrupt")
    ran = subprocess.run(
        [sys.executable, "-m", *command.split(), "--version"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    prog = re.sub(r"xresnet[. ]", "", command)
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, "", f"{prog}: interrupted\n")
