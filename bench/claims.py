"""Where the figures in README.md and docs/*.md come from; those that are cheap are made anew.

    make claims        lists every mark, runs each `check`, and fails if a figure has changed

A mark is a comment in the section whose figures it is about:

    <!-- check: COMMAND => FIGURE; FIGURE -->   the command prints them, within a minute
    <!-- measured: COMMAND; WHEN; ON WHAT -->   not made anew here
    <!-- source: WHO OR WHAT -->                others' figures, or arithmetic

Commands run in a shell, in an empty folder; ROOT is the repository.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from xresnet.basics.cli import UserError

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]

_MARK = re.compile(r"<!-- (check|measured|source): (.*?) -->", re.DOTALL)
_CODE = re.compile(r"^```.*?^```|^    [^\n]*$|`[^`\n]*`|<!--.*?-->", re.MULTILINE | re.DOTALL)
_FIGURE = re.compile(
    r"\d ?(%|ms|us|[KMG]i?B|images (a|per) second|images/s|minutes|seconds)(?!\w)"  # in a text
    r"|^\|[-:|]*-:.*\n.*\d",  # in a table with a column of numbers
    re.MULTILINE,
)


@dataclass(frozen=True)
class Mark:
    """One mark; `figures` are a check's."""

    page: str
    section: str
    kind: str
    text: str
    figures: tuple[str, ...] = ()

    def changed(self) -> list[str]:
        """The figures that the command of a check does not print.

        Raises:
            UserError: it fails.
        """
        paths = [str(Path(sys.executable).parent), os.environ["PATH"]]
        own = {"PATH": os.pathsep.join(paths), "PYTHONPATH": str(ROOT), "ROOT": str(ROOT)}
        with tempfile.TemporaryDirectory() as folder:
            ran = subprocess.run(
                self.text,
                shell=True,
                cwd=folder,
                env={**os.environ, **own},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        if ran.returncode:
            raise UserError(f"{self.page}: {self.text}: {ran.stdout[-500:]}")
        return [figure for figure in self.figures if not _stands(figure, ran.stdout)]


def _stands(figure: str, text: str) -> bool:
    """Whether a figure is in a text, not as a part of a longer number."""
    return bool(re.search(rf"(?<![\d.,]){re.escape(figure)}(?!\d|[.,]\d)", text))


def _sections(page: Path) -> list[tuple[str, str]]:
    """(heading, text) of each section, subsections apart."""
    parts = re.split(r"^(?=#{1,4} )", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [(part.partition("\n")[0].strip("# "), part) for part in parts]


def marks(page: Path) -> list[Mark]:
    """All marks of a page, in order.

    Raises:
        UserError: a check without figures, or whose figures do not stand in its section.
    """
    found = []
    for section, whole in _sections(page):
        shown = _MARK.sub("", whole)
        for kind, text in _MARK.findall(whole):
            command, arrow, listed = " ".join(text.split()).partition(" => ")
            figures = tuple(listed.split("; ")) if arrow else ()
            if (kind == "check") != bool(figures):
                raise UserError(f"{page.name}, {section}: a check, and only it, has => FIGURES")
            for figure in figures:
                if not _stands(figure, shown):
                    raise UserError(f"{page.name}, {section}: {figure} does not stand there")
            found.append(Mark(page.name, section, kind, command, figures))
    return found


def unmarked(page: Path) -> list[str]:
    """The sections that have figures, but no mark that says where these come from."""
    return [
        heading
        for heading, text in _sections(page)
        if _FIGURE.search(_CODE.sub("", text)) and not _MARK.search(text)
    ]


def main() -> int:
    wrong = []
    for page in PAGES:
        wrong += [f"{page.name}, {heading}: figures without a mark" for heading in unmarked(page)]
        for mark in marks(page):
            print(f"{mark.page}, {mark.section}\n  {mark.kind}: {mark.text}", flush=True)
            if mark.figures:
                changed = mark.changed()
                print(f"  {'; '.join(mark.figures)}: {'CHANGED' if changed else 'the same'}")
                wrong += [f"{mark.page}, {mark.section}: {one} has changed" for one in changed]
    print(*wrong, sep="\n", end="\n" if wrong else "")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
