"""What README and docs tell readers to type is what the commands take."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from netgen.catalog import CATALOG

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def code(page: Path) -> str:
    """The lines of a page's code blocks, fenced or indented; continued lines in one."""
    lines, fenced = [], False
    for line in page.read_text(encoding="utf-8").splitlines():
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
