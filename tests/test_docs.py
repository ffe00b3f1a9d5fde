"""What README and docs tell readers to type is what the commands take."""

from __future__ import annotations

import argparse
import csv
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from bench import claims
from netgen.catalog import CATALOG
from xresnet.basics.cli import UserError

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def code(page: Path) -> str:
    """The lines of a page's code blocks, fenced or indented; continued lines in one."""
    lines, fenced = [], False
    text = re.sub(r"<!--.*?-->", "", page.read_text(encoding="utf-8"), flags=re.S)
    for line in text.splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            lines.append(line if fenced else line[4:])
    return "\n".join(lines).replace("\\\n", " ")


def typed() -> Iterator[tuple[str, list[str]]]:
    """(page, words) of each command of ours in a page's code."""
    for page in PAGES:
        for line in code(page).splitlines():
            for part in re.split(r"\s*(?:&&|\|\||[|;])\s+", line):
                try:
                    words = shlex.split(part, comments=True)
                except ValueError:  # no command line
                    continue
                while words and re.fullmatch(r"[A-Z_]+=\S*|do|done|then", words[0]):
                    words = words[1:]
                if words[:2] == ["python", "-m"]:
                    words = words[2:]
                elif words[:1] != ["xresnet"]:
                    continue
                yield page.name, words[: next((i for i, w in enumerate(words) if w == ">"), None)]


COMMANDS = [(page, words) for page, words in typed() if words[0] not in ("venv", "pip", "pytest")]
MAINS = {
    "netgen": "netgen.command",
    "data_prep": "data_prep.__main__",
    "torchcaffe": "torchcaffe.__main__",
    "xresnet": "xresnet.reproduce.__main__",
    "netgen.weights": "netgen.weights.command",
    "netgen.deepsentibank": "netgen.deepsentibank",
    "xresnet.realcaffe": "xresnet.realcaffe.__main__",
}


class Parsed(BaseException):
    """The outermost parser has taken its words; what it left over."""


@pytest.fixture
def stop_when_parsed(monkeypatch):
    whole, depth = argparse.ArgumentParser.parse_known_args, 0

    def parse(self, args=None, namespace=None):
        nonlocal depth
        depth += 1
        try:
            found, rest = whole(self, args, namespace)
        finally:
            depth -= 1
        if depth:
            return found, rest
        raise Parsed(rest)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", parse)


def left_over(program: str, words: list[str]) -> list[str]:
    """What `program` does not know of `words`.

    Raises:
        SystemExit: it refuses them.
    """
    try:
        importlib.import_module(MAINS[program]).main(words)
    except Parsed as parsed:
        (rest,) = parsed.args
        return rest
    raise AssertionError(f"{program} did not parse {words}")


@pytest.mark.parametrize(
    ("page", "words"), COMMANDS, ids=lambda x: " ".join(x)[:60] if isinstance(x, list) else x
)
def test_commands_are_taken(page, words, stop_when_parsed):
    program, *rest = words
    if program == "xresnet" and rest[0] in ("netgen", "data_prep", "torchcaffe"):
        program, *rest = rest
    if program.startswith("bench.") or program not in MAINS:
        assert (ROOT / program.replace(".", "/")).with_suffix(".py").exists(), f"{page}: {program}"
        return
    if program == "netgen" and rest[0] == "diff":
        return
    told = f"{page}: {shlex.join(words)}"
    try:
        more = left_over(program, rest)
        if more and program in ("xresnet", "netgen.weights"):  # the net's own options
            nets = [word for word in rest if word in CATALOG] or ["xs_resnet50"]
            more = left_over("netgen", [nets[0], *(word for word in more if word != nets[0])])
    except SystemExit as error:
        assert error.code == 0, told
        return
    assert not more, told


def test_make_targets_are_there():
    rules = set(re.findall(r"^([\w-]+):(?!=)", (ROOT / "Makefile").read_text(), re.M))
    for page in PAGES:
        for target in re.findall(r"^make ([a-z][\w-]*)", code(page), re.M):
            assert target in rules, f"{page.name}: make {target}"


def door(title: str, number: int = 0) -> list[str]:
    """The command lines of a block of code in a section of README, as printed."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = re.split(rf"^### {re.escape(title)}$", text, flags=re.M)[1]
    block = re.findall(r"(?:^    .*\n)+", re.split(r"^##", section, flags=re.M)[0], re.M)[number]
    return [line.strip() for line in block.replace("\\\n", " ").splitlines()]


def typed_in(folder: Path, lines: list[str], tools: dict[str, Path]) -> None:
    """Run each line in a shell, as a reader in `folder` would."""
    paths = [str(Path(sys.executable).parent), str(tools["caffe"].parent), os.environ["PATH"]]
    own = {**os.environ, "PATH": os.pathsep.join(paths), "PYTHONPATH": str(ROOT)}
    for line in lines:
        ran = subprocess.run(line, shell=True, cwd=folder, env=own, capture_output=True, text=True)
        # As diff's, netgen diff's 1 says that there is a difference.
        assert ran.returncode == int("netgen diff" in line), f"{line}\n{ran.stderr[-2000:]}"


@pytest.mark.caffe
@pytest.mark.slow
def test_the_door_of_own_pictures_as_printed(caffe_tools, tmp_path):
    """On 120 drawn pictures, some labels missing, with names that want care."""
    colours = {"navy, dark": (90, 20, 20), 'so-called "red"': (30, 30, 220), "白": (250, 250, 250)}
    articles = ["T-shirt <b>", "shoe"]
    rng = np.random.default_rng(0)
    (tmp_path / "fashion").mkdir()
    with (tmp_path / "fashion.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "colour", "article", "gender", "season", "usage"])
        for i in range(120):
            colour, article = list(colours)[i % 3], articles[i // 3 % 2]
            picture = rng.integers(0, 40, (40, 30, 3)).astype(np.uint8)
            shape = np.s_[5:35, 5:25] if article == "shoe" else np.s_[15:25, 2:28]
            picture[shape] = colours[colour]
            cv2.imwrite(str(tmp_path / f"fashion/{i}.png"), picture)
            season = ["", "summer", "winter"][i % 3 if i % 5 else 0]
            writer.writerow(
                [f"{i}.png", colour, article, ["women", "men"][i % 2], season, "casual"]
            )
    lines = door("My pictures, my tasks")
    assert len(lines) == 4
    typed_in(tmp_path, lines, caffe_tools)
    page = (tmp_path / "runs/fashion/report.html").read_text(encoding="utf-8")
    assert "T-shirt &lt;b&gt;" in page and "T-shirt <b>" not in page and "白" in page


def test_the_door_of_pytorch_as_printed(caffe_tools, tmp_path):
    """Caffe's files as they are; tests/torchcaffe/test_models.py runs the notebook."""
    for package in ("torch", "onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package, reason=package)
    (tmp_path / "models").symlink_to(ROOT / "models")
    lines = door("PyTorch and ONNX", 1)
    assert len(lines) == 2
    typed_in(tmp_path, lines, caffe_tools)
    assert (tmp_path / "xs.onnx").stat().st_size > 1 << 20


def test_the_door_of_prototxts_as_printed(caffe_tools, tmp_path):
    lines = door("Just the prototxts")
    if importlib.util.find_spec("pygraphviz") is None:
        lines = [line for line in lines if "--draw" not in line]
    typed_in(tmp_path, lines, caffe_tools)


@pytest.mark.parametrize("page", claims.PAGES, ids=lambda page: page.name)
def test_figures_say_where_they_come_from(page):
    assert claims.unmarked(page) == []
    assert all(mark.text for mark in claims.marks(page))


CHECKS = [mark for page in claims.PAGES for mark in claims.marks(page) if mark.kind == "check"]


@pytest.mark.parametrize("check", CHECKS, ids=lambda mark: f"{mark.page}-{mark.figures[0]}")
def test_what_a_command_prints_is_what_the_page_says(check):
    assert check.changed() == []


def test_a_mark_is_held_to_its_section(tmp_path):
    page = tmp_path / "PAGE.md"
    page.write_text("# A\n\nIt takes 12.5 ms.\n\n# B\n\n    took 3 ms\n\nRun `x 5%`, 224 x 224.\n")
    assert claims.unmarked(page) == ["A"]
    page.write_text("# A\n\nIt takes 12.5 ms.\n\n<!-- check: echo 12.5 => 12.5 -->\n")
    (mark,) = claims.marks(page)
    assert claims.unmarked(page) == [] and mark.changed() == []
    page.write_text(page.read_text().replace("echo 12.5", "echo 12.50 112.5"))
    (mark,) = claims.marks(page)
    assert mark.changed() == ["12.5"]
    page.write_text(page.read_text().replace("takes 12.5", "takes 13"))
    with pytest.raises(UserError, match=r"12.5 does not stand there"):
        claims.marks(page)
